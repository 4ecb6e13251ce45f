"""Ours: the world model and the search as the task is planned; the same from few data; and its embeddings without a
search, where a policy on them decides alone.
"""

import shlex
from pathlib import Path
from typing import Any

from jepa_mpc import envs, places
from jepa_mpc.agent.agent_config import AgentConfig, planning_of
from jepa_mpc.agent.base import Agent
from jepa_mpc.agent.planning_agent import PlanningAgent
from jepa_mpc.agent.rivals import THREE_SEEDS, Command, Facts, Rival, bounds_and_block, command, folder_of
from jepa_mpc.planners import ICEMConfig
from jepa_mpc.world_model.checkpoint import CheckpointInfo, load_checkpoint, load_info
from jepa_mpc.world_model.latent_policy.stored import Kind, load_latent_policy
from jepa_mpc.world_model.training.card import collect_options, train_options

SHORT_STEPS = 30_000  # a quarter of what Dreamer sees


def _seen_in(info: CheckpointInfo, task: str) -> dict[str, Any]:
    """Returns the facts of a world model's data."""
    spec, episodes = envs.get_task(task), info.data["num_episodes"]
    pictures = episodes * (spec.episode_len // spec.action_block + 1)
    return {"steps": episodes * spec.episode_len, "pictures": pictures, "rewards": False}


def _collection(task: str) -> list[Command]:
    """Returns the command that collects the data of the bundled checkpoint, if they are not there."""
    if places.dataset(task).exists():
        return []
    return [[*command("collect", task=task), *shlex.split(collect_options(load_info(task).data))]]


def _training(task: str, seed: int, folder: Path, **options: object) -> list[Command]:
    """Returns the training by the bundled checkpoint's settings into a folder, unless it is finished."""
    if (folder / "config.json").exists():
        return []
    settings = shlex.split(train_options({**load_info(task).training, "seed": seed}))
    return [[*command("train", task=task, output=folder, **options), *settings]]


def _agent_of(checkpoint: Path, task: str) -> tuple[Agent, Facts]:
    agent, info = PlanningAgent.load(checkpoint, planning_of(task)), load_info(checkpoint)
    parameters = sum(p.numel() for p in agent.model.parameters())
    return agent, Facts(**_seen_in(info, task), learning_seconds=info.learning_seconds, parameters=parameters)


def _folder(task: str, seed: int) -> Path:
    """Returns a checkpoint on all data; seed 0 is the bundled one."""
    return folder_of("jepa", task, seed) if seed else places.checkpoint(task)


def _train(task: str, seed: int) -> list[Command]:
    train = _training(task, seed, _folder(task, seed))
    return [*_collection(task), *train] if train else []


def _train_short(task: str, seed: int) -> list[Command]:
    data = places.runs("benchmark", task) / f"short-seed{seed}.h5"
    commands = _training(task, seed, folder_of("jepa_short", task, seed), data=data)
    if commands and not data.exists():
        episodes = SHORT_STEPS // envs.get_task(task).episode_len
        commands.insert(0, command("collect", task=task, num_episodes=episodes, seed=seed, output=data))
    return commands


JEPA = Rival(
    "pictures",
    lambda task, seed: _agent_of(_folder(task, seed), task),
    THREE_SEEDS,
    _train,
    bundled=True,
    planner=planning_of,
    label="planning, ours",
)
JEPA_SHORT = Rival(
    "pictures, a quarter of dreamer's steps",
    lambda task, seed: _agent_of(folder_of("jepa_short", task, seed), task),
    THREE_SEEDS,
    _train_short,
    planner=planning_of,
    label="planning, ours, fewer steps",
)


def _without_search(kind: Kind, label: str) -> Rival:
    def place(task: str, seed: int) -> Path:
        return folder_of(kind, task, seed) / f"{kind}.safetensors"

    def train(task: str, seed: int) -> list[Command]:
        path = place(task, seed)
        if path.exists():
            return []
        options = {"task": task, "kind": kind, "seed": seed, "output": path.parent}
        return [*_collection(task), command("train-latent-policy", **options)]

    def make(task: str, seed: int) -> tuple[Agent, Facts]:
        model, world = load_checkpoint(task, task=task)
        policy, info = load_latent_policy(place(task, seed), places.checkpoint(task))
        seconds = world.learning_seconds + info.learning_seconds
        parameters = sum(p.numel() for part in (model.encoder, model.projector, policy) for p in part.parameters())
        alone = AgentConfig(warm_start=kind, planner=ICEMConfig(num_iterations=0))
        agent = PlanningAgent(model, *bounds_and_block(task), alone, policy)
        return agent, Facts(**_seen_in(world, task), learning_seconds=seconds, parameters=parameters)

    return Rival("pictures; our encoder", make, THREE_SEEDS, train, bundled=True, label=label)


INVERSE = _without_search("inverse", "inverse model on our embeddings")
GCBC = _without_search("gcbc", "behaviour cloning on our embeddings")
