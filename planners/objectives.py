"""How good a predicted future is: latent distance to the goal, reduced over the horizon.

The terminal distance is LeWorldModel's. The minimum asks only that the goal be met on the way, and so does not
punish a plan that gets there early; the mean asks to be near it all the time.
"""

from collections.abc import Callable

from torch import Tensor

# Futures (B, S, H, D) and goals (B, D) to costs (B, S).
Objective = Callable[[Tensor, Tensor], Tensor]


def latent_distance(z: Tensor, z_goal: Tensor) -> Tensor:
    """Euclidean distance (B, S, H) of every predicted embedding (B, S, H, D) to the goal (B, D)."""
    return (z - z_goal[:, None, None]).norm(dim=-1)


def terminal(z: Tensor, z_goal: Tensor) -> Tensor:
    return latent_distance(z[:, :, -1:], z_goal)[..., 0]


def minimum(z: Tensor, z_goal: Tensor) -> Tensor:
    return latent_distance(z, z_goal).amin(-1)


def mean(z: Tensor, z_goal: Tensor) -> Tensor:
    return latent_distance(z, z_goal).mean(-1)


OBJECTIVES: dict[str, Objective] = {"terminal": terminal, "minimum": minimum, "mean": mean}
