"""Policies that act without a goal, to collect data and to stand beside the planner as baselines.

Each is imported when it is asked for: it may need an optional suite. Another is registered from a file of one's own, or
goes by `module:function`.
"""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from jepa_mpc import places
from jepa_mpc.envs import Diverged, EnvError, PixelEnv
from jepa_mpc.envs.blocks import run_block
from jepa_mpc.errors import UserError
from jepa_mpc.registry import Registry
from jepa_mpc.settings import convert

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
for _name, _place in {
    "uniform": "noise:uniform",
    "pink": "noise:pink",
    "held": "noise:held",
    "two_room_walker": "two_room:two_room_walker",
    "push_t_pusher": "push_t:push_t_pusher",
    "cube_oracle": "cube:cube_oracle",
    "arm_pusher": "pusher_v5:arm_pusher",
    "sac": "sac:SAC",
}.items():
    DATA_POLICIES.register(_name, f"{__name__}.{_place}")


class MisfitError(UserError):
    """A policy that cannot act in an environment."""


def of_kind(env: PixelEnv, kind: type[E]) -> E:
    """Returns the environment, out of its wrappers, whose state a policy reads; `MisfitError` if it is another kind."""
    if not isinstance(env.unwrapped, kind):
        raise MisfitError(f"it acts in a {kind.__name__}, not in a {type(env.unwrapped).__name__}")
    return env.unwrapped


def one_by_one(env: PixelEnv, block: int, actions: Iterator[NDArray[np.floating]]) -> Policy:
    """Returns a policy of endless actions (A,), each of which may be chosen by the simulator's state of the moment."""

    def act(picture: NDArray[np.uint8] | None) -> Iterator[NDArray[np.float32]]:
        for action in itertools.islice(actions, block):
            yield np.clip(action, env.action_space.low, env.action_space.high).astype(np.float32)

    return act


def find_policy(name: str, task: str, folder: Path | None = None) -> MakePolicy:
    """Returns the policy of that name; a trained one's folder is `runs/policies/<task>` unless given.

    Raises `UserError`, which suggests the nearest names, if there is none; the policy does on a wrong block.
    """
    found = DATA_POLICIES[name]
    if isinstance(found, Trained):
        loaded = found.load(places.runs("policies", task) if folder is None else folder, task)
        return functools.partial(_checked, name, loaded)
    if folder is not None:
        raise UserError(f"--policy-path is for a policy that was trained, such as sac, not {name}; leave it out")
    return functools.partial(_checked, name, convert(MakePolicy, found, (f"data policy {name}",)))


def _checked(name: str, make_policy: MakePolicy, env: PixelEnv, block: int, rng: np.random.Generator) -> Policy:
    """Makes a policy of which every action is held against the environment's bounds."""
    policy = convert(Policy, make_policy(env, block, rng), (f"what data policy {name} makes",))
    low, high = env.action_space.low, env.action_space.high

    def refuse(found: object) -> NoReturn:
        within = f"{block} actions of shape {low.shape}, within {low.tolist()} to {high.tolist()}"
        raise UserError(f"data policy {name} must give {within}, not {found}")

    def act(picture: NDArray[np.uint8] | None) -> Iterator[NDArray[np.float32]]:
        actions, given = policy(picture), 0
        for action in actions if isinstance(actions, Iterable) else refuse(actions):
            given += 1
            if np.shape(action) != low.shape:
                refuse(f"one of shape {np.shape(action)}")
            if given > block or not ((low <= action) & (action <= high)).all():
                refuse(f"{given} of them" if given > block else np.asarray(action).tolist())
            yield action
        if given < block:
            refuse(f"{given} of them")

    return act


def require_fit(name: str, make_policy: MakePolicy, env: PixelEnv, block: int) -> None:
    """Has a policy act for a block; raises `UserError` if it cannot, which names those that can."""
    try:
        policy = make_policy(env, block, np.random.default_rng(0))
    except MisfitError as error:
        fitting = []
        for other in DATA_POLICIES:
            with contextlib.suppress(MisfitError, ImportError, EnvError):
                if not isinstance(make := DATA_POLICIES[other], Trained):
                    make(env, block, np.random.default_rng(0))
                    fitting.append(other)
        raise UserError(f"--policy {name} does not fit: {error}; these do: {', '.join(fitting)}") from error
    env.reset(seed=0)
    with contextlib.suppress(Diverged):  # whoever collects says how often that is
        run_block(env, policy(env.render()))
