"""Makes a world model better by practice, without any reward: `jepa-mpc improve --task cube --output FOLDER`.

A round plans toward pictures of the data, keeps every episode, and trains on old and new ones together. What it came to
is measured on held-out pairs, before and after. Interrupted, the same command goes on.
"""

if __name__ == "__main__":  # first, so that Ctrl-C in the imports below is answered too
    from jepa_mpc.cli import run

    run("improve")

import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from jepa_mpc import envs, files, places
from jepa_mpc.agent.agent_config import AgentConfig, read_planning
from jepa_mpc.agent.collect import CollectConfig, collect
from jepa_mpc.agent.planning_agent import PlanningAgent, load_proposer
from jepa_mpc.agent.practice import NAME, Practice
from jepa_mpc.cli import parse, typed
from jepa_mpc.eval import report
from jepa_mpc.eval.book import Book, declaration, digests, published
from jepa_mpc.eval.metrics import Rate, SuccessSummary, summarise
from jepa_mpc.eval.protocols import GoalProtocol
from jepa_mpc.eval.results import Made
from jepa_mpc.eval.trial import EpisodeRecord, Trial
from jepa_mpc.provenance import provenance
from jepa_mpc.settings import Count, Fraction, Natural, Positive, Seed, checked, read, to_json
from jepa_mpc.world_model.checkpoint import load_checkpoint, load_info, weights_digest
from jepa_mpc.world_model.data.dataset import Dataset
from jepa_mpc.world_model.latent_policy.stored import load_latent_policy
from jepa_mpc.world_model.latent_policy.train import LatentPolicyConfig
from jepa_mpc.world_model.latent_policy.train import train as train_policy
from jepa_mpc.world_model.train import train
from jepa_mpc.world_model.training.config import TrainConfig

log = logging.getLogger(__name__)

BEFORE, AFTER = "before", "after"
_TOOK = "minutes.json"  # of a round, so that one that is done counts when the command goes on


@dataclass(frozen=True)
class ImproveConfig:
    """Make a world model better by practice: plan toward pictures of its data, keep every episode, train on."""

    output: Path
    """Folder for the rounds, each with its episodes and its checkpoint, and for the table."""
    task: str = "reacher"
    """Task in the registry."""
    checkpoint: Path | None = None
    """Checkpoint folder to begin with; the task's bundled one unless given."""
    data: tuple[Path, ...] = ()
    """HDF5 files that it was trained on; `data/TASK.h5` under the home unless given."""
    rounds: Count = 1
    """How often to practise and train."""
    minutes: Positive | None = None
    """No round begins later than this."""
    num_episodes: Count = 500
    """Episodes of practice in a round."""
    share: Fraction = 0.4
    """Of the windows to train on, those that practice has given; the others are of --data."""
    num_steps: Natural = 0
    """Steps of encoder and predictor together in a round; 0 leaves the encoder as it is."""
    predictor_steps: Count | None = None
    """Steps of the predictor alone in a round; as many as the checkpoint was trained for, unless given."""
    protocol: GoalProtocol = "standard"
    """What counts before and after, as of `jepa-mpc plan`."""
    num_pairs: Count = 200
    """Held-out pairs to measure on."""
    seed: Seed = 0
    """Decides practice, training, pairs and search."""
    publish: bool = False
    """Write rows and table into docs/results instead."""


@dataclass(frozen=True)
class ImproveRow(Made, SuccessSummary):
    """What a checkpoint came to before or after practice, beside agents that do not plan."""

    num_practised: int  # episodes
    minutes: float  # that practice and training took, without measuring, nor what an interruption cut off
    baselines: dict[str, SuccessSummary]
    episodes: list[EpisodeRecord]


def improve(config: ImproveConfig) -> Path:
    """Practises and trains, measures, and writes the table; returns its path."""
    config, spec = checked(config), envs.get_task(config.task)
    first = places.checkpoint(str(config.checkpoint or config.task))
    data = config.data or (places.dataset(config.task),)
    book = Book(ImproveRow, config.output)
    if config.publish:
        book = Book(ImproveRow, published(f"improve/{places.slug(config.task)}"), [config.output])
    seen = Dataset(data, task=config.task, in_memory="no")  # raises before anything is written
    settings = {**to_json(config), "checkpoint": weights_digest(first), "episodes": seen.fingerprint()}
    free = ("output", "data", "rounds", "minutes", "protocol", "num_pairs", "publish")
    checkpoint, practised, minutes = first, list[Path](), 0.0
    with contextlib.ExitStack() as stack:
        env = stack.enter_context(contextlib.closing(envs.make(config.task)))
        trial = Trial.on_pairs(env, spec, config.protocol, config.seed, config.num_pairs)  # or raises, before rounds
        stack.enter_context(files.claimed(config.output, settings, free))
        for number in range(1, config.rounds + 1):
            if config.minutes is not None and minutes > config.minutes:
                log.info("%g minutes are over after %d rounds", config.minutes, number - 1)
                break
            folder, begin = config.output / f"round-{number}", time.monotonic()
            log.info("round %d of %d", number, config.rounds)
            practised.append(_practise(config, checkpoint, seen, folder, number))
            checkpoint = _train(config, checkpoint, data, practised, folder)
            if not (took := folder / _TOOK).exists():
                files.write_json(took, (time.monotonic() - begin) / 60)
            minutes += float(files.read_json(took, "delete it; the round then counts as done in no time"))
        rows, planning = {}, read_planning(load_info(first).planning, first)
        for name, (which, episodes, spent) in {
            BEFORE: (first, 0, 0.0),
            AFTER: (checkpoint, len(practised) * config.num_episodes, minutes),
        }.items():
            asked: dict[str, Any] = {
                "task": config.task,
                **digests(which, planning),
                "protocol": config.protocol,
            }
            asked |= {"num_episodes": config.num_pairs, "seed": config.seed, "planner": planning}
            rows[name] = book.once(name, asked, partial(_measure, trial, which, planning, episodes, spent))
        files.write_whole(path := book.folder / "improve.md", table(rows, config))
    return path


def _practise(config: ImproveConfig, checkpoint: Path, seen: Dataset, folder: Path, number: int) -> Path:
    """Returns the episodes of a round's practice, which are collected where they are missing."""
    path = folder / "practice.h5"
    if not path.exists():
        practice = Practice.prepare(checkpoint, seen, config.output / "goals.safetensors")
        asked = CollectConfig(
            task=config.task,
            policy=NAME,
            num_episodes=config.num_episodes,
            seed=config.seed + 1_000_003 * number,  # no episode of another round, nor of the data
            output=path,
            every_step=seen.stride != 1,
            randomise=seen.info.randomise,  # type: ignore[arg-type]
        )
        collect(asked, practice)
    return path


def _train(
    config: ImproveConfig, checkpoint: Path, data: Sequence[Path], practised: Sequence[Path], folder: Path
) -> Path:
    """Returns the checkpoint that has learned from data and practice, trained as the one before it was."""
    was = load_info(checkpoint).training
    given = {"augment": False, **was}  # older ones, which do not say it, saw plain pictures
    given |= {"output": str(folder / "checkpoint"), "task": config.task, "init": str(checkpoint), "seed": config.seed}
    given |= {"num_steps": config.num_steps, "data": [*map(str, [*data, *practised])]}
    given["distil_steps"] = was.get("distil_steps", 0) if config.num_steps else 0
    given["shares"] = [*_of(1 - config.share, data), *_of(config.share, practised)]
    if config.predictor_steps is not None:
        given["predictor_steps"] = config.predictor_steps
    settings = read(TrainConfig, given, checkpoint)
    made = train(settings)
    kind = read_planning(load_info(made).planning, made).warm_start
    if kind != "none":
        name = f"{kind}.safetensors"
        told = load_latent_policy(checkpoint / name, checkpoint)[1]
        asked = LatentPolicyConfig(folder / "policy", told.kind, config.task, made, settings.data, config.seed)
        same = replace(asked, num_steps=told.num_steps, reach=told.reach, hidden=told.hidden, retrieval=told.retrieval)
        files.write_whole(made / name, train_policy(same).read_bytes())
    return made


def _of(share: float, paths: Sequence[Path]) -> list[float]:
    """Returns the share of each file, by its rows, of what they have together."""
    rows = [int(Dataset(path, in_memory="no").ep_len.sum()) for path in paths]
    return [share * each / sum(rows) for each in rows]


def _measure(trial: Trial, checkpoint: Path, planning: AgentConfig, num_practised: int, minutes: float) -> ImproveRow:
    made_by = provenance()
    model, _ = load_checkpoint(checkpoint, task=trial.spec.name)
    proposer = load_proposer(checkpoint, planning)
    agent = PlanningAgent(model, trial.env.action_space, trial.spec.action_block, planning, proposer)
    records, _ = trial.run(agent, checkpoint.name)
    return ImproveRow(
        **vars(summarise(records, trial.budget)),
        num_practised=num_practised,
        minutes=round(minutes, 1),
        baselines=trial.baselines(partial(summarise, budget=trial.budget)),
        episodes=records,
        **made_by,
    )


def table(rows: dict[str, ImproveRow], config: ImproveConfig) -> str:
    """Returns the table as Markdown, with the command that makes it."""
    from scipy.stats import binomtest

    before, after = rows[BEFORE], rows[AFTER]
    pairs = [(a.success, b.success) for a, b in zip(before.episodes, after.episodes, strict=True)]
    won, lost = pairs.count((False, True)), pairs.count((True, False))
    chance = binomtest(won, won + lost).pvalue if won + lost else 1.0
    options = typed(config, [each.name for each in fields(config) if each.name not in ("output", "task", "publish")])
    baselines = ", ".join(f"{name.replace('_', ' ')} {_success(row)} %" for name, row in before.baselines.items())
    declared = declaration(load_info(str(config.checkpoint or config.task)))
    return report.page(
        f"Made by `jepa-mpc improve --task {config.task}{options}` and measured on {config.num_pairs} held-out "
        f"{config.protocol} pairs of seed {config.seed}; intervals are Wilson's at 95 %. On these pairs: {baselines}. "
        f"Practice won {won} pairs and lost {lost} (p = {chance:.2g}, exact sign test).{declared}",
        [
            {
                "": name,
                "episodes of practice": str(row.num_practised),
                "minutes": f"{row.minutes:g}",
                "success, % [95 %]": _success(row),
                "held, % [95 %]": row.held.percent(),
                "run": f"[JSON]({name}.json)",
            }
            for name, row in rows.items()
        ],
    )


def _success(row: SuccessSummary) -> str:
    return Rate(row.success_rate, *row.success_interval).percent()


def main(args: Sequence[str]) -> None:
    config = parse(ImproveConfig, args)
    path = improve(config)
    made = sorted(config.output.glob("round-*/checkpoint"), key=lambda each: int(each.parent.name.partition("-")[2]))
    print(f"wrote {path}; the model is in {made[-1]}")  # noqa: T201
