"""Why SIGReg: trains every remedy against collapse on the same data: `python eval/collapse/study.py --task reacher`.

Each remedy learns for the same number of steps at its defaults from several seeds, then with its main weights a
tenth and ten times as large, and plans to the same held-out pairs. Writes tables, pictures, curves and a JSON into one
folder. What is measured already is not measured again, so an interrupted study goes on where it was.
"""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from tqdm import tqdm

from jepa_mpc import envs
from jepa_mpc.agent.agent_config import AgentConfig
from jepa_mpc.agent.base import Agent, DoNothingAgent, RandomAgent
from jepa_mpc.agent.planning_agent import PlanningAgent
from jepa_mpc.eval import report
from jepa_mpc.eval.collapse.report import write_results
from jepa_mpc.eval.goal_tasks import goal_tasks
from jepa_mpc.eval.protocols import PROTOCOLS
from jepa_mpc.eval.trial import run_episodes
from jepa_mpc.planners import CEMConfig
from jepa_mpc.workers import _begin
from jepa_mpc.world_model.checkpoint import load_checkpoint
from jepa_mpc.world_model.data.dataset import Dataset, DatasetError
from jepa_mpc.world_model.model.jepa import JEPA
from jepa_mpc.world_model.regularizers import REGULARIZERS
from jepa_mpc.world_model.train import dataset_paths, train
from jepa_mpc.world_model.training.config import PRESETS, TrainConfig
from jepa_mpc.world_model.training.diagnostics import encode_rows
from jepa_mpc.world_model.training.loop import TrainError

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
    preset: Literal["default", "debug"] = "default"
    """debug: every part runs within two minutes, nothing is learned; options given beside it win."""
    data: Path | None = None
    """HDF5 data set; `data/<task>.h5` unless given."""
    output: Path = Path("runs/collapse")
    """Folder for the tables, the pictures and the JSON, and for every training."""
    num_seeds: int = 3
    """Trainings of each remedy at its defaults; sweeps take one."""
    num_steps: int = 600
    """Steps of a training, encoder and predictor together; the trainer's own debug preset decides there."""
    num_episodes: int = 200
    """Start and goal pairs of the standard protocol."""
    pairs_seed: int = 0
    """Decides the pairs and the search."""
    num_processes: int = 2
    """Trainings at a time, each on its share of the cores."""


@dataclass(frozen=True)
class Variant:
    """One training: a remedy, at its defaults or with one of its options scaled."""

    regularizer: str
    option: str = ""
    factor: float = 1.0
    seed: int = 0

    @property
    def name(self) -> str:
        scaled = f"-{self.option}-x{self.factor:g}" if self.option else ""
        return f"{self.regularizer}{scaled}-seed{self.seed}"


def variants(num_seeds: int) -> Iterator[Variant]:
    """Seed by seed, so that an interrupted study has seen every remedy; then the sweeps."""
    for seed in range(num_seeds):
        for regularizer in REGULARIZERS:
            yield Variant(regularizer, seed=seed)
    for regularizer, options in SWEPT.items():
        for option, factors in options.items():
            yield from (Variant(regularizer, option, factor) for factor in factors)


def train_config(study: StudyConfig, variant: Variant) -> TrainConfig:
    """The trainer's settings for a variant: LeWorldModel's batch and its prediction one step ahead, reported often."""
    settings: dict[str, Any] = {"num_steps": study.num_steps, "batch_size": 128, "num_frames": 4, "save_every": 200}
    settings |= {**PRESETS[study.preset], "rollout_weight": 0.0, "predictor_steps": 0, "reachability_steps": 0}
    settings |= {"report_every": 20, "report_frames": 512}
    remedy = REGULARIZERS[variant.regularizer]()
    if type(remedy) is type(settings.get("regularizer")):
        remedy = settings["regularizer"]
    if variant.option:
        remedy = replace(remedy, **{variant.option: variant.factor * getattr(remedy, variant.option)})
    return TrainConfig(
        output=study.output / "runs" / variant.name,
        task=study.task,
        data=(study.data,) if study.data else (),
        preset=study.preset,
        seed=variant.seed,
        **{**settings, "regularizer": remedy},
    )


def measure(study: StudyConfig, variant: Variant) -> dict[str, Any]:
    """Trains and plans, unless that was done; what is printed on the way goes into the training's folder."""
    config = train_config(study, variant)
    result = config.output / "result.json"
    if result.exists():
        return json.loads(result.read_text())
    latents = config.output / "latents"
    latents.mkdir(parents=True, exist_ok=True)

    def keep_latents(model: JEPA, data: Dataset, step: int) -> None:
        episodes = data.held_out_episodes[:NUM_TRACED]
        z = encode_rows(model, data, data.rows_of(episodes)).half().numpy()
        np.save(latents / f"{step:06d}.npy", np.stack(np.split(z, len(episodes))))

    provenance = report.provenance()
    with (config.output / "log.txt").open("a") as log, contextlib.redirect_stderr(log):
        train(config, _load(dataset_paths(config), task=study.task), keep_latents)
        success = _plan(study, config.output)
    info = json.loads((config.output / "config.json").read_text())
    row = {
        "name": variant.name,
        **asdict(variant),
        "success": success,
        **info["metrics"],
        "collapsed": info["collapsed"],
        "learning_seconds": info["learning_seconds"],
        **provenance,
    }
    unfinished = result.with_suffix(".unfinished")
    report.write_json(unfinished, row)
    os.replace(unfinished, result)
    return row


def _plan(study: StudyConfig, checkpoint: Path | None) -> dict[str, list[bool]]:
    """Success on every pair by agent: the checkpoint's, or without one random and do-nothing."""
    spec, env = envs.get_task(study.task), envs.make(study.task)
    tasks = goal_tasks(env, spec, study.pairs_seed, study.num_episodes, Path("data/goal_tasks"))
    space, block = env.action_space, spec.action_block
    agents: dict[str, Agent]
    if checkpoint is None:
        agents = {"random": RandomAgent(space, block), "do_nothing": DoNothingAgent(space, block)}
    else:
        agents = {"planning": PlanningAgent(load_checkpoint(checkpoint)[0], space, block, PLANNING)}
    protocol = PROTOCOLS["standard"]
    go = partial(run_episodes, env=env, spec=spec, tasks=tasks, protocol=protocol, seed=study.pairs_seed)
    records = {name: go(agent, budget=spec.budget, description=name)[0] for name, agent in agents.items()}
    env.close()
    return {name: [record.success for record in seen] for name, seen in records.items()}


def _claim(study: StudyConfig) -> dict[str, Any]:
    """The settings that all trainings of a folder share, written into it; `ValueError` if it holds another study."""
    free = ("output", "data", "num_seeds", "num_processes")
    settings = {"settings": {name: value for name, value in asdict(study).items() if name not in free}}
    path = study.output / "settings.json"
    if path.exists() and json.loads(path.read_text()) != settings:
        raise ValueError(f"{study.output} holds a study with other settings; choose another --output")
    study.output.mkdir(parents=True, exist_ok=True)
    report.write_json(path, settings)
    return settings


def run_study(study: StudyConfig) -> list[dict[str, Any]]:
    """One row a variant, in the order of `variants`, and one for the agents without a model."""
    todo = list(variants(study.num_seeds))
    threads = max(1, (os.cpu_count() or 1) // study.num_processes)
    rows: dict[str, dict[str, Any]] = {}
    pool = ProcessPoolExecutor(
        study.num_processes, mp_context=get_context("spawn"), initializer=_begin_worker, initargs=(threads,)
    )
    try:
        futures = {pool.submit(measure, study, variant): variant.name for variant in todo}
        for future in tqdm(as_completed(futures), total=len(todo), desc="trainings"):
            rows[futures[future]] = future.result()
    finally:
        pool.shutdown(cancel_futures=True)
    return [rows[variant.name] for variant in todo]


def _begin_worker(num_threads: int) -> None:
    _begin(None)
    torch.set_num_threads(num_threads)


def parse_config() -> StudyConfig:
    """Command-line options over the chosen preset."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--preset", choices=PRESETS, default="default")
    preset = parser.parse_known_args()[0].preset
    small: dict[str, Any] = {"num_seeds": 1, "num_episodes": 2} if preset == "debug" else {}
    return tyro.cli(StudyConfig, default=StudyConfig(preset=preset, **small))


def main() -> None:
    study = parse_config()
    try:
        for option in ("num_seeds", "num_steps", "num_episodes", "num_processes"):
            if (value := getattr(study, option)) < 1:
                raise ValueError(f"--{option.replace('_', '-')} must be at least 1, not {value}")
        settings = _claim(study)
        rows = run_study(study)
        write_results(study.output, {**settings, "planner": PLANNING.settings()}, rows, _plan(study, None))
    except (envs.EnvError, DatasetError, TrainError, ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except BrokenProcessPool:
        sys.exit("error: a training process was killed; the same command goes on from here")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on from here")
    print(f"wrote {study.output}/collapse.md, collapse.json, collapse.csv and pictures")  # noqa: T201


if __name__ == "__main__":
    main()
