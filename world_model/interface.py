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
        cameras = f"cameras {' and '.join(self.cameras)}" if self.cameras else ""
        felt = f"proprioception ({len(self.proprio_names)} numbers)" if self.proprio_names else ""
        return ", ".join(filter(None, (cameras, felt)))

    def misfit(self, cameras: tuple[str, ...], proprio_names: tuple[str, ...]) -> str:
        """Returns what others see or feel, where a model that was trained so would mistake it; nothing if it fits."""
        if self.cameras != cameras:
            said = [" and ".join(each) or "one camera" for each in (self.cameras, cameras)]
            return f"sees by {said[0]}, not by {said[1]}"
        if self.proprio_names and self.proprio_names != proprio_names:
            return f"feels {', '.join(self.proprio_names)}, not {', '.join(proprio_names) or 'nothing'}"
        return ""

    def bounds(self) -> Bounds:
        return Bounds(np.array(self.action_low, np.float32), np.array(self.action_high, np.float32))

    def fault(self, what: str, picture_size: tuple[int, int], num_proprio: int) -> str:
        """Returns what this says that cannot be, or nothing, where pictures are of that height and width, and so many
        numbers are felt.
        """
        if self.picture_size != picture_size:
            return f"picture_size is {self.picture_size}, and that of {what} {picture_size}"
        if len(self.proprio_names) != num_proprio:
            return f"proprio_names are {len(self.proprio_names)}, and {what} takes {num_proprio} numbers"
        low, high = self.action_low, self.action_high
        fits = len(low) == len(high) and all(least <= most for least, most in zip(low, high, strict=True))
        return "" if fits else f"action_low {low} and action_high {high} are no bounds"
