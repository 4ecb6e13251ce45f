"""Runs an agent on goal tasks. Success is judged here, from simulator state, and never reaches the agent."""

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import envs
from agent.baselines import Agent
from eval.goal_tasks import GoalTasks

BATCH_SIZE = 50  # episodes planned at once: enough to fill the cores, small enough to stay in cache


@dataclass(frozen=True)
class EpisodeRecord:
    """What one episode came to."""

    pair: int
    success: bool  # within tolerance at any step of the budget
    steps: int | None  # environment steps until then
    final_error: float
    best_error: float


@dataclass(frozen=True)
class EpisodeTrace:
    """One episode to draw: states (T+1, S) at every step, and the pictures (K+1, H, W, 3) seen at block ends."""

    states: NDArray[np.float64]
    pictures: NDArray[np.uint8]


def run_episodes(
    agent: Agent,
    *,
    env: envs.PixelEnv,
    spec: envs.TaskSpec,
    tasks: GoalTasks,
    seed: int,
    budget: int,
    description: str,
) -> tuple[list[EpisodeRecord], list[EpisodeTrace]]:
    """Every episode runs its whole budget in steps. One simulator serves all, by saving and restoring states."""
    records: list[EpisodeRecord] = []
    traces: list[EpisodeTrace] = []
    num_blocks = -(-budget // spec.action_block)
    with tqdm(total=len(tasks) * num_blocks, desc=description, unit="decision", leave=False) as bar:
        for first in range(0, len(tasks), BATCH_SIZE):
            batch = tasks[first : first + BATCH_SIZE]
            states = [[state] for state in batch.start_state]
            errors: list[list[float]] = [[] for _ in states]
            pictures = [[_picture(env, history[-1])] for history in states]
            agent.reset(batch.goal_picture, [_episode_seed(seed, first + i) for i in range(len(batch))])
            for block_index in range(num_blocks):
                blocks = agent.act(np.stack([seen[-1] for seen in pictures]))
                steps = min(spec.action_block, budget - block_index * spec.action_block)
                for i, block in enumerate(blocks):
                    env.set_state(states[i][-1])
                    for action in block[:steps]:
                        env.advance(action)
                        states[i].append(env.get_state())
                        errors[i].append(spec.error(env.qpos, batch.goal_qpos[i]))
                    pictures[i].append(env.render())
                bar.update(len(blocks))
            for i, error in enumerate(errors):
                reached = [step for step, value in enumerate(error, start=1) if value < spec.tolerance]
                records.append(
                    EpisodeRecord(first + i, bool(reached), reached[0] if reached else None, error[-1], min(error))
                )
                traces.append(EpisodeTrace(np.stack(states[i]), np.stack(pictures[i])))
    return records, traces


def time_decisions(
    agent: Agent, env: envs.PixelEnv, spec: envs.TaskSpec, tasks: GoalTasks, *, seed: int, num_decisions: int
) -> list[float]:
    """Milliseconds of each decision, from picture to actions, of one episode planned alone."""
    milliseconds: list[float] = []
    num_blocks = spec.budget // spec.action_block
    for i in range(len(tasks)):
        agent.reset(tasks.goal_picture[i : i + 1], [_episode_seed(seed, i)])
        env.set_state(tasks.start_state[i])
        picture = env.render()
        for _ in range(num_blocks):
            begin = time.perf_counter()
            (block,) = agent.act(picture[None])
            milliseconds.append(1e3 * (time.perf_counter() - begin))
            if len(milliseconds) == num_decisions + 1:
                return milliseconds[1:]  # the first one warms up
            for action in block:
                env.advance(action)
            picture = env.render()
    return milliseconds[1:]


def _episode_seed(seed: int, pair: int) -> int:
    return int(np.random.SeedSequence([seed, pair]).generate_state(1)[0])


def _picture(env: envs.PixelEnv, state: NDArray[np.float64]) -> NDArray[np.uint8]:
    env.set_state(state)
    return env.render()
