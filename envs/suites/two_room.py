"""A point in two rooms joined by a door: the simplest world in which the straight way is the wrong one.

Geometry, speed and tolerance are those of LeWorldModel's Two-Room (arXiv 2603.19312), in its unit: pixels of a picture
224 wide, whatever size is drawn. There is no velocity: a point that is not pushed stands still.
"""

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from jepa_mpc.envs.base import PixelEnv

SIDE = 224
BORDER = 14  # outer wall, from the picture's edge
WALL, HALF_WALL = 112, 5  # middle and half thickness of the wall between the rooms
DOOR, HALF_DOOR = 49, 14  # middle and half width of the door in it
RADIUS = 7  # of the point, which is drawn as a Gaussian of this std
SPEED = 5  # pixels a step, at full action
_LOW, _HIGH = BORDER + RADIUS, SIDE - BORDER - RADIUS


class TwoRoomEnv(PixelEnv):
    """Actions (2,) in [−1, 1] push the point right and down."""

    def __init__(self, image_size: int = 64, fast_rendering: bool = True):
        self.action_space = gym.spaces.Box(-1, 1, (2,), np.float32)
        self.observation_space = gym.spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        self._position = np.array([60.0, 112.0])
        self._rooms = _draw_rooms(image_size)
        self._centres = (np.arange(image_size) + 0.5) * SIDE / image_size

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._position = self.np_random.uniform(_LOW, _HIGH, 2)
        while in_wall(self._position):
            self._position = self.np_random.uniform(_LOW, _HIGH, 2)
        return self.render(), {}

    def advance(self, action):
        here = self._position
        there = np.clip(here + SPEED * np.clip(action, -1, 1), _LOW, _HIGH)
        if in_wall(there):  # it slides along the side that it came from
            there[0] = WALL + np.copysign(HALF_WALL + RADIUS, here[0] - WALL)
        self._position = there
        return 0.0

    def render(self):
        across, down = (np.exp(-((self._centres - middle) ** 2) / (2 * RADIUS**2)) for middle in self._position)
        cover = (down[:, None] * across)[..., None]
        return np.round(self._rooms * (1 - cover) + np.array([255, 0, 0]) * cover).astype(np.uint8)

    def get_state(self):
        return self._position.copy()

    def set_state(self, state):
        self._position = np.array(state, np.float64)

    def set_pose(self, qpos):
        self.set_state(qpos)

    @property
    def qpos(self):
        return self._position.copy()

    @property
    def qvel(self):
        return np.zeros(2)

    @property
    def step_seconds(self):
        return 0.1

    def position(self, geom):
        return np.append(self._position, 0.0)


def in_wall(position: NDArray[np.floating]) -> bool:
    """Says whether the point would touch the wall between the rooms; in the door it does not."""
    x, y = position
    return abs(x - WALL) < HALF_WALL + RADIUS and abs(y - DOOR) > HALF_DOOR


def _draw_rooms(image_size: int) -> NDArray[np.float64]:
    """Draws the rooms without the point (H, W, 3)."""
    canvas = np.full((SIDE, SIDE), 255, np.uint8)
    line = 4
    for edge in (slice(BORDER - line, BORDER), slice(SIDE - BORDER, SIDE - BORDER + line)):
        canvas[edge, :] = 0
        canvas[:, edge] = 0
    wall = canvas[:, WALL - HALF_WALL : WALL + HALF_WALL + 1]
    wall[:] = 0
    wall[DOOR - HALF_DOOR : DOOR + HALF_DOOR + 1] = 255
    edges, pixels = np.linspace(0, SIDE, image_size + 1)[:, None], np.arange(SIDE)
    shares = np.clip(np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels), 0, None)  # of area
    small = shares @ canvas @ shares.T * (image_size / SIDE) ** 2
    return np.repeat(small[..., None], 3, axis=2)
