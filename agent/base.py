"""What an agent is, and the two that need no model, random and do-nothing, beside which every figure stands."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.agent.data_policies.noise import uniform_actions
from jepa_mpc.envs.blocks import Bounds


class Agent(Protocol):
    """What a rollout needs of an agent. Nothing here tells it whether it has succeeded."""

    action_block: int  # environment steps that it answers a picture with

    def reset(self, goals: Any, seeds: Sequence[int]) -> None:
        """Begins B episodes toward goal pictures (B, H, W, 3), or what else it takes for goals."""

    def act(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns the next block (B, block, A) for pictures (B, H, W, 3)."""


@runtime_checkable
class PrivilegedAgent(Agent, Protocol):
    """An agent that is shown the simulator's state as well; results say so, for it is no fair rival."""

    def look(self, states: NDArray[np.float64], goal_states: NDArray[np.float64]) -> None:
        """Shows, before every answer, the states (B, S) of now and of the goals."""


@runtime_checkable
class ProprioceptiveAgent(Agent, Protocol):
    """An agent that may take what a robot feels of itself beside its pictures, which its checkpoint declares."""

    num_proprio: int  # numbers of it; 0: none

    def act(self, pictures: NDArray[np.uint8], proprio: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Returns the next block (B, block, A) for pictures (B, H, W, 3) and what is felt (B, P)."""


def next_blocks(
    agent: Agent, pictures: NDArray[np.uint8], proprio: Sequence[NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Returns an agent's next block (B, block, A), which is told what is felt (B, P) if it takes that."""
    if isinstance(agent, ProprioceptiveAgent) and agent.num_proprio:
        return agent.act(pictures, np.stack(proprio))
    return agent.act(pictures)


@runtime_checkable
class SurprisedAgent(Agent, Protocol):
    """An agent that knows how unforeseen pictures are."""

    def surprise(self) -> NDArray[np.float32]:
        """Returns how unforeseen the last pictures were (B,): 1 is unusual; NaN where that is unknown."""


class RandomAgent:
    """Acts uniformly, as in data collection."""

    def __init__(self, bounds: Bounds, action_block: int):
        self._bounds, self.action_block = bounds, action_block

    def reset(self, goals, seeds):
        self._rngs = [np.random.default_rng(seed) for seed in seeds]

    def act(self, pictures):
        return np.stack([uniform_actions(self._bounds, self.action_block, rng) for rng in self._rngs])


class DoNothingAgent:
    """Sends zeros."""

    def __init__(self, bounds: Bounds, action_block: int):
        self.action_block, self._shape = action_block, bounds.low.shape

    def reset(self, goals, seeds):
        pass

    def act(self, pictures):
        return np.zeros((len(pictures), self.action_block, *self._shape), np.float32)
