"""Any MuJoCo task by its own name: `dmc/<domain>-<task>` of the control suite, `gym/<Id>` of Gymnasium, or
`gym/<module>:<Id>`, where a module registers it.

What a specific task states by hand is read off the model here: success is every position coordinate within two
hundredths of its range, which is a whole turn for a joint without limits and a metre for a slide without.
"""

import functools
import math
import warnings

import gymnasium as gym
import numpy as np

from jepa_mpc.envs.base import EnvError
from jepa_mpc.envs.mujoco_env import MujocoEnv, mujoco
from jepa_mpc.envs.suites.dmc import DMControlEnv
from jepa_mpc.envs.suites.gymnasium_mujoco import GymnasiumEnv
from jepa_mpc.envs.task import SUITE_POLICY, SUITE_TOLERANCE, SUITE_UNIT, Part, PoseTest, TaskSpec
from jepa_mpc.registry import import_module

STEP_SECONDS = 0.04  # of an environment step, as near as whole control steps come
_HINGE, _SLIDE, _BALL, _FREE = (
    int(getattr(mujoco.mjtJoint, f"mjJNT_{kind}")) for kind in ("HINGE", "SLIDE", "BALL", "FREE")
)


@functools.cache
def spec(name: str) -> TaskSpec:
    """Returns the task of that name, with what its model says of it. Raises `EnvError` if it cannot be one."""
    env = make_env(name, 1, 64, True)
    pose, angles = read_pose(env.model)
    action_repeat = max(1, round(STEP_SECONDS / env.control_seconds))
    longest = env.time_limit // action_repeat
    if longest <= TaskSpec.goal_offset:
        raise EnvError(
            f"{name} ends after {env.time_limit} steps, of which one here lasts {action_repeat}: too short for goals "
            f"{TaskSpec.goal_offset} ahead; register a TaskSpec of your own"
        )
    env.close()
    return TaskSpec(
        name=name,
        make=functools.partial(make_env, name, action_repeat),
        pose=pose,
        angles=angles,
        action_repeat=action_repeat,
        data_policy=SUITE_POLICY,
        episode_len=min(TaskSpec.episode_len, longest),
        budget=min(TaskSpec.budget, longest),
        far_budget=min(TaskSpec.far_budget, longest),
    )


def make_env(
    name: str, action_repeat: int = 1, image_size: int = 64, fast_rendering: bool = True, **options
) -> MujocoEnv:
    """Makes the environment of that name; options are `MujocoEnv`'s."""
    library, _, rest = name.partition("/")
    options |= {"action_repeat": action_repeat, "image_size": image_size, "fast_rendering": fast_rendering}
    if library == "dmc":
        domain, _, task = rest.partition("-")
        return DMControlEnv(domain, task, **options)
    module_name, _, identifier = rest.rpartition(":")
    if module_name:  # which registers it
        import_module(module_name, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a newer version is there
            env = gym.make(identifier)
    except (gym.error.Error, ImportError) as error:
        raise EnvError(f"Gymnasium cannot make {rest!r}: {str(error).splitlines()[0]}") from error
    return GymnasiumEnv(env, **options)


def read_pose(model: mujoco.MjModel) -> tuple[PoseTest, tuple[bool, ...]]:
    """Returns the default test of success, and which coordinates are angles."""
    parts: list[Part] = []
    angles = [False] * model.nq
    joints = zip(model.jnt_type, model.jnt_qposadr, model.jnt_limited, model.jnt_range, strict=True)
    for kind, first, limited, (low, high) in joints:
        if kind == _FREE:
            parts += [Part((first + axis,)) for axis in range(3)]
            first = first + 3
        if kind in (_FREE, _BALL):
            parts.append(Part(tuple(first + np.arange(4)), 2 * math.pi, "rotation"))
        elif limited:
            parts.append(Part((first,), float(high - low)))
        else:
            parts.append(Part((first,), 2 * math.pi, "angle") if kind == _HINGE else Part((first,)))
        angles[first] = bool(kind == _HINGE)
    return PoseTest(tuple(parts), SUITE_TOLERANCE, SUITE_UNIT), tuple(angles)
