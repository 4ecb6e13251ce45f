"""Dreamer's actor, as sheeprl builds it, behind the surface of `PlanningAgent`: two pictures in, one action out."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from jepa_mpc import envs, places
from jepa_mpc.agent.base import Agent
from jepa_mpc.agent.rivals import Command, Facts, Rival, command, folder_of
from jepa_mpc.agent.rivals.train_dreamer import PARTS, quiet_sheeprl
from jepa_mpc.errors import UserError, reason
from jepa_mpc.files import read_json
from jepa_mpc.world_model.weights import read_tensors

CURVE_POINTS = 4  # of a training that is measured along the way
_FIX = "train Dreamer with `jepa-mpc train-dreamer`"


class DreamerAgent:
    """Acts by Dreamer's most likely action, held as long as in training. Its latent state is sampled from the seed and
    runs on through the episode.

    Args:
        weights: a file that `jepa-mpc train-dreamer` has written; `config.json` beside it says how it was trained.
    """

    def __init__(self, weights: Path):
        with quiet_sheeprl():
            from lightning import Fabric
            from sheeprl.algos.dreamer_v3_5.agent import build_agent
            from sheeprl.utils.utils import dotdict

        stored, tensors = read_json(weights.parent / "config.json", _FIX), read_tensors(weights)[0]
        try:
            config, self.action_block = dotdict(stored["sheeprl"]), int(stored["settings"]["action_repeat"])
        except (KeyError, TypeError) as error:
            raise UserError(f"{weights.parent}/config.json is damaged ({reason(error)}); {_FIX}") from error
        parts = [
            {name.removeprefix(part): value for name, value in tensors.items() if name.startswith(part)}
            for part in (f"{part}/" for part in PARTS)
        ]
        env = envs.make(stored["settings"]["task"])
        self._space = env.action_space
        self._keys: list[str] = list(config.algo.cnn_keys.encoder)
        side = config.env.screen_size
        pictures = gym.spaces.Dict(dict.fromkeys(self._keys, gym.spaces.Box(0, 255, (3, side, side), np.uint8)))
        fabric = Fabric(accelerator="cpu", devices=1)
        *_, self._player = build_agent(fabric, self._space.shape, True, config, pictures, *parts)
        self.num_parameters = sum(value.numel() for value in tensors.values())

    def reset(self, goals: NDArray[np.uint8], seeds: Sequence[int]) -> None:
        self._goals = goals
        self._random_state = torch.Generator().manual_seed(int(seeds[0])).get_state()
        self._player.num_envs = len(goals)
        self._player.init_states()

    @torch.inference_mode()
    def act(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        seen: dict[str, Any] = {"rgb": pictures, "goal": self._goals}
        tensors = {
            key: torch.from_numpy(np.moveaxis(seen[key], -1, -3)[None].copy()).float() / 255 - 0.5 for key in self._keys
        }
        with torch.random.fork_rng(devices=[]):  # sheeprl draws from torch's one generator
            torch.set_rng_state(self._random_state)
            (actions,) = self._player.get_actions(tensors, greedy=True)
            self._random_state = torch.get_rng_state()
        low, high = self._space.low, self._space.high
        scaled = low + (actions.cpu().numpy().reshape(len(pictures), 1, -1) + 1) / 2 * (high - low)
        return np.clip(scaled, low, high).astype(np.float32).repeat(self.action_block, axis=1)


def _train(task: str, seed: int) -> list[Command]:
    folder = folder_of("dreamer", task, seed)
    done = (folder / "actors/config.json").exists()
    return [] if done else [command("train-dreamer", task=task, seed=seed, output=folder)]


def _actors(task: str, seed: int) -> list[Path]:
    """Returns the actors' files, the youngest last."""
    return sorted(folder_of("dreamer", task, seed).glob("actors/*.safetensors"), key=lambda path: int(path.stem))


def _info(task: str, seed: int) -> dict[str, Any]:
    return read_json(folder_of("dreamer", task, seed) / "actors/config.json", _FIX)


def _make(task: str, seed: int, actor: Path | None = None) -> tuple[Agent, Facts]:
    actor = actor or _actors(task, seed)[-1]
    agent, steps = DreamerAgent(actor), int(actor.stem)
    seconds = _info(task, seed)["learning_seconds"][actor.stem]
    return agent, Facts(steps, steps // agent.action_block, True, seconds, agent.num_parameters)


def _stages(task: str, seed: int) -> Iterator[tuple[Agent, Facts]]:
    actors = _actors(task, seed)
    for index in np.linspace(0, len(actors) - 1, min(CURVE_POINTS, len(actors))).astype(int):
        yield _make(task, seed, actors[index])


def _returns(task: str, seed: int) -> dict[str, Any]:
    return {name: _info(task, seed)[name] for name in ("training_returns", "baseline_returns")}


# sheeprl's packages clash with others of ours. One seed: it takes more than an hour.
DREAMER = Rival(
    "pictures, reward",
    _make,
    train=_train,
    venv=(places.checkout() or places.home()) / ".venv-dreamer",
    stages=_stages,
    returns=_returns,
    label="DreamerV3",
)
