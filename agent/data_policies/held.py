"""Uniform actions that last."""

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.agent.data_policies.base import Policy
from jepa_mpc.envs import PixelEnv


def held(env: PixelEnv, block: int, rng: np.random.Generator) -> Policy:
    """Draws uniform actions, each held for a random number of steps, up to two blocks."""
    space = env.action_space
    action, left = np.zeros(space.shape), 0

    def act(picture: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        nonlocal action, left
        steps = []
        for _ in range(block):
            if not left:
                action, left = rng.uniform(space.low, space.high), int(rng.integers(1, 2 * block + 1))
            left -= 1
            steps.append(action)
        return np.stack(steps).astype(np.float32)

    return act
