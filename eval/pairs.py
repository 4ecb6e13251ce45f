"""Start and goal pairs, simulated afresh under a seed of their own and stored, so every method meets the same.

Pair i depends on the seed and i alone: 50 pairs are the first 50 of 200. Their stream of random numbers is apart
from data collection's by construction (`seeds.episode_rng`), so no pair was ever trained on.
"""

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from jepa_mpc import envs
from jepa_mpc.agent.data_policies import find_policy
from jepa_mpc.errors import UserError
from jepa_mpc.files import read_arrays, require_folder, write_arrays
from jepa_mpc.places import slug
from jepa_mpc.provenance import simulator_version
from jepa_mpc.seeds import episode_rng

log = logging.getLogger(__name__)

MOST_DIVERGED = 20  # episodes in a row, before it is given up
MOST_SOLVED = 100  # draws in a row of which every pair is solved at its start


@dataclass(frozen=True)
class Pairs:
    """N pairs: simulator states to start from (N, S), goal poses (N, Q), goal pictures (N, H, W, 3) uint8."""

    start_state: NDArray[np.float64]
    goal_state: NDArray[np.float64]
    goal_qpos: NDArray[np.float64]
    goal_picture: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.start_state)

    def __getitem__(self, pairs: slice | NDArray[np.int64]) -> "Pairs":
        return Pairs(*(values[pairs] for values in vars(self).values()))


def sample_pair(env: envs.PixelEnv, spec: envs.TaskSpec, seed: int, index: int, far: bool) -> Pairs:
    """Draws one pair (N = 1): a state of a held-out episode of the data policy, and a goal that it does not satisfy.

    The goal is the state `goal_offset` steps later, or if `far` a pose of another held-out episode, at rest. Raises
    `UserError` if there seem to be no such pairs.
    """
    rng = episode_rng("goal", seed, index)
    for _ in range(MOST_SOLVED):
        states, poses = _sample_episode(env, spec, rng)
        if far:
            others = _sample_episode(env, spec, rng)[1]
            candidates = zip(rng.permutation(len(poses)), rng.permutation(len(others)), strict=True)
        else:
            others, starts = poses, rng.permutation(len(states) - spec.goal_offset)
            candidates = zip(starts, starts + spec.goal_offset, strict=True)
        unsolved = next((each for each in candidates if not spec.pose.success(poses[each[0]], others[each[1]])), None)
        if unsolved is not None:
            break
    else:
        how = "lower its tolerance" if far else "raise --goal-offset, or lower its tolerance"
        raise UserError(f"in {MOST_SOLVED} episodes of {spec.name} every goal is reached at the start; {how}")
    start, goal = unsolved
    if far:
        env.set_pose(others[goal])
    else:
        env.set_state(states[goal])
    return _pair(env, states[start], others[goal])


def _sample_episode(
    env: envs.PixelEnv, spec: envs.TaskSpec, rng: np.random.Generator
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """Simulates an episode; returns states and poses at every step. One that diverges gives way to the next."""
    for remaining in reversed(range(MOST_DIVERGED)):
        policy = find_policy(spec.data_policy, spec.name)(env, spec.action_block, rng)
        env.reset(seed=int(rng.integers(2**31)))
        states, poses = [np.array(env.get_state())], [np.array(env.qpos)]
        try:
            for _ in range(spec.episode_len // spec.action_block):
                for action in policy(None):
                    env.advance(action)
                    states.append(np.array(env.get_state()))  # an environment may go on with its own
                    poses.append(np.array(env.qpos))
            break
        except envs.Diverged as error:
            if isinstance(error, envs.Ended) and len(states) > spec.goal_offset:
                break
            if not remaining:
                raise
            _say_diverged(spec.name)
    return states, poses


@functools.cache
def _say_diverged(task: str) -> None:
    """Warns, once."""
    log.warning("simulations of %s diverge at times; their pairs are drawn anew", task)


def _pair(env: envs.PixelEnv, start: NDArray[np.float64], goal_qpos: NDArray[np.float64]) -> Pairs:
    """Returns one pair (N = 1), whose goal is what the simulator shows now."""
    return Pairs(*(np.array([value]) for value in (start, env.get_state(), goal_qpos, env.render())))


def suite_pairs(env: envs.PixelEnv, task: envs.SuiteTask, seed: int, num_episodes: int) -> Pairs:
    """Returns starts as the suite draws them, each with a picture of a pose at rest that earns the episode's reward."""
    episodes = []
    for index in range(num_episodes):
        env.reset(seed=int(episode_rng(task.name, seed, index).integers(2**31)))
        start, goal_qpos = np.array(env.get_state()), task.goal_pose(env)
        env.set_pose(goal_qpos)
        episodes.append(_pair(env, start, goal_qpos))
    return _concatenate(episodes)


def held_out_pairs(
    env: envs.PixelEnv, spec: envs.TaskSpec, seed: int, num_pairs: int, folder: Path, far: bool = False
) -> Pairs:
    """Returns the first `num_pairs` pairs of a seed, read from `folder` or simulated and stored there."""
    env.get_state()  # raises where there are no states to set
    version = simulator_version().replace(" ", "-")
    kind = "far" if far else f"offset{spec.goal_offset}"
    size = "" if spec.image_size == envs.get_task(spec.name).image_size else f"-{spec.image_size}px"
    model = f"-{spec.model}" if spec.model else ""
    path = folder / f"{slug(spec.name)}{model}-{kind}{size}-seed{seed}-{version}.npz"
    stored = _load(path, env)
    missing = range(sum(map(len, stored)), num_pairs)
    if missing:
        require_folder(folder, f"pairs under {folder}, which --home moves,")
    sampled = [sample_pair(env, spec, seed, i, far) for i in tqdm(missing, desc="sampling goals", leave=False)]
    pairs = _concatenate([*stored, *sampled])
    if sampled:
        write_arrays(path, vars(pairs), compress=True)
    return pairs[:num_pairs]


def _concatenate(pairs: Sequence[Pairs]) -> Pairs:
    return Pairs(*map(np.concatenate, zip(*(vars(each).values() for each in pairs), strict=True)))


def _load(path: Path, env: envs.PixelEnv) -> list[Pairs]:
    """Returns the stored pairs; nothing if there are none or they are of no use, since they can be simulated again."""
    if (stored := read_arrays(path)) is None:
        if path.exists():
            log.warning("%s is damaged or of an older version; its pairs are simulated again", path)
        return []
    pairs = Pairs(**{field.name: stored[field.name] for field in fields(Pairs)})
    return [pairs] if pairs.start_state.shape[1:] == env.get_state().shape else []
