"""Action blocks: so many environment steps, each with an action of its own, that one step of a model lasts.

A simulator takes a block as actions (block, A), one by one; a model and a planner take it as one vector (block · A,).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from jepa_mpc.envs.base import PixelEnv


class Bounds(Protocol):
    """Least and largest action (A,): a Gymnasium box has them, and so has a checkpoint."""

    @property
    def low(self) -> NDArray[Any]: ...

    @property
    def high(self) -> NDArray[Any]: ...


def block_bounds(low: NDArray[Any], high: NDArray[Any], block: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Returns the least and the largest block as vectors (block · A,)."""
    return np.tile(low, block), np.tile(high, block)


def as_actions(vectors: NDArray[np.float32], block: int) -> NDArray[np.float32]:
    """Returns blocks (…, block · A) as a simulator takes them, (…, block, A)."""
    return vectors.reshape(*vectors.shape[:-1], block, -1)


def run_block(env: PixelEnv, actions: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Applies actions (A,) one by one and returns the block as a vector (block · A,).

    Each is drawn only once the one before is applied, for some policies read the simulator's state.
    """
    done = []
    for action in actions:
        env.advance(action)
        done.append(action)
    return np.concatenate(done)
