"""Policies that act without a goal, one file a kind, each imported when it is asked for: it may need an optional suite.

Another is registered from a file of one's own, or goes by `module:function`.
"""

import contextlib
from pathlib import Path

import numpy as np

from jepa_mpc import places
from jepa_mpc.agent.data_policies.base import DATA_POLICIES, MakePolicy, MisfitError, Policy, Trained
from jepa_mpc.envs import EnvError, PixelEnv
from jepa_mpc.errors import UserError

__all__ = ["DATA_POLICIES", "MakePolicy", "Policy", "Trained", "find_policy", "fitting_policy"]

for _name, _place in {
    "uniform": "uniform:uniform",
    "pink": "coloured:pink",
    "held": "held:held",
    "two_room_walker": "two_room:two_room_walker",
    "push_t_pusher": "push_t:push_t_pusher",
    "cube_oracle": "cube:cube_oracle",
    "arm_pusher": "pusher_v5:arm_pusher",
    "sac": "sac:SAC",
}.items():
    DATA_POLICIES.register(_name, f"{__name__}.{_place}")


def find_policy(name: str, task: str, folder: Path | None = None) -> MakePolicy:
    """Returns the policy of that name; a trained one's folder is `runs/policies/<task>` unless given.

    Raises `UserError`, which suggests the nearest names, if there is none.
    """
    found = DATA_POLICIES[name]
    if isinstance(found, Trained):
        return found.load(places.runs("policies", task) if folder is None else folder, task)
    if folder is not None:
        raise UserError(f"--policy-path is for a policy that was trained, such as sac, not {name}; leave it out")
    if not callable(found):
        raise UserError(f"{name} is no data policy: it is {type(found).__name__}, not a function that makes one")
    return found


def require_fit(name: str, make_policy: MakePolicy, env: PixelEnv, block: int) -> None:
    """Raises `UserError`, which names those that can, if a policy cannot act in an environment."""
    try:
        make_policy(env, block, np.random.default_rng(0))
    except MisfitError as error:
        fitting = []
        for other in DATA_POLICIES:
            with contextlib.suppress(MisfitError, ImportError, EnvError):
                if not isinstance(make := DATA_POLICIES[other], Trained):
                    make(env, block, np.random.default_rng(0))
                    fitting.append(other)
        raise UserError(f"--policy {name} does not fit: {error}; these do: {', '.join(fitting)}") from error
