"""How well surprise tells that something is wrong: `jepa-mpc benchmark surprise`.

Faults set in while the robot is on its way to a far goal; the same episodes without them stand beside. An episode's
score is the highest surprise at its pictures from when the fault sets in, so ROC-AUC is the chance that one with the
fault has a higher score than one without.
"""

if __name__ == "__main__":  # first, so that Ctrl-C in the imports below is answered too
    from jepa_mpc.cli import run

    run("benchmark surprise")

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from jepa_mpc import envs, files
from jepa_mpc.agent.agent_config import planning_of
from jepa_mpc.agent.base import next_blocks
from jepa_mpc.agent.planning_agent import PlanningAgent, load_proposer
from jepa_mpc.cli import parse
from jepa_mpc.envs.blocks import run_block
from jepa_mpc.errors import UserError
from jepa_mpc.eval import report
from jepa_mpc.eval.book import Book, CheckpointTableConfig, digests
from jepa_mpc.eval.pairs import Pairs
from jepa_mpc.eval.results import Made
from jepa_mpc.eval.trial import BATCH_SIZE, Trial
from jepa_mpc.provenance import provenance
from jepa_mpc.seeds import episode_rng, search_seed
from jepa_mpc.settings import Positive, checked
from jepa_mpc.world_model.checkpoint import load_checkpoint

NONE = "none"
FAULTS = {
    "teleport": "the robot stands elsewhere from one picture to the next",
    "frozen": "the camera shows the same picture again and again",
    "covered": "the camera is covered",
    "load": "every body weighs twice as much, from the start",
}


@dataclass(frozen=True)
class SurpriseConfig(CheckpointTableConfig):
    """Measure how well surprise tells that something is wrong."""

    alarm: Positive = 3.0
    """Surprise above which an alarm is given, as by `jepa-mpc run --max-surprise`."""


@dataclass(frozen=True)
class SurpriseRow(Made):
    """The surprise at every picture but the first, and from which on a fault is there."""

    num_episodes: int
    surprise: list[list[float]]  # an episode, a picture
    onset: list[int]  # the number of the first picture with the fault


def write_surprise_table(config: SurpriseConfig) -> Path:
    """Measures what is missing, and writes the table; returns its path."""
    config, spec = checked(config), envs.get_task(config.task)
    planning = planning_of(config.task)
    book = Book.open(SurpriseRow, config.name("surprise"), config)
    always: dict[str, Any] = {"task": config.task, **digests(config.folder, planning), "planner": planning}
    always |= {"num_episodes": config.num_episodes, "seed": config.seed}
    model, _ = load_checkpoint(config.folder, task=config.task)
    if model.usual_miss is None:
        raise UserError(f"checkpoint {config.folder} does not know what is usual; train it again")
    rows = {}
    with contextlib.closing(envs.make(config.task, image_size=model.config.encoder.image_size)) as env:
        trial = Trial.on_pairs(env, spec, "far", config.seed, config.num_episodes)
        proposer = load_proposer(config.folder, planning)
        agent = PlanningAgent(model, env.action_space, spec.action_block, planning, proposer)
        for fault in (NONE, *FAULTS):
            if fault != "load" or _weights(env):
                rows[fault] = book.once(fault, {**always, "fault": fault}, partial(measure, trial, agent, fault))
    files.write_whole(path := book.folder / "surprise.md", table(rows, config))
    return path


def measure(trial: Trial, agent: PlanningAgent, fault: str) -> SurpriseRow:
    """Plans a trial's episodes under a fault, and returns how surprised the agent was."""
    made_by, env, pairs = provenance(), trial.env, trial.pairs
    num_blocks = -(-trial.budget // agent.action_block)
    onset = [1 if fault == "load" else _onset(trial.seed, pair, num_blocks) for pair in range(len(pairs))]
    seen: list[list[float]] = []
    with _load(env) if fault == "load" else contextlib.nullcontext():
        for first in tqdm(range(0, len(pairs), BATCH_SIZE), desc=fault):
            numbers = range(first, min(first + BATCH_SIZE, len(pairs)))
            seen += _watch(trial, agent, fault, pairs[first : numbers.stop], numbers, onset, num_blocks)
    return SurpriseRow(num_episodes=len(pairs), surprise=seen, onset=onset, **made_by)


def _onset(seed: int, pair: int, num_blocks: int) -> int:
    """Draws the picture at which a fault sets in: the third, or a later one in the first quarter of the budget, for
    who stands still cannot tell a frozen picture.
    """
    return int(episode_rng("fault", seed, pair).integers(2, max(3, 1 + num_blocks // 4)))


def _watch(
    trial: Trial,
    agent: PlanningAgent,
    fault: str,
    batch: Pairs,
    numbers: Sequence[int],
    onset: Sequence[int],
    num_blocks: int,
) -> list[list[float]]:
    env, states = trial.env, list(batch.start_state)
    agent.reset(batch.goal_picture, [search_seed(trial.seed, pair) for pair in numbers])
    pictures: list[NDArray[np.uint8]] = []
    surprise: list[NDArray[np.float32]] = []
    for block in range(num_blocks):
        before, pictures, felt = pictures, [], []
        for i, pair in enumerate(numbers):
            begins, is_there = block == onset[pair], block >= onset[pair]
            if fault == "teleport" and begins:
                states[i] = trial.pairs.start_state[(pair + 1) % len(trial.pairs)]
            picture = np.array(env.picture_of(states[i]))
            if fault == "frozen" and is_there:
                picture = before[i]
            if fault == "covered" and is_there:
                picture = np.full_like(picture, 40)
            pictures.append(picture)
            felt.append(env.proprio)
        blocks = next_blocks(agent, np.stack(pictures), felt)
        surprise.append(agent.surprise())
        for i, actions in enumerate(blocks):
            env.set_state(states[i])
            with contextlib.suppress(envs.Diverged):
                run_block(env, actions)
            states[i] = np.array(env.get_state())
    return np.stack(surprise[1:], axis=1).astype(float).round(4).tolist()


@contextlib.contextmanager
def _load(env: envs.PixelEnv) -> Iterator[None]:
    """Doubles what every body of the scene weighs, for as long."""
    for values in _weights(env):
        values *= 2
    try:
        yield
    finally:
        for values in _weights(env):
            values /= 2


def _weights(env: envs.PixelEnv) -> list[NDArray[np.float64]]:
    """Returns masses and inertias of a simulation by MuJoCo, which may be changed in place; nothing of any other."""
    model = getattr(env.unwrapped, "model", None)
    return [] if model is None else [model.body_mass, model.body_inertia]


def auc(faulty: Sequence[float], well: Sequence[float]) -> float:
    """Returns the chance that one of the faulty is above one of the others (ROC-AUC), ties counting half."""
    from scipy.stats import mannwhitneyu

    return float(mannwhitneyu(faulty, well).statistic / (len(faulty) * len(well)))


def scores(row: SurpriseRow, onset: Sequence[int]) -> list[float]:
    """Returns each episode's highest surprise from a picture on."""
    return [max(each[first - 1 :]) for each, first in zip(row.surprise, onset, strict=True)]


def table(rows: dict[str, SurpriseRow], config: SurpriseConfig) -> str:
    """Returns the table as Markdown, with the command that makes it."""
    well, lines = rows[NONE], []
    pictures = np.concatenate([np.array(each) for each in well.surprise])
    block = envs.get_task(config.task).action_block
    false = (pictures > config.alarm).sum() / (block * len(pictures))
    for fault, words in FAULTS.items():
        if fault in rows:
            row = rows[fault]
            since = zip(row.surprise, row.onset, strict=True)
            after = [np.array(each[first - 1 :]) > config.alarm for each, first in since]
            late = [int(each.argmax()) + 1 for each in after if each.any()]
            lines.append(
                {
                    "fault": words,
                    "ROC-AUC": f"{auc(scores(row, row.onset), scores(well, row.onset)):.3f}",
                    "alarm given, %": f"{100 * len(late) / len(after):.1f}",
                    "after pictures, median": f"{np.median(late):g}" if late else "–",
                    "run": f"[JSON]({fault}.json)",
                }
            )
    return report.page(
        f"Made by `jepa-mpc benchmark surprise --task {config.task}` on {well.num_episodes} far pairs of seed "
        f"{config.seed}. ROC-AUC is the chance that the highest surprise from the fault on is above that at the same "
        f"pictures of an episode without. An alarm is a surprise above {config.alarm:g}; where all is well it comes at "
        f"{1000 * false:.2f} in 1,000 steps ([JSON]({NONE}.json)).{config.declared}",
        lines,
    )


def main(args: Sequence[str]) -> None:
    print(f"wrote {write_surprise_table(parse(SurpriseConfig, args))}")  # noqa: T201
