"""What a data policy is: it acts without a goal, to collect data and to stand beside the planner as a baseline."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.envs import PixelEnv
from jepa_mpc.errors import UserError
from jepa_mpc.registry import Registry

# A policy maps the picture (H, W, 3) that begins a block to the block's actions (A,), one by one: whoever asks for the
# next has applied the one before, for some policies read the simulator's state.
Policy = Callable[[NDArray[np.uint8] | None], Iterable[NDArray[np.float32]]]
MakePolicy = Callable[[PixelEnv, int, np.random.Generator], Policy]  # from a block's length and a generator

E = TypeVar("E", bound=PixelEnv)


@dataclass(frozen=True)
class Trained:
    """A policy that a training has left in a folder: `load` makes it of the folder and the task's name."""

    load: Callable[[Path, str], MakePolicy]


DATA_POLICIES: Registry[MakePolicy | Trained] = Registry("data policy")


class MisfitError(UserError):
    """A policy that cannot act in an environment."""


def of_kind(env: PixelEnv, kind: type[E]) -> E:
    """Returns the environment, out of its wrappers, whose state a policy reads; `MisfitError` if it is another kind."""
    if not isinstance(env.unwrapped, kind):
        raise MisfitError(f"it acts in a {kind.__name__}, not in a {type(env.unwrapped).__name__}")
    return env.unwrapped


def scripted(env: PixelEnv, block: int, controller: Callable[[], NDArray[np.floating]]) -> Policy:
    """Returns a policy of a controller, which reads the simulator's state as a demonstrator would, action by action."""

    def act(picture: NDArray[np.uint8] | None) -> Iterator[NDArray[np.float32]]:
        for _ in range(block):
            yield np.clip(controller(), env.action_space.low, env.action_space.high).astype(np.float32)

    return act
