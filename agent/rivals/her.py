"""Goal-conditioned reinforcement learning from state: SAC with hindsight (Andrychowicz et al., 2017), privileged.

`jepa-mpc train-her --task reacher` trains it by stable-baselines3 on a sparse reward. It reads the state of the
simulator and of the goal, where the planner has pictures of both, and acts at every step.
"""

if __name__ == "__main__":  # first, so that Ctrl-C in the imports below is answered too
    from jepa_mpc.cli import run

    run("train-her")

import json
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from jepa_mpc import envs, files, places
from jepa_mpc.agent.base import Agent
from jepa_mpc.agent.data_policies.sac import STATE_LIMIT, Actor, normalise, read_state, read_weights
from jepa_mpc.agent.data_policies.train_sac import NO_RL, export_actor, measure_states
from jepa_mpc.agent.rivals.base import THREE_SEEDS, Command, Facts, Rival, command, folder_of
from jepa_mpc.agent.rivals.goals import draw_pose
from jepa_mpc.cli import parse
from jepa_mpc.errors import UserError, reason
from jepa_mpc.provenance import git_commit
from jepa_mpc.seeds import episode_rng
from jepa_mpc.settings import Count, Fraction, NonNegative, Positive, Range, Seed, checked, read, to_json


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


@dataclass(frozen=True)
class HerInfo(HerConfig):
    """What stands in the actor's file: how it was trained, and what it is for."""

    action_low: tuple[float, ...] = ()
    action_high: tuple[float, ...] = ()
    learning_seconds: NonNegative = 0.0
    commit: str = ""


def pose_features(qpos: NDArray[np.floating], angles: tuple[bool, ...]) -> NDArray[np.float32]:
    """A pose (Q,) as cosines and sines of its angles, and the other coordinates."""
    turning = np.array(angles)
    return np.concatenate([np.cos(qpos[turning]), np.sin(qpos[turning]), qpos[~turning]]).astype(np.float32)


def pose_of(features: NDArray[np.floating], angles: tuple[bool, ...]) -> NDArray[np.float64]:
    """The poses (..., Q) of features (..., F), angles within ±π."""
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
        """0 in the goal, −1 elsewhere, for poses (..., F): what hindsight asks for goals that it puts in."""
        angles, pose = self._spec.angles, self._spec.pose
        errors = pose.errors(pose_of(achieved, angles), pose_of(desired, angles))
        return (errors < pose.tolerance).astype(np.float32) - 1


class HerAgent:
    """Greedy actions of the trained actor, one a step."""

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
    """Trains, and returns the policy's file; a finished one is left alone."""
    config = checked(config)
    try:
        import stable_baselines3
    except ImportError as error:
        raise UserError(f"{NO_RL} ({error})") from error
    spec = envs.get_task(config.task)
    folder = config.output or places.runs("her", f"{places.slug(config.task)}-seed{config.seed}")
    path, settings = folder / "actor.safetensors", to_json(config)
    with files.claimed(folder, settings, free=("output",)):
        if path.exists():
            return path
        began = time.monotonic()
        env = GoalStateEnv(envs.make(config.task), spec, config.seed, config.random_steps)
        sac = stable_baselines3.SAC(
            "MultiInputPolicy",
            env,
            learning_rate=config.learning_rate,
            buffer_size=config.num_steps,
            learning_starts=config.random_steps,
            batch_size=config.batch_size,
            gamma=config.discount,
            replay_buffer_class=stable_baselines3.HerReplayBuffer,
            replay_buffer_kwargs={"n_sampled_goal": config.num_hindsight, "goal_selection_strategy": "future"},
            policy_kwargs={"net_arch": list(config.hidden_sizes)},
            seed=config.seed,
            device="cpu",
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that rich's bar is young
            sac.learn(config.num_steps, progress_bar=True)
        goals = np.zeros(2 * len(pose_features(np.zeros(len(spec.angles)), spec.angles)), np.float32)
        mean, std = np.concatenate([goals, env.mean]), np.concatenate([goals + 1, env.std])
        actor = export_actor(sac, mean, std)
        info = HerInfo(
            **vars(config),
            action_low=tuple(actor.low.tolist()),
            action_high=tuple(actor.high.tolist()),
            learning_seconds=round(time.monotonic() - began, 1),
            commit=git_commit(),
        )
        files.write_whole(path, save(actor.weights, {"info": json.dumps(to_json(info))}))
    return path


def load_actor(path: Path) -> tuple[Actor, HerInfo]:
    """Returns the actor and how it was trained. Raises `UserError` if it is missing or damaged."""
    fix = "train it with `jepa-mpc train-her`"
    try:
        with safe_open(path, "np") as file:
            stored = json.loads((file.metadata() or {}).get("info", "null"))
    except FileNotFoundError as error:
        raise UserError(f"no policy at {path}; {fix}") from error
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{path} is damaged ({reason(error)}); delete it and {fix}") from error
    info = read(HerInfo, stored, f"{path} is damaged")
    weights = read_weights(path, info.hidden_sizes, len(info.action_low))
    return Actor(weights, np.array(info.action_low, np.float32), np.array(info.action_high, np.float32)), info


def _place(task: str, seed: int) -> Path:
    return folder_of("sac", task, seed) / "actor.safetensors"


def _train(task: str, seed: int) -> list[Command]:
    path = _place(task, seed)
    return [] if path.exists() else [command("train-her", task=task, seed=seed, output=path.parent)]


def _make(task: str, seed: int) -> tuple[Agent, Facts]:
    actor, info = load_actor(_place(task, seed))
    parameters = sum(value.size for name, value in actor.weights.items() if not name.startswith("state_"))
    return HerAgent(task, actor), Facts(info.num_steps, 0, True, info.learning_seconds, parameters)


SAC = Rival("state of robot and goal, reward", _make, THREE_SEEDS, _train)


def main(args: Sequence[str]) -> None:
    print(f"wrote {train(parse(HerConfig, args))}")  # noqa: T201
