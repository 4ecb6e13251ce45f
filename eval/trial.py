"""Runs an agent on start and goal pairs. Success is judged here, from simulator state, and never reaches the agent."""

import itertools
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from jepa_mpc import places
from jepa_mpc.agent.base import Agent, DoNothingAgent, PrivilegedAgent, RandomAgent, SurprisedAgent, next_blocks
from jepa_mpc.distributed import gather_lists, num_ranks, rank
from jepa_mpc.envs import Diverged, PixelEnv, SuiteTask, TaskSpec
from jepa_mpc.envs.blocks import run_block
from jepa_mpc.errors import UserError
from jepa_mpc.eval.pairs import Pairs, held_out_pairs, suite_pairs
from jepa_mpc.eval.protocols import HOLD_STEPS, PROTOCOLS, SUITE_CONTROL_STEPS, Protocol, first_kept
from jepa_mpc.seeds import search_seed

log = logging.getLogger(__name__)

S = TypeVar("S")
State = NDArray[np.float64]
BATCH_SIZE = 50  # episodes planned at once: enough to fill the cores, small enough to stay in cache


@dataclass(frozen=True)
class EpisodeRecord:
    """What one episode came to. Steps are environment steps, None where the thing did not happen in the budget; errors
    and the distance are in the unit of the task's pose.
    """

    pair: int
    success: bool  # by the protocol's own rule
    steps: int | None  # until then
    first_hit: int | None  # the pose within tolerance once
    held: int | None  # the pose within tolerance for `HOLD_STEPS`
    strict: int | None  # by the task's strict rule
    final_error: float  # of the pose
    best_error: float
    reward: float  # the simulator's own, summed; never shown to the agent
    distance: float | None = None  # of the start from the goal; results of older versions do not say
    surprise: float | None = None  # of the agent, the median over its pictures; None where it does not know


@dataclass(frozen=True)
class EpisodeTrace:
    """One episode to draw: states (T+1, S) at every step, and the pictures (K+1, H, W, 3) seen at block ends, with what
    was felt then (K+1, P).
    """

    states: NDArray[np.float64]
    pictures: NDArray[np.uint8]
    proprio: NDArray[np.float32]


class Camera:
    """How a trial's pictures are taken: as the simulator draws them."""

    def goals(self, env: PixelEnv, pairs: Pairs, first: int) -> Any:
        """Returns what agents take for the goals of pairs, the first of which has that number: here pictures
        (N, H, W, 3).
        """
        return pairs.goal_picture

    def picture(self, env: PixelEnv, pair: int, block: int, num_blocks: int) -> NDArray[np.uint8]:
        """Returns the picture (H, W, 3) of the present state, so many of an episode's blocks after its start."""
        return np.array(env.render())


@dataclass(frozen=True)
class Trial:
    """Goals to reach in a simulator within a budget, judged by a protocol: the same for every agent.

    One simulator serves all episodes, by saving and restoring states.
    """

    env: PixelEnv
    spec: TaskSpec
    pairs: Pairs
    protocol: Protocol
    seed: int  # decides the agents' own random numbers, pair by pair
    budget: int  # environment steps; every episode runs all of them
    camera: Camera = Camera()

    def __post_init__(self):
        if not len(self.pairs) or self.budget < 1:
            raise UserError("a trial needs at least one pair and one step")

    @classmethod
    def on_pairs(
        cls, env: PixelEnv, spec: TaskSpec, protocol: str, seed: int, num_pairs: int, budget: int | None = None
    ) -> "Trial":
        """Returns the trial of a protocol's held-out pairs, of its own budget unless another is given."""
        spec.check(env)
        rule = PROTOCOLS[protocol]
        pairs = held_out_pairs(env, spec, seed, num_pairs, places.goal_pairs(), rule.far)
        return cls(env, spec, pairs, rule, seed, budget or rule.budget(spec))

    @classmethod
    def on_suite(
        cls, env: PixelEnv, spec: TaskSpec, task: SuiteTask, seed: int, num_episodes: int, budget: int | None = None
    ) -> "Trial":
        """Returns the trial of a suite task's own episodes, of the suite's length unless another is given."""
        steps = budget or SUITE_CONTROL_STEPS // spec.action_repeat
        rule = PROTOCOLS["far"]  # any rule serves: what counts is the reward
        return cls(env, spec, suite_pairs(env, task, seed, num_episodes), rule, seed, steps)

    def run(
        self, agent: Agent, description: str = "", batch_size: int = BATCH_SIZE
    ) -> tuple[list[EpisodeRecord], list[EpisodeTrace]]:
        """Returns what each pair's episode came to, and its trace.

        Several processes share the episodes evenly, and all get all results.
        """
        first, end = ((rank() + more) * len(self.pairs) // num_ranks() for more in (0, 1))
        done: list[tuple[EpisodeRecord, EpisodeTrace]] = []
        total = _num_blocks(agent, self.budget) * (end - first)
        with tqdm(total=total, desc=description, unit="decision", leave=False, disable=rank() > 0) as bar:
            for start in range(first, end, batch_size):
                done += self._run_batch(agent, range(start, min(start + batch_size, end)), bar)
        records, traces = zip(*gather_lists(done), strict=True)
        return list(records), list(traces)

    def _run_batch(self, agent: Agent, numbers: range, bar: tqdm) -> list[tuple[EpisodeRecord, EpisodeTrace]]:
        batch = self.pairs[numbers.start : numbers.stop]
        states = [[state] for state in batch.start_state]
        num_blocks = _num_blocks(agent, self.budget)
        pictures: list[list[NDArray[np.uint8]]] = []
        felt: list[list[NDArray[np.float32]]] = []
        for pair, state in zip(numbers, batch.start_state, strict=True):
            self.env.set_state(state)
            pictures.append([self.camera.picture(self.env, pair, 0, num_blocks)])
            felt.append([self.env.proprio])
        pairs = zip(batch.start_state, batch.goal_state, batch.goal_qpos, strict=True)
        judges = [Judge(self.env, self.spec, *pair) for pair in pairs]
        lost: set[int] = set()  # episodes whose simulation has diverged
        goals = self.camera.goals(self.env, batch, numbers.start)
        agent.reset(goals, [search_seed(self.seed, pair) for pair in numbers])
        surprises: list[NDArray[np.floating]] = []
        for index in range(num_blocks):
            if isinstance(agent, PrivilegedAgent):
                agent.look(np.stack([history[-1] for history in states]), batch.goal_state)
            blocks = next_blocks(agent, np.stack([seen[-1] for seen in pictures]), [each[-1] for each in felt])
            surprises.append(agent.surprise() if isinstance(agent, SurprisedAgent) else np.full(len(blocks), np.nan))
            for i, block in enumerate(blocks):
                self.env.set_state(states[i][-1])
                try:
                    for action in block[: self.budget - index * agent.action_block] if i not in lost else ():
                        judges[i].see(self.env.advance(action))
                        states[i].append(np.array(self.env.get_state()))  # an environment may go on with its own
                except Diverged:  # such an episode stays where it was last well
                    lost.add(i)
                    self.env.set_state(states[i][-1])
                pictures[i].append(self.camera.picture(self.env, numbers[i], index + 1, num_blocks))
                felt[i].append(self.env.proprio)
            bar.update(len(blocks))
        if lost:
            log.warning("the simulation of %d of %d episodes diverged; they end there", len(lost), len(states))
        medians = np.median(surprises[1:], axis=0) if len(surprises) > 1 else np.full(len(numbers), np.nan)
        ended = zip(numbers, judges, medians.tolist(), strict=True)
        records = [
            replace(judge.record(pair, self.protocol), surprise=None if math.isnan(median) else median)
            for pair, judge, median in ended
        ]
        traces = [EpisodeTrace(*map(np.stack, each)) for each in zip(states, pictures, felt, strict=True)]
        return list(zip(records, traces, strict=True))

    def baselines(self, summarise: Callable[[list[EpisodeRecord]], S]) -> dict[str, S]:
        """Returns what agents come to, on the same episodes, that show what a figure is worth."""
        space, block = self.env.action_space, self.spec.action_block
        agents: dict[str, Agent] = {"random": RandomAgent(space, block), "do_nothing": DoNothingAgent(space, block)}
        return {name: summarise(self.run(agent, name)[0]) for name, agent in agents.items()}

    def time_decisions(self, agent: Agent, num_decisions: int) -> list[float]:
        """Returns milliseconds of each decision, from picture to actions, of one episode planned alone."""
        milliseconds: list[float] = []
        num_blocks = _num_blocks(agent, self.spec.budget)
        numbers = itertools.cycle(range(len(self.pairs)))
        while True:
            i = next(numbers)
            agent.reset(self.camera.goals(self.env, self.pairs[i : i + 1], i), [search_seed(self.seed, i)])
            picture, felt = self.env.picture_of(self.pairs.start_state[i]), self.env.proprio
            for _ in range(num_blocks):
                if isinstance(agent, PrivilegedAgent):
                    agent.look(self.env.get_state()[None], self.pairs.goal_state[i : i + 1])
                begin = time.perf_counter()
                (block,) = next_blocks(agent, picture[None], [felt])
                milliseconds.append(1e3 * (time.perf_counter() - begin))
                if len(milliseconds) == num_decisions + 1:
                    return milliseconds[1:]  # the first one warms up
                run_block(self.env, block)
                picture, felt = self.env.render(), self.env.proprio


class Judge:
    """Watches one episode's simulator state against its goal."""

    def __init__(self, env: PixelEnv, spec: TaskSpec, start: State, goal: State, goal_qpos: State):
        self._env, self._spec, self._goal_qpos = env, spec, goal_qpos
        env.set_state(start)
        self._distance = spec.pose.error(env.qpos, goal_qpos)
        env.set_state(goal)
        self._goal_effector = np.array(env.position(spec.effector)) if spec.effector else None
        self._strict_test = spec.strict
        self._errors: list[float] = []
        self._strict: list[bool] = []
        self._reward = 0.0

    def see(self, reward: float) -> None:
        self._errors.append(self._spec.pose.error(self._env.qpos, self._goal_qpos))
        if self._spec.effector is None or self._goal_effector is None:
            self._strict.append(self._strict_test.success(self._env.qpos, self._goal_qpos))
        else:
            distance = np.linalg.norm(self._env.position(self._spec.effector) - self._goal_effector)
            self._strict.append(bool(distance < self._spec.effector_tolerance))
        self._reward += reward

    def record(self, pair: int, protocol: Protocol) -> EpisodeRecord:
        pose = np.array(self._errors) < self._spec.pose.tolerance
        strict = first_kept(np.array(self._strict), self._spec.strict_steps)
        steps = strict if protocol.strict else first_kept(pose, protocol.steps)
        first, held = first_kept(pose, 1), first_kept(pose, HOLD_STEPS)
        seen = self._errors or [self._distance]  # nothing was seen where the first step diverged
        errors = seen[-1], min(seen)
        return EpisodeRecord(pair, steps is not None, steps, first, held, strict, *errors, self._reward, self._distance)


def _num_blocks(agent: Agent, steps: int) -> int:
    return -(-steps // agent.action_block)
