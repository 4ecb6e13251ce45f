"""Goal-conditioned reinforcement learning from state: SAC with hindsight (Andrychowicz et al., 2017), privileged.

`jepa-mpc train-her --task reacher` trains it by stable-baselines3 on a sparse reward. It reads the state of the
simulator and of the goal, where the planner has pictures of both, and acts at every step.
"""

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
from jepa_mpc.agent.base import Agent
from jepa_mpc.agent.data_policies.sac import STATE_LIMIT, Actor, load_actor, read_state
from jepa_mpc.agent.data_policies.train_sac import SACConfig, StateEnv, train_on
from jepa_mpc.agent.rivals import THREE_SEEDS, Command, Facts, Rival, command, draw_pose, folder_of
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


def with_goal(state: NDArray, goal: NDArray) -> NDArray:
    """Returns a state (S,) and a goal (F,) as the actor reads them."""
    return np.concatenate([state[: len(goal)], goal, state])  # stable-baselines3 sorts the parts by their names


class HerAgent:
    """Acts greedily by the trained actor, once a step."""

    action_block = 1

    def __init__(self, task: str, actor: Actor):
        self._spec, self._env, self._actor = envs.get_task(task), envs.make(task), actor

    def reset(self, goals: NDArray[np.uint8], seeds: Sequence[int]) -> None:
        self._goals: list[NDArray[np.float64]] = []

    def look(self, states: NDArray[np.float64], goal_states: NDArray[np.float64]) -> None:
        if not self._goals:
            size = len(self._spec.angles) + sum(self._spec.angles)
            self._goals = [self._read(state)[:size] for state in goal_states]
        self._seen = [with_goal(self._read(state), goal) for state, goal in zip(states, self._goals, strict=True)]

    def _read(self, state: NDArray[np.float64]) -> NDArray[np.float64]:
        self._env.set_state(state)
        return read_state(self._env, self._spec.angles)

    def act(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.stack([self._actor.act(seen) for seen in self._seen])[:, None].astype(np.float32)


def train(config: HerConfig) -> Path:
    """Trains, and returns the policy's folder. Goes on from a saved state; a finished folder is left alone."""
    if config.random_steps < (least := envs.get_task(config.task).far_budget):
        raise UserError(f"--random-steps must be at least {least}, an episode's length, not {config.random_steps}")
    folder = places.runs("her", f"{places.slug(config.task)}-seed{config.seed}")
    return train_on(GoalStateEnv, config, folder, config.num_hindsight)


def _commands(task: str, seed: int) -> list[Command]:
    folder = folder_of("sac", task, seed)
    done = (folder / "config.json").exists()
    return [] if done else [command("train-her", task=task, seed=seed, output=folder)]


def _make(task: str, seed: int) -> tuple[Agent, Facts]:
    actor, info = load_actor(folder_of("sac", task, seed), task, "train-her")
    parameters = sum(value.size for name, value in actor.weights.items() if not name.startswith("state_"))
    return HerAgent(task, actor), Facts(info.num_steps, 0, True, info.learning_seconds, parameters)


SAC = Rival("state of robot and goal, reward", _make, THREE_SEEDS, _commands, label="SAC with hindsight, from state")


def main(args: Sequence[str]) -> None:
    print(f"wrote {train(parse(HerConfig, args))}")  # noqa: T201
