"""The one surface that every simulator shows: Gymnasium, plus physics without pictures and exact state."""

from abc import abstractmethod
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from jepa_mpc.envs.looks import Look, Looks
from jepa_mpc.errors import UserError


class EnvError(UserError):
    """An environment that cannot be made; the message is one line that names the fix."""


class Diverged(EnvError):
    """A simulation that has blown up: numbers became infinite or too large, and what follows is no physics."""


class Ended(Diverged):
    """An environment that has ended its episode by itself: it goes on only after a reset."""


class PixelEnv(gym.Env[NDArray[np.uint8], NDArray[np.float32]]):
    """Observations are pictures (H, W, 3) uint8, or (H, V·W, 3) of V cameras; actions are float32 within
    `action_space`.

    `step` renders; `advance` is the same physics without a picture, for the steps inside an action block.
    Agents here are given no reward: goals are pictures, and success is judged by `TaskSpec` from state. The simulator's
    own reward, where it has one, is there for protocols that report it.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 25}  # type: ignore[misc]
    render_mode = "rgb_array"
    restorable = True  # whether states can be saved and restored, without which no goal is set in simulation
    time_limit = 10**9  # control steps after which its makers would end an episode
    has_reward = False  # whether `advance` returns one of the simulator's own
    names: tuple[str, ...] = ()  # of the coordinates of `qpos`, where the simulator has some
    all_cameras: tuple[str, ...] = ()  # that the robot's model has, by name or number
    cameras: tuple[str, ...] = ("",)  # by name; where they are several, their pictures lie side by side in one
    proprio_names: tuple[str, ...] = ()  # of what `proprio` returns
    changeable: tuple[Look, ...] = ()  # what `set_looks` can change
    action_space: gym.spaces.Box  # type: ignore[assignment]

    @abstractmethod
    def advance(self, action: NDArray[np.floating]) -> float:
        """Applies one action (A,) for `action_repeat` control steps, clipped to the action space.

        Returns the simulator's own reward, summed over the control steps; 0 where it has none. Raises `Diverged`.
        """

    @abstractmethod
    def render(self) -> NDArray[np.uint8]:
        """Returns the picture (H, W, 3) of the present state."""

    def set_looks(self, looks: Looks | None) -> None:
        """Draws the scene from now on in these looks; None: in its own. What is not `changeable` stays the same."""

    @abstractmethod
    def get_state(self) -> NDArray[np.float64]:
        """Returns all that decides the future of the simulation and its reward, as one vector."""

    @abstractmethod
    def set_state(self, state: NDArray[np.float64]) -> None:
        """Restores a vector from `get_state`; the same actions then give the same trajectory, bit for bit."""

    def picture_of(self, state: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Restores a state, and returns its picture (H, W, 3)."""
        self.set_state(state)
        return self.render()

    @abstractmethod
    def set_pose(self, qpos: NDArray[np.floating]) -> None:
        """Puts the simulation at rest in generalised position `qpos`."""

    @property
    @abstractmethod
    def qpos(self) -> NDArray[np.float64]:
        """Returns a copy of the generalised positions, in radians and metres."""

    @property
    @abstractmethod
    def qvel(self) -> NDArray[np.float64]:
        """Returns a copy of the generalised velocities, per second."""

    @property
    def proprio(self) -> NDArray[np.float32]:
        """Returns what the robot feels of itself (P,), as its encoders would tell: nothing unless it has some."""
        return np.empty(0, np.float32)

    def position(self, geom: str) -> NDArray[np.float64]:
        """Returns where a named geom is, (3,) in metres."""
        raise EnvError(f"this environment has no geom {geom!r}; leave the task's effector out")

    @property
    @abstractmethod
    def step_seconds(self) -> float:
        """Returns the simulated time of one environment step."""

    def step(self, action):
        reward = self.advance(action)
        return self.render(), reward, False, False, {}
