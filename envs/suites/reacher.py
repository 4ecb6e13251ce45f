"""DeepMind Control's Reacher: a planar arm of two links, with the target hidden, for the goal is a picture."""

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.envs.base import PixelEnv
from jepa_mpc.envs.suites.dmc import DMControlEnv

_LINK = 0.12  # metres, each


def make(difficulty: str, image_size: int, fast_rendering: bool, *, action_repeat: int) -> PixelEnv:
    """`reacher-easy` or `reacher-hard`; they differ in the target's size, and so in the reward, alone."""
    return DMControlEnv(
        "reacher",
        difficulty,
        image_size=image_size,
        fast_rendering=fast_rendering,
        action_repeat=action_repeat,
        hidden_geoms=("target",),  # the goal is a picture of the arm, not the ball
    )


def pose_on_target(env: PixelEnv) -> NDArray[np.float64]:
    """The pose (2,) whose fingertip lies on the episode's target; of the two, that nearer to the present one."""
    x, y, _ = env.position("target")
    wrist = np.arccos(np.clip((x * x + y * y) / (2 * _LINK**2) - 1, -1, 1))
    poses = [np.array([np.arctan2(y, x) - bend / 2, bend]) for bend in (wrist, -wrist)]

    def turn(pose: NDArray[np.float64]) -> float:
        shoulder, wrist = pose - env.qpos
        return max(abs((shoulder + np.pi) % (2 * np.pi) - np.pi), abs(wrist))

    return min(poses, key=turn)
