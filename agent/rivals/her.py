"""Goal-conditioned reinforcement learning from state: SAC with hindsight (Andrychowicz et al., 2017), privileged.

`python agent/rivals/her.py --task reacher` trains it by stable-baselines3 on a sparse reward. It reads the state of the
simulator and of the goal, where the planner has pictures of both, and acts at every step.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import tyro
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from tqdm import tqdm

from jepa_mpc import envs
from jepa_mpc.agent.collect import episode_rng
from jepa_mpc.agent.data_policies.sac import STATE_LIMIT, Actor, PolicyError, normalise, read_state
from jepa_mpc.agent.data_policies.train_sac import export_actor, measure_states
from jepa_mpc.agent.rivals.goals import draw_pose
from jepa_mpc.world_model.checkpoint import git_commit


@dataclass(frozen=True)
class HerConfig:
    """Train SAC with hindsight relabelling to reach goal poses, from state and a sparse reward."""

    task: str = "reacher"
    """Task in the registry."""
    output: Path | None = None
    """Folder for the policy; `runs/her/<task>-seed<seed>` unless given."""
    seed: int = 0
    num_steps: int = 20_000
    """Environment steps, and as many gradient steps."""
    random_steps: int = 1000
    """The first of them, of uniform actions."""
    batch_size: int = 256
    hidden_sizes: tuple[int, ...] = (256, 256)
    learning_rate: float = 1e-3
    discount: float = 0.95
    num_hindsight: int = 4
    """Goals that were reached later in the episode, for each that was asked for."""


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
    try:
        from stable_baselines3 import SAC, HerReplayBuffer
        from stable_baselines3.common.callbacks import BaseCallback
    except ImportError as error:
        raise PolicyError(
            f"stable-baselines3 is missing; install it with `pip install -e '.[rl]'` ({error})"
        ) from error
    for option in ("num_steps", "random_steps", "batch_size", "num_hindsight"):
        if (value := getattr(config, option)) < 1:
            raise PolicyError(f"--{option.replace('_', '-')} must be at least 1, not {value}")
    if config.seed < 0:
        raise PolicyError(f"--seed must be at least 0, not {config.seed}")
    spec = envs.get_task(config.task)
    name = f"{config.task.replace('/', '-')}-seed{config.seed}"
    path = (config.output or Path("runs/her") / name) / "actor.safetensors"
    if path.exists():
        return path
    began = time.monotonic()
    env = GoalStateEnv(envs.make(config.task), spec, config.seed, config.random_steps)
    sac = SAC(
        "MultiInputPolicy",
        env,
        learning_rate=config.learning_rate,
        buffer_size=config.num_steps,
        learning_starts=config.random_steps,
        batch_size=config.batch_size,
        gamma=config.discount,
        replay_buffer_class=HerReplayBuffer,
        replay_buffer_kwargs={"n_sampled_goal": config.num_hindsight, "goal_selection_strategy": "future"},
        policy_kwargs={"net_arch": list(config.hidden_sizes)},
        seed=config.seed,
        device="cpu",
    )

    class Bar(BaseCallback):
        def _on_training_start(self) -> None:
            self.bar = tqdm(total=config.num_steps, desc=f"SAC with hindsight on {config.task}", unit="step")

        def _on_step(self) -> bool:
            self.bar.update()
            return True

        def _on_training_end(self) -> None:
            self.bar.close()

    sac.learn(config.num_steps, callback=Bar())
    goals = np.zeros(2 * len(pose_features(np.zeros(len(spec.angles)), spec.angles)), np.float32)
    mean, std = np.concatenate([goals, env.mean]), np.concatenate([goals + 1, env.std])
    info = {
        **json.loads(json.dumps(asdict(config), default=str)),
        "learning_seconds": round(time.monotonic() - began, 1),
        "action_low": env.action_space.low.tolist(),
        "action_high": env.action_space.high.tolist(),
        "commit": git_commit(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_bytes(save(export_actor(sac, mean, std).weights, {"info": json.dumps(info)}))
    os.replace(unfinished, path)
    return path


def load_actor(path: Path) -> tuple[Actor, dict[str, Any]]:
    """The actor and how it was trained. Raises `PolicyError` if it is missing or damaged."""
    if not path.is_file():
        raise PolicyError(f"no policy at {path}; train one with `python agent/rivals/her.py`")
    try:
        with safe_open(path, "np") as file:
            info = json.loads(file.metadata()["info"])
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        low, high = (np.array(info[name], np.float32) for name in ("action_low", "action_high"))
        return Actor(weights, low, high), info
    except (OSError, KeyError, ValueError, TypeError, SafetensorError) as error:
        raise PolicyError(f"policy {path} is damaged ({error}); delete it and train it again") from error


def main() -> None:
    try:
        print(f"wrote {train(tyro.cli(HerConfig))}")  # noqa: T201
    except (PolicyError, envs.EnvError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; begin again with the same command")


if __name__ == "__main__":
    main()
