"""What a robot must know of a model to be driven by it. It stands in checkpoints and in exported files, and needs NumPy
alone.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.settings import Count, NonNegative


class Bounds(NamedTuple):
    """The least and the greatest action, (A,) each."""

    low: NDArray[np.float32]
    high: NDArray[np.float32]


@dataclass(frozen=True)
class Interface:
    """What a robot must know of the model to be driven by it."""

    action_low: tuple[float, ...]  # of one action
    action_high: tuple[float, ...]
    action_block: Count  # actions in a block
    step_seconds: NonNegative  # that one action lasts; 0 if unknown
    image_size: Count  # of each camera
    cameras: tuple[str, ...] = ()  # of several, whose pictures lie side by side in this order
    proprio_names: tuple[str, ...] = ()  # of what the robot feels of itself, where the model is told of it

    @property
    def picture_size(self) -> tuple[int, int]:
        """Returns height and width of an observation's picture."""
        return self.image_size, max(1, len(self.cameras)) * self.image_size

    @property
    def declared(self) -> str:
        """Returns in words what a model is told beside one camera's pictures, as every figure of it must say."""
        cameras = f"sees by cameras {' and '.join(self.cameras)}" if self.cameras else ""
        feels = f"is told what the robot feels ({', '.join(self.proprio_names)})" if self.proprio_names else ""
        return ", and ".join(filter(None, (cameras, feels)))

    def bounds(self) -> Bounds:
        return Bounds(np.array(self.action_low, np.float32), np.array(self.action_high, np.float32))

    def fault(self, seen: str, side: int) -> str:
        """Returns what this says that cannot be, or nothing; what is named so says the side of pictures too."""
        if self.image_size != side:
            return f"image_size is {self.image_size}, and {seen} {side}"
        low, high = self.action_low, self.action_high
        fits = len(low) == len(high) and all(least <= most for least, most in zip(low, high, strict=True))
        return "" if fits else f"action_low {low} and action_high {high} are no bounds"
