"""Simulators behind one Gymnasium surface. Knows nothing of models or planners."""

from envs import rendering as rendering  # first: it picks the OpenGL platform before mujoco is imported
from envs.base import EnvError, PixelEnv
from envs.registry import get_task, make, task_names
from envs.task import Part, PoseTest, SuiteTask, TaskSpec

__all__ = ["EnvError", "Part", "PixelEnv", "PoseTest", "SuiteTask", "TaskSpec", "get_task", "make", "task_names"]
