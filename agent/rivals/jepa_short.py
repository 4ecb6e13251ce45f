"""Ours again, from a quarter of the steps that Dreamer sees; otherwise as the bundled checkpoint."""

from jepa_mpc import envs, places
from jepa_mpc.agent.rivals.base import THREE_SEEDS, Command, Rival, command, folder_of, own_way
from jepa_mpc.agent.rivals.jepa import agent_of, training

STEPS = 30_000


def _train(task: str, seed: int) -> list[Command]:
    data = places.runs("benchmark", task) / f"short-seed{seed}.h5"
    commands = training(task, seed, folder_of("jepa_short", task, seed), data=data)
    if commands and not data.exists():
        episodes = STEPS // envs.get_task(task).episode_len
        commands.insert(0, command("collect", task=task, num_episodes=episodes, seed=seed, output=data))
    return commands


JEPA_SHORT = Rival(
    "pictures, a quarter of dreamer's steps",
    lambda task, seed: agent_of(folder_of("jepa_short", task, seed), task),
    THREE_SEEDS,
    _train,
    planner=own_way,
)
