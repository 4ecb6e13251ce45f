"""Success against decision time for every planner and objective: `python eval/tables/planners.py --task reacher`.

Writes a table, a figure and a JSON into one folder. Settings that are measured already are not measured again, so an
interrupted run goes on where it was.
"""

import itertools
import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from matplotlib.figure import Figure
from tqdm import tqdm

from jepa_mpc import envs
from jepa_mpc.agent.agent_config import AGENT_PRESETS, AgentConfig
from jepa_mpc.agent.objectives import OBJECTIVES
from jepa_mpc.agent.planning_agent import PlanningAgent
from jepa_mpc.errors import UserError
from jepa_mpc.eval import report
from jepa_mpc.eval.goal_tasks import goal_tasks
from jepa_mpc.eval.metrics import summarise
from jepa_mpc.eval.protocols import PROTOCOLS
from jepa_mpc.eval.trial import run_episodes, time_decisions
from jepa_mpc.planners import PLANNERS
from jepa_mpc.world_model.checkpoint import CheckpointError, load_checkpoint

COLOURS = {
    "cem": "tab:blue",
    "icem": "tab:green",
    "mppi": "tab:orange",
    "gradient": "tab:red",
    "cem-gradient": "tab:purple",
}


@dataclass(frozen=True)
class ParetoConfig:
    """Measure every planner and objective at three sizes of the search, on far goals."""

    task: str = "reacher"
    """Task in the registry."""
    checkpoint: Path | None = None
    """Checkpoint folder; `checkpoints/<task>` unless given."""
    num_episodes: int = 100
    """Far pairs."""
    seed: int = 0
    """Decides the pairs and the search."""
    timed_decisions: int = 60
    """Searches timed, of one episode planned alone."""
    budget: int | None = None
    """Environment steps; the far protocol's unless given."""
    output: Path = Path("runs/pareto")
    """Folder for the table, the figure and the JSON."""


def settings() -> list[tuple[str, AgentConfig]]:
    """Every planner and objective, small, default and large, and LeWorldModel's own way."""
    named = []
    for planner, objective in itertools.product(PLANNERS, OBJECTIVES):
        search: Any = PLANNERS[planner]()
        # Where a search descends, its steps are its size.
        scaled = "num_gradient_steps" if hasattr(search, "num_gradient_steps") else "num_iterations"
        for size, factor in (("small", 1 / 3), ("default", 1), ("large", 3)):
            config = replace(search, **{scaled: max(1, round(getattr(search, scaled) * factor))})
            named.append((f"{planner}-{objective}-{size}", AgentConfig(planner=config, objective=objective)))
    return [*named, ("leworldmodel", AGENT_PRESETS["lewm"])]


def measure(config: ParetoConfig) -> list[dict[str, Any]]:
    """One row a setting, read from the output folder where it is there already."""
    spec = envs.get_task(config.task)
    if config.num_episodes < 1 or config.timed_decisions < 1 or config.seed < 0:
        raise ValueError("--num-episodes and --timed-decisions must be at least 1, --seed at least 0")
    protocol = PROTOCOLS["far"]
    budget = config.budget or protocol.budget(spec)
    checkpoint = config.checkpoint or Path("checkpoints") / config.task
    rows_folder = config.output / "rows"
    rows_folder.mkdir(parents=True, exist_ok=True)
    env = envs.make(config.task)
    tasks = goal_tasks(env, spec, config.seed, config.num_episodes, Path("data/goal_tasks"), far=True)
    rows = []
    for name, agent_config in tqdm(settings(), desc="settings"):
        path = rows_folder / f"{name}.json"
        asked = {"checkpoint": str(checkpoint), "num_episodes": config.num_episodes, "seed": config.seed}
        asked |= {"budget": budget, "planner": agent_config.settings()}
        if path.exists() and (row := json.loads(path.read_text()))["asked"] == asked:
            rows.append(row)
            continue
        provenance = report.provenance()
        model, _ = load_checkpoint(checkpoint, task=config.task)
        agent = PlanningAgent(model, env.action_space, spec.action_block, agent_config)
        records, _ = run_episodes(
            agent, env=env, spec=spec, tasks=tasks, protocol=protocol, seed=config.seed, budget=budget, description=name
        )
        every = agent_config.receding_horizon  # the blocks between searches take no time
        milliseconds = time_decisions(
            agent, env, spec, tasks, seed=config.seed, num_decisions=config.timed_decisions * every
        )[every - 1 :: every]
        row = {
            "name": name,
            "asked": asked,
            **asdict(summarise(records, budget)),
            "decision_ms": {
                "median": float(np.median(milliseconds)),
                "p95": float(np.percentile(milliseconds, 95)),
                "n": len(milliseconds),
            },
            **provenance,
        }
        report.write_json(path, row)
        rows.append(row)
    env.close()
    return rows


def table(rows: list[dict[str, Any]], command: str) -> str:
    """Markdown, by rate of holding."""
    lines = [
        f"Made by `{command}`; far goals, n = {rows[0]['num_episodes']}, intervals are Wilson's at 95 %.",
        "",
        "| planner, objective, size | touched [95 %] | held 5 steps [95 %] | strict | decision, median / p95 |",
        "|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: (-row["held"][0], row["decision_ms"]["median"])):
        touched, held = ("{:.0%} [{:.0%}, {:.0%}]".format(*row[kind]) for kind in ("first_hit", "held"))
        time = row["decision_ms"]
        lines.append(
            f"| {row['name']} | {touched} | {held} | {row['strict'][0]:.0%} | "
            f"{time['median']:.1f} / {time['p95']:.1f} ms |"
        )
    return "\n".join(lines) + "\n"


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Two panels, touched and held; the front is the line through settings that none beats in both."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, kind, title in zip(panels, ("first_hit", "held"), ("touched once", "held for 5 steps"), strict=True):
        for row in rows:
            planner, objective = row["asked"]["planner"]["planner"], row["asked"]["planner"]["objective"]
            style = {"marker": "*", "color": "black", "s": 120}
            if row["name"] != "leworldmodel":
                style = {"marker": "o" if objective == "reachability" else "x", "color": COLOURS[planner], "s": 36}
            axes.scatter(row["decision_ms"]["median"], 100 * row[kind][0], **style)
        best, front = -1.0, []
        for row in sorted(rows, key=lambda row: (row["decision_ms"]["median"], -row[kind][0])):
            if row[kind][0] > best:
                best = row[kind][0]
                front.append((row["decision_ms"]["median"], 100 * best))
        axes.plot(*zip(*front, strict=True), color="grey", linewidth=1, zorder=0)
        axes.set(xscale="log", xlabel="decision, one episode, ms (median)", title=title)
    panels[0].set(ylabel="far goals, % of episodes", ylim=(-3, 103))
    for planner, colour in COLOURS.items():
        panels[1].scatter([], [], color=colour, label=planner)
    for label, marker in (("reachability", "o"), ("latent distance", "x"), ("LeWorldModel's way", "*")):
        panels[1].scatter([], [], color="black", marker=marker, label=label)
    figure.legend(loc="outside right upper")
    figure.savefig(path, dpi=120)


def main() -> None:
    config = tyro.cli(ParetoConfig)
    try:
        rows = measure(config)
    except (UserError, CheckpointError, envs.EnvError, ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on")
    report.write_json(config.output / "pareto.json", {"rows": rows})
    (config.output / "pareto.md").write_text(table(rows, "python " + " ".join(sys.argv)))
    draw(rows, config.output / "pareto.png")
    print(f"wrote {config.output}/pareto.md, pareto.png and pareto.json")  # noqa: T201


if __name__ == "__main__":
    main()
