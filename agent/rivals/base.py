"""What a rival is: an agent that is measured beside ours, how it is trained, and what that cost."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jepa_mpc import envs, places
from jepa_mpc.agent.agent_config import AgentConfig, config_for
from jepa_mpc.agent.base import Agent
from jepa_mpc.envs.blocks import Bounds
from jepa_mpc.registry import Registry
from jepa_mpc.world_model.checkpoint import CheckpointInfo, load_info

Command = list[str]
THREE_SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Facts:
    """What an agent has cost and was given. Steps are environment steps."""

    steps: int  # seen in learning
    pictures: int  # looked at in learning
    rewards: bool  # used in learning
    learning_seconds: float
    parameters: int


NOTHING = Facts(0, 0, False, 0.0, 0)


@dataclass(frozen=True)
class Rival:
    """An agent of the benchmark.

    Attributes:
        given: what it has that the others have not, or lacks, in a few words for the table.
        make: for a task and a seed of learning, the agent and its facts, once it is trained.
        seeds: of its learning.
        train: for a task and a seed, the commands that make what is missing; each goes on where it was killed.
        bundled: rests on the bundled checkpoint, with which its figures change.
        planner: for a task, the settings with which they change too.
        venv: the virtual environment that has its packages, where ours has not.
        stages: for a task and a seed, the agent along its training.
        returns: for a task and a seed, what episodes of its own training task earned, in training and without any.
    """

    given: str
    make: Callable[[str, int], tuple[Agent, Facts]]
    seeds: tuple[int, ...] = (0,)
    train: Callable[[str, int], list[Command]] = lambda task, seed: []
    bundled: bool = False
    planner: Callable[[str], AgentConfig] | None = None
    venv: Path | None = None
    stages: Callable[[str, int], Iterator[tuple[Agent, Facts]]] = lambda task, seed: iter(())
    returns: Callable[[str, int], dict[str, Any]] = lambda task, seed: {}


RIVALS: Registry[Rival] = Registry("rival")


def folder_of(name: str, task: str, seed: int) -> Path:
    """Returns where a rival's training lies."""
    return places.runs("benchmark", task, f"{name}-seed{seed}")


def command(name: str, **options: object) -> Command:
    """Returns one of our commands, to be run by this very Python."""
    words = [word for option, value in options.items() for word in (f"--{option.replace('_', '-')}", str(value))]
    return [sys.executable, "-m", "jepa_mpc", name, *words]


def collect_bundled(task: str) -> list[Command]:
    """Returns the command that collects the data of the bundled checkpoint, if they are not there."""
    if places.dataset(task).exists():
        return []
    data = load_info(task).data
    return [command("collect", task=task, num_episodes=data["num_episodes"], seed=data["seed"])]


def seen_in(info: CheckpointInfo) -> dict[str, Any]:
    """Returns the facts of a world model's data."""
    spec, episodes = envs.get_task(info.task), info.data["num_episodes"]
    pictures = episodes * (spec.episode_len // spec.action_block + 1)
    return {"steps": episodes * spec.episode_len, "pictures": pictures, "rewards": False}


def interface(task: str) -> tuple[Bounds, int]:
    """Returns a task's bounds of actions, and the actions in a block."""
    return envs.make(task).action_space, envs.get_task(task).action_block


def own_way(task: str) -> AgentConfig:
    """Returns how a task is planned unless told otherwise."""
    return config_for(envs.get_task(task))
