"""Trains SAC with hindsight by stable-baselines3, from state and a sparse reward: `jepa-mpc train-her`."""

if __name__ == "__main__":  # first, so that Ctrl-C in the imports below is answered too
    from jepa_mpc.cli import run

    run("train-her")

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from jepa_mpc import envs, places
from jepa_mpc.agent.data_policies.sac import STATE_LIMIT
from jepa_mpc.agent.data_policies.train_sac import SACConfig, StateEnv, train_on
from jepa_mpc.agent.rivals import draw_pose
from jepa_mpc.agent.rivals.her import with_goal
from jepa_mpc.cli import parse
from jepa_mpc.errors import UserError
from jepa_mpc.settings import Count, Fraction, Range


@dataclass(frozen=True)
class HerConfig(SACConfig):
    """Train SAC with hindsight relabelling to reach goal poses, from state and a sparse reward."""

    task: str = "reacher"
    """Task in the registry."""
    output: Path | None = None
    """Folder for the policy and the state to resume from; `runs/her/<task>-seed<seed>` unless given."""
    num_steps: Count = 20_000
    random_steps: Count = 1000
    updates_per_step: Count = 1
    batch_size: Annotated[int, Range(2, 10**6)] = 256
    hidden_sizes: tuple[Count, ...] = (256, 256)
    discount: Fraction = 0.95
    num_hindsight: Count = 4
    """Goals that were reached later in the episode, for each that was asked for."""


def pose_of(features: NDArray[np.floating], angles: tuple[bool, ...]) -> NDArray[np.float64]:
    """Returns the poses (..., Q), angles within ±π, of what states begin with (..., F)."""
    turning = np.array(angles)
    cosines, sines, rest = np.split(features.astype(np.float64), [turning.sum(), 2 * turning.sum()], axis=-1)
    qpos = np.empty((*features.shape[:-1], len(angles)))
    qpos[..., turning], qpos[..., ~turning] = np.arctan2(sines, cosines), rest
    return qpos


class GoalStateEnv(StateEnv):
    """Adds a goal to every episode of `StateEnv`: a pose, in the form in which a state begins with its own. The reward
    is −1 until it is reached.
    """

    stream = "her"

    def __init__(self, env: envs.PixelEnv, spec: envs.TaskSpec, seed: int, random_steps: int):
        super().__init__(env, spec, seed, random_steps)
        self.length, self._size = spec.far_budget, len(spec.angles) + sum(spec.angles)
        pose = gym.spaces.Box(-STATE_LIMIT, STATE_LIMIT, (self._size,), np.float32)
        seen = {"observation": self.observation_space, "achieved_goal": pose, "desired_goal": pose}
        self.observation_space = gym.spaces.Dict(seen)

    def scale(self) -> tuple[NDArray[np.float32], ...]:
        return tuple(with_goal(each, each[: self._size]) for each in (self.mean, self.std))

    def _begin(self) -> None:
        draw_pose(self._env, self._spec, self.rng)
        self._goal = super()._observe()[: self._size]
        super()._begin()

    def _observe(self) -> dict[str, NDArray[np.float32]]:
        state = super()._observe()
        return {"observation": state, "achieved_goal": state[: self._size], "desired_goal": self._goal}

    def step(self, action):
        seen, _, *rest = super().step(action)
        return seen, float(self.compute_reward(seen["achieved_goal"], self._goal, {})), *rest

    def compute_reward(self, achieved: NDArray, desired: NDArray, info: Any) -> NDArray[np.float32]:
        """Returns 0 in the goal, −1 elsewhere, for poses (..., F): what hindsight asks for goals that it puts in."""
        pose, mean, std = self._spec.pose, self.mean[: self._size], self.std[: self._size]
        here, there = (pose_of(each * std + mean, self._spec.angles) for each in (achieved, desired))
        return (pose.errors(here, there) < pose.tolerance).astype(np.float32) - 1


def train(config: HerConfig) -> Path:
    """Trains, and returns the policy's folder. Goes on from a saved state; a finished folder is left alone."""
    if config.random_steps < (least := envs.get_task(config.task).far_budget):
        raise UserError(f"--random-steps must be at least {least}, an episode's length, not {config.random_steps}")
    folder = places.runs("her", f"{places.slug(config.task)}-seed{config.seed}")
    return train_on(GoalStateEnv, config, folder, config.num_hindsight)


def main(args: Sequence[str]) -> None:
    print(f"wrote {train(parse(HerConfig, args))}")  # noqa: T201
