"""A policy on the bundled world model's embeddings that decides alone: the planner's agent, without a search."""

from pathlib import Path

from jepa_mpc import places
from jepa_mpc.agent.agent_config import AgentConfig
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
    interface,
    seen_in,
)
from jepa_mpc.planners import ICEMConfig
from jepa_mpc.world_model.checkpoint import load_checkpoint
from jepa_mpc.world_model.latent_policy.policy import Kind, load_latent_policy


def _rival(kind: Kind) -> Rival:
    def place(task: str, seed: int) -> Path:
        return folder_of(kind, task, seed) / f"{kind}.safetensors"

    def train(task: str, seed: int) -> list[Command]:
        path = place(task, seed)
        if path.exists():
            return []
        options = {"task": task, "kind": kind, "seed": seed, "output": path.parent}
        return [*collect_bundled(task), command("train-latent-policy", **options)]

    def make(task: str, seed: int) -> tuple[Agent, Facts]:
        model, world = load_checkpoint(task, task=task)
        policy, info = load_latent_policy(place(task, seed), places.checkpoint(task))
        encoder = sum(p.numel() for part in (model.encoder, model.projector) for p in part.parameters())
        facts = Facts(
            **seen_in(world),
            learning_seconds=world.learning_seconds + info.learning_seconds,
            parameters=encoder + sum(p.numel() for p in policy.parameters()),
        )
        alone = AgentConfig(warm_start=kind, planner=ICEMConfig(num_iterations=0))
        return PlanningAgent(model, *interface(task), alone, policy), facts

    return Rival("pictures; our encoder", make, THREE_SEEDS, train, bundled=True)


INVERSE, GCBC = _rival("inverse"), _rival("gcbc")
