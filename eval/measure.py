"""The three kinds of run: to the goals of a protocol's pairs, for the control suite's reward, to a picture.

Each returns its results but for what every run says of itself, which its caller adds.
"""

import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jepa_mpc import envs
from jepa_mpc.agent.base import next_blocks
from jepa_mpc.agent.numbers import GoalState, read_goal
from jepa_mpc.agent.planning_agent import PlanningAgent
from jepa_mpc.distributed import gather_lists, rank
from jepa_mpc.errors import UserError
from jepa_mpc.eval import report, video
from jepa_mpc.eval.metrics import summarise, summarise_returns
from jepa_mpc.eval.numbers import NumberGoals, Truth, allowed, limit_facts, number_facts
from jepa_mpc.eval.results import (
    DecisionTime,
    NumberResults,
    PairResults,
    PictureResults,
    SuiteResults,
    SuiteReturns,
)
from jepa_mpc.eval.trial import BATCH_SIZE, EpisodeTrace, Trial

if TYPE_CHECKING:
    from jepa_mpc.eval.run_planning import RunConfig

log = logging.getLogger(__name__)

DISTANCE, REACHED = "latent_distance.png", "goal_and_final.png"
NUM_VIDEO_EPISODES = 4
NUM_TIMED_DECISIONS = 100


@dataclass(frozen=True)
class Run:
    """What every kind of run needs."""

    config: "RunConfig"
    spec: envs.TaskSpec
    env: envs.PixelEnv
    agent: PlanningAgent
    folder: Path | None  # for pictures
    batch_size: int = BATCH_SIZE  # episodes planned at once
    truth: Truth | None = None  # of the numbers that the agent reads


def on_pairs(run: Run) -> Callable[..., PairResults]:
    """Reaches for the goals of a protocol's held-out pairs, with baselines on the same pairs."""
    config, spec = run.config, run.spec
    trial = Trial.on_pairs(run.env, spec, config.protocol, config.seed, config.num_episodes, config.budget)
    trial = _by_numbers(run, trial)
    records, traces = trial.run(run.agent, "planning", run.batch_size)
    baselines = trial.baselines(partial(summarise, budget=trial.budget))
    if run.folder is not None:
        seen = zip(traces, trial.pairs.goal_picture, strict=True)
        distances = np.stack([run.agent.latent_distance(trace.pictures, goal) for trace, goal in seen])
        report.write_latent_distance(run.folder / DISTANCE, distances, records, spec)
        if config.video:
            few = slice(NUM_VIDEO_EPISODES)
            with contextlib.closing(envs.make(config.task, image_size=video.PANEL)) as with_detail:
                video.write_videos(run.folder, with_detail, trial.pairs[few], traces[few], records[few])
    return partial(
        PairResults,
        **vars(summarise(records, trial.budget)),
        protocol=trial.protocol.rule(spec, trial.budget),
        baselines=baselines,
        decision_ms=_time(run, trial),
        episodes=records,
        **_numbers(run, traces, None if run.truth is None else run.truth.goals(trial.pairs, _named(run))),
    )


def _by_numbers(run: Run, trial: Trial) -> Trial:
    """Returns the trial with goals told by numbers, where they are to be, and without pairs that limits forbid."""
    numbers, truth, names = run.agent.numbers, run.truth, _named(run)
    if numbers is None or truth is None:
        return trial
    if names:
        goals = truth.goals(trial.pairs, names)
        for name in names:
            if np.isnan(goals[:, numbers.probe.index(name, "--goal-state")]).any():
                raise UserError(f"the simulator does not know {name!r} of a pair's goal; say --labels as it was fitted")
        trial = replace(trial, camera=NumberGoals(truth, names))
    if numbers.limited:
        kept = allowed(numbers, truth, trial.pairs)
        if not len(kept):
            raise UserError(
                "no pair begins and ends where --keep and --avoid allow; widen them, or raise --num-episodes"
            )
        if len(kept) < len(trial.pairs):
            log.info("%d of %d pairs begin and end where the agent may be", len(kept), len(trial.pairs))
        trial = replace(trial, pairs=trial.pairs[kept])
    return trial


def _named(run: Run) -> list[str]:
    """Returns the numbers by which an agent is told its goals; none where it is shown pictures."""
    return list(read_goal(run.config.by_numbers.goal_state))


def _numbers(run: Run, traces: Sequence[EpisodeTrace], goal: NDArray[np.float64] | None) -> dict[str, Any]:
    """Returns what results say of numbers, if a probe reads them."""
    truth = run.truth
    if truth is None or goal is None:
        return {}
    numbers = run.agent.numbers
    assert numbers is not None
    limits = limit_facts(numbers, truth, traces) if numbers.limited else None
    return {"numbers": number_facts(run.agent, truth, goal, traces), "limits": limits}


def on_suite(run: Run) -> Callable[..., SuiteResults]:
    """Earns the control suite's own rewards on its own tasks, with baselines on the same episodes."""
    config, spec = run.config, run.spec
    suite, trials = {}, []
    for task in spec.suite:
        with contextlib.closing(task.make(spec.image_size, True)) as env:
            trial = Trial.on_suite(env, spec, task, config.seed, config.num_episodes, config.budget)
            records, _ = trial.run(run.agent, task.name, run.batch_size)
            baselines = trial.baselines(summarise_returns)
            trials.append(replace(trial, env=run.env))
        ours = vars(summarise_returns(records))
        suite[task.name] = SuiteReturns(**ours, baselines=baselines, returns=[record.reward for record in records])
    rule = {"name": "suite", "control_steps": trials[0].budget * spec.action_repeat}
    return partial(SuiteResults, protocol=rule, suite=suite, decision_ms=_time(run, trials[0]))


def _episode(run: Run, goals: NDArray[np.uint8] | GoalState) -> tuple[EpisodeTrace, list[int]]:
    """Runs one episode toward goal pictures (1, G, H, W, 3), or numbers; returns it, and the step of each picture."""
    config, agent, env = run.config, run.agent, run.env
    run.spec.check(env)
    budget = config.budget or run.spec.far_budget
    pictures, steps = [env.reset(seed=config.seed)[0]], [0]
    states, felt = [np.array(env.get_state())] if env.restorable else [], [env.proprio]
    agent.reset(goals, [config.seed])
    while (left := budget - steps[-1]) > 0:
        block = next_blocks(agent, pictures[-1][None], felt[-1:])[0][:left]
        try:
            for action in block:
                env.advance(action)
                states += [np.array(env.get_state())] if env.restorable else []
        except envs.Diverged as error:
            log.warning("%s after %d steps", error, steps[-1])
            break
        pictures.append(env.render())
        felt.append(env.proprio)
        steps.append(steps[-1] + len(block))
    return EpisodeTrace(np.array(states), np.stack(pictures), np.stack(felt)), steps


def to_numbers(run: Run, goal: dict[str, float]) -> Callable[..., NumberResults]:
    """Runs one episode toward a user's numbers."""
    assert run.truth is not None
    trace, _ = _episode(run, goal)
    wanted = np.array([[goal.get(each.name, np.nan) for each in run.truth.coordinates]])
    return partial(NumberResults, budget=run.config.budget or run.spec.far_budget, **_numbers(run, [trace], wanted))


def to_pictures(run: Run, goals: NDArray[np.uint8]) -> Callable[..., PictureResults]:
    """Runs one episode toward a user's pictures (G, H, W, 3). Their state is unknown, so success is not decided."""
    config, agent = run.config, run.agent
    trace, steps = _episode(run, goals[None])
    pictures, budget = list(trace.pictures), config.budget or run.spec.far_budget
    free = None if run.truth is None else np.full((1, len(run.truth.coordinates)), np.nan)
    from_each = agent.latent_distance(np.stack(pictures)[:, None], goals)
    distances = from_each.min(1).tolist()
    nearest = int(np.argmin(distances))
    if run.folder is not None:
        goal = goals[from_each[nearest].argmin()]
        video.write_goal_reached(run.folder / REACHED, goal, pictures, nearest, distances)
    return partial(
        PictureResults,
        goal_image=", ".join(map(str, config.goal_image)),
        budget=budget,
        latent_distance={"start": distances[0], "nearest": distances[nearest], "final": distances[-1]},
        nearest_step=steps[nearest],
        **_numbers(run, [trace], free),
    )


def _time(run: Run, trial: Trial) -> DecisionTime:
    """Times decisions of one episode planned alone, last, when other processes are done and wait."""
    asked, deadline = run.config.agent.planner.num_iterations, run.config.agent.deadline_ms
    times = np.array(gather_lists(trial.time_decisions(run.agent, NUM_TIMED_DECISIONS) if rank() == 0 else []))
    median, p95 = np.percentile(times, [50, 95]).tolist()
    timing = DecisionTime(median, p95, len(times), run.config.device)
    if deadline is None:
        return timing
    done = np.array(run.agent.rounds_done)
    cut, late = float((done < asked).mean()), float((times > deadline).mean())
    return replace(timing, deadline_ms=deadline, cut_short=cut, mean_rounds=float(done.mean()), late=late)
