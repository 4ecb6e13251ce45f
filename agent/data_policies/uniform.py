"""Independent uniform actions."""

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.agent.data_policies.base import Policy
from jepa_mpc.envs import PixelEnv
from jepa_mpc.envs.blocks import Bounds


def uniform(env: PixelEnv, block: int, rng: np.random.Generator) -> Policy:
    """Draws from the whole action space."""
    return lambda picture: uniform_actions(env.action_space, block, rng)


def uniform_actions(bounds: Bounds, block: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Returns one block (block, A)."""
    return rng.uniform(bounds.low, bounds.high, (block, *bounds.low.shape)).astype(np.float32)
