"""DeepMind Control suite tasks as pixel environments (Tassa et al., 2018)."""

import gymnasium as gym
import numpy as np

from envs import rendering  # before mujoco
from envs.base import EnvError, PixelEnv

try:
    import mujoco
    from dm_control import suite
    from dm_control.mujoco import engine
except (
    ImportError,
    AttributeError,
    RuntimeError,
) as error:  # what PyOpenGL raises depends on what is missing
    if isinstance(error, ModuleNotFoundError):
        raise
    raise EnvError(f"{rendering.NO_OPENGL_HINT} ({error})") from error

_STATE = mujoco.mjtState.mjSTATE_INTEGRATION


class DMControlEnv(PixelEnv):
    """A suite task seen through a fixed camera.

    Args:
        domain, task: names in `dm_control.suite`.
        camera: camera id or name.
        image_size: side of the square picture, in pixels.
        fast_rendering: nearly the same picture in a fraction of the time (`envs.rendering`).
        action_repeat: control steps that one action lasts.
        hidden_geoms: geoms made transparent, such as a target that the goal picture replaces.
    """

    def __init__(
        self,
        domain: str,
        task: str,
        *,
        camera: int | str = 0,
        image_size: int = 64,
        fast_rendering: bool = True,
        action_repeat: int = 1,
        hidden_geoms: tuple[str, ...] = (),
    ):
        # The suite's own time limit never applies: an episode's length belongs to whoever runs it.
        self._suite = suite.load(domain, task, task_kwargs={"time_limit": float("inf"), "random": 0})
        self._physics = self._suite.physics
        self._action_repeat = action_repeat
        self._physics_steps = round(self._suite.control_timestep() / self._physics.timestep())
        self._model, self._data = self._physics.model.ptr, self._physics.data.ptr
        self._image_size, self._camera_name = image_size, camera
        self._camera: engine.Camera | None = None  # made at the first frame
        if fast_rendering:
            rendering.apply_fast_quality(self._physics.model)
        for geom in hidden_geoms:
            self._physics.named.model.geom_rgba[geom, "a"] = 0.0

        spec = self._suite.action_spec()
        self.action_space = gym.spaces.Box(spec.minimum.astype(np.float32), spec.maximum.astype(np.float32))
        self.observation_space = gym.spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        # The suite draws its initial states from a RandomState of the task's; feed it from Gymnasium's generator.
        self._suite.task._random = np.random.RandomState(self.np_random.integers(2**32, dtype=np.uint64))
        self._suite.reset()
        return self.render(), {}

    def advance(self, action):
        clipped, task, reward = np.clip(action, self.action_space.low, self.action_space.high), self._suite.task, 0.0
        for _ in range(self._action_repeat):
            task.before_step(clipped, self._physics)
            self._physics.step(self._physics_steps)
            task.after_step(self._physics)
            reward += float(task.get_reward(self._physics))
        return reward

    def render(self):
        if self._camera is None:
            try:
                # physics.render() builds a camera for every frame; one that is kept saves 1.5 ms each.
                self._camera = engine.Camera(
                    self._physics, self._image_size, self._image_size, camera_id=self._camera_name
                )
            except (RuntimeError, ImportError, AttributeError, mujoco.FatalError) as error:
                raise EnvError(f"{rendering.NO_OPENGL_HINT} ({error})") from error
        return self._camera.render().copy()

    def get_state(self):
        state = np.empty(mujoco.mj_stateSize(self._model, _STATE))
        mujoco.mj_getState(self._model, self._data, state, _STATE)
        return np.concatenate([state, *(part.ravel() for part in self._placed_at_reset())])

    def set_state(self, state):
        size = mujoco.mj_stateSize(self._model, _STATE)
        rest = state[size:]
        for part in self._placed_at_reset():
            part.ravel()[:] = rest[: part.size]
            rest = rest[part.size :]
        mujoco.mj_setState(self._model, self._data, state[:size], _STATE)
        mujoco.mj_forward(self._model, self._data)  # derived quantities, the picture's among them
        mujoco.mj_setState(self._model, self._data, state[:size], _STATE)  # forward may have moved the warm start

    def _placed_at_reset(self):
        """The parts of the model (views) where suite tasks put an episode's targets; no MuJoCo state holds them."""
        return self._model.geom_pos, self._model.site_pos

    def set_pose(self, qpos):
        mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[:] = qpos
        mujoco.mj_forward(self._model, self._data)

    @property
    def qpos(self):
        return self._data.qpos.copy()

    @property
    def qvel(self):
        return self._data.qvel.copy()

    def position(self, geom):
        return self._physics.named.data.geom_xpos[geom].copy()

    def close(self):
        if self._camera is not None:
            self._camera = None
            self._physics.free()
