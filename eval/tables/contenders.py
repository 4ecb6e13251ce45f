"""Who is measured against whom: how each agent is trained, what it was given, and how it is made ready to act."""

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jepa_mpc import envs
from jepa_mpc.agent.agent_config import AgentConfig, config_for
from jepa_mpc.agent.base import Agent, DoNothingAgent, RandomAgent
from jepa_mpc.agent.planning_agent import PlanningAgent, load_proposer
from jepa_mpc.agent.rivals import her
from jepa_mpc.agent.rivals.oracle import OracleAgent
from jepa_mpc.planners import ICEMConfig
from jepa_mpc.world_model.checkpoint import CheckpointInfo, load_checkpoint
from jepa_mpc.world_model.latent_policy.policy import Kind, load_latent_policy
from jepa_mpc.world_model.training.card import train_options

RUNS = Path("runs/benchmark")
CURVE_POINTS = 4  # of a training that is measured along the way
SHORT_STEPS = 30_000  # a quarter of what Dreamer sees
Command = list[str]


@dataclass(frozen=True)
class Facts:
    """What an agent has cost and was given. Steps are environment steps."""

    steps: int  # seen in learning
    pictures: int  # looked at in learning
    rewards: bool  # used in learning
    learning_seconds: float
    parameters: int


Make = Callable[[str, int], tuple[Agent, Facts]]  # from a task and a seed of learning


@dataclass(frozen=True)
class Contender:
    """An agent of the benchmark.

    Attributes:
        given: what it has that the others have not, or lacks, in a few words for the table.
        make: the agent and its facts, once it is trained.
        seeds: of its learning.
        train: for a task and a seed, the commands that make what is missing; each goes on where it was killed.
        bundled: rests on the bundled checkpoint, with which its figures change.
        planner: for a task, the settings with which they change too.
        venv: the virtual environment that has its packages, where ours has not.
        stages: for a task and a seed, the agent along its training.
        returns: for a task and a seed, what episodes of its own training task earned, in training and without any.
    """

    given: str
    make: Make
    seeds: tuple[int, ...] = (0,)
    train: Callable[[str, int], list[Command]] = lambda task, seed: []
    bundled: bool = False
    planner: Callable[[str], AgentConfig] | None = None
    venv: Path | None = None
    stages: Callable[[str, int], Iterator[tuple[Agent, Facts]]] = lambda task, seed: iter(())
    returns: Callable[[str, int], dict[str, Any]] = lambda task, seed: {}


NOTHING = Facts(0, 0, False, 0.0, 0)


def _space(task: str) -> tuple[Any, int]:
    return envs.make(task).action_space, envs.get_task(task).action_block


def _frames(info: CheckpointInfo) -> dict[str, Any]:
    spec, episodes = envs.get_task(info.task), info.data["num_episodes"]
    pictures = episodes * (spec.episode_len // spec.action_block + 1)
    return {"steps": episodes * spec.episode_len, "pictures": pictures, "rewards": False}


def _way(task: str) -> AgentConfig:
    """The task's own way to plan."""
    return config_for(envs.get_task(task))


def _bundled(task: str) -> Path:
    return Path("checkpoints") / task


def _collect(task: str) -> list[Command]:
    """The data of the bundled checkpoint, if they are not there."""
    info, path = load_checkpoint(_bundled(task))[1], Path("data") / f"{task}.h5"
    if path.exists():
        return []
    size = ["--num-episodes", str(info.data["num_episodes"]), "--seed", str(info.data["seed"])]
    return [[sys.executable, "agent/collect.py", "--task", task, *size]]


def _jepa_folder(task: str, seed: int) -> Path:
    return RUNS / task / f"jepa-seed{seed}" if seed else _bundled(task)


def train_jepa(task: str, seed: int) -> list[Command]:
    """Seed 0 is the bundled checkpoint; others learn from the same data by the same settings."""
    folder = _jepa_folder(task, seed)
    if (folder / "config.json").exists():
        return []
    training = {**load_checkpoint(_bundled(task))[1].training, "seed": seed}
    options = shlex.split(train_options(training))
    train = [sys.executable, "world_model/train.py", "--task", task, "--output", str(folder), *options]
    return [*_collect(task), train]


def make_jepa(task: str, seed: int) -> tuple[Agent, Facts]:
    return _planner(task, _jepa_folder(task, seed), _way(task))


def make_jepa_short(task: str, seed: int) -> tuple[Agent, Facts]:
    return _planner(task, _short_folder(task, seed), _way(task))


def _planner(task: str, folder: Path, config: AgentConfig) -> tuple[Agent, Facts]:
    model, info = load_checkpoint(folder, task=task)
    parameters = sum(p.numel() for p in model.parameters())
    facts = Facts(**_frames(info), learning_seconds=info.learning_seconds, parameters=parameters)
    return PlanningAgent(model, *_space(task), config, load_proposer(folder, config)), facts


def _short_folder(task: str, seed: int) -> Path:
    return RUNS / task / f"jepa_short-seed{seed}"


def train_jepa_short(task: str, seed: int) -> list[Command]:
    """From few steps; otherwise as the bundled checkpoint."""
    folder, data = _short_folder(task, seed), RUNS / task / f"short-seed{seed}.h5"
    if (folder / "config.json").exists():
        return []
    training = {**load_checkpoint(_bundled(task))[1].training, "seed": seed}
    options = ["--task", task, "--data", str(data), "--output", str(folder), *shlex.split(train_options(training))]
    commands = [[sys.executable, "world_model/train.py", *options]]
    if not data.exists():
        episodes = SHORT_STEPS // envs.get_task(task).episode_len
        size = ["--num-episodes", str(episodes), "--seed", str(seed), "--output", str(data)]
        commands.insert(0, [sys.executable, "agent/collect.py", "--task", task, *size])
    return commands


def _policy_path(task: str, kind: Kind, seed: int) -> Path:
    return RUNS / task / f"{kind}-seed{seed}" / f"{kind}.safetensors"


def train_latent(kind: Kind) -> Callable[[str, int], list[Command]]:
    def commands(task: str, seed: int) -> list[Command]:
        path = _policy_path(task, kind, seed)
        if path.exists():
            return []
        options = ["--task", task, "--kind", kind, "--seed", str(seed), "--output", str(path.parent)]
        return [*_collect(task), [sys.executable, "world_model/latent_policy/train.py", *options]]

    return commands


def make_latent(kind: Kind) -> Make:
    """The policy decides alone: the planner's agent, without a search."""

    def make(task: str, seed: int) -> tuple[Agent, Facts]:
        model, world = load_checkpoint(_bundled(task), task=task)
        policy, info = load_latent_policy(_policy_path(task, kind, seed), _bundled(task))
        encoder = sum(p.numel() for part in (model.encoder, model.projector) for p in part.parameters())
        facts = Facts(
            **_frames(world),
            learning_seconds=world.learning_seconds + info.learning_seconds,
            parameters=encoder + sum(p.numel() for p in policy.parameters()),
        )
        alone = AgentConfig(warm_start=kind, planner=ICEMConfig(num_iterations=0))
        return PlanningAgent(model, *_space(task), alone, policy), facts

    return make


def _her_path(task: str, seed: int) -> Path:
    return RUNS / task / f"sac-seed{seed}" / "actor.safetensors"


def train_her(task: str, seed: int) -> list[Command]:
    path = _her_path(task, seed)
    options = ["--task", task, "--seed", str(seed), "--output", str(path.parent)]
    return [] if path.exists() else [[sys.executable, "agent/rivals/her.py", *options]]


def make_her(task: str, seed: int) -> tuple[Agent, Facts]:
    actor, info = her.load_actor(_her_path(task, seed))
    parameters = sum(value.size for name, value in actor.weights.items() if not name.startswith("state_"))
    return her.HerAgent(task, actor), Facts(info.num_steps, 0, True, info.learning_seconds, parameters)


def _dreamer_folder(task: str, seed: int) -> Path:
    return RUNS / task / f"dreamer-seed{seed}"


def train_dreamer(task: str, seed: int) -> list[Command]:
    folder = _dreamer_folder(task, seed)
    options = ["--task", task, "--seed", str(seed), "--output", str(folder)]
    done = (folder / "actors/config.json").exists()
    return [] if done else [[sys.executable, "agent/rivals/train_dreamer.py", *options]]


def _actors(task: str, seed: int) -> list[Path]:
    """The youngest last."""
    return sorted(_dreamer_folder(task, seed).glob("actors/*.safetensors"), key=lambda path: int(path.stem))


def make_dreamer(task: str, seed: int) -> tuple[Agent, Facts]:
    return _dreamer(_actors(task, seed)[-1])


def dreamer_stages(task: str, seed: int) -> Iterator[tuple[Agent, Facts]]:
    actors = _actors(task, seed)
    for index in np.linspace(0, len(actors) - 1, min(CURVE_POINTS, len(actors))).astype(int):
        yield _dreamer(actors[index])


def dreamer_returns(task: str, seed: int) -> dict[str, Any]:
    info = _dreamer_info(_actors(task, seed)[-1])
    return {name: info[name] for name in ("training_returns", "baseline_returns")}


def _dreamer_info(actor: Path) -> dict[str, Any]:
    return json.loads((actor.parent / "config.json").read_text())


def _dreamer(actor: Path) -> tuple[Agent, Facts]:
    from jepa_mpc.agent.rivals.dreamer import DreamerAgent

    seconds = _dreamer_info(actor)["learning_seconds"][actor.stem]
    agent, steps = DreamerAgent(actor), int(actor.stem)
    return agent, Facts(steps, steps // agent.action_block, True, seconds, agent.num_parameters)


THREE = (0, 1, 2)
CONTENDERS = {
    "jepa": Contender("pictures", make_jepa, THREE, train_jepa, bundled=True, planner=_way),
    "jepa_short": Contender(
        "pictures, a quarter of dreamer's steps", make_jepa_short, THREE, train_jepa_short, planner=_way
    ),
    # sheeprl's packages clash with others of ours. One seed: it takes more than an hour.
    "dreamer": Contender(
        "pictures, reward",
        make_dreamer,
        train=train_dreamer,
        venv=Path(".venv-dreamer"),
        stages=dreamer_stages,
        returns=dreamer_returns,
    ),
    "sac": Contender("state of robot and goal, reward", make_her, THREE, train_her),
    "inverse": Contender("pictures; our encoder", make_latent("inverse"), THREE, train_latent("inverse"), bundled=True),
    "gcbc": Contender("pictures; our encoder", make_latent("gcbc"), THREE, train_latent("gcbc"), bundled=True),
    "random": Contender("nothing", lambda task, seed: (RandomAgent(*_space(task)), NOTHING)),
    "do_nothing": Contender("nothing", lambda task, seed: (DoNothingAgent(*_space(task)), NOTHING)),
    "oracle": Contender(
        "the simulator and the goal's state",
        lambda task, seed: (OracleAgent(task, _way(task)), NOTHING),
        planner=_way,
    ),
}
