"""Every bundled checkpoint on held-out pairs, in one table: `jepa-mpc benchmark tasks`.

A row is what `jepa-mpc plan` measures. Rows that are there already, of the same checkpoint and settings, are not
measured again, so an interrupted benchmark goes on where it was, and a clone draws the table from its own rows.
"""

if __name__ == "__main__":  # first, so that Ctrl-C in the imports below is answered too
    from jepa_mpc.cli import run

    run("benchmark tasks")

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from jepa_mpc import envs, files, places
from jepa_mpc.agent.agent_config import planning_of
from jepa_mpc.cli import parse
from jepa_mpc.envs.task import TableRow
from jepa_mpc.errors import UserError
from jepa_mpc.eval import report
from jepa_mpc.eval.book import Book, TableConfig, digests
from jepa_mpc.eval.metrics import Rate, SuccessSummary, rate
from jepa_mpc.eval.results import PairResults
from jepa_mpc.eval.run_planning import RunConfig, evaluate
from jepa_mpc.settings import checked

CARD_HEADING = "## Planning"
FREE = 1 / 3  # a row whose baselines reach more than this is to be judged by what is held


@dataclass(frozen=True)
class TasksConfig(TableConfig):
    """Measure bundled checkpoints, with random and do-nothing agents on the same pairs, and write the table."""

    tasks: tuple[str, ...] = ("all",)
    """Tasks with a checkpoint, or all."""


def row_name(task: str, row: TableRow) -> str:
    """Returns the name of a row's file."""
    offset = f"-offset{row.goal_offset}" if row.goal_offset else ""
    budget = f"-budget{row.budget}" if row.budget else ""
    return f"{places.slug(task)}-{row.protocol}{offset}{budget}"


def run_settings(task: str, row: TableRow, config: TasksConfig) -> dict[str, Any]:
    """Returns how a row is run, in the words of `RunConfig`."""
    where = {"task": task, "protocol": row.protocol, "goal_offset": row.goal_offset, "budget": row.budget}
    return {**where, "num_episodes": config.num_episodes, "seed": config.seed}


def asked(task: str, row: TableRow, config: TasksConfig) -> dict[str, Any]:
    """Returns what decides a row's figures."""
    planner, folder = planning_of(task), places.bundled_checkpoints() / task
    return {**run_settings(task, row, config), **digests(folder, planner), "planner": planner}


def measure(task: str, row: TableRow, config: TasksConfig) -> PairResults:
    """Runs a row."""
    run = RunConfig(**run_settings(task, row, config), agent=planning_of(task))
    results = evaluate(run, write=False)
    assert isinstance(results, PairResults)
    return results


def write_task_table(config: TasksConfig) -> Path:
    """Measures what is missing and writes the table; returns its path."""
    config, known = checked(config), places.bundled_tasks()
    tasks = known if config.tasks == ("all",) else list(config.tasks)
    for task in tasks:
        if task not in known:
            raise UserError(f"no checkpoint is bundled for {task!r}; there are: {', '.join(known)}")
    book = Book.open(PairResults, "tasks", config)
    rows: dict[tuple[str, TableRow], PairResults] = {}
    for task, row in tqdm([(name, row) for name in known for row in envs.get_task(name).rows], desc="rows"):
        what, go = (row_name(task, row), asked(task, row, config)), partial(measure, task, row, config)
        if found := book.once(*what, go) if task in tasks else book.find(*what):
            rows[task, row] = found
    path = book.folder / "tasks.md"
    files.write_whole(path, table(rows, config))
    for task in tasks if config.publish else ():
        write_card(task, [results for (of, _), results in rows.items() if of == task])
    return path


def table(rows: dict[tuple[str, TableRow], PairResults], config: TasksConfig) -> str:
    """Returns the tables as Markdown, with the command that makes them."""
    return report.page(
        f"Made by `jepa-mpc benchmark tasks`, {config.num_episodes} pairs of seed {config.seed}; intervals are "
        "Wilson's at 95 %. † A baseline reaches more than a third of these goals: judge such a row by what is held.",
        [_line(*each, results) for each, results in rows.items()],
        [_strata(results) for results in rows.values() if results.episodes[0].distance is not None],
    )


def _line(task: str, row: TableRow, results: PairResults) -> dict[str, str]:
    random, nothing = results.baselines["random"], results.baselines["do_nothing"]
    steps = "–" if results.median_steps is None else f"{results.median_steps:g}"
    free = "†" * (max(random.success_rate, nothing.success_rate) > FREE)
    return {
        "task, goal": _goal(results),
        "random / do nothing, %": f"{100 * random.success_rate:.1f} / {100 * nothing.success_rate:.1f}{free}",
        "success, % [95 %]": Rate(results.success_rate, *results.success_interval).percent(),
        "median steps": f"{steps} of {results.protocol.budget}",
        "held / strict, %": _held_and_strict(results),
        "random, held / strict, %": _held_and_strict(random),
        "published, %": row.published,
        "decision": f"{results.decision_ms.median:.0f} ms",
        "run": f"[JSON]({row_name(task, row)}.json)",
    }


def _strata(results: PairResults) -> dict[str, str]:
    """Returns success on the third of the pairs that start nearest their goals, on the next, and on the farthest."""
    episodes = sorted(results.episodes, key=lambda episode: (episode.distance or 0.0, episode.pair))
    unit, goal = envs.get_task(results.task).pose.unit, f"{_goal(results)}, in {results.protocol.budget} steps"
    cells = {"success, % [95 %], by how far the goal is": goal}
    for name, part in zip(("nearest", "middle", "farthest"), np.array_split(range(len(episodes)), 3), strict=True):
        third = [episodes[index] for index in part]
        share = rate(sum(each.success for each in third), len(third)).percent() if third else ""
        cells[f"{name} third"] = f"{share}, {third[0].distance:.2g}–{third[-1].distance:.2g} {unit}" if third else "–"
    return cells


def _goal(results: PairResults) -> str:
    rule = results.protocol
    goal = "another episode" if rule.goal_offset is None else f"{rule.goal_offset} ahead"
    declared = f"; {results.checkpoint.declared}" if results.checkpoint.declared else ""
    return f"`{results.task}`, {rule.name}: {goal}{declared}"


def _held_and_strict(summary: SuccessSummary) -> str:
    return f"{100 * summary.held.rate:.1f} / {100 * summary.strict.rate:.1f}"


def write_card(task: str, rows: Sequence[PairResults]) -> None:
    """Puts the figures under the card, in place of those that it had."""
    path = places.bundled_checkpoints() / task / "card.md"
    text = path.read_text().split(CARD_HEADING)[0].rstrip()
    command = f"`jepa-mpc benchmark tasks --tasks {task}`, commit {rows[0].commit}; Wilson's 95 % intervals:"
    files.write_whole(path, "\n".join([text, "", CARD_HEADING, "", command, "", *map(card_item, rows), ""]))


def card_item(results: PairResults) -> str:
    """Returns one row's figures as an item of a list."""
    rule = results.protocol
    goal = f"{rule.goal_offset} steps ahead" if rule.goal_offset else "of another episode"
    random, nothing = (results.baselines[name].success_rate for name in ("random", "do_nothing"))
    figures = f"{report.rate(results)}; random {random:.1%}, do nothing {nothing:.1%}"
    return f"- {rule.name}, goal {goal}, {rule.budget} steps: {figures}"


def main(args: Sequence[str]) -> None:
    print(f"wrote {write_task_table(parse(TasksConfig, args))}")  # noqa: T201
