"""Every task under one name, looked up without importing a simulator.

Tasks with settings of their own stand in `envs/own_tasks.py`; any other robot goes by a name that says where it comes
from, such as `dmc/<domain>-<task>`, `gym/<Id>` or `robot.xml` (`envs/generic.py`). A stranger's task is registered, or
goes by `module:attribute`: a `TaskSpec`, or a function without arguments that returns one, or a Gymnasium environment.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from jepa_mpc.envs.own_tasks import OWN_TASKS, seen_by
from jepa_mpc.envs.task import TaskSpec
from jepa_mpc.errors import UserError
from jepa_mpc.registry import Registry, is_model_file, split_camera
from jepa_mpc.settings import convert

if TYPE_CHECKING:
    from jepa_mpc.envs.base import PixelEnv

TASKS: Registry[TaskSpec | Callable[[], TaskSpec]] = Registry("task", listed_by="jepa-mpc tasks")

# dm_control's and Gymnasium's own MuJoCo tasks: importing both to ask them would take a second.
_DM_CONTROL = """
acrobot-swingup acrobot-swingup_sparse ball_in_cup-catch cartpole-balance cartpole-balance_sparse cartpole-swingup
cartpole-swingup_sparse cartpole-three_poles cartpole-two_poles cheetah-run dog-fetch dog-run dog-stand dog-trot
dog-walk finger-spin finger-turn_easy finger-turn_hard fish-swim fish-upright hopper-hop hopper-stand humanoid-run
humanoid-run_pure_state humanoid-stand humanoid-walk humanoid_CMU-run humanoid_CMU-stand humanoid_CMU-walk lqr-lqr_2_1
lqr-lqr_6_2 manipulator-bring_ball manipulator-bring_peg manipulator-insert_ball manipulator-insert_peg
pendulum-swingup point_mass-easy point_mass-hard quadruped-escape quadruped-fetch quadruped-run quadruped-walk
reacher-easy reacher-hard stacker-stack_2 stacker-stack_4 swimmer-swimmer15 swimmer-swimmer6 walker-run walker-stand
walker-walk
"""
_GYMNASIUM = """
Ant-v5 HalfCheetah-v5 Hopper-v5 Humanoid-v5 HumanoidStandup-v5 InvertedDoublePendulum-v5 InvertedPendulum-v5 Pusher-v5
Reacher-v5 Swimmer-v5 Walker2d-v5
"""
_EXAMPLES = "robot.xml, dmc/hopper-hop or gym/Hopper-v5"
SUITE_NAMES = [*(f"dmc/{name}" for name in _DM_CONTROL.split()), *(f"gym/{name}" for name in _GYMNASIUM.split())]


def register(spec: TaskSpec) -> None:
    """Adds a task under its name. Raises `UserError` if another has it."""
    TASKS.register(spec.name, spec)


def task_names() -> list[str]:
    """Returns the tasks that have settings of their own."""
    own = {spec.name for spec in OWN_TASKS}
    return sorted(name for name in TASKS if name in own or name not in SUITE_NAMES)


def get_task(name: str) -> TaskSpec:
    """Returns the task of that name. Its spec carries the name asked for, so that files that store it find it again.

    Raises `UserError`, which suggests the nearest names, if there is none, and says what is wrong with one.
    """
    if is_model_file(name):
        return _from_suite(name)
    plain, camera = split_camera(name)
    if camera and plain in task_names():
        own = TASKS[plain]
        if isinstance(own, TaskSpec) and (seen := seen_by(own, camera)) is not None:
            return seen
        raise UserError(f"{plain} has no camera to choose; --camera is for what MuJoCo draws, such as {_EXAMPLES}")
    if name.startswith("gym/") and name not in TASKS:
        import gymnasium as gym

        if ":" in name or plain.removeprefix("gym/") in gym.registry:
            return _from_suite(name)
    found = TASKS[plain]
    spec = convert(Callable[[], TaskSpec], found, (name,))() if callable(found) else found
    if camera or _is_gymnasium(spec):
        return _from_suite(name)
    if not isinstance(spec, TaskSpec):
        wanted = "a TaskSpec, or a function that returns one or a Gymnasium environment"
        raise UserError(f"{name} is no task: it is {type(spec).__name__}, not {wanted}")
    return spec if spec.name == name else replace(spec, name=name)


def _is_gymnasium(made: object) -> bool:
    """Says whether that is an environment, of which there is none before Gymnasium is imported; closes it."""
    gym = sys.modules.get("gymnasium")
    if gym is None or not isinstance(made, gym.Env):
        return False
    made.close()
    return True


def make(name: str, image_size: int | None = None, fast_rendering: bool = True) -> PixelEnv:
    """Makes an environment of the task, with pictures of its own size unless another is asked for."""
    spec = get_task(name)
    if image_size is not None:
        spec = replace(spec, image_size=image_size)
    return spec.make(spec.image_size, fast_rendering)


def _from_suite(name: str) -> TaskSpec:
    from jepa_mpc.envs import generic

    return generic.spec(name)


for _spec in OWN_TASKS:
    register(_spec)
for _name in SUITE_NAMES:
    if _name not in TASKS:
        TASKS.register(_name, functools.partial(_from_suite, _name))
