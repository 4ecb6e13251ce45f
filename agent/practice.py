"""Practice: planning toward pictures that the robot has seen, to collect what its model gets wrong.

Neither reward nor success enters. A goal counts as attained where the picture's embedding is as near as those of two
pictures a block apart are on average. The next is chosen among many by its distance from here: farther than the last
if that was attained, nearer if it was missed.
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save

from jepa_mpc.agent.agent_config import AgentConfig, read_planning
from jepa_mpc.agent.base import next_blocks
from jepa_mpc.agent.data_policies import Policy
from jepa_mpc.agent.planning_agent import PlanningAgent, load_proposer
from jepa_mpc.envs import PixelEnv
from jepa_mpc.files import write_whole
from jepa_mpc.world_model.checkpoint import load_checkpoint, weights_digest
from jepa_mpc.world_model.data.dataset import Dataset, spread
from jepa_mpc.world_model.weights import read_tensors

NAME = "practice"
NUM_GOALS = 1000
CANDIDATES = 50  # goals of which the next is chosen
PATIENCE = 10  # blocks after which a goal is missed
EASE, STEP = 0.2, 1.5  # the share of the candidates that are nearer than the goal: at first, and its factor


@dataclass(frozen=True)
class Practice:
    """A data policy (`MakePolicy`), as files and what tells them from others, so that processes can be handed it."""

    checkpoint: Path
    goals: Path
    digest: str

    @classmethod
    def prepare(cls, checkpoint: Path, data: Dataset, goals: Path) -> "Practice":
        """Returns the practice of a checkpoint toward pictures of the data, which are written to `goals`."""
        rows = data.rows_of(data.in_own_looks(data.train_episodes))
        rows = spread(rows[data.blocks_left(rows) > 0], NUM_GOALS)
        if not goals.exists():
            pairs = np.stack([data.pixels[rows], data.pixels[rows + data.stride]], axis=1)
            write_whole(goals, save({"goals": pairs}))
        return cls(checkpoint, goals, f"{weights_digest(checkpoint)}-{data.fingerprint()}")

    def __call__(self, env: PixelEnv, block: int, rng: np.random.Generator) -> Policy:
        school = _school(self.checkpoint, self.goals, self.digest)
        agent = PlanningAgent(school.model, env.action_space, block, school.planning, school.proposer)
        return _Pupil(env, agent, school, rng)


class _School:
    """What all practice in a process shares: model, planning, goals (N, H, W, 3) and their embeddings (N, D)."""

    def __init__(self, checkpoint: Path, goals: Path):
        self.model, info = load_checkpoint(checkpoint)
        self.planning: AgentConfig = read_planning(info.planning, checkpoint)
        self.proposer = load_proposer(checkpoint, self.planning)
        pairs = read_tensors(goals)[0]["goals"]
        with torch.inference_mode():
            z = self.model.encode(pairs)
        self.goals, self.z_goals = pairs[:, 0].numpy(), z[:, 0]
        self.block_length = (z[:, 1] - z[:, 0]).norm(dim=-1).mean()


@functools.lru_cache(maxsize=1)
def _school(checkpoint: Path, goals: Path, digest: str) -> _School:
    return _School(checkpoint, goals)


class _Pupil:
    """Plans toward one goal after another."""

    def __init__(self, env: PixelEnv, agent: PlanningAgent, school: _School, rng: np.random.Generator):
        self._env, self._agent, self._school, self._rng = env, agent, school, rng
        self._share, self._blocks_left = EASE, 0
        self._z_goal: torch.Tensor | None = None

    def __call__(self, picture: NDArray[np.uint8] | None) -> Iterable[NDArray[np.float32]]:
        assert picture is not None
        with torch.inference_mode():
            z = self._school.model.encode(torch.from_numpy(picture[None].copy()))[0]
        if self._z_goal is None:
            self._choose(z)
        elif (z - self._z_goal).norm() <= self._school.block_length:
            self._share = min(1.0, self._share * STEP)
            self._choose(z)
        elif not self._blocks_left:
            self._share /= STEP
            self._choose(z)
        self._blocks_left -= 1
        return next_blocks(self._agent, picture[None], [self._env.proprio])[0]

    def _choose(self, z: torch.Tensor) -> None:
        """Draws goals, and takes the one that so large a share of them is nearer than."""
        drawn = self._rng.permutation(len(self._school.goals))[:CANDIDATES]
        by_distance = drawn[np.argsort((self._school.z_goals[drawn] - z).norm(dim=-1).numpy())]
        chosen = by_distance[min(int(self._share * len(drawn)), len(drawn) - 1)]
        self._z_goal, self._blocks_left = self._school.z_goals[chosen], PATIENCE
        self._agent.reset(self._school.goals[chosen][None], [int(self._rng.integers(2**31))])
