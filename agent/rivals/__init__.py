"""What people would use instead of planning with a learned model, behind the same surface, to be measured beside it.

Most are imported when they are asked for: their packages may be missing here. Another is registered from a file of
one's own, or goes by `module:attribute`.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa_mpc import envs, places
from jepa_mpc.agent.agent_config import AgentConfig
from jepa_mpc.agent.base import Agent, DoNothingAgent, RandomAgent
from jepa_mpc.agent.data_policies import find_policy
from jepa_mpc.envs.blocks import Bounds, run_block
from jepa_mpc.registry import Registry

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
        given: what it is told, in a few words for the table.
        make: for a task and a seed of learning, the agent and its facts, once it is trained.
        seeds: of its learning.
        train: for a task and a seed, the commands that make what is missing; each goes on where it was killed.
        bundled: whether it uses the bundled checkpoint, so that a new one makes its rows stale.
        planner: for a task, how it plans, where it does; other settings make its rows stale too.
        venv: the virtual environment that has its packages, where ours has not.
        stages: for a task and a seed, the agent along its training.
        returns: for a task and a seed, the returns of its episodes in training, and of agents that do not learn.
        label: what plots call it, unless by its name.
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
    label: str = ""


def folder_of(name: str, task: str, seed: int) -> Path:
    """Returns where a rival's training lies."""
    return places.runs("benchmark", task, f"{name}-seed{seed}")


def command(name: str, **options: object) -> Command:
    """Returns one of our commands, to be run by this very Python."""
    words = [word for option, value in options.items() for word in (f"--{option.replace('_', '-')}", str(value))]
    return [sys.executable, "-m", "jepa_mpc", name, *words]


def bounds_and_block(task: str) -> tuple[Bounds, int]:
    """Returns a task's bounds of actions, and the actions in a block."""
    with closing(envs.make(task)) as env:
        return env.action_space, envs.get_task(task).action_block


def draw_pose(env: envs.PixelEnv, spec: envs.TaskSpec, rng: np.random.Generator) -> NDArray[np.float64]:
    """Returns a goal to train on, drawn as the far protocol's: the pose (Q,), in which the environment is left, at a
    random time of a new episode of the task's data policy.
    """
    env.reset(seed=int(rng.integers(2**31)))
    policy = find_policy(spec.data_policy, spec.name)(env, spec.action_block, rng)
    for _ in range(rng.integers(spec.episode_len // spec.action_block)):
        run_block(env, policy(None))
    return env.qpos


_OURS: dict[str, Rival | str] = {
    "jepa": "ours:JEPA",
    "jepa_short": "ours:JEPA_SHORT",
    "dreamer": "dreamer:DREAMER",
    "her": "her:HER",
    "inverse": "ours:INVERSE",
    "gcbc": "ours:GCBC",
    "random": Rival("nothing", lambda t, _: (RandomAgent(*bounds_and_block(t)), NOTHING), label="random actions"),
    "do_nothing": Rival("nothing", lambda t, _: (DoNothingAgent(*bounds_and_block(t)), NOTHING), label="no actions"),
    "oracle": "oracle:ORACLE",
}
RIVALS: Registry[Rival] = Registry("rival")
for _name, _rival in _OURS.items():
    RIVALS.register(_name, f"{__name__}.{_rival}" if isinstance(_rival, str) else _rival)
