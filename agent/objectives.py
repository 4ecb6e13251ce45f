"""How far predicted futures are from the goal.

At the end of the horizon, the distance is LeWorldModel's. Its minimum asks only that the goal be met on the way, and so
does not punish a plan that gets there early; its mean asks to be near all the time, and so to stay.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from jepa_mpc.registry import Registry, takes
from jepa_mpc.world_model.model.jepa import JEPA

# From a model, futures (B, S, H, D), what is seen now (B, D) and the goals (B, 1, 1, D), to distances (B, S, H).
Objective = Callable[[JEPA, Tensor, Tensor, Tensor], Tensor]
OBJECTIVES: Registry[Objective] = Registry("objective", must=takes(4))


def reachability(model: JEPA, future: Tensor, z_now: Tensor, z_goal: Tensor) -> Tensor:
    """Returns the learned number of blocks to the goal."""
    assert model.reachability is not None
    before = torch.cat([z_now[:, None, None].expand(*future.shape[:2], 1, -1), future[:, :, :-1]], dim=2)
    return model.reachability(future, before, z_goal)


def latent(model: JEPA, future: Tensor, z_now: Tensor, z_goal: Tensor) -> Tensor:
    """Returns the distance between embeddings, LeWorldModel's."""
    return model.latent_distance(future, z_goal)


OBJECTIVES.register("reachability", reachability)
OBJECTIVES.register("latent", latent)
