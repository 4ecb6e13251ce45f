"""Any MuJoCo task by its own name: `dmc/<domain>-<task>` of the control suite, `gym/<Id>` of Gymnasium, or
`gym/<module>:<Id>`, where a module registers it.

What a specific task states by hand is read off the model here: success is every position coordinate within two
hundredths of its range, which is a whole turn for a joint without limits and a metre for a slide without.
"""

import functools
import math
import warnings
from typing import Any

import gymnasium as gym
import numpy as np

from jepa_mpc.envs.base import EnvError
from jepa_mpc.envs.mujoco_env import MujocoEnv, engine, mujoco, refresh, suite, wrapper
from jepa_mpc.envs.task import SUITE_POLICY, SUITE_TOLERANCE, SUITE_UNIT, Part, PoseTest, TaskSpec
from jepa_mpc.registry import import_module

STEP_SECONDS = 0.04  # of an environment step, as near as whole control steps come
_HINGE, _SLIDE, _BALL, _FREE = (
    int(getattr(mujoco.mjtJoint, f"mjJNT_{kind}")) for kind in ("HINGE", "SLIDE", "BALL", "FREE")
)
# Wrappers that every environment gets: an episode's length belongs to whoever runs it, the others check calls.
_LEFT_OUT = (gym.wrappers.TimeLimit, gym.wrappers.OrderEnforcing, gym.wrappers.PassiveEnvChecker)


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


class DMControlEnv(MujocoEnv):
    """The task `domain`-`task` of DeepMind's suite (Tassa et al., 2018); the other arguments are `MujocoEnv`'s."""

    def __init__(self, domain: str, task: str, **options):
        # The suite's own time limit never applies: an episode's length belongs to whoever runs it.
        self._suite = suite.load(domain, task, task_kwargs={"time_limit": float("inf"), "random": 0})
        physics, spec = self._suite.physics, self._suite.action_spec()
        self._physics_steps = round(self._suite.control_timestep() / physics.timestep())
        super().__init__(physics, gym.spaces.Box(spec.minimum, spec.maximum, dtype=np.float64), **options)

    @property
    def control_seconds(self):
        return self._suite.control_timestep()

    def _begin_episode(self, seed):
        self._suite.task._random = np.random.RandomState(seed)
        self._suite.reset()

    def _control_step(self, action):
        task = self._suite.task
        task.before_step(action, self._physics)
        self._physics.step(self._physics_steps)
        task.after_step(self._physics)
        return float(task.get_reward(self._physics))


class GymnasiumEnv(MujocoEnv):
    """A MuJoCo environment of Gymnasium (Towers et al., 2024); the other arguments are `MujocoEnv`'s.

    Gymnasium keeps the physics and the reward. It renders without making its own context current, so that two
    environments in one process spoil each other's pictures; here dm_control renders, from the same simulation.
    """

    _gym: Any  # Gymnasium's own class of it, which has no common type

    def __init__(self, env: gym.Env, **options):
        self._gym = env.unwrapped
        name = env.spec.id if env.spec else type(self._gym).__name__
        self.time_limit = (env.spec and env.spec.max_episode_steps) or self.time_limit
        while isinstance(env, gym.Wrapper):
            if type(env) not in _LEFT_OUT:
                kind = type(env).__name__
                raise EnvError(f"{name} is registered with a {kind}, which would be left out here; register it without")
            env = env.env
        if not isinstance(self._gym.action_space, gym.spaces.Box):
            raise EnvError(f"{name} has discrete actions; planners here search continuous ones: choose another task")
        if not all(hasattr(self._gym, part) for part in ("model", "data", "do_simulation")):
            raise EnvError(f"{name} is no MuJoCo environment (it has no qpos and qvel to save and restore)")
        physics = engine.Physics.from_model(wrapper.MjModel(self._gym.model))
        self._gym.data = physics.data.ptr
        simulate = self._gym.do_simulation

        def simulate_and_look(ctrl, n_frames):
            simulate(ctrl, n_frames)
            refresh(self._gym.model, self._gym.data)  # for pictures and rewards

        self._gym.do_simulation = simulate_and_look
        options.setdefault("camera", 0 if self._gym.model.ncam else -1)  # one of its own, or from the side
        space = self._gym.action_space
        if space.shape == (len(limited := self._gym.model.actuator_ctrllimited),):
            # Gymnasium gives an actuator without limits the range that the model has for it, from 0 to 0.
            endless = np.where((limited == 0) & (space.low == space.high), np.inf, 0)
            space = gym.spaces.Box(space.low - endless, space.high + endless, dtype=np.float64)
        super().__init__(physics, space, **options)

    @property
    def control_seconds(self):
        return self._gym.dt

    def _begin_episode(self, seed):
        self._gym.reset(seed=seed % 2**31)

    def _control_step(self, action):
        # Where it would end an episode is not asked: an episode's length belongs to whoever runs it.
        _, reward, *_ = self._gym.step(action)
        return float(reward)
