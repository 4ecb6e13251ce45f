"""DeepMind Control's Reacher: a planar arm of two links."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from jepa_mpc.envs.base import PixelEnv

_LINK = 0.12  # metres, each


def pose_on_target(env: PixelEnv) -> NDArray[np.float64]:
    """Returns the pose (2,) with the fingertip on the episode's target; of the two, that nearer to the present."""
    x, y, _ = env.position("target")
    wrist = np.arccos(np.clip((x * x + y * y) / (2 * _LINK**2) - 1, -1, 1))
    poses = [np.array([np.arctan2(y, x) - bend / 2, bend]) for bend in (wrist, -wrist)]

    def turn(pose: NDArray[np.float64]) -> float:
        shoulder, wrist = pose - env.qpos
        return max(abs((shoulder + np.pi) % (2 * np.pi) - np.pi), abs(wrist))

    return min(poses, key=turn)
