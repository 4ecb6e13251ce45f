"""Who is measured against whom: how each agent is trained, what it was given, and how it is made ready to act."""

import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import envs
from agent.agent_config import AgentConfig, config_for
from agent.baselines import Agent, DoNothingAgent, RandomAgent
from agent.latent_policy_agent import LatentPolicyAgent
from agent.planning_agent import PlanningAgent, load_proposer
from agent.rivals import her
from agent.rivals.oracle import OracleAgent
from agent.rivals.train_dreamer import DreamerConfig
from planners import PlannerConfig
from world_model.checkpoint import CheckpointInfo, load_checkpoint, train_options
from world_model.latent_policy import load_latent_policy

RUNS = Path("runs/benchmark")
DREAMER_PYTHON = Path(".venv-dreamer/bin/python")  # sheeprl's packages clash with others of ours
Command = list[str]


@dataclass(frozen=True)
class Facts:
    """What an agent has cost and was given. Steps are environment steps."""

    steps: int  # seen in learning
    pictures: int  # looked at in learning
    rewards: bool  # used in learning
    learning_seconds: float
    parameters: int


@dataclass(frozen=True)
class Contender:
    """An agent of the benchmark.

    Attributes:
        given: what it has that the others have not, or lacks, in a few words for the table.
        seeds: of its learning.
        train: for a task and a seed, the commands that make what is missing; each goes on where it was killed.
        make: for a task and a seed, the agent and its facts.
    """

    given: str
    seeds: tuple[int, ...]
    train: Callable[[str, int], list[Command]]
    make: Callable[[str, int], tuple[Agent, Facts]]


# As LeWorldModel plans (arXiv 2603.19312): CEM, the distance at the end of five blocks, all five executed.
PAPER_SEARCH = AgentConfig(
    planner="cem",
    objective="latent",
    reduction="terminal",
    effort_weight=0.0,
    horizon=5,
    receding_horizon=5,
    search=PlannerConfig(num_samples=300, num_iterations=30, num_elites=30, init_std=1.0),
)

NOTHING = Facts(0, 0, False, 0.0, 0)


def _space(task: str) -> tuple[Any, int]:
    return envs.make(task).action_space, envs.get_task(task).action_block


def _frames(info: CheckpointInfo) -> dict[str, Any]:
    spec, episodes = envs.get_task(info.task), info.data["num_episodes"]
    pictures = episodes * (spec.episode_len // spec.action_block + 1)
    return {"steps": episodes * spec.episode_len, "pictures": pictures, "rewards": False}


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
    return _planner(task, _jepa_folder(task, seed), config_for(task))


def make_cem(task: str, seed: int) -> tuple[Agent, Facts]:
    return _planner(task, _bundled(task), PAPER_SEARCH)


def make_jepa_short(task: str, seed: int) -> tuple[Agent, Facts]:
    return _planner(task, _short_folder(task, seed), config_for(task))


def _planner(task: str, folder: Path, config: AgentConfig) -> tuple[Agent, Facts]:
    model, info = load_checkpoint(folder, task=task)
    parameters = sum(p.numel() for p in model.parameters())
    facts = Facts(**_frames(info), learning_seconds=info.learning_seconds, parameters=parameters)
    return PlanningAgent(model, *_space(task), config, load_proposer(folder, config)), facts


def _short_folder(task: str, seed: int) -> Path:
    return RUNS / task / f"jepa_short-seed{seed}"


def train_jepa_short(task: str, seed: int) -> list[Command]:
    """From as many steps as Dreamer sees; otherwise as the bundled checkpoint."""
    folder, data = _short_folder(task, seed), RUNS / task / f"short-seed{seed}.h5"
    if (folder / "config.json").exists():
        return []
    training = {**load_checkpoint(_bundled(task))[1].training, "seed": seed}
    options = ["--task", task, "--data", str(data), "--output", str(folder), *shlex.split(train_options(training))]
    commands = [[sys.executable, "world_model/train.py", *options]]
    if not data.exists():
        episodes = DreamerConfig.num_steps // envs.get_task(task).episode_len
        size = ["--num-episodes", str(episodes), "--seed", str(seed), "--output", str(data)]
        commands.insert(0, [sys.executable, "agent/collect.py", "--task", task, *size])
    return commands


def _policy_path(task: str, kind: str, seed: int) -> Path:
    return RUNS / task / f"{kind}-seed{seed}" / f"{kind}.safetensors"


def train_latent(kind: str) -> Callable[[str, int], list[Command]]:
    def commands(task: str, seed: int) -> list[Command]:
        path = _policy_path(task, kind, seed)
        if path.exists():
            return []
        options = ["--task", task, "--kind", kind, "--seed", str(seed), "--output", str(path.parent)]
        return [*_collect(task), [sys.executable, "world_model/train_latent_policy.py", *options]]

    return commands


def make_latent(kind: str) -> Callable[[str, int], tuple[Agent, Facts]]:
    def make(task: str, seed: int) -> tuple[Agent, Facts]:
        model, world = load_checkpoint(_bundled(task), task=task)
        policy, info = load_latent_policy(_policy_path(task, kind, seed), _bundled(task))
        encoder = sum(p.numel() for part in (model.encoder, model.projector) for p in part.parameters())
        facts = Facts(
            **_frames(world),
            learning_seconds=world.learning_seconds + info.learning_seconds,
            parameters=encoder + sum(p.numel() for p in policy.parameters()),
        )
        return LatentPolicyAgent(model, policy, *_space(task)), facts

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
    return her.HerAgent(task, actor), Facts(info["num_steps"], 0, True, info["learning_seconds"], parameters)


def _dreamer_folder(task: str, seed: int) -> Path:
    return RUNS / task / f"dreamer-seed{seed}"


def train_dreamer(task: str, seed: int) -> list[Command]:
    folder = _dreamer_folder(task, seed)
    options = ["--task", task, "--seed", str(seed), "--output", str(folder)]
    return [] if dreamer_actors(task, seed) else [[sys.executable, "agent/rivals/train_dreamer.py", *options]]


def dreamer_actors(task: str, seed: int) -> list[Path]:
    """The finished training's actors, the youngest last."""
    return sorted(_dreamer_folder(task, seed).glob("actors/*.safetensors"), key=lambda path: int(path.stem))


def make_dreamer(task: str, seed: int, actor: Path | None = None) -> tuple[Agent, Facts]:
    from agent.rivals.dreamer import DreamerAgent

    path = actor or dreamer_actors(task, seed)[-1]
    seconds = json.loads((path.parent / "config.json").read_text())["learning_seconds"][path.stem]
    agent, steps = DreamerAgent(path), int(path.stem)
    return agent, Facts(steps, steps, True, seconds, agent.num_parameters)


def _untrained(make: Callable[[str], Agent]) -> Contender:
    return Contender("", (0,), lambda task, seed: [], lambda task, seed: (make(task), NOTHING))


CONTENDERS = {
    "jepa": Contender("pictures", (0, 1, 2), train_jepa, make_jepa),
    "jepa_short": Contender("pictures, as many steps as dreamer", (0, 1, 2), train_jepa_short, make_jepa_short),
    "cem": Contender("pictures; our model, LeWorldModel's search", (0,), lambda task, seed: [], make_cem),
    "dreamer": Contender("pictures, reward", (0,), train_dreamer, make_dreamer),
    "sac": Contender("state of robot and goal, reward", (0, 1, 2), train_her, make_her),
    "inverse": Contender("pictures; our encoder", (0, 1, 2), train_latent("inverse"), make_latent("inverse")),
    "gcbc": Contender("pictures; our encoder", (0, 1, 2), train_latent("gcbc"), make_latent("gcbc")),
    "random": _untrained(lambda task: RandomAgent(*_space(task))),
    "do_nothing": _untrained(lambda task: DoNothingAgent(*_space(task))),
    "oracle": Contender(
        "the simulator and the goal's state",
        (0,),
        lambda task, seed: [],
        lambda task, seed: (OracleAgent(task, config_for(task)), NOTHING),
    ),
}
