"""What a plan costs: distances over the horizon made one number, and the effort of its actions.

Effort breaks ties: a model that sees only the ends of blocks does not see actions that cancel inside them.
"""

from collections.abc import Callable

from torch import Tensor

from jepa_mpc.registry import Registry, takes

# From distances (..., H) along the horizon to costs (...).
REDUCTIONS: Registry[Callable[[Tensor], Tensor]] = Registry("reduction", must=takes(1))
REDUCTIONS.register("terminal", lambda distance: distance[..., -1])
REDUCTIONS.register("minimum", lambda distance: distance.amin(-1))
REDUCTIONS.register("mean", lambda distance: distance.mean(-1))

LEAST_RANGE = 1e-30  # half of it, to divide by: an action that cannot vary is 0 of it


def effort(actions: Tensor, middle: Tensor, half_range: Tensor) -> Tensor:
    """Returns the mean square (...) of actions (..., H, A), as fractions of half their range."""
    return ((actions - middle) / half_range.clamp_min(LEAST_RANGE)).square().mean((-1, -2))
