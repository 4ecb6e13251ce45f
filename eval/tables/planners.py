"""Success against decision time for every planner and objective: `jepa-mpc benchmark planners`.

Writes a table and a figure, and a row a setting. Settings that are measured already are not measured again, so an
interrupted run goes on where it was.
"""

if __name__ == "__main__":  # first, so that Ctrl-C in the imports below is answered too
    from jepa_mpc.cli import run

    run("benchmark planners")

import contextlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from jepa_mpc import envs, files
from jepa_mpc.agent.agent_config import AGENT_PRESETS, AgentConfig
from jepa_mpc.agent.objectives import OBJECTIVES
from jepa_mpc.agent.planning_agent import PlanningAgent
from jepa_mpc.cli import parse
from jepa_mpc.eval import report
from jepa_mpc.eval.book import Book, CheckpointTableConfig
from jepa_mpc.eval.metrics import SuccessSummary, summarise
from jepa_mpc.eval.results import DecisionTime, Made
from jepa_mpc.eval.trial import Trial
from jepa_mpc.planners import PLANNERS
from jepa_mpc.provenance import provenance
from jepa_mpc.settings import Count, checked
from jepa_mpc.world_model.checkpoint import load_checkpoint, weights_digest

LEWM = "leworldmodel"


@dataclass(frozen=True)
class PlannersConfig(CheckpointTableConfig):
    """Measure every planner and objective at three sizes of the search, on far goals."""

    num_episodes: Count = 100
    """Far pairs."""
    timed_decisions: Count = 60
    """Searches timed, of one episode planned alone."""
    budget: Count | None = None
    """Environment steps; the far protocol's unless given."""


@dataclass(frozen=True)
class PlannerRow(Made, SuccessSummary):
    """What one way to plan came to."""

    decision_ms: DecisionTime


def settings() -> dict[str, AgentConfig]:
    """Returns every planner and objective, small, default and large, and LeWorldModel's own way."""
    named = {}
    for planner, objective in itertools.product(PLANNERS, OBJECTIVES):
        search: Any = PLANNERS[planner]()
        # Where a search descends, its steps are its size.
        scaled = "num_gradient_steps" if hasattr(search, "num_gradient_steps") else "num_iterations"
        for size, factor in (("small", 1 / 3), ("default", 1), ("large", 3)):
            config = replace(search, **{scaled: max(1, round(getattr(search, scaled) * factor))})
            named[f"{planner}-{objective}-{size}"] = AgentConfig(planner=config, objective=objective)
    return {**named, LEWM: AGENT_PRESETS["lewm"]}


def write_planner_table(config: PlannersConfig) -> Path:
    """Measures what is missing, and writes table and figure; returns the table's path."""
    config, spec = checked(config), envs.get_task(config.task)
    budget = config.budget or spec.far_budget
    book = Book.open(PlannerRow, config.name("planners"), config)
    rest = {"task": config.task, "weights": weights_digest(config.folder), "num_episodes": config.num_episodes}
    rest |= {"seed": config.seed, "budget": budget}
    rows, ways = {}, settings()
    model, _ = load_checkpoint(config.folder, task=config.task)
    with contextlib.closing(envs.make(config.task)) as env:
        trial = Trial.on_pairs(env, spec, "far", config.seed, config.num_episodes, budget)
        for name, way in tqdm(ways.items(), desc="settings"):
            agent = PlanningAgent(model, env.action_space, spec.action_block, way)
            go = partial(measure, trial, agent, config.timed_decisions)
            rows[name] = book.once(name, {**rest, "planner": way}, go)
    files.write_whole(book.folder / "planners.md", table(rows, config))
    draw(rows, ways, book.folder / "planners.png")
    return book.folder / "planners.md"


def measure(trial: Trial, agent: PlanningAgent, num_searches: int) -> PlannerRow:
    """Measures success of one way to plan, and the time that its searches take."""
    made_by = provenance()
    records, _ = trial.run(agent)
    every = agent.config.receding_horizon  # the blocks between searches take no time
    times = trial.time_decisions(agent, num_searches * every)[every - 1 :: every]
    median, p95 = np.percentile(times, [50, 95]).tolist()
    time = DecisionTime(median, p95, len(times))
    return PlannerRow(**vars(summarise(records, trial.budget)), decision_ms=time, **made_by)


def table(rows: dict[str, PlannerRow], config: PlannersConfig) -> str:
    """Returns the table as Markdown, by rate of holding."""
    order = sorted(rows, key=lambda name: (-rows[name].held.rate, rows[name].decision_ms.median))
    return report.page(
        f"Made by `jepa-mpc benchmark planners --task {config.task}` on {config.num_episodes} far pairs of seed "
        f"{config.seed}; intervals are Wilson's at 95 %.{config.declared}",
        [
            {
                "planner, objective, size": f"[{name}]({name}.json)",
                "touched, % [95 %]": rows[name].first_hit.percent(0),
                "held, % [95 %]": rows[name].held.percent(0),
                "strict, %": f"{100 * rows[name].strict.rate:.0f}",
                "decision, ms (p95)": "{median:.1f} ({p95:.1f})".format(**vars(rows[name].decision_ms)),
            }
            for name in order
        ],
    )


def draw(rows: dict[str, PlannerRow], ways: dict[str, AgentConfig], path: Path) -> None:
    """Draws two panels, touched and held; the front is the line through settings that none beats in both."""
    from jepa_mpc.eval.figures import BLACK, COLOURS, GREY, MARKERS, new_figure, save

    styles = {
        name: {"marker": marker, "color": colour, "s": 36}
        for name, marker, colour in zip(PLANNERS, MARKERS, COLOURS, strict=False)
    }
    figure = new_figure(10, 4.2)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, kind, title in zip(panels, ("first_hit", "held"), ("touched once", "held for 5 steps"), strict=True):
        points = {name: (row.decision_ms.median, 100 * getattr(row, kind).rate) for name, row in rows.items()}
        for name, point in points.items():
            style, way = styles[PLANNERS.name_of(type(ways[name].planner))], ways[name]
            if name == LEWM:
                style = {"marker": "*", "color": BLACK, "s": 140}
            elif way.objective != "reachability":
                style = {**style, "facecolors": "none"}
            axes.scatter(*point, **style)
        fastest = sorted(points.values(), key=lambda point: (point[0], -point[1]))
        front = [point for i, point in enumerate(fastest) if point[1] > max((y for _, y in fastest[:i]), default=-1)]
        axes.plot(*zip(*front, strict=True), color=GREY, linewidth=1, zorder=0)
        axes.set(xscale="log", xlabel="one decision, median, ms", title=title)
    panels[0].set(ylabel="goals of another episode, % of episodes", ylim=(-3, 103))
    for name, style in styles.items():
        panels[1].scatter([], [], label=name, **style)
    for label, hollow in (("learned metric", {}), ("latent distance", {"facecolors": "none"})):
        panels[1].scatter([], [], color=GREY, marker="o", label=label, **hollow)
    panels[1].scatter([], [], color=BLACK, marker="*", s=140, label="LeWorldModel's way")
    figure.legend(loc="outside right upper")
    save(figure, path)


def main(args: Sequence[str]) -> None:
    print(f"wrote {write_planner_table(parse(PlannersConfig, args))}")  # noqa: T201
