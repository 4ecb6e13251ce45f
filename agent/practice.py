"""Practice: planning toward pictures that the robot has seen, to collect what its model gets wrong.

Neither reward nor success enters. A goal counts as attained where the picture's embedding is as near as those of two
pictures a block apart are on average. The next is chosen among many by its distance from here: farther than the last
if that was attained, nearer if it was missed. Between goals the data's own policy acts for a while, where there is one:
much that is to be practised, such as with a thing in hand, does not begin at a reset.
"""

import functools
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save

from jepa_mpc.agent.agent_config import AgentConfig, read_planning
from jepa_mpc.agent.base import next_blocks
from jepa_mpc.agent.data_policies import DATA_POLICIES, Policy, find_policy
from jepa_mpc.agent.planning_agent import PlanningAgent, load_proposer
from jepa_mpc.envs import PixelEnv
from jepa_mpc.errors import UserError
from jepa_mpc.files import write_whole
from jepa_mpc.world_model.checkpoint import load_checkpoint, weights_digest
from jepa_mpc.world_model.data.dataset import Dataset, DatasetInfo, spread
from jepa_mpc.world_model.weights import read_tensors

log = logging.getLogger(__name__)

NAME = "practice"
NUM_GOALS = 1000
CANDIDATES = 50  # goals of which the next is chosen
PATIENCE = 10  # blocks after which a goal is missed
LEAD = 20  # blocks, at most, that the data's policy acts for between goals
EASE, STEP = 0.2, 1.5  # the share of the candidates that are nearer than the goal: at first, and its factor


@dataclass(frozen=True)
class Practice:
    """A data policy (`MakePolicy`), as files and what tells them from others, so that processes can be handed it."""

    checkpoint: Path
    goals: Path
    digest: str
    task: str = ""
    lead: str = ""  # name of the data's policy; empty if it cannot act here

    @classmethod
    def prepare(cls, checkpoint: Path, data: Dataset, goals: Path) -> "Practice":
        """Returns the practice of a checkpoint toward pictures of the data, which are written to `goals`."""
        rows = data.rows_of(data.in_own_looks(data.train_episodes))
        rows = spread(rows[data.blocks_left(rows) > 0], NUM_GOALS)
        if not goals.exists():
            pairs = np.stack([data.pixels[rows], data.pixels[rows + data.stride]], axis=1)
            write_whole(goals, save({"goals": pairs}))
        digest = f"{weights_digest(checkpoint)}-{data.fingerprint()}"
        return cls(checkpoint, goals, digest, data.info.task, _lead(data.info))

    def __call__(self, env: PixelEnv, block: int, rng: np.random.Generator) -> Policy:
        school = _school(self.checkpoint, self.goals, self.digest)
        agent = PlanningAgent(school.model, env.action_space, block, school.planning, school.proposer)
        lead = find_policy(self.lead, self.task)(env, block, rng) if self.lead else None
        return _Pupil(env, agent, school, rng, lead)


def _lead(info: DatasetInfo) -> str:
    """Returns the name of the policy that collected the data, if it is there to act."""
    if info.data_policy in DATA_POLICIES:
        try:
            find_policy(info.data_policy, info.task)
            return info.data_policy
        except UserError as error:
            log.warning("practice begins at resets alone: %s", error)
    return ""


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
    """Plans toward one goal after another, and lets another policy lead to where each begins, if there is one."""

    def __init__(
        self,
        env: PixelEnv,
        agent: PlanningAgent,
        school: _School,
        rng: np.random.Generator,
        lead: Policy | None = None,
    ):
        self._env, self._agent, self._school, self._rng, self._lead = env, agent, school, rng, lead
        self._share, self._blocks_left = EASE, 0
        self._z_goal: torch.Tensor | None = None
        self._lead_left = self._draw_lead()

    def __call__(self, picture: NDArray[np.uint8] | None) -> Iterable[NDArray[np.float32]]:
        assert picture is not None
        if self._z_goal is not None:
            away = (self._encoded(picture) - self._z_goal).norm()
            attained = bool(away <= self._school.block_length)
            if attained or not self._blocks_left:
                self._share = min(1.0, self._share * STEP) if attained else self._share / STEP
                self._z_goal, self._lead_left = None, self._draw_lead()
        if self._lead is not None and self._lead_left:
            self._lead_left -= 1
            return self._lead(picture)
        if self._z_goal is None:
            self._choose(self._encoded(picture))
        self._blocks_left -= 1
        return next_blocks(self._agent, picture[None], [self._env.proprio])[0]

    def _encoded(self, picture: NDArray[np.uint8]) -> torch.Tensor:
        with torch.inference_mode():
            return self._school.model.encode(torch.from_numpy(picture[None].copy()))[0]

    def _draw_lead(self) -> int:
        return 0 if self._lead is None else int(self._rng.integers(LEAD + 1))

    def _choose(self, z: torch.Tensor) -> None:
        """Draws goals, and takes the one that so large a share of them is nearer than."""
        drawn = self._rng.permutation(len(self._school.goals))[:CANDIDATES]
        by_distance = drawn[np.argsort((self._school.z_goals[drawn] - z).norm(dim=-1).numpy())]
        chosen = by_distance[min(int(self._share * len(drawn)), len(drawn) - 1)]
        self._z_goal, self._blocks_left = self._school.z_goals[chosen], PATIENCE
        self._agent.reset(self._school.goals[chosen][None], [int(self._rng.integers(2**31))])
