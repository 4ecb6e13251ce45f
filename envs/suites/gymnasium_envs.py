"""Any environment of Gymnasium (Towers et al., 2024), with its own wrappers.

Where MuJoCo is behind it, dm_control renders, and states are saved and restored exactly. Of any other, pictures are its
own `rgb_array`, and goals in simulation need a `get_state` and a `set_state` of its own.
"""

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from jepa_mpc.envs.base import Ended, EnvError, PixelEnv
from jepa_mpc.envs.mujoco_env import MujocoEnv, engine, mujoco, refresh, wrapper
from jepa_mpc.envs.rendering import View
from jepa_mpc.envs.task import Part, PoseTest
from jepa_mpc.pictures import square

# What these keep of earlier steps decides later ones, and no state holds it.
_WITH_A_MEMORY = (gym.wrappers.Autoreset, gym.wrappers.StickyAction)


def adopt(env: gym.Env, name: str, **options) -> PixelEnv:
    """Returns the environment of that name as one of ours; options are `MujocoEnv`'s.

    Raises `EnvError` on one whose actions or wrappers cannot be planned with.
    """
    layers = [env]
    while isinstance(layers[-1], gym.Wrapper):
        layers.append(layers[-1].env)
    for layer in layers:
        if isinstance(layer, _WITH_A_MEMORY):
            raise EnvError(
                f"{name} has the wrapper {type(layer).__name__}, whose memory no state holds; make it without"
            )
    space = env.action_space
    if isinstance(space, gym.spaces.Dict | gym.spaces.Tuple):
        raise EnvError(f"{name} has actions in parts, a {type(space).__name__}; make them one Box")
    if not isinstance(space, gym.spaces.Box) or not np.issubdtype(space.dtype, np.floating):
        raise EnvError(f"{name} has discrete actions; planners here search continuous ones: choose another task")
    if len(space.shape) != 1:
        raise EnvError(f"{name} has actions of shape {space.shape}; flatten them to one vector (A,)")
    ours = (GymnasiumMujocoEnv if is_mujoco(env) else GymnasiumEnv)(env, name, **options)
    registered = gym.registry.get(env.spec.id) if env.spec else None
    ours.time_limit = (registered and registered.max_episode_steps) or ours.time_limit
    return ours


def is_mujoco(env: gym.Env) -> bool:
    """Says whether the environment is itself a MuJoCo simulation, of which we can draw the pictures."""
    parts = vars(env.unwrapped)
    return isinstance(parts.get("model"), mujoco.MjModel) and "data" in parts and hasattr(env.unwrapped, "dt")


class _Goals:
    """What an environment of goals, in the form of Gymnasium-Robotics, calls achieved, and when that is the goal."""

    def __init__(self, env: gym.Env):
        self._inner: Any = env.unwrapped
        space = env.observation_space
        has = hasattr(self._inner, "distance_threshold") and hasattr(self._inner, "_get_obs")
        achieved = space.spaces.get("achieved_goal") if isinstance(space, gym.spaces.Dict) else None
        self.size = int(np.prod(achieved.shape)) if has and achieved is not None and achieved.shape else 0

    def achieved(self) -> NDArray[np.float64]:
        """Returns what is achieved now (G,)."""
        return np.array(self._inner._get_obs()["achieved_goal"], np.float64).ravel() if self.size else np.empty(0)

    def test(self, first: int) -> PoseTest:
        """Returns the environment's own test, of coordinates from the first on."""
        coordinates, near = tuple(range(first, first + self.size)), float(self._inner.distance_threshold)
        turned = getattr(self._inner, "rotation_threshold", None)
        if turned is None or self.size != 7:  # 7: an object's place and quaternion
            return PoseTest((Part(coordinates),), near, "m, as it is told by the environment")
        parts = Part(coordinates[:3], near), Part(coordinates[3:], float(turned), "rotation")
        return PoseTest(parts, 1.0, "of the environment's own thresholds")


class GymnasiumMujocoEnv(MujocoEnv):
    """An environment that MuJoCo simulates; the other arguments are `MujocoEnv`'s.

    Gymnasium keeps the physics and the reward. It renders without making its own context current, so that two
    environments in one process spoil each other's pictures; here dm_control renders, from the same simulation. The pose
    is that of the joints, and behind it what an environment of goals calls achieved.
    """

    def __init__(self, env: gym.Env, name: str, **options):
        self._env, self._goals = env, _Goals(env)
        inner: Any = env.unwrapped  # Gymnasium's own class of it, which has no common type
        self._inner = inner
        physics = engine.Physics.from_model(wrapper.MjModel(inner.model))
        mujoco.mj_copyData(physics.data.ptr, inner.model, inner.data)
        inner.data = physics.data.ptr
        if hasattr(inner, "do_simulation"):
            simulate = inner.do_simulation

            def simulate_and_look(ctrl, n_frames):
                simulate(ctrl, n_frames)
                refresh(inner.model, inner.data)  # for pictures and rewards

            inner.do_simulation = simulate_and_look
        options.setdefault("camera", self._own_view())
        space: Any = env.action_space
        limited = inner.model.actuator_ctrllimited
        low, high = np.asarray(space.low, np.float64), np.asarray(space.high, np.float64)
        if space is inner.action_space and space.shape == limited.shape:
            # Gymnasium gives an actuator without limits the range that the model has for it, from 0 to 0.
            endless = np.where((limited == 0) & (low == high), np.inf, 0)
            low, high = low - endless, high + endless
        super().__init__(physics, gym.spaces.Box(low, high, dtype=np.float64), **options)

    def _own_view(self) -> int | str | View:
        """Returns what the environment shows itself to be seen from."""
        model, renderer = self._inner.model, getattr(self._inner, "mujoco_renderer", None)
        if "track" in (model.camera(index).name for index in range(model.ncam)):
            return "track"
        told = getattr(renderer, "default_cam_config", None) or {}
        if {"lookat", "distance", "azimuth", "elevation"} <= told.keys():
            x, y, z = map(float, told["lookat"])
            return View((x, y, z), told["distance"], told["azimuth"], told["elevation"])
        return 0 if model.ncam else -1  # from the side

    @property
    def control_seconds(self):
        return self._inner.dt

    def _begin_episode(self, seed):
        self._env.reset(seed=seed % 2**31)

    def _control_step(self, action):
        # Where it would end an episode is not asked: an episode's length belongs to whoever runs it.
        _, reward, *_ = self._env.step(action)
        refresh(self.model, self.data)
        return float(reward)

    @property
    def goal_test(self) -> PoseTest | None:
        """Returns the environment's own test of success, of the last coordinates; None if it has none."""
        return self._goals.test(self.model.nq) if self._goals.size else None

    @property
    def names(self):  # type: ignore[override]
        return *super().names, *(f"achieved {index}" for index in range(self._goals.size))

    @property
    def qpos(self):
        return np.concatenate([super().qpos, self._goals.achieved()])

    def set_pose(self, qpos):
        super().set_pose(qpos[: self.model.nq])


class GymnasiumEnv(PixelEnv):
    """Any other environment, which must render `rgb_array`: the picture's centre square, averaged down.

    States, and with them protocols, need `get_state` and `set_state` of the environment itself, and far goals its
    `set_pose`. Where it ends an episode, `advance` raises `Ended`.
    """

    has_reward = True

    def __init__(self, env: gym.Env, name: str, *, image_size: int = 64, fast_rendering: bool = True, **options):
        if any(value is not None for value in options.values()):
            raise EnvError(f"{name} is not simulated by MuJoCo, so it has no {' or '.join(options)} to choose")
        if env.render_mode != "rgb_array":
            how = "make it with render_mode='rgb_array'"
            raise EnvError(f"{name} draws no pictures (its render_mode is {env.render_mode!r}); {how}")
        self._env, self._name, self._size = env, name, image_size
        self._inner: Any = env.unwrapped
        self.restorable = all(hasattr(self._inner, part) for part in ("get_state", "set_state"))
        bounds = np.array([env.action_space.low, env.action_space.high], np.float32)  # type: ignore[attr-defined]
        if not np.isfinite(bounds).all():
            raise EnvError(f"the actions of {name} have no bounds, and plans are searched within bounds; bound them")
        self.action_space = gym.spaces.Box(*bounds, dtype=np.float32)
        self.observation_space = gym.spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        fps = env.metadata.get("render_fps") or self.metadata["render_fps"]
        if not (isinstance(fps, int | float) and 0 < fps < np.inf):
            raise EnvError(f"the metadata of {name} have render_fps {fps!r}; make it steps a second, such as 25")
        self._step_seconds = 1 / fps
        self._num_seen: int | None = None
        self._seen = self._first(seed=0)
        self._num_seen = len(self._seen)

    def _read(self, observation: Any) -> NDArray[np.float64]:
        """Returns the numbers (Q,) of an observation that is a vector; none of any other."""
        values = np.empty((0, 0)) if isinstance(observation, dict | tuple) else np.asarray(observation)
        is_vector = values.ndim == 1 and np.issubdtype(values.dtype, np.number)
        seen = values.astype(np.float64) if is_vector else np.empty(0)
        if self._num_seen is not None and len(seen) != self._num_seen:
            raise EnvError(f"{self._name} observes {len(seen)} numbers, and {self._num_seen} before; let it be as many")
        return seen

    def _first(self, **how: Any) -> NDArray[np.float64]:
        """Returns the numbers of an episode's first observation."""
        made: Any = self._env.reset(**how)
        if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[1], dict)):
            raise EnvError(f"reset() of {self._name} must return an observation and a dict, as of Gymnasium 0.26")
        return self._read(made[0])

    @property
    def step_seconds(self):
        return self._step_seconds

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._seen = self._first(seed=seed, options=options)
        return self.render(), {}

    def advance(self, action):
        clipped = np.clip(action, self.action_space.low, self.action_space.high)
        space: Any = self._env.action_space
        observation, reward, terminated, *_ = self._env.step(clipped.astype(space.dtype))
        self._seen = self._read(observation)
        if terminated:
            raise Ended(f"{self._name} has ended the episode")
        return float(reward)

    def render(self):
        picture: Any = self._env.render()
        return square(picture, self._size, f"the picture of {self._name}")

    def get_state(self):
        self._need("get_state", "goals in simulation")
        return np.concatenate([self._seen, np.asarray(self._inner.get_state(), np.float64).ravel()])

    def set_state(self, state):
        self._need("set_state", "goals in simulation")
        self._seen = np.array(state[: self._num_seen])
        self._inner.set_state(np.array(state[self._num_seen :]))

    def set_pose(self, qpos):
        self._need("set_pose", "goals of another episode")
        self._inner.set_pose(np.array(qpos))
        self._seen = np.array(qpos, np.float64)

    def _need(self, method: str, what: str) -> None:
        if not hasattr(self._inner, method):
            cure = "give it one, or plan to a picture of your own with --goal-image"
            raise EnvError(f"{what} need a {method} of {self._name}, which has none; {cure}")

    @property
    def qpos(self):
        return self._seen.copy()

    @property
    def qvel(self):
        return np.empty(0)

    def close(self):
        self._env.close()
