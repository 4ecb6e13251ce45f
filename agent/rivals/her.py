"""Goal-conditioned reinforcement learning from state: SAC with hindsight (Andrychowicz et al., 2017), privileged.

It reads the state of the simulator and of the goal, where the planner has pictures of both, and acts at every step.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from jepa_mpc import envs
from jepa_mpc.agent.base import Agent
from jepa_mpc.agent.data_policies.sac import Actor, load_actor, read_state
from jepa_mpc.agent.rivals import THREE_SEEDS, Command, Facts, Rival, command, folder_of


def with_goal(state: NDArray, goal: NDArray) -> NDArray:
    """Returns a state (S,) and a goal (F,) as the actor reads them."""
    return np.concatenate([state[: len(goal)], goal, state])  # stable-baselines3 sorts the parts by their names


class HerAgent:
    """Acts greedily by the trained actor, once a step."""

    action_block = 1

    def __init__(self, task: str, actor: Actor):
        self._spec, self._env, self._actor = envs.get_task(task), envs.make(task), actor

    def reset(self, goals: NDArray[np.uint8], seeds: Sequence[int]) -> None:
        self._goals: list[NDArray[np.float64]] = []

    def look(self, states: NDArray[np.float64], goal_states: NDArray[np.float64]) -> None:
        if not self._goals:
            size = len(self._spec.angles) + sum(self._spec.angles)
            self._goals = [self._read(state)[:size] for state in goal_states]
        self._seen = [with_goal(self._read(state), goal) for state, goal in zip(states, self._goals, strict=True)]

    def _read(self, state: NDArray[np.float64]) -> NDArray[np.float64]:
        self._env.set_state(state)
        return read_state(self._env, self._spec.angles)

    def act(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.stack([self._actor.act(seen) for seen in self._seen])[:, None].astype(np.float32)


def _commands(task: str, seed: int) -> list[Command]:
    folder = folder_of("her", task, seed)
    done = (folder / "config.json").exists()
    return [] if done else [command("train-her", task=task, seed=seed, output=folder)]


def _make(task: str, seed: int) -> tuple[Agent, Facts]:
    actor, info = load_actor(folder_of("her", task, seed), task, "train-her")
    parameters = sum(value.size for name, value in actor.weights.items() if not name.startswith("state_"))
    return HerAgent(task, actor), Facts(info.num_steps, 0, True, info.learning_seconds, parameters)


HER = Rival("state of robot and goal, reward", _make, THREE_SEEDS, _commands, label="SAC with hindsight, from state")
