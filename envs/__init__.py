"""Simulators behind one Gymnasium surface. Knows nothing of models or planners."""

from typing import TYPE_CHECKING, Any

from jepa_mpc.envs import rendering as rendering  # first: it picks the OpenGL platform before mujoco is imported
from jepa_mpc.envs.registry import get_task, make, register, task_names
from jepa_mpc.envs.task import Part, PoseTest, SuiteTask, TableRow, TaskSpec

if TYPE_CHECKING:
    from jepa_mpc.envs.base import Diverged, Ended, EnvError, PixelEnv

__all__ = [
    "Diverged",
    "Ended",
    "EnvError",
    "Part",
    "PixelEnv",
    "PoseTest",
    "SuiteTask",
    "TableRow",
    "TaskSpec",
    "get_task",
    "make",
    "register",
    "task_names",
]


def __getattr__(name: str) -> Any:
    """Imports what stands on Gymnasium when it is asked for: names and block layouts need NumPy alone."""
    if name in ("Diverged", "Ended", "EnvError", "PixelEnv"):
        from jepa_mpc.envs import base

        return getattr(base, name)
    raise AttributeError(f"module 'jepa_mpc.envs' has no attribute {name!r}")
