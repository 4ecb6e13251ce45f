"""Every bundled checkpoint on held-out pairs, in one table.

A row is a run of `eval/run_planning.py`, stored as JSON in the output folder. Rows that are there already, of the same
checkpoint and settings, are not run again, so an interrupted benchmark goes on where it was and gives the same table.
The figures are also written under each checkpoint's card.
"""

import json
import os
import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from jepa_mpc import envs
from jepa_mpc.agent.agent_config import AgentConfig, config_for
from jepa_mpc.eval import report
from jepa_mpc.eval.picture_goal import UsageError
from jepa_mpc.eval.run_planning import RunConfig, run
from jepa_mpc.eval.tables.benchmark_config import BenchmarkConfig
from jepa_mpc.settings import read, to_json
from jepa_mpc.world_model.checkpoint import weights_digest

CHECKPOINTS = Path("checkpoints")
CARD_HEADING = "## Planning"


@dataclass(frozen=True)
class Row:
    """One row of the table: a task's bundled checkpoint under a protocol."""

    task: str
    protocol: Any = "standard"
    goal_offset: int | None = None
    budget: int | None = None
    published: str = field(default="–", compare=False)

    @property
    def name(self) -> str:
        offset = f"-offset{self.goal_offset}" if self.goal_offset else ""
        return f"{self.task.replace('/', '-')}-{self.protocol}{offset}"


def bundled() -> list[str]:
    """The tasks that have a checkpoint."""
    return sorted(path.parent.relative_to(CHECKPOINTS).as_posix() for path in CHECKPOINTS.rglob("config.json"))


def rows_of(task: str) -> list[Row]:
    """The rows of a task, in the table's order."""
    return [Row(task, row.protocol, row.goal_offset, row.budget, row.published) for row in envs.get_task(task).rows]


def _asked(row: Row, config: BenchmarkConfig) -> dict[str, Any]:
    shared = {"num_episodes": config.num_episodes, "seed": config.seed}
    planner, folder = config_for(envs.get_task(row.task)), CHECKPOINTS / row.task
    weights = {"weights": weights_digest(folder)}
    if planner.warm_start != "none":
        weights["policy"] = weights_digest(folder, f"{planner.warm_start}.safetensors")
    identity = {name: value for name, value in asdict(row).items() if name != "published"}
    return {**identity, **shared, **weights, "planner": to_json(planner)}


def same(results: dict[str, Any], asked: dict[str, Any]) -> bool:
    """Whether stored results are of these settings; ones that planners did not have yet were at their defaults."""
    stored = results.get("asked", {})
    if "planner" in stored:
        stored = {**stored, "planner": to_json(read(AgentConfig, stored["planner"], "planner"))}
    return bool(stored == asked)


def stored(row: Row, config: BenchmarkConfig) -> dict[str, Any] | None:
    """The row's results, if they are in the output folder and of these settings and this checkpoint."""
    path = config.folder / f"{row.name}.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    return results if same(results, _asked(row, config)) else None


def measure(row: Row, config: BenchmarkConfig) -> None:
    """Runs the row and stores its results."""
    with tempfile.TemporaryDirectory() as folder:
        settings = RunConfig(num_episodes=config.num_episodes, seed=config.seed, video=False, output=Path(folder))
        agent = config_for(envs.get_task(row.task))
        settings = replace(settings, task=row.task, protocol=row.protocol, agent=agent)
        run(replace(settings, goal_offset=row.goal_offset, budget=row.budget), show=False)
        results = json.loads((Path(folder) / "results.json").read_text())
    config.folder.mkdir(parents=True, exist_ok=True)
    unfinished = config.folder / f"{row.name}.unfinished"
    report.write_json(unfinished, {"asked": _asked(row, config), **results})
    os.replace(unfinished, config.folder / f"{row.name}.json")


def line(row: Row, results: dict[str, Any]) -> str:
    """One line of the table."""
    protocol, baselines = results["protocol"], results["baselines"]
    goal = f"{protocol['goal_offset']} steps ahead" if protocol["goal_offset"] else "in another episode"
    low, high = (f"{100 * end:.1f}" for end in results["success_interval"])
    random, nothing = (f"{baselines[name]['success_rate']:.1%}" for name in ("random", "do_nothing"))
    steps = "–" if results["median_steps"] is None else f"{results['median_steps']:g}"
    cells = [
        f"{row.task}, {row.protocol}",
        f"{goal}; {protocol['budget']}",
        f"{random} / {nothing}".replace("%", " %"),
        steps,
        f"{results['held'][0]:.1%} / {results['strict'][0]:.1%}".replace("%", " %"),
        f"{baselines['random']['held'][0]:.1%} / {baselines['random']['strict'][0]:.1%}".replace("%", " %"),
        f"{100 * results['success_rate']:.1f} % [{low}, {high}]",
        str(results["num_episodes"]),
        row.published,
        f"{results['decision_ms']['median']:.0f} ms",
        f"[JSON]({row.name}.json)",
    ]
    return f"| {' | '.join(cells)} |"


def table(lines: list[str], config: BenchmarkConfig) -> str:
    """The table as Markdown, with the command that makes it."""
    head = [
        f"Made by `python eval/benchmark.py --tasks all`, pairs of seed {config.seed}; intervals are Wilson's at 95 %.",
        "",
        "| task, protocol | goal; budget, steps | random / do nothing | median steps | held 5 steps / strict | "
        "the same, random | success [95 %] | n | best published, % | decision | run |",
        "|---" * 11 + "|",
    ]
    return "\n".join([*head, *lines]) + "\n"


def write_card(task: str, results: list[dict[str, Any]]) -> None:
    """Puts the figures under the card, in place of those that it had."""
    path = CHECKPOINTS / task / "card.md"
    text = path.read_text().split(CARD_HEADING)[0].rstrip()
    command = f"`python eval/benchmark.py --tasks {task}`, commit {results[0]['commit']}"
    shown = "\n".join(rates(row) for row in results)
    path.write_text(f"{text}\n\n{CARD_HEADING}\n\n{command}; Wilson's 95 % intervals:\n\n{shown}\n")


def rates(results: dict[str, Any]) -> str:
    """One row's figures as an item of a list."""
    protocol, baselines = results["protocol"], results["baselines"]
    goal = f"{protocol['goal_offset']} steps ahead" if protocol["goal_offset"] else "of another episode"
    ours = report.rate(results["success_rate"], results["success_interval"], results["num_episodes"])
    random, nothing = (f"{baselines[name]['success_rate']:.1%}" for name in ("random", "do_nothing"))
    return (
        f"- {protocol['name']}, goal {goal}, {protocol['budget']} steps: {ours}; random {random}, do nothing {nothing}"
    )


def write_task_table(config: BenchmarkConfig) -> Path:
    """Measures what is missing and writes the table; returns its path."""
    known = bundled()
    tasks = known if config.tasks == ("all",) else list(config.tasks)
    for task in tasks:
        if task not in known:
            raise UsageError(f"no checkpoint is bundled for {task!r}; there are: {', '.join(known)}")
    if config.num_episodes < 1 or config.seed < 0:
        raise UsageError("--num-episodes must be at least 1, --seed at least 0")
    missing = [row for task in tasks for row in rows_of(task) if stored(row, config) is None]
    for row in tqdm(missing, desc="rows"):
        measure(row, config)
    lines = []
    for task in known:
        results = {row: found for row in rows_of(task) if (found := stored(row, config)) is not None}
        lines += [line(row, found) for row, found in results.items()]
        if config.cards and task in tasks:
            write_card(task, list(results.values()))
    path = config.folder / "tasks.md"
    path.write_text(table(lines, config))
    return path
