"""All agents on one task: `jepa-mpc benchmark agents`. The same pairs for everyone, a row an agent and seed.

An agent that is not trained yet is trained first. What is stored is neither trained nor measured again, so that an
interrupted benchmark goes on where it was, and a clone draws the table from the rows that it came with.
"""

if __name__ == "__main__":  # first, so that Ctrl-C in the imports below is answered too
    from jepa_mpc.cli import run

    run("benchmark agents")

import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from jepa_mpc import envs, files, places
from jepa_mpc.agent.base import Agent, PrivilegedAgent, next_blocks
from jepa_mpc.agent.rivals import RIVALS, Facts
from jepa_mpc.cli import parse
from jepa_mpc.envs.blocks import run_block
from jepa_mpc.errors import UserError
from jepa_mpc.eval import report
from jepa_mpc.eval.book import Book, TableConfig
from jepa_mpc.eval.metrics import SuccessSummary, rate, summarise, summarise_returns
from jepa_mpc.eval.results import AgentRow, Point, Success
from jepa_mpc.eval.tables import agent_plots
from jepa_mpc.eval.trial import Trial
from jepa_mpc.provenance import provenance
from jepa_mpc.settings import Count, checked
from jepa_mpc.world_model.checkpoint import weights_digest

SUITE_EPISODES = 20
CURVE_PAIRS, CURVE_EPISODES = 50, 5  # for an agent along its training
TIMED_DECISIONS = 50
PROTOCOLS_OF_A_ROW = ("standard", "far")


@dataclass(frozen=True)
class AgentsConfig(TableConfig):
    """Measure agents against each other on one task; what is not trained yet is trained first."""

    task: str = "reacher"
    """Task in the registry, with a bundled checkpoint."""
    agents: tuple[str, ...] = ("all",)
    """Agents, or all."""
    max_seeds: Count = 3
    """How many seeds of an agent's learning to train and measure, at most."""


def asked(name: str, learning_seed: int, config: AgentsConfig) -> dict[str, Any]:
    """Returns what decides a row's figures."""
    rival = RIVALS[name]
    row: dict[str, Any] = {"task": config.task, "agent": name, "learning_seed": learning_seed}
    row |= {"pairs": config.num_episodes, "seed": config.seed}
    if rival.bundled:
        row["world_model"] = weights_digest(places.checkpoint(config.task))
    if rival.planner is not None:
        row["planner"] = rival.planner(config.task)
    return row


def score(agent: Agent, facts: Facts, task: str, seed: int, num_pairs: int, num_suite: int, name: str) -> Point:
    """Measures success by protocol and return by suite task."""
    spec = envs.get_task(task)
    protocols, suite = {}, {}
    with contextlib.closing(envs.make(task)) as env:
        for protocol in PROTOCOLS_OF_A_ROW:
            trial = Trial.on_pairs(env, spec, protocol, seed, num_pairs)
            ours = summarise(trial.run(agent, f"{name}, {protocol}")[0], trial.budget)
            protocols[protocol] = Success(**vars(ours), budget=trial.budget)
    for rewarded in spec.suite:
        with contextlib.closing(rewarded.make(spec.image_size, True)) as env:
            trial = Trial.on_suite(env, spec, rewarded, seed, num_suite)
            suite[rewarded.name] = summarise_returns(trial.run(agent, f"{name}, {rewarded.name}")[0])
    return Point(facts, protocols, suite)


def multiply_adds(agent: Agent, trial: Trial) -> float:
    """Counts a decision's multiply-adds, by torch's own count; 0 for agents that use no torch.

    The mean over five on the way to a goal, since some plan only every few and searches that settle end early.
    """
    from torch.utils.flop_counter import FlopCounterMode

    env, pair = trial.env, trial.pairs[:1]
    agent.reset(pair.goal_picture, [trial.seed])
    env.set_state(pair.start_state[0])
    with FlopCounterMode(display=False) as counter:
        for _ in range(5):
            if isinstance(agent, PrivilegedAgent):
                agent.look(env.get_state()[None], pair.goal_state)
            (block,) = next_blocks(agent, env.render()[None], [env.proprio])
            run_block(env, block)
    return counter.get_total_flops() / 2 / 5


def measure(name: str, learning_seed: int, config: AgentsConfig, book: Book[AgentRow]) -> AgentRow:
    """Trains the agent if need be, and measures it."""
    rival, task, spec = RIVALS[name], config.task, envs.get_task(config.task)
    if rival.venv is not None and rival.venv.resolve() != Path(sys.prefix).resolve():
        return _measure_elsewhere(rival.venv, name, learning_seed, config, book)
    for command in rival.train(task, learning_seed):
        run_command(command)
    agent, facts = rival.make(task, learning_seed)
    called = f"{name} {learning_seed}"
    trained = score(agent, facts, task, config.seed, config.num_episodes, SUITE_EPISODES, called)
    with contextlib.closing(envs.make(task)) as env:
        trial = Trial.on_pairs(env, spec, "standard", config.seed, config.num_episodes)
        times, count = trial.time_decisions(agent, TIMED_DECISIONS), multiply_adds(agent, trial)
    curve = [
        score(earlier, then, task, config.seed, CURVE_PAIRS, CURVE_EPISODES, f"{name} at {then.steps}")
        for earlier, then in rival.stages(task, learning_seed)
    ]
    return AgentRow(
        **vars(trained),
        decision_ms=float(np.median(times)),
        decision_steps=agent.action_block,
        multiply_adds=count,
        curve=curve,
        **rival.returns(task, learning_seed),
        **provenance(),
    )


def _measure_elsewhere(
    venv: Path, name: str, learning_seed: int, config: AgentsConfig, book: Book[AgentRow]
) -> AgentRow:
    """Has the agent's rows measured by this very command in the environment that has its packages."""
    python = venv / "bin/python"
    if not python.exists():
        raise UserError(f"{name} needs {venv}; build it with `make {name}`")
    options = {**vars(config), "agents": name, "output": book.folder}
    words = [f"--{option.replace('_', '-')}={value}" for option, value in options.items() if option != "publish"]
    run_command([str(python), "-m", "jepa_mpc", "benchmark", "agents", *words])
    row = book.find(row_name(name, learning_seed), asked(name, learning_seed, config))
    assert row is not None
    return row


def run_command(command: Sequence[str]) -> None:
    """Runs one of our own commands, in this environment or another's."""
    try:
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(places.SOURCE)})
    except subprocess.CalledProcessError as error:
        raise UserError(f"`{shlex.join(command)}` failed; what it said stands above") from error


def write_agent_table(config: AgentsConfig) -> Path:
    """Trains and measures what is missing, and writes table and plots; returns the table's path."""
    config = checked(config)
    if config.task not in places.bundled_tasks():
        raise UserError(f"no checkpoint is bundled for {config.task!r}; `jepa-mpc tasks` shows which have one")
    given = [name.strip() for word in config.agents for name in word.split(",")]  # so they were told apart in 0.2.0
    chosen = list(RIVALS) if given == ["all"] else given
    for name in chosen:
        RIVALS[name]  # raises if there is none
    book = Book.open(AgentRow, f"agents/{places.slug(config.task)}", config)
    rows: dict[str, dict[int, AgentRow]] = {}
    for name in dict.fromkeys([*chosen, *RIVALS]):
        for index, seed in enumerate(tqdm(RIVALS[name].seeds, desc=name, leave=False)):
            what = row_name(name, seed), asked(name, seed, config)
            wanted = name in chosen and index < config.max_seeds
            go = partial(measure, name, seed, config, book)
            if row := book.once(*what, go) if wanted else book.find(*what):
                rows.setdefault(name, {})[seed] = row
    rows = {name: rows[name] for name in RIVALS if name in rows}
    spec = envs.get_task(config.task)
    files.write_whole(book.folder / "agents.md", table(rows, spec, config))
    measured = {name: list(each.values()) for name, each in rows.items()}
    agent_plots.plot_success(book.folder / "success.png", measured)
    if spec.suite:
        agent_plots.plot_returns(book.folder / "returns.png", measured, spec)
    return book.folder / "agents.md"


def row_name(name: str, learning_seed: int) -> str:
    """Returns the name of a row's file."""
    return f"{name}-seed{learning_seed}"


def table(rows: dict[str, dict[int, AgentRow]], spec: envs.TaskSpec, config: AgentsConfig) -> str:
    """Returns what agents reach, and what they cost, as Markdown, with the command that makes it."""
    return report.page(
        f"# Agents on `{config.task}`",
        f"Made by `jepa-mpc benchmark agents --task {config.task}` on {config.num_episodes} pairs of seed "
        f"{config.seed}, the same for everyone: the mean over seeds of learning, Wilson's 95 % interval for the pairs, "
        "and the seeds' own rates. Runs are named by their commits. What is equal, what is not, and what would change "
        "the verdict: [docs/benchmark.md](../../../benchmark.md).",
        [_reach(name, each, [rewarded.name for rewarded in spec.suite]) for name, each in rows.items()],
        [_cost(name, list(each.values())) for name, each in rows.items()],
    )


def _reach(name: str, rows: dict[int, AgentRow], suite: list[str]) -> dict[str, str]:
    returns = [f"{np.mean([row.suite[task].mean for row in rows.values()]):.0f}" for task in suite]
    runs = [f"[{row.commit[:7]}]({row_name(name, seed)}.json)" for seed, row in rows.items()]
    shares = {p: share([row.protocols[p] for row in rows.values()]) for p in PROTOCOLS_OF_A_ROW}
    return {
        "agent": f"`{name}`",
        "is given": RIVALS[name].given,
        **{f"{protocol}, % [95 %]": cell for protocol, cell in shares.items()},
        f"return, {' / '.join(suite)}": " / ".join(returns) or "–",
        "runs": ", ".join(runs),
    }


def _cost(name: str, rows: Sequence[AgentRow]) -> dict[str, str]:
    facts, count = rows[0].facts, rows[0].multiply_adds
    seconds = np.median([row.facts.learning_seconds for row in rows])
    return {
        "agent": f"`{name}`",
        "steps seen": f"{facts.steps:,}" if facts.steps else "–",
        "reward": "yes" if facts.rewards else "no",
        "learned in": f"{seconds / 60:.0f} min" if seconds else "–",
        "decision, for steps": f"{np.median([row.decision_ms for row in rows]):.1f} ms for {rows[0].decision_steps}",
        "multiply-adds": f"{count / 1e6:.1f} M" if facts.parameters and count else "–",
        "parameters": f"{facts.parameters / 1e6:.2f} M" if facts.parameters else "–",
    }


def share(summaries: Sequence[SuccessSummary]) -> str:
    """Says success on average over an agent's seeds, and each of them where there are several. The interval is Wilson's
    for the pairs: they are the same for every seed, so more seeds make it no narrower.
    """
    rates, n = [summary.success_rate for summary in summaries], summaries[0].num_episodes
    mean = float(np.mean(rates))
    text = rate(round(mean * n), n)._replace(rate=mean).percent()
    return text + (f" ({', '.join(f'{100 * each:.1f}' for each in rates)})" if len(rates) > 1 else "")


def main(args: Sequence[str]) -> None:
    print(f"wrote {write_agent_table(parse(AgentsConfig, args))}")  # noqa: T201
