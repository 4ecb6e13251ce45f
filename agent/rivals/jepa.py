"""Ours: the world model and the search, as the task is planned. Seed 0 is the bundled checkpoint."""

import shlex
from pathlib import Path

from jepa_mpc import places
from jepa_mpc.agent.base import Agent
from jepa_mpc.agent.planning_agent import PlanningAgent
from jepa_mpc.agent.rivals.base import (
    THREE_SEEDS,
    Command,
    Facts,
    Rival,
    collect_bundled,
    command,
    folder_of,
    own_way,
    seen_in,
)
from jepa_mpc.world_model.checkpoint import load_info
from jepa_mpc.world_model.training.card import train_options


def agent_of(checkpoint: Path, task: str) -> tuple[Agent, Facts]:
    """Returns the agent of a checkpoint, planned the task's own way, and its facts."""
    agent, info = PlanningAgent.load(checkpoint, own_way(task)), load_info(checkpoint)
    parameters = sum(p.numel() for p in agent.model.parameters())
    return agent, Facts(**seen_in(info), learning_seconds=info.learning_seconds, parameters=parameters)


def training(task: str, seed: int, folder: Path, **options: object) -> list[Command]:
    """Returns the training by the bundled checkpoint's settings into a folder, unless it is finished."""
    if (folder / "config.json").exists():
        return []
    settings = shlex.split(train_options({**load_info(task).training, "seed": seed}))
    return [[*command("train", task=task, output=folder, **options), *settings]]


def _folder(task: str, seed: int) -> Path:
    return folder_of("jepa", task, seed) if seed else places.checkpoint(task)


def _train(task: str, seed: int) -> list[Command]:
    train = training(task, seed, _folder(task, seed))
    return [*collect_bundled(task), *train] if train else []


JEPA = Rival(
    "pictures",
    lambda task, seed: agent_of(_folder(task, seed), task),
    THREE_SEEDS,
    _train,
    bundled=True,
    planner=own_way,
)
