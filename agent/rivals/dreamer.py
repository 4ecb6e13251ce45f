"""Dreamer's actor, as sheeprl builds it, behind the surface of `PlanningAgent`: two pictures in, one action out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from jepa_mpc import envs
from jepa_mpc.agent.rivals.train_dreamer import quiet_sheeprl
from jepa_mpc.errors import UserError, reason
from jepa_mpc.files import read_json


class DreamerAgent:
    """Its latent state, sampled from the seed, runs on through the episode. Most likely actions, not samples, each held
    as long as in training.

    Args:
        weights: a file that `train_dreamer.py` has written; `config.json` of the same folder says how it was trained.
    """

    def __init__(self, weights: Path):
        with quiet_sheeprl():
            from lightning import Fabric
            from sheeprl.algos.dreamer_v3_5.agent import build_agent
            from sheeprl.utils.utils import dotdict

        fix = "train Dreamer with `jepa-mpc train-dreamer`"
        stored = read_json(weights.parent / "config.json", fix)
        parts: dict[str, dict[str, torch.Tensor]] = {"world_model": {}, "actor": {}}
        try:
            with safe_open(weights, "pt") as file:
                for name in file.keys():  # noqa: SIM118 (no mapping)
                    part, _, rest = name.partition("/")
                    parts[part][rest] = file.get_tensor(name)
            config, self.action_block = dotdict(stored["sheeprl"]), int(stored["settings"]["action_repeat"])
        except (OSError, KeyError, TypeError, SafetensorError) as error:
            raise UserError(f"{weights} is damaged ({reason(error)}); delete it and {fix}") from error
        env = envs.make(stored["settings"]["task"])
        self._space = env.action_space
        self._keys: list[str] = list(config.algo.cnn_keys.encoder)
        side = config.env.screen_size
        pictures = gym.spaces.Dict(dict.fromkeys(self._keys, gym.spaces.Box(0, 255, (3, side, side), np.uint8)))
        fabric = Fabric(accelerator="cpu", devices=1)
        *_, self._player = build_agent(fabric, self._space.shape, True, config, pictures, *parts.values())
        self.num_parameters = sum(value.numel() for part in parts.values() for value in part.values())

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
