"""Push-T: a round agent pushes a T-shaped block about a table (Chi et al., 2023), with the scene of gym-pusht.

Lengths are in pixels of a picture 512 wide, whatever size is drawn; x goes right, y down and angles clockwise. Goals
are pictures here, so gym-pusht's fixed green goal is not drawn, and its reward, the share of it covered, is left out.
"""

import math
import os
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from jepa_mpc.envs.base import EnvError, PixelEnv

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
try:
    import cv2
    import pygame
    import pymunk
    from gym_pusht.envs import pusht as gym_pusht
    from gym_pusht.envs.pymunk_override import DrawOptions
    from pymunk.space_debug_draw_options import SpaceDebugColor
except ImportError as error:
    raise EnvError(f"push_t needs gym-pusht ({error}): pip install 'jepa-mpc[push-t]'") from error

SIDE = 512
RADIUS = 15  # of the agent
# Pixels ahead of the agent that a full action puts its target; it covers a quarter in a step from rest. In the paper's
# data targets are 20 px away and agents move at 75 px/s, std of each axis: https://github.com/gaoyuezhou/dino_wm.
REACH = 32
WALLS = (7, 504)  # inner faces
CENTRE_OF_MASS = np.array([0.0, 45.0])  # of the block, in its own frame
# Bar and stem of the T in that frame: left, top, right, bottom.
BOXES = np.array([[-60, 0, 60, 30], [-15, 30, 15, 120]])
CORNERS = BOXES[:, [[0, 1], [2, 1], [2, 3], [0, 3]]].astype(float)  # (2, 4, 2)
AGENT_COLOUR, BLOCK_COLOUR = (SpaceDebugColor(*pygame.Color(name)) for name in ("RoyalBlue", "LightSlateGray"))
_AGENT_STARTS, _BLOCK_STARTS = (50, 450), (100, 400)  # gym-pusht's ranges


class PushTEnv(PixelEnv):
    """Actions (2,) in [−1, 1] put the target of the agent's PD control up to `REACH` right and down of the agent.

    qpos is (agent x, agent y, block x, block y, block angle); the block is where the middle of its bar's outer edge is.
    """

    def __init__(self, image_size: int = 64, fast_rendering: bool = True):
        self._control = gym_pusht.PushTEnv()  # holds the gains; its own simulation is not begun
        self.action_space = gym.spaces.Box(-1, 1, (2,), np.float32)
        self.observation_space = gym.spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        self._image_size = image_size
        self._qpos = np.array([256.0, 400.0, 256.0, 256.0, 0.0])
        self._qvel = np.zeros(5)
        self._canvas = pygame.Surface((SIDE, SIDE), depth=32)
        self._pen = DrawOptions(self._canvas)
        self._table = self._canvas.copy()
        self._table.fill("white")
        self._new_table().debug_draw(DrawOptions(self._table))

    def _new_table(self):
        """Returns a space with walls."""
        space = pymunk.Space()
        space.damping = 0  # what is not pushed stops, as on a table
        low, high = 5, 506
        corners = [(low, high), (low, low), (high, low), (high, high)]
        space.add(*(self._control.add_segment(space, corners[i - 1], corners[i], 2) for i in range(4)))
        return space

    def _new_scene(self):
        """Returns space, agent and block in the present state, with nothing in the solver's memory."""
        space = self._new_table()
        agent = self._control.add_circle(space, tuple(self._qpos[:2]), RADIUS)
        block, _ = self._control.add_tee(space, tuple(self._qpos[2:4]), self._qpos[4])
        agent.velocity = tuple(self._qvel[:2])
        block.velocity, block.angular_velocity = tuple(self._qvel[2:4]), self._qvel[4]
        return space, agent, block

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        angle = self.np_random.uniform(-np.pi, np.pi)  # drawn once, so that positions refused favour no angle
        while True:
            agent, block = self.np_random.uniform(*_AGENT_STARTS, 2), self.np_random.uniform(*_BLOCK_STARTS, 2)
            corners = to_world(CORNERS, block, angle)
            inside = WALLS[0] < corners.min() and corners.max() < WALLS[1]
            if inside and distance_to_block(to_block(agent, block, angle)) > RADIUS:
                break
        self.set_pose(np.array([*agent, *block, angle]))
        return self.render(), {}

    def advance(self, action):
        """Steps a fresh scene: cached contacts, which no state vector holds, would warm-start the solver."""
        space, agent, block = self._new_scene()
        control, reach = self._control, REACH * np.clip(action, -1, 1)
        target = pymunk.Vec2d(*np.clip(self._qpos[:2] + reach, 0, SIDE).tolist())
        for _ in range(round(1 / (control.control_hz * control.dt))):
            acceleration = control.k_p * (target - agent.position) - control.k_v * agent.velocity
            agent.velocity += acceleration * control.dt
            space.step(control.dt)
        self._qpos = np.array([*agent.position, *block.position, block.angle])
        self._qvel = np.array([*agent.velocity, *block.velocity, block.angular_velocity])
        return 0.0

    def render(self):
        """Draws by gym-pusht's pen at its size and averages over the area of each pixel."""
        self._canvas.blit(self._table, (0, 0))
        for corners in to_world(CORNERS, self._qpos[2:4], self._qpos[4]):
            self._pen.draw_polygon(corners.tolist(), 0, None, BLOCK_COLOUR)
        self._pen.draw_circle(self._qpos[:2].tolist(), 0, RADIUS, None, AGENT_COLOUR)
        pixels: Any = self._canvas.get_buffer()
        canvas = np.frombuffer(pixels, np.uint8).reshape(SIDE, SIDE, 4)
        small = cv2.resize(canvas, (self._image_size, self._image_size), interpolation=cv2.INTER_AREA)
        return cv2.cvtColor(small, cv2.COLOR_BGRA2RGB)

    def get_state(self):
        return np.concatenate([self._qpos, self._qvel])

    def set_state(self, state):
        self._qpos, self._qvel = np.split(np.array(state, np.float64), 2)

    def set_pose(self, qpos):
        self._qpos, self._qvel = np.array(qpos, np.float64), np.zeros(5)

    @property
    def qpos(self):
        return self._qpos.copy()

    @property
    def qvel(self):
        return self._qvel.copy()

    @property
    def step_seconds(self):
        return 1 / self._control.control_hz

    def position(self, geom):
        return np.append(self._qpos[{"agent": slice(0, 2), "block": slice(2, 4)}[geom]], 0.0)


def to_world(points: NDArray[np.floating], block: NDArray[np.floating], angle: float) -> NDArray[np.float64]:
    """Returns points (…, 2) of the block's frame, on the table."""
    return points @ _rotation(angle).T + block


def to_block(points: NDArray[np.floating], block: NDArray[np.floating], angle: float) -> NDArray[np.float64]:
    """Returns points (…, 2) of the table, in the block's frame."""
    return (points - block) @ _rotation(angle)


def _rotation(angle: float) -> NDArray[np.float64]:
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def distance_to_block(points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Returns how far points (…, 2) of the block's frame are from the T (…); 0 within it."""
    nearest = np.clip(points[..., None, :], BOXES[:, :2], BOXES[:, 2:])
    return np.linalg.norm(points[..., None, :] - nearest, axis=-1).min(-1)
