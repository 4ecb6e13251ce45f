"""All agents on one task: the same pairs for everyone, one JSON for each agent and seed, one table, two plots.

An agent that is not trained yet is trained first. What is stored is neither trained nor measured again, so that an
interrupted benchmark goes on where it was, and a clone draws the table from the results that it came with.
"""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from jepa_mpc import envs
from jepa_mpc.agent.base import Agent, PrivilegedAgent
from jepa_mpc.eval import report
from jepa_mpc.eval.goal_tasks import goal_tasks, suite_tasks
from jepa_mpc.eval.metrics import rate, summarise, summarise_returns
from jepa_mpc.eval.picture_goal import UsageError
from jepa_mpc.eval.protocols import PROTOCOLS, SUITE_CONTROL_STEPS
from jepa_mpc.eval.tables.agent_plots import plot_returns, plot_success
from jepa_mpc.eval.tables.benchmark_config import BenchmarkConfig
from jepa_mpc.eval.tables.contenders import CONTENDERS, Facts
from jepa_mpc.eval.tables.tasks import same
from jepa_mpc.eval.trial import run_episodes, time_decisions
from jepa_mpc.settings import to_json
from jepa_mpc.world_model.checkpoint import weights_digest

SUITE_EPISODES = 20
CURVE_PAIRS, CURVE_EPISODES = 50, 5  # for an agent along its training
TIMED_DECISIONS = 50


def asked(name: str, seed: int, config: BenchmarkConfig) -> dict[str, Any]:
    """What decides a row's figures."""
    row: dict[str, Any] = {"task": config.task, "agent": name, "learning_seed": seed}
    row |= {"pairs": config.num_episodes, "seed": config.seed}
    contender, task = CONTENDERS[name], str(config.task)
    if contender.bundled:
        row["world_model"] = weights_digest(Path("checkpoints") / task)
    if contender.planner is not None:
        row["planner"] = to_json(contender.planner(task))
    return row


def row_path(name: str, seed: int, config: BenchmarkConfig) -> Path:
    return config.folder / f"{name}-seed{seed}.json"


def stored(name: str, seed: int, config: BenchmarkConfig) -> dict[str, Any] | None:
    """The row, if it is there and of these settings."""
    path = row_path(name, seed, config)
    results = json.loads(path.read_text()) if path.exists() else {}
    return results if same(results, asked(name, seed, config)) else None


def score(
    agent: Agent, task: str, seed: int, num_pairs: int, num_suite: int, description: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Success by protocol and return by suite task."""
    spec, env = envs.get_task(task), envs.make(task)
    protocols, suite = {}, {}
    for name in ("standard", "far"):
        protocol = PROTOCOLS[name]
        budget = protocol.budget(spec)
        pairs = goal_tasks(env, spec, seed, num_pairs, Path("data/goal_tasks"), protocol.far)
        records, _ = run_episodes(
            agent,
            env=env,
            spec=spec,
            tasks=pairs,
            protocol=protocol,
            seed=seed,
            budget=budget,
            description=f"{description}, {name}",
        )
        protocols[name] = {"budget": budget, **asdict(summarise(records, budget))}
    for suite_task in spec.suite:
        simulator = suite_task.make(spec.image_size, True)
        records, _ = run_episodes(
            agent,
            env=simulator,
            spec=spec,
            tasks=suite_tasks(simulator, suite_task, seed, num_suite),
            protocol=PROTOCOLS["far"],
            seed=seed,
            budget=SUITE_CONTROL_STEPS // spec.action_repeat,
            description=f"{description}, {suite_task.name}",
        )
        simulator.close()
        suite[suite_task.name] = asdict(summarise_returns(records))
    env.close()
    return protocols, suite


def multiply_adds(agent: Agent, task: str, seed: int) -> float:
    """Of a decision, by torch's own count; 0 for agents that use no torch.

    The mean over five on the way to a goal, since some plan only every few and searches that settle end early.
    """
    from torch.utils.flop_counter import FlopCounterMode

    spec, env = envs.get_task(task), envs.make(task)
    pair = goal_tasks(env, spec, seed, 1, Path("data/goal_tasks"))
    agent.reset(pair.goal_picture, [seed])
    env.set_state(pair.start_state[0])
    with FlopCounterMode(display=False) as counter:
        for _ in range(5):
            if isinstance(agent, PrivilegedAgent):
                agent.look(env.get_state()[None], pair.goal_state)
            (block,) = agent.act(env.render()[None])
            for action in block:
                env.advance(action)
    env.close()
    return counter.get_total_flops() / 2 / 5


def measure(name: str, seed: int, config: BenchmarkConfig) -> None:
    """Trains the agent if need be, measures it, and stores the row."""
    task = str(config.task)
    contender = CONTENDERS[name]
    if contender.venv is not None and contender.venv.resolve() != Path(sys.prefix).resolve():
        return _measure_elsewhere(name, contender.venv, config)
    for command in contender.train(task, seed):
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": "."})
    agent, facts = contender.make(task, seed)
    protocols, suite = score(agent, task, config.seed, config.num_episodes, SUITE_EPISODES, f"{name} {seed}")
    spec, env = envs.get_task(task), envs.make(task)
    pairs = goal_tasks(env, spec, config.seed, config.num_episodes, Path("data/goal_tasks"))
    times = time_decisions(agent, env, spec, pairs, seed=config.seed, num_decisions=TIMED_DECISIONS)
    env.close()
    results = {
        "asked": asked(name, seed, config),
        "facts": asdict(facts),
        "protocols": protocols,
        "suite": suite,
        "decision_ms": float(np.median(times)),
        "decision_steps": agent.action_block,
        "multiply_adds": multiply_adds(agent, task, config.seed),
        "curve": curve(name, seed, config),
        **contender.returns(task, seed),
        **report.provenance(),
    }
    path = row_path(name, seed, config)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    report.write_json(unfinished, results)
    os.replace(unfinished, path)
    return None


def _measure_elsewhere(name: str, venv: Path, config: BenchmarkConfig) -> None:
    """The agent's rows, by this very command in the environment that has its packages."""
    python = venv.absolute() / "bin/python"
    if not python.exists():
        raise UsageError(f"{name} needs {venv}; build it with `make {name}`")
    options = ["--task", str(config.task), "--agents", name, "--max-seeds", str(config.max_seeds)]
    options += ["--num-episodes", str(config.num_episodes), "--seed", str(config.seed), "--output", str(config.folder)]
    environment = {**os.environ, "PYTHONPATH": "."}
    subprocess.run([str(python), "eval/benchmark.py", *options], check=True, env=environment)


def curve(name: str, seed: int, config: BenchmarkConfig) -> list[dict[str, Any]]:
    """An agent along its training, on fewer pairs."""
    task, points = str(config.task), []
    for agent, facts in CONTENDERS[name].stages(task, seed):
        description = f"{name} at {facts.steps}"
        protocols, suite = score(agent, task, config.seed, CURVE_PAIRS, CURVE_EPISODES, description)
        points.append({"facts": asdict(facts), "protocols": protocols, "suite": suite})
    return points


def share(rows: Sequence[dict[str, Any]], protocol: str) -> str:
    """Success on average over an agent's seeds, and each of them where there are several. The interval is Wilson's for
    the pairs: they are the same for every seed, so more seeds make it no narrower.
    """
    summaries = [row["protocols"][protocol] for row in rows]
    rates, n = [summary["success_rate"] for summary in summaries], summaries[0]["num_episodes"]
    mean = float(np.mean(rates))
    _, low, high = rate(round(mean * n), n)
    text = f"{100 * mean:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    return text + (f" ({', '.join(f'{100 * each:.1f}' for each in rates)})" if len(rows) > 1 else "")


def line(name: str, rows: Sequence[dict[str, Any]]) -> str:
    """One line of the table, of all seeds of an agent."""
    facts = [Facts(**row["facts"]) for row in rows]
    first = facts[0]
    seconds = np.median([f.learning_seconds for f in facts])
    returns = [f"{np.mean([row['suite'][task]['mean'] for row in rows]):.0f}" for task in rows[0]["suite"]]
    block, count = rows[0]["decision_steps"], rows[0]["multiply_adds"]
    runs = [(f"{name}-seed{row['asked']['learning_seed']}.json", row["commit"][:7]) for row in rows]
    cells = [
        f"`{name}`",
        CONTENDERS[name].given,
        share(rows, "standard"),
        share(rows, "far"),
        " / ".join(returns) or "–",
        f"{first.steps:,}" if first.steps else "–",
        "yes" if first.rewards else "no",
        f"{seconds / 60:.0f} min" if seconds else "–",
        f"{np.median([row['decision_ms'] for row in rows]):.1f} ms for {block}",
        f"{count / 1e6:.1f} M" if facts[0].parameters and count else "–",
        f"{first.parameters / 1e6:.2f} M" if first.parameters else "–",
        ", ".join(f"[{commit}]({file})" for file, commit in runs),
    ]
    return f"| {' | '.join(cells)} |"


def table(lines: Sequence[str], suite: Sequence[str], config: BenchmarkConfig) -> str:
    """The table as Markdown, with the command that makes it."""
    head = [
        f"# Agents on `{config.task}`",
        "",
        f"Made by `python eval/benchmark.py --task {config.task} --agents all` on {config.num_episodes} pairs of seed "
        f"{config.seed}, the same for everyone: the mean over seeds of learning, Wilson's 95 % interval for the pairs, "
        "and the seeds' own rates. What is equal, what is not, and what would change the verdict: "
        "[docs/benchmark.md](../../../benchmark.md).",
        "",
        f"| agent | is given | standard | far | return, {' / '.join(suite)} | steps seen | reward | learned in | "
        "decision for steps | multiply-adds | parameters | runs, at their commits |",
        "|---" * 12 + "|",
    ]
    return "\n".join([*head, *lines]) + "\n"


def chosen(config: BenchmarkConfig) -> list[str]:
    names = list(CONTENDERS) if config.agents == "all" else [name.strip() for name in config.agents.split(",")]
    for name in names:
        if name not in CONTENDERS:
            raise UsageError(f"unknown agent {name!r}; there are: {', '.join(CONTENDERS)}")
    return names


def write_agent_table(config: BenchmarkConfig) -> Path:
    """Trains and measures what is missing, and writes table and plots; returns the table's path."""
    task = str(config.task)
    if config.num_episodes < 1 or config.seed < 0 or config.max_seeds < 1:
        raise UsageError("--num-episodes and --max-seeds must be at least 1, --seed at least 0")
    if not (Path("checkpoints") / task / "config.json").exists():
        raise UsageError(f"no checkpoint is bundled for {task!r}; `jepa-mpc tasks` shows which have one")
    wanted = [(name, seed) for name in chosen(config) for seed in CONTENDERS[name].seeds[: config.max_seeds]]
    missing = [row for row in wanted if stored(*row, config) is None]
    for name, seed in tqdm(missing, desc="rows"):
        measure(name, seed, config)
    found = functools.partial(stored, config=config)
    rows = {name: [row for seed in CONTENDERS[name].seeds if (row := found(name, seed))] for name in CONTENDERS}
    rows = {name: measured for name, measured in rows.items() if measured}
    spec = envs.get_task(task)
    suite = [suite_task.name for suite_task in spec.suite]
    path = config.folder / "agents.md"
    path.write_text(table([line(name, measured) for name, measured in rows.items()], suite, config))
    plot_success(config.folder / "success.png", rows)
    if suite:
        plot_returns(config.folder / "returns.png", rows, suite, spec.action_repeat)
    return path
