"""Any robot by its own name.

    robot.xml                   an MJCF file
    dmc/<domain>-<task>         a task of DeepMind's control suite
    gym/<Id>, gym/<module>:<Id> an environment of Gymnasium, which a module may have to register
    <module>:<function>         a function without arguments that returns a Gymnasium environment

Behind an @ may stand a camera of the model, or a free view as AZIMUTH,ELEVATION[,DISTANCE[,X,Y,Z]]; several have a +
between them. What a specific task states by hand is read off the model here: success is every position coordinate
within two hundredths of its range, which is a whole turn for a joint without limits and a metre for a slide without; or
what an environment of goals says itself.
"""

import contextlib
import functools
import hashlib
import math
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from jepa_mpc.envs.base import EnvError, PixelEnv
from jepa_mpc.envs.mujoco_env import MujocoEnv, mujoco
from jepa_mpc.envs.task import SUITE_POLICY, SUITE_TOLERANCE, SUITE_UNIT, Part, PoseTest, TaskSpec, Untold
from jepa_mpc.errors import reason
from jepa_mpc.registry import import_module, is_model_file, load, split_camera

STEP_SECONDS = 0.04  # of an environment step, as near as whole control steps come
_HORIZON = 4  # blocks that plans look ahead: with fewer, what is slow to speed up is driven too carefully
_HINGE, _SLIDE, _BALL, _FREE = (
    int(getattr(mujoco.mjtJoint, f"mjJNT_{kind}")) for kind in ("HINGE", "SLIDE", "BALL", "FREE")
)


@functools.cache
def spec(name: str) -> TaskSpec:
    """Returns the task of that name, with what its simulator says of it. Raises `EnvError` if it cannot be one."""
    with contextlib.closing(make_env(name, 1, 64, True)) as env:
        found = _read(env)
        longest = env.time_limit // found.action_repeat
    if longest <= TaskSpec.goal_offset:
        raise EnvError(
            f"{name} ends after {env.time_limit} steps, of which one here lasts {found.action_repeat}: too short for "
            f"goals {TaskSpec.goal_offset} ahead; register a TaskSpec of your own"
        )
    return TaskSpec(
        name=_short(name) if is_model_file(name) else name,
        make=functools.partial(make_env, name, found.action_repeat),
        pose=found.pose,
        angles=found.angles,
        action_repeat=found.action_repeat,
        data_policy=SUITE_POLICY,
        episode_len=min(TaskSpec.episode_len, longest),
        budget=min(TaskSpec.budget, longest),
        far_budget=min(TaskSpec.far_budget, longest),
        model=found.model,
        planning={"horizon": _HORIZON},
    )


def _short(name: str) -> str:
    """Returns a model's name without its folder; what stands behind it says by which camera it is seen."""
    path, camera = split_camera(name)
    return f"{Path(path).name}@{camera}" if camera else Path(path).name


class _Found(NamedTuple):
    """What a simulator says of a task: the test of success, which coordinates are angles, control steps in a step, and
    the model's digest.
    """

    pose: PoseTest
    angles: tuple[bool, ...]
    action_repeat: int
    model: str


def _read(env: PixelEnv) -> _Found:
    if not isinstance(env, MujocoEnv):
        return _Found(Untold(), (False,) * len(env.qpos), 1, "")
    pose, angles = read_pose(env.model)
    own = env.goal_test
    more = (False,) * (len(env.qpos) - env.model.nq)
    buffer = np.empty(mujoco.mj_sizeModel(env.model), np.uint8)
    mujoco.mj_saveModel(env.model, None, buffer)
    digest = hashlib.sha256(buffer.tobytes()).hexdigest()[:8]
    return _Found(own or pose, angles + more, max(1, round(STEP_SECONDS / env.control_seconds)), digest)


def make_env(
    name: str, action_repeat: int = 1, image_size: int = 64, fast_rendering: bool = True, **options
) -> PixelEnv:
    """Makes the environment of that name; options are `MujocoEnv`'s."""
    options |= {"image_size": image_size, "fast_rendering": fast_rendering}
    if action_repeat > 1:
        options["action_repeat"] = action_repeat
    name, camera = split_camera(name)
    if camera:
        options["camera"] = camera
    if is_model_file(name):
        from jepa_mpc.envs.suites.mjcf import MJCFEnv

        return MJCFEnv(name, **options)
    if name.startswith("dmc/"):
        from jepa_mpc.envs.suites.dm_control_suite import DMControlEnv

        domain, _, task = name.removeprefix("dmc/").partition("-")
        return DMControlEnv(domain, task, **options)
    from jepa_mpc.envs.suites.gymnasium_envs import adopt

    return adopt(_make_gymnasium(name), name, **options)


def _make_gymnasium(name: str) -> gym.Env:
    """Makes what `gym/<Id>`, `gym/<module>:<Id>` or `<module>:<function>` names, without a limit of its time."""
    if not name.startswith("gym/"):
        made: Any = load(name)
        return made()
    from jepa_mpc.envs.suites.gymnasium_envs import is_mujoco

    rest = name.removeprefix("gym/")
    module_name, _, identifier = rest.rpartition(":")
    if module_name:  # which registers it
        import_module(module_name, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a newer version is there
            env = gym.make(identifier, max_episode_steps=-1, disable_env_checker=True)
            if not is_mujoco(env):  # those are drawn by us, and want no renderer of their own
                env.close()
                env = gym.make(identifier, max_episode_steps=-1, disable_env_checker=True, render_mode="rgb_array")
    except (gym.error.Error, ImportError) as error:
        raise EnvError(f"Gymnasium cannot make {rest!r}: {reason(error)}") from error
    return env


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
