"""Runs an agent on goal tasks. Success is judged here, from simulator state, and never reaches the agent."""

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from jepa_mpc import envs
from jepa_mpc.agent.base import Agent, PrivilegedAgent
from jepa_mpc.distributed import gather_lists, num_ranks, rank
from jepa_mpc.eval.goal_tasks import GoalTasks
from jepa_mpc.eval.protocols import HOLD_STEPS, Protocol, first_kept

BATCH_SIZE = 50  # episodes planned at once: enough to fill the cores, small enough to stay in cache


@dataclass(frozen=True)
class EpisodeRecord:
    """What one episode came to. Steps are environment steps, None where the thing did not happen in the budget."""

    pair: int
    success: bool  # by the protocol's own rule
    steps: int | None  # until then
    first_hit: int | None  # the pose within tolerance once
    held: int | None  # the pose within tolerance for `HOLD_STEPS`
    strict: int | None  # by the task's strict rule
    final_error: float  # of the pose
    best_error: float
    reward: float  # the simulator's own, summed; never shown to the agent


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
    protocol: Protocol,
    seed: int,
    budget: int,
    description: str,
    batch_size: int = BATCH_SIZE,
) -> tuple[list[EpisodeRecord], list[EpisodeTrace]]:
    """Every episode runs its whole budget in steps. One simulator serves all, by saving and restoring states.

    Several processes take turns at the batches, and all get all results.
    """
    records: list[EpisodeRecord] = []
    traces: list[EpisodeTrace] = []
    num_blocks = -(-budget // agent.action_block)
    starts = range(rank() * batch_size, len(tasks), num_ranks() * batch_size)
    total = num_blocks * sum(min(batch_size, len(tasks) - first) for first in starts)
    with tqdm(total=total, desc=description, unit="decision", leave=False, disable=rank() > 0) as bar:
        for first in starts:
            batch = tasks[first : first + batch_size]
            states = [[state] for state in batch.start_state]
            pictures = [[_picture(env, history[-1])] for history in states]
            judges = [_Judge(env, spec, *goal) for goal in zip(batch.goal_state, batch.goal_qpos, strict=True)]
            agent.reset(batch.goal_picture, [_episode_seed(seed, first + i) for i in range(len(batch))])
            for block_index in range(num_blocks):
                if isinstance(agent, PrivilegedAgent):
                    agent.look(np.stack([history[-1] for history in states]), batch.goal_state)
                blocks = agent.act(np.stack([seen[-1] for seen in pictures]))
                steps = min(agent.action_block, budget - block_index * agent.action_block)
                for i, block in enumerate(blocks):
                    env.set_state(states[i][-1])
                    for action in block[:steps]:
                        judges[i].see(env.advance(action))
                        states[i].append(env.get_state())
                    pictures[i].append(env.render())
                bar.update(len(blocks))
            records += [judge.record(first + i, protocol) for i, judge in enumerate(judges)]
            traces += [EpisodeTrace(np.stack(s), np.stack(p)) for s, p in zip(states, pictures, strict=True)]
    done = sorted(gather_lists(list(zip(records, traces, strict=True))), key=lambda pair: pair[0].pair)
    return [record for record, _ in done], [trace for _, trace in done]


class _Judge:
    """Watches one episode's simulator state against its goal."""

    def __init__(
        self, env: envs.PixelEnv, spec: envs.TaskSpec, goal_state: NDArray[np.float64], goal_qpos: NDArray[np.float64]
    ):
        self._env, self._spec, self._goal_qpos = env, spec, goal_qpos
        env.set_state(goal_state)
        self._goal_effector = env.position(spec.effector) if spec.effector else None
        self._errors: list[float] = []
        self._strict: list[bool] = []
        self._reward = 0.0

    def see(self, reward: float) -> None:
        error = self._spec.pose.error(self._env.qpos, self._goal_qpos)
        self._errors.append(error)
        if self._spec.effector is None or self._goal_effector is None:
            self._strict.append(self._spec.strict.success(self._env.qpos, self._goal_qpos))
        else:
            distance = np.linalg.norm(self._env.position(self._spec.effector) - self._goal_effector)
            self._strict.append(bool(distance < self._spec.effector_tolerance))
        self._reward += reward

    def record(self, pair: int, protocol: Protocol) -> EpisodeRecord:
        pose = np.array(self._errors) < self._spec.pose.tolerance
        strict = first_kept(np.array(self._strict), self._spec.strict_steps)
        steps = strict if protocol.strict else first_kept(pose, protocol.steps)
        return EpisodeRecord(
            pair=pair,
            success=steps is not None,
            steps=steps,
            first_hit=first_kept(pose, 1),
            held=first_kept(pose, HOLD_STEPS),
            strict=strict,
            final_error=self._errors[-1],
            best_error=min(self._errors),
            reward=self._reward,
        )


def time_decisions(
    agent: Agent,
    env: envs.PixelEnv,
    spec: envs.TaskSpec,
    tasks: GoalTasks,
    *,
    seed: int,
    num_decisions: int,
) -> list[float]:
    """Milliseconds of each decision, from picture to actions, of one episode planned alone."""
    milliseconds: list[float] = []
    num_blocks = spec.budget // agent.action_block
    while True:
        for i in range(len(tasks)):
            agent.reset(tasks.goal_picture[i : i + 1], [_episode_seed(seed, i)])
            env.set_state(tasks.start_state[i])
            picture = env.render()
            for _ in range(num_blocks):
                if isinstance(agent, PrivilegedAgent):
                    agent.look(env.get_state()[None], tasks.goal_state[i : i + 1])
                begin = time.perf_counter()
                (block,) = agent.act(picture[None])
                milliseconds.append(1e3 * (time.perf_counter() - begin))
                if len(milliseconds) == num_decisions + 1:
                    return milliseconds[1:]  # the first one warms up
                for action in block:
                    env.advance(action)
                picture = env.render()


def _episode_seed(seed: int, pair: int) -> int:
    return int(np.random.SeedSequence([seed, pair]).generate_state(1)[0])


def _picture(env: envs.PixelEnv, state: NDArray[np.float64]) -> NDArray[np.uint8]:
    env.set_state(state)
    return env.render()
