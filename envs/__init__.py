"""Simulators behind one Gymnasium surface. Knows nothing of models or planners."""

from jepa_mpc.envs import rendering as rendering  # first: it picks the OpenGL platform before mujoco is imported
from jepa_mpc.envs.base import EnvError, PixelEnv
from jepa_mpc.envs.registry import get_task, make, register, task_names
from jepa_mpc.envs.task import Part, PoseTest, SuiteTask, TableRow, TaskSpec

__all__ = [
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
