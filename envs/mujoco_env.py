"""What every MuJoCo simulator here shares: pictures through kept cameras, exact state, and what its robot feels."""

from abc import abstractmethod
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from jepa_mpc.envs import rendering  # before mujoco
from jepa_mpc.envs.base import Diverged, EnvError, PixelEnv
from jepa_mpc.envs.joints import driven_joints, felt, felt_names, joints, numbered
from jepa_mpc.envs.looks import LOOKS, Looks
from jepa_mpc.envs.rendering import View
from jepa_mpc.envs.task import PoseTest
from jepa_mpc.errors import reason

try:
    import mujoco
    from dm_control import suite
    from dm_control.mujoco import engine, wrapper
    from dm_control.rl.control import PhysicsError
except ModuleNotFoundError as error:  # on Python 3.13 pip does without it: pyproject.toml says why
    cure = "`pip install --no-deps mujoco==3.11.0 dm-control==1.0.44`"
    raise EnvError(f"{error.name} is missing; install it with {cure}") from error
except (ImportError, AttributeError, RuntimeError, ValueError) as error:  # PyOpenGL's depends on what is missing
    raise EnvError(rendering.why_no_pictures(error)) from error

# Others take these from here, so that what is missing is explained in this one place.
__all__ = ["MujocoEnv", "engine", "mujoco", "refresh", "suite", "wrapper"]

_STATE = mujoco.mjtState.mjSTATE_INTEGRATION
_BAD = [int(getattr(mujoco.mjtWarning, f"mjWARN_BAD{what}")) for what in ("QPOS", "QVEL", "QACC")]
_UNBOUNDED = 1e9  # an action of that size stands for infinity, as in dm_control's


def refresh(model: mujoco.MjModel, data: mujoco.MjData) -> None:
    """Moves bodies and cameras to where the joints are: a step leaves them where they were one physics step ago."""
    for part in (mujoco.mj_kinematics, mujoco.mj_comPos, mujoco.mj_camlight):
        part(model, data)


class MujocoEnv(PixelEnv):
    """A simulation seen through cameras. A subclass makes `physics`, begins episodes and takes control steps.

    Args:
        physics: the simulation, on which dm_control renders: its contexts never disturb one another.
        action_space: bounds of one action.
        camera: id or name of one of the model's cameras, or a view of its own, also in the words
            AZIMUTH,ELEVATION[,DISTANCE[,X,Y,Z]]; several with a + between them.
        image_size: side of each camera's square picture, in pixels.
        fast_rendering: nearly the same picture in a fraction of the time (`envs.rendering`).
        action_repeat: control steps that one action lasts.
        action_bound: largest size of an action, where the actuators' own range is wider or has no end.
        hidden_geoms: names or ids of geoms made transparent, such as a target that the goal picture replaces.
    """

    model: mujoco.MjModel  # MuJoCo's own, of the scene
    data: mujoco.MjData  # and its state
    has_reward = True
    changeable = LOOKS
    _looks: Looks | None = None
    _closed = False

    def __init__(
        self,
        physics: engine.Physics,
        action_space: gym.spaces.Box,
        *,
        camera: int | str | View = 0,
        image_size: int = 64,
        fast_rendering: bool = True,
        action_repeat: int = 1,
        action_bound: float = _UNBOUNDED,
        hidden_geoms: tuple[str | int, ...] = (),
    ):
        self._physics, self._action_repeat = physics, action_repeat
        self.model, self.data = physics.model.ptr, physics.data.ptr
        words = camera.split("+") if isinstance(camera, str) and "+" in camera else [camera]
        if len(words) > 1 and ("" in words or len(set(words)) < len(words)):
            raise EnvError(f"of several cameras each has its name, once, and a + between, not {camera!r}")
        self._image_size, self._places = image_size, [_place(self.model, word) for word in words]
        same = {self.model.camera(place).id if isinstance(place, str) else place for place in self._places}
        if len(same) < len(words):
            raise EnvError(f"{camera!r} names a camera twice; leave one out")
        self.cameras = tuple(word.replace("/", ".") if isinstance(word, str) else "" for word in words)
        self._cameras: list[engine.Camera] = []  # made at the first frame
        if fast_rendering:
            rendering.apply_fast_quality(physics.model, image_size)
        buffer = physics.model.vis.global_
        buffer.offwidth, buffer.offheight = max(buffer.offwidth, image_size), max(buffer.offheight, image_size)
        for geom in hidden_geoms:
            physics.named.model.geom_rgba[geom, "a"] = 0.0
        bounds = np.clip([action_space.low, action_space.high], -action_bound, action_bound).astype(np.float32)
        if np.abs(bounds).max(initial=0) >= _UNBOUNDED:
            raise EnvError(
                f"the actions of {_name(self.model)} have no bounds, and plans are searched within bounds; "
                "give its actuators a ctrlrange, or make it in a TaskSpec of your own with an action_bound"
            )
        self.action_space = gym.spaces.Box(*bounds, dtype=np.float32)
        self.observation_space = gym.spaces.Box(0, 255, (image_size, len(words) * image_size, 3), np.uint8)
        self._placed_at_reset = self._find_placed_at_reset()
        self._driven = driven_joints(self.model, self.data)

    @property
    def goal_test(self) -> PoseTest | None:
        """Returns a test of success that the simulator brings along; None if it has none."""
        return None

    @property
    @abstractmethod
    def control_seconds(self) -> float:
        """Returns the simulated time of one control step."""

    @property
    def step_seconds(self):
        return self._action_repeat * self.control_seconds

    @abstractmethod
    def _begin_episode(self, seed: int) -> None:
        """Puts the simulation into a random initial state."""

    @abstractmethod
    def _control_step(self, action: NDArray[np.floating]) -> float:
        """Takes one step of the simulator's own control loop; returns its reward."""

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._begin_episode(int(self.np_random.integers(2**32, dtype=np.uint64)))
        return self.render(), {}

    def advance(self, action):
        clipped = np.clip(action, self.action_space.low, self.action_space.high)
        warnings = [self.data.warning[kind] for kind in _BAD]
        for warning in warnings:
            warning.number = 0
        try:
            reward = sum(self._control_step(clipped) for _ in range(self._action_repeat))
        except PhysicsError as error:
            raise Diverged(f"the simulation of {_name(self.model)} has diverged ({reason(error)})") from error
        if any(warning.number for warning in warnings):  # MuJoCo itself only warns, and starts afresh
            raise Diverged(f"the simulation of {_name(self.model)} has diverged; MuJoCo has reset it")
        return reward

    def render(self):
        if self._closed:
            raise EnvError("this environment is closed; make another")
        if rendering.forked:
            raise EnvError(rendering.FORKED)
        if not self._cameras:
            try:
                # physics.render() builds a camera for every frame; one that is kept saves 1.5 ms each.
                self._cameras = [self._new_camera(place) for place in self._places]
                rendering.keep_from_forks(self._physics.contexts.gl)
            except (RuntimeError, ImportError, AttributeError, mujoco.FatalError) as error:
                raise EnvError(rendering.why_no_pictures(error)) from error
        return np.concatenate([camera.render() for camera in self._cameras], axis=1)

    def _new_camera(self, place: int | str | View) -> engine.Camera:
        side = self._image_size
        if not isinstance(place, View):
            return engine.Camera(self._physics, side, side, camera_id=place, scene_callback=self._put_on_looks)
        camera = engine.MovableCamera(self._physics, side, side, scene_callback=self._put_on_looks)
        camera.set_pose(*place)
        return camera

    def _put_on_looks(self, _, scene: Any) -> None:
        if self._looks is not None:
            self._looks.put_on(scene, self.model.stat.center)

    def set_looks(self, looks):
        self._looks = looks

    def get_state(self):
        state = np.empty(mujoco.mj_stateSize(self.model, _STATE))
        mujoco.mj_getState(self.model, self.data, state, _STATE)
        return np.concatenate([state, *(getattr(self.model, name).ravel() for name in self._placed_at_reset)])

    def set_state(self, state):
        size = mujoco.mj_stateSize(self.model, _STATE)
        rest = state[size:]
        for name in self._placed_at_reset:
            part = getattr(self.model, name)
            part.ravel()[:] = rest[: part.size]
            rest = rest[part.size :]
        if "hfield_data" in self._placed_at_reset and self._cameras and not rendering.forked:
            with self._physics.contexts.gl.make_current() as context:  # terrain lives in the renderer too
                context.call(mujoco.mjr_uploadHField, self.model, self._physics.contexts.mujoco.ptr, 0)
        mujoco.mj_setState(self.model, self.data, state[:size], _STATE)
        mujoco.mj_forward(self.model, self.data)  # derived quantities, the picture's among them
        mujoco.mj_setState(self.model, self.data, state[:size], _STATE)  # forward may have moved the warm start

    def _find_placed_at_reset(self) -> tuple[str, ...]:
        """Finds the model's fields that differ between episodes, such as a target's place; no state holds them."""
        fields = {name: value for name in dir(self.model) if _is_real(value := getattr(self.model, name))}
        self._begin_episode(0)
        before = {name: value.copy() for name, value in fields.items()}
        self._begin_episode(1)
        return tuple(name for name, value in fields.items() if not np.array_equal(value, before[name]))

    def set_pose(self, qpos):
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:] = qpos
        mujoco.mj_forward(self.model, self.data)

    @property
    def names(self):  # type: ignore[override]
        return tuple(name for joint in joints(self.model) for name in numbered(joint.name, joint.positions))

    @property
    def qpos(self):
        return self.data.qpos.copy()

    @property
    def qvel(self):
        return self.data.qvel.copy()

    @property
    def proprio_names(self):  # type: ignore[override]
        return felt_names(self._driven)

    @property
    def proprio(self):
        """Returns positions and velocities of the joints that actuators move; endless turns by cosine and sine."""
        return felt(self._driven, self.data)

    @property
    def all_cameras(self):  # type: ignore[override]
        return camera_names(self.model)

    def position(self, geom):
        return self._physics.named.data.geom_xpos[geom].copy()

    def close(self):
        self._closed = True
        if self._cameras:
            self._cameras = []
            self._physics.free()


_FARTHEST = 100.0  # extents of the model, from where it is but a dot


def _name(model: mujoco.MjModel) -> str:
    return f"MuJoCo's model {model.names.split(bytes(1))[0].decode()!r}"


def camera_names(model: mujoco.MjModel) -> tuple[str, ...]:
    """Returns what a model's cameras are called: by their names, or by number where they have none."""
    return tuple(model.camera(index).name or str(index) for index in range(model.ncam))


def _place(model: mujoco.MjModel, camera: int | str | View) -> int | str | View:
    """Returns a camera that the model has, or a view. Raises `EnvError`, which lists the cameras, on any other."""
    names = [model.camera(index).name for index in range(model.ncam)]
    if not isinstance(camera, str) or camera in names:
        return camera
    if camera.isdecimal() and int(camera) < model.ncam:
        return int(camera)
    try:
        azimuth, elevation, *rest = map(float, camera.split(","))
        distance, *lookat = rest or [1.5 * model.stat.extent]
        x, y, z = lookat or model.stat.center.tolist()
        if not (np.isfinite([azimuth, elevation, x, y, z]).all() and 0 < distance < _FARTHEST * model.stat.extent):
            raise ValueError("this view shows nothing")
    except ValueError as error:
        there = ", ".join(camera_names(model)) or "it has none"
        raise EnvError(
            f"{_name(model)} has no camera {camera!r}; its cameras: {there}; a free view is "
            "AZIMUTH,ELEVATION[,DISTANCE[,X,Y,Z]] in degrees and metres, such as 90,-30"
        ) from error
    return View((x, y, z), distance, azimuth, elevation)


def _is_real(value: Any) -> bool:
    return isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.floating)
