"""Start and goal pairs, simulated afresh under a seed of their own and stored, so every method meets the same.

Pair i depends on the seed and i alone: 50 pairs are the first 50 of 200. Their stream of random numbers is apart
from data collection's by construction (`agent.collect.episode_rng`), so no pair was ever trained on.
"""

import os
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import envs
from agent.collect import episode_rng
from agent.policies import POLICIES
from envs.registry import simulator_version


@dataclass(frozen=True)
class GoalTasks:
    """N pairs: simulator states to start from (N, S), goal poses (N, Q), goal pictures (N, H, W, 3) uint8."""

    start_state: NDArray[np.float64]
    goal_state: NDArray[np.float64]
    goal_qpos: NDArray[np.float64]
    goal_picture: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.start_state)

    def __getitem__(self, pairs: slice) -> "GoalTasks":
        return GoalTasks(*(getattr(self, field.name)[pairs] for field in fields(self)))


def sample_pair(env: envs.PixelEnv, spec: envs.TaskSpec, seed: int, index: int) -> GoalTasks:
    """One pair (N = 1) from a held-out episode of the data policy: a start that is not solved, and the state
    `goal_offset` steps later."""
    rng = episode_rng("goal", seed, index)
    policy = POLICIES[spec.data_policy](env.action_space, spec.action_block, rng)
    while True:
        env.reset(seed=int(rng.integers(2**31)))
        states, poses = [env.get_state()], [env.qpos]
        for _ in range(spec.episode_len // spec.action_block):
            for action in policy(None):
                env.advance(action)
                states.append(env.get_state())
                poses.append(env.qpos)
        starts = rng.permutation(len(states) - spec.goal_offset)
        unsolved = (s for s in starts if not spec.success(poses[s], poses[s + spec.goal_offset]))
        if (start := next(unsolved, None)) is not None:
            break
    goal = start + spec.goal_offset
    env.set_state(states[goal])
    return GoalTasks(states[start][None], states[goal][None], poses[goal][None], env.render()[None])


def goal_tasks(env: envs.PixelEnv, spec: envs.TaskSpec, seed: int, num_pairs: int, folder: Path) -> GoalTasks:
    """The first `num_pairs` pairs of a seed, read from `folder` or simulated and stored there."""
    version = simulator_version().replace(" ", "-")
    path = folder / f"{spec.name}-offset{spec.goal_offset}-seed{seed}-{version}.npz"
    stored = _load(path)
    if stored is not None and len(stored) >= num_pairs:
        return stored[:num_pairs]
    pairs = [] if stored is None else [stored]
    for index in tqdm(range(0 if stored is None else len(stored), num_pairs), desc="sampling goals", leave=False):
        pairs.append(sample_pair(env, spec, seed, index))
    names = [field.name for field in fields(GoalTasks)]
    merged = GoalTasks(*(np.concatenate([getattr(pair, name) for pair in pairs]) for name in names))
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.npz")
    np.savez_compressed(unfinished, **vars(merged))
    os.replace(unfinished, path)
    return merged


def _load(path: Path) -> GoalTasks | None:
    """The stored pairs; None if there are none or they cannot be read, since they can be simulated again."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return GoalTasks(**{field.name: file[field.name] for field in fields(GoalTasks)})
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return None
