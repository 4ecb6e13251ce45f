"""Success on a robot that is simulated in real time, with its delays: `jepa-mpc benchmark robot`.

As slow as the robot: an episode of 100 steps of 40 ms takes four seconds.
"""

if __name__ == "__main__":  # first, so that Ctrl-C in the imports below is answered too
    from jepa_mpc.cli import run

    run("benchmark robot")

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from jepa_mpc import envs, files
from jepa_mpc.agent.agent_config import planning_of
from jepa_mpc.agent.planning_agent import PlanningAgent, load_proposer
from jepa_mpc.agent.robot import Block, Driver, Pace
from jepa_mpc.agent.simulated_robot import Hardware, SimulatedRobot
from jepa_mpc.cli import parse, typed
from jepa_mpc.eval import report
from jepa_mpc.eval.book import Book, CheckpointTableConfig, digests
from jepa_mpc.eval.metrics import Rate, SuccessSummary, rate, summarise
from jepa_mpc.eval.results import Made
from jepa_mpc.eval.trial import EpisodeRecord, Judge, Trial
from jepa_mpc.provenance import provenance
from jepa_mpc.seeds import search_seed
from jepa_mpc.settings import NonNegative, Share, checked
from jepa_mpc.world_model.checkpoint import load_checkpoint

WAYS = {"bridged": True, "as-it-comes": False}
WORDS = {"bridged": "the delay bridged", "as-it-comes": "the newest picture, answered as it comes"}


@dataclass(frozen=True)
class RobotTableConfig(CheckpointTableConfig):
    """Measure success on a robot that is simulated in real time, with delays, lost pictures and noise."""

    delay_ms: NonNegative = 60.0
    """From a picture's being taken to its being there."""
    jitter_ms: NonNegative = 20.0
    """Of the delay, to both sides."""
    dropped: Share = 0.05
    """Share of the pictures that are lost."""
    noise: NonNegative = 5.0
    """Std of the pictures' noise, of 255."""


@dataclass(frozen=True)
class RobotRow(Made, SuccessSummary):
    """What driving a simulated robot came to."""

    in_time: Rate  # blocks whose own actions were decided when they began
    seen: Rate  # blocks whose beginning was seen
    age_ms: float  # of the pictures when they were seen, median
    episodes: list[EpisodeRecord]


def write_robot_table(config: RobotTableConfig) -> Path:
    """Measures what is missing, and writes the table; returns its path."""
    config, spec = checked(config), envs.get_task(config.task)
    folder, planning = config.folder, planning_of(config.task)
    hardware = Hardware(config.delay_ms / 1e3, config.jitter_ms / 1e3, config.dropped, config.noise)
    book = Book.open(RobotRow, config.name("robot"), config)
    always: dict[str, Any] = {
        "task": config.task,
        **digests(folder, planning),
        "num_episodes": config.num_episodes,
    }
    always |= {"seed": config.seed, "hardware": hardware}
    model, _ = load_checkpoint(folder, task=config.task)
    rows = {}
    with contextlib.closing(envs.make(config.task)) as env:
        trial = Trial.on_pairs(env, spec, "far", config.seed, config.num_episodes)
        for name, bridge in WAYS.items():
            way = replace(planning, blocks_ahead=int(bridge))
            agent = PlanningAgent(model, env.action_space, spec.action_block, way, load_proposer(folder, way))
            go = partial(measure, trial, agent, hardware, name)
            rows[name] = book.once(name, {**always, "planner": way}, go)
    files.write_whole(path := book.folder / "robot.md", table(rows, config))
    return path


def measure(trial: Trial, agent: PlanningAgent, hardware: Hardware, description: str) -> RobotRow:
    """Drives the robot to each of a trial's goals, in real time."""
    made_by, env, pairs = provenance(), trial.env, trial.pairs
    num_blocks = -(-trial.budget // agent.action_block) + agent.config.blocks_ahead  # the first of which is stillness
    pace, blocks, records = Pace(bridge=bool(agent.config.blocks_ahead)), list[Block](), []
    for number in tqdm(range(len(pairs)), desc=description, unit="episode"):
        judge = Judge(env, trial.spec, pairs.start_state[number], pairs.goal_state[number], pairs.goal_qpos[number])
        env.set_state(pairs.start_state[number])
        robot = SimulatedRobot(env, hardware, seed=number)
        driver = Driver(robot, agent, pace)
        blocks += driver.drive(pairs.goal_picture[number], num_blocks, search_seed(trial.seed, number))
        for state in robot.states[1 : trial.budget + 1]:
            env.set_state(state)
            judge.see(0.0)
        records.append(judge.record(number, trial.protocol))
    ages = 1e3 * np.array([block.age for block in blocks])
    return RobotRow(
        **vars(summarise(records, trial.budget)),
        in_time=rate(sum(block.in_time for block in blocks), len(blocks)),
        seen=rate(int(np.isfinite(ages).sum()), len(blocks)),
        age_ms=float(np.nanmedian(ages)),
        episodes=records,
        **made_by,
    )


def table(rows: dict[str, RobotRow], config: RobotTableConfig) -> str:
    """Returns the table as Markdown, with the command that makes it."""
    options = typed(config, ("delay_ms", "jitter_ms", "dropped", "noise"))
    return report.page(
        f"Made by `jepa-mpc benchmark robot --task {config.task}{options}` on {config.num_episodes} far pairs of seed "
        f"{config.seed}, in real time: pictures are there {config.delay_ms:g} ± {config.jitter_ms:g} ms after they are "
        f"taken, {100 * config.dropped:g} % of them are lost, and noise of std {config.noise:g} of 255 is on them. "
        f"Intervals are Wilson's at 95 %.{config.declared}",
        [
            {
                "driven by": WORDS[name],
                "reached, % [95 %]": row.first_hit.percent(),
                "held, % [95 %]": row.held.percent(),
                "decided in time, % [95 %]": row.in_time.percent(),
                "pictures seen, %": f"{100 * row.seen.rate:.1f}",
                "run": f"[JSON]({name}.json)",
            }
            for name, row in rows.items()
        ],
    )


def main(args: Sequence[str]) -> None:
    print(f"wrote {write_robot_table(parse(RobotTableConfig, args))}")  # noqa: T201
