"""Why SIGReg: trains every remedy against collapse on the same data: `jepa-mpc benchmark collapse`.

Each remedy learns for the same number of steps at its defaults from several seeds, then with its main weights a
tenth and ten times as large, and plans to the same held-out pairs. Writes tables, pictures, curves and a JSON into one
folder. What is measured already is not measured again, so an interrupted study goes on where it was.
"""

if __name__ == "__main__":  # first, so that Ctrl-C in the imports below is answered too
    from jepa_mpc.cli import run

    run("benchmark collapse")

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from jepa_mpc import envs, files, places
from jepa_mpc.agent.agent_config import AgentConfig
from jepa_mpc.agent.planning_agent import PlanningAgent
from jepa_mpc.cli import option_value, parse
from jepa_mpc.eval.book import Book, published
from jepa_mpc.eval.collapse.report import StudyRow, Variant, write_results
from jepa_mpc.eval.trial import EpisodeRecord, Trial
from jepa_mpc.planners import CEMConfig
from jepa_mpc.provenance import provenance
from jepa_mpc.settings import Count, Seed, checked, to_json
from jepa_mpc.workers import granted_cores, run_parallel
from jepa_mpc.world_model.checkpoint import load_checkpoint, load_info
from jepa_mpc.world_model.data.dataset import Dataset
from jepa_mpc.world_model.model.jepa import JEPA
from jepa_mpc.world_model.regularizers import REGULARIZERS
from jepa_mpc.world_model.train import dataset_paths, train
from jepa_mpc.world_model.training.config import TRAIN_PRESETS, TrainConfig
from jepa_mpc.world_model.training.diagnostics import encode_rows

# The distance between embeddings, and nothing learned after them: what is judged is the representation.
PLANNING = AgentConfig(CEMConfig(), objective="latent", reduction="minimum", effort_weight=0.0, horizon=5)

# What of each remedy is swept, over which factors. SIGReg's range is asked about as a whole, so it is looked at closer.
SWEPT: dict[str, dict[str, tuple[float, ...]]] = {
    "sigreg": {"weight": (0.1, 0.3, 3, 10)},
    "ema": {"rate": (0.1, 10)},
    "vicreg": {"variance_weight": (0.1, 10), "covariance_weight": (0.1, 10)},
    "simclr": {"weight": (0.1, 10), "temperature": (0.1, 10)},
    "moco": {"weight": (0.1, 10), "rate": (0.1, 10)},
    "kl": {"weight": (0.1, 10)},
    "pldm": {"variance_weight": (0.1, 10), "covariance_weight": (0.1, 10)},
}
_load = lru_cache(maxsize=1)(Dataset)  # one in each process
NUM_TRACED = 8  # held-out episodes whose embeddings are kept at every report


@dataclass(frozen=True)
class StudyConfig:
    """Train every remedy against collapse on the same data, measure, and draw."""

    task: str = "reacher"
    """Task in the registry."""
    preset: str = "default"
    """Of the trainings; debug: every part runs within two minutes, nothing is learned; options given beside it win."""
    data: Path | None = None
    """HDF5 data set; `data/<task>.h5` unless given."""
    output: Path | None = None
    """Folder for the tables, the pictures and the JSON, and for every training; `runs/collapse` unless given."""
    num_seeds: Count = 3
    """Trainings of each remedy at its defaults; sweeps take one."""
    num_steps: Count = 600
    """Steps of a training, encoder and predictor together; a preset with a number of its own decides there."""
    num_episodes: Count = 200
    """Start and goal pairs of the standard protocol."""
    pairs_seed: Seed = 0
    """Decides the pairs and the search."""
    num_processes: Count = 2
    """Trainings at a time, each on its share of the cores."""
    publish: bool = False
    """Write the tables, the pictures and the JSON into docs/results instead."""

    @property
    def folder(self) -> Path:
        return self.output or places.runs("collapse")


def variants(num_seeds: int) -> Iterator[Variant]:
    """Yields trainings seed by seed, so that an interrupted study has seen every remedy; then the sweeps."""
    for seed in range(num_seeds):
        for regularizer in REGULARIZERS:
            yield Variant(regularizer, seed=seed)
    for regularizer, options in SWEPT.items():
        for option, factors in options.items():
            yield from (Variant(regularizer, option, factor) for factor in factors)


def train_config(study: StudyConfig, variant: Variant) -> TrainConfig:
    """Returns a variant's settings: LeWorldModel's batch and its prediction one step ahead, reported often."""
    settings: dict[str, Any] = {"num_steps": study.num_steps, "batch_size": 128, "num_frames": 4, "save_every": 200}
    settings |= {**TRAIN_PRESETS[study.preset], "rollout_weight": 0.0, "predictor_steps": 0, "reachability_steps": 0}
    settings |= {"report_every": 20, "report_frames": 512, "augment": False}
    remedy = REGULARIZERS[variant.regularizer]()
    if type(remedy) is type(settings.get("regularizer")):
        remedy = settings["regularizer"]
    if variant.option:
        remedy = replace(remedy, **{variant.option: variant.factor * getattr(remedy, variant.option)})
    return TrainConfig(
        output=study.folder / "runs" / variant.name,
        task=study.task,
        data=(study.data,) if study.data else (),
        preset=study.preset,
        seed=variant.seed,
        **{**settings, "regularizer": remedy},
    )


def measure(study: StudyConfig, variant: Variant) -> StudyRow:
    """Trains and plans, unless that was done; what is printed on the way goes into the training's folder."""
    asked = {**_shared(study), **asdict(variant)}
    return Book(StudyRow, study.folder / "rows").once(variant.name, asked, partial(_measure, study, variant))


def _measure(study: StudyConfig, variant: Variant) -> StudyRow:
    config, made_by = train_config(study, variant), provenance()
    latents = config.output / "latents"
    latents.mkdir(parents=True, exist_ok=True)

    def keep_latents(model: JEPA, data: Dataset, step: int) -> None:
        episodes = data.held_out_episodes[:NUM_TRACED]
        z = encode_rows(model, data, data.rows_of(episodes)).half().numpy()
        np.save(latents / f"{step:06d}.npy", np.stack(np.split(z, len(episodes))))

    with (config.output / "log.txt").open("a") as log, contextlib.redirect_stderr(log):
        train(config, _load(dataset_paths(config), task=study.task), keep_latents)
        success = _plan(study, config.output)
    info = load_info(config.output)
    learned: dict[str, Any] = {"collapsed": info.collapsed, "learning_seconds": info.learning_seconds, **info.metrics}
    return StudyRow(**vars(variant), success=success, **learned, **made_by)


def _plan(study: StudyConfig, checkpoint: Path | None) -> dict[str, list[bool]]:
    """Returns success on every pair by agent: the checkpoint's, or without one random and do-nothing."""
    spec = envs.get_task(study.task)
    with contextlib.closing(envs.make(study.task)) as env:
        trial = Trial.on_pairs(env, spec, "standard", study.pairs_seed, study.num_episodes)
        if checkpoint is None:
            return trial.baselines(_hits)
        agent = PlanningAgent(load_checkpoint(checkpoint)[0], env.action_space, spec.action_block, PLANNING)
        return {"planning": _hits(trial.run(agent, "planning")[0])}


def _hits(records: Sequence[EpisodeRecord]) -> list[bool]:
    return [record.success for record in records]


def _shared(study: StudyConfig) -> dict[str, Any]:
    """Returns the settings that all trainings of a folder share."""
    return {name: getattr(study, name) for name in ("task", "preset", "num_steps", "num_episodes", "pairs_seed")}


def run_study(study: StudyConfig) -> Path:
    """Measures what is missing, and writes tables, pictures and JSON; returns their folder."""
    study = checked(study)
    TRAIN_PRESETS[study.preset]  # raises if there is none
    folder = published("collapse") if study.publish else study.folder
    todo = list(variants(study.num_seeds))
    begin = partial(torch.set_num_threads, max(1, granted_cores() // study.num_processes))
    with files.claimed(study.folder, _shared(study)):
        calls = [(study, variant) for variant in todo]
        measured = tqdm(run_parallel(measure, calls, study.num_processes, begin), total=len(todo), desc="trainings")
        rows = {row.name: row for row in measured}
        settings = {"settings": _shared(study), "planner": to_json(PLANNING)}
        runs = study.folder / "runs"
        write_results(folder, runs, settings, [rows[variant.name] for variant in todo], _plan(study, None))
    return folder


def parse_config(args: Sequence[str]) -> StudyConfig:
    """Returns what options make of the chosen preset."""
    small: dict[str, Any] = {"num_seeds": 1, "num_episodes": 2} if option_value(args, "--preset") == "debug" else {}
    return parse(StudyConfig, args, StudyConfig(**small))


def main(args: Sequence[str]) -> None:
    print(f"wrote {run_study(parse_config(args))}/collapse.md, collapse.json, collapse.csv and pictures")  # noqa: T201
