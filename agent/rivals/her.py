"""Goal-conditioned reinforcement learning from state: SAC with hindsight (Andrychowicz et al., 2017), privileged.

`jepa-mpc train-her --task reacher` trains it by stable-baselines3 on a sparse reward. It reads the state of the
simulator and of the goal, where the planner has pictures of both, and acts at every step.
"""

if __name__ == "__main__":  # first, so that Ctrl-C in the imports below is answered too
    from jepa_mpc.cli import run

    run("train-her")

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from jepa_mpc import envs, files, places
from jepa_mpc.agent.base import Agent
from jepa_mpc.agent.data_policies.sac import STATE_LIMIT, Actor, load_policy, normalise, read_state, save_policy
from jepa_mpc.agent.data_policies.train_sac import export_actor, learner, measure_states, policy_info
from jepa_mpc.agent.rivals.base import THREE_SEEDS, Command, Facts, Rival, command, folder_of
from jepa_mpc.agent.rivals.goals import draw_pose
from jepa_mpc.cli import parse
from jepa_mpc.seeds import episode_rng
from jepa_mpc.settings import Count, Fraction, Positive, Range, Seed, checked, to_json


@dataclass(frozen=True)
class HerConfig:
    """Train SAC with hindsight relabelling to reach goal poses, from state and a sparse reward."""

    task: str = "reacher"
    """Task in the registry."""
    output: Path | None = None
    """Folder for the policy; `runs/her/<task>-seed<seed>` unless given."""
    seed: Seed = 0
    """Decides the initial weights, the episodes and every random draw."""
    num_steps: Count = 20_000
    """Environment steps, and as many gradient steps."""
    random_steps: Count = 1000
    """The first of them, of uniform actions."""
    batch_size: Annotated[int, Range(2, 10**6)] = 256
    """Transitions in a gradient step."""
    hidden_sizes: tuple[Count, ...] = (256, 256)
    """Layers of the actor and of each critic."""
    learning_rate: Positive = 1e-3
    """Step of Adam."""
    discount: Fraction = 0.95
    """Of rewards, from one step to the next."""
    num_hindsight: Count = 4
    """Goals that were reached later in the episode, for each that was asked for."""


def pose_features(qpos: NDArray[np.floating], angles: tuple[bool, ...]) -> NDArray[np.float32]:
    """Returns a pose (Q,) as cosines and sines of its angles, and the other coordinates."""
    turning = np.array(angles)
    return np.concatenate([np.cos(qpos[turning]), np.sin(qpos[turning]), qpos[~turning]]).astype(np.float32)


def pose_of(features: NDArray[np.floating], angles: tuple[bool, ...]) -> NDArray[np.float64]:
    """Returns the poses (..., Q) of features (..., F), angles within ±π."""
    turning = np.array(angles)
    cosines, sines, rest = np.split(features.astype(np.float64), [turning.sum(), 2 * turning.sum()], axis=-1)
    qpos = np.empty((*features.shape[:-1], len(angles)))
    qpos[..., turning], qpos[..., ~turning] = np.arctan2(sines, cosines), rest
    return qpos


class GoalStateEnv(gym.Env[dict[str, NDArray[np.float32]], NDArray[np.float32]]):
    """A task without pictures: state, pose and goal pose as vectors; the reward is −1 until the pose is the goal's."""

    action_space: gym.spaces.Box  # type: ignore[assignment]
    observation_space: gym.spaces.Dict  # type: ignore[assignment]

    def __init__(self, env: envs.PixelEnv, spec: envs.TaskSpec, seed: int, random_steps: int):
        self._env, self._spec, self._seed = env, spec, seed
        self._episode = self._steps = 0
        self.action_space = env.action_space
        self.mean, self.std = measure_states(env, spec, seed, random_steps)
        pose = gym.spaces.Box(-np.inf, np.inf, pose_features(env.qpos, spec.angles).shape, np.float32)
        state = gym.spaces.Box(-STATE_LIMIT, STATE_LIMIT, self.mean.shape, np.float32)
        self.observation_space = gym.spaces.Dict({"observation": state, "achieved_goal": pose, "desired_goal": pose})

    def _observe(self) -> dict[str, NDArray[np.float32]]:
        state = normalise(read_state(self._env, self._spec.angles), self.mean, self.std)
        pose = pose_features(self._env.qpos, self._spec.angles)
        return {"observation": state, "achieved_goal": pose, "desired_goal": self._goal}

    def reset(self, *, seed=None, options=None):
        rng = episode_rng("her", self._seed, self._episode)
        self._episode, self._steps = self._episode + 1, 0
        self._goal = pose_features(draw_pose(self._env, self._spec, rng), self._spec.angles)
        self._env.reset(seed=int(rng.integers(2**31)))
        return self._observe(), {}

    def step(self, action):
        self._env.advance(action)
        self._steps += 1
        seen = self._observe()
        reward = float(self.compute_reward(seen["achieved_goal"], self._goal, {}))
        return seen, reward, False, self._steps >= self._spec.far_budget, {}

    def compute_reward(self, achieved: NDArray, desired: NDArray, info: Any) -> NDArray[np.float32]:
        """Returns 0 in the goal, −1 elsewhere, for poses (..., F): what hindsight asks for goals that it puts in."""
        angles, pose = self._spec.angles, self._spec.pose
        errors = pose.errors(pose_of(achieved, angles), pose_of(desired, angles))
        return (errors < pose.tolerance).astype(np.float32) - 1


class HerAgent:
    """Acts greedily by the trained actor, once a step."""

    action_block = 1

    def __init__(self, task: str, actor: Actor):
        self._spec, self._env, self._actor = envs.get_task(task), envs.make(task), actor

    def reset(self, goals: NDArray[np.uint8], seeds: Sequence[int]) -> None:
        self._goals: list[NDArray[np.float32]] = []

    def look(self, states: NDArray[np.float64], goal_states: NDArray[np.float64]) -> None:
        env, angles = self._env, self._spec.angles
        if not self._goals:
            for state in goal_states:
                env.set_state(state)
                self._goals.append(pose_features(env.qpos, angles))
        self._seen = []
        for state, goal in zip(states, self._goals, strict=True):
            env.set_state(state)
            # stable-baselines3 puts the parts in the order of their names.
            self._seen.append(np.concatenate([pose_features(env.qpos, angles), goal, read_state(env, angles)]))

    def act(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.stack([self._actor.act(seen) for seen in self._seen])[:, None].astype(np.float32)


def train(config: HerConfig) -> Path:
    """Trains, and returns the policy's folder; a finished one is left alone."""
    config = checked(config)
    spec = envs.get_task(config.task)
    folder = config.output or places.runs("her", f"{places.slug(config.task)}-seed{config.seed}")
    settings = {name: value for name, value in to_json(config).items() if name != "output"}
    with files.claimed(folder, settings):
        if not (folder / "config.json").exists():
            _train(config, spec, folder, settings)
    return folder


def _train(config: HerConfig, spec: envs.TaskSpec, folder: Path, settings: dict[str, Any]) -> None:
    began = time.monotonic()
    env = GoalStateEnv(envs.make(config.task), spec, config.seed, config.random_steps)
    hindsight = {"n_sampled_goal": config.num_hindsight, "goal_selection_strategy": "future"}
    options = {"buffer_size": config.num_steps, "replay_buffer_kwargs": hindsight}
    sac = learner("MultiInputPolicy", config, env, hindsight=True, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that rich's bar is young
        sac.learn(config.num_steps, progress_bar=True)
    goals = np.zeros(2 * len(pose_features(np.zeros(len(spec.angles)), spec.angles)), np.float32)
    actor = export_actor(sac, np.concatenate([goals, env.mean]), np.concatenate([goals + 1, env.std]))
    save_policy(folder, actor, policy_info(actor, spec, settings, sac.num_timesteps, time.monotonic() - began))


def _commands(task: str, seed: int) -> list[Command]:
    folder = folder_of("sac", task, seed)
    done = (folder / "config.json").exists()
    return [] if done else [command("train-her", task=task, seed=seed, output=folder)]


def _make(task: str, seed: int) -> tuple[Agent, Facts]:
    actor, info = load_policy(folder_of("sac", task, seed), task, "train-her")
    parameters = sum(value.size for name, value in actor.weights.items() if not name.startswith("state_"))
    return HerAgent(task, actor), Facts(info.num_steps, 0, True, info.learning_seconds, parameters)


SAC = Rival("state of robot and goal, reward", _make, THREE_SEEDS, _commands)


def main(args: Sequence[str]) -> None:
    print(f"wrote {train(parse(HerConfig, args))}")  # noqa: T201
