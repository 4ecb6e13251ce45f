"""How a scene looks, apart from what moves in it: where the camera stands, where light comes from, what colours are.

Drawn at random for data, this is domain randomisation (Tobin et al., arXiv 1703.06907). Looks are put on between
MuJoCo's scene and its picture, so model, state and motion stay as they are.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Look = Literal["camera", "light", "colour"]
LOOKS: tuple[Look, ...] = get_args(Look)
# How far each goes where looks are drawn for data: shares of the camera's distance, degrees, and shares of a colour.
FARTHEST: dict[Look, float] = {"camera": 0.08, "light": 50.0, "colour": 0.8}
OWN_EPISODES = 0.15  # share of the episodes that are drawn as they are
CHANGE = 0.25  # chance, at every block, that the looks of the others are drawn anew
OWN = 0.25  # share of these draws that are the scene's own


@dataclass(frozen=True)
class Looks:
    """One way that a scene looks.

    Attributes:
        moved: how far the camera is to the right, up and ahead, in shares of its distance from the scene's middle.
        turned: how far lamps are about the middle, as a rotation vector (3,) in radians.
        colour: how much of every colour is another's, 0 to 1.
        seed: decides the other colours.
    """

    moved: tuple[float, ...] = (0.0, 0.0, 0.0)
    turned: tuple[float, ...] = (0.0, 0.0, 0.0)
    colour: float = 0.0
    seed: int = 0

    @classmethod
    def draw(cls, rng: np.random.Generator, camera: float = 0.0, light: float = 0.0, colour: float = 0.0) -> Looks:
        """Draws looks at these distances from the scene's own, in a random direction: the camera by a share of its
        distance, lamps by degrees, colours by a share of another.
        """
        way, turn = rng.normal(size=3), rng.uniform(0, 2 * math.pi)
        moved = camera * way / np.linalg.norm(way)
        axis = math.radians(light) * np.array([math.cos(turn), math.sin(turn), 0.0])  # level: lamps tilt
        return cls(tuple(moved.tolist()), tuple(axis.tolist()), colour, int(rng.integers(2**31)))

    @classmethod
    def for_data(cls, rng: np.random.Generator, kinds: Sequence[Look]) -> Looks | None:
        """Draws looks that differ in these kinds, each by up to its farthest; at times None, the scene's own."""
        if rng.random() < OWN:
            return None
        return cls.draw(rng, **{kind: float(rng.uniform(0, FARTHEST[kind])) for kind in kinds})

    @classmethod
    def draw_episode(cls, rng: np.random.Generator, kinds: Sequence[Look], num_blocks: int) -> list[Looks | None]:
        """Draws the looks of an episode's blocks, for data; None is the scene's own, in which each episode begins."""
        looks: list[Looks | None] = [None]
        changes = bool(kinds) and rng.random() >= OWN_EPISODES
        for _ in range(num_blocks):
            looks.append(cls.for_data(rng, kinds) if changes and rng.random() < CHANGE else looks[-1])
        return looks[1:]

    def put_on(self, scene: Any, middle: NDArray[np.floating]) -> None:
        """Changes an `mjvScene`, about its middle (3,), before it is drawn."""
        for eye in scene.camera:
            ahead, up = np.array(eye.forward), np.array(eye.up)
            distance = max(float((middle - eye.pos) @ ahead), 1e-3)
            eye.pos[:] += distance * (np.array([np.cross(ahead, up), up, ahead]).T @ self.moved)
        if any(self.turned):
            rotation = _rotation(np.array(self.turned))
            for lamp in scene.lights[: scene.nlight]:
                if not lamp.headlight:
                    lamp.pos[:] = middle + rotation @ (lamp.pos - middle)
                    lamp.dir[:] = rotation @ lamp.dir
        if self.colour:
            for geom in scene.geoms[: scene.ngeom]:  # those of one material stay alike
                other = _other_colour(self.seed, geom.matid if geom.matid >= 0 else -2 - geom.objid)
                geom.rgba[:3] += self.colour * (other - geom.rgba[:3])


@functools.lru_cache(4096)
def _other_colour(seed: int, thing: int) -> NDArray[np.float64]:
    """Returns the colour (3,), 0 to 1, that a thing of that number is mixed with."""
    return np.random.default_rng([seed, thing % 2**32]).uniform(size=3)


def _rotation(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the matrix (3, 3) of a rotation vector (Rodrigues)."""
    angle = max(float(np.linalg.norm(vector)), 1e-150)  # of numbers so small that their squares are none
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross
