"""A policy that Soft Actor-Critic has trained (Haarnoja et al., 2018), to collect data with; a plain MLP in NumPy.

It reads the simulator's state, which the world model never sees. `jepa-mpc train-sac` leaves a folder of

actor.safetensors   weights, in full precision, and the mean and std that states are normalised by
config.json         format version, task, sizes, bounds of the actions, where it came from, what it earns
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save

from jepa_mpc.agent.data_policies import MakePolicy, Policy, Trained, one_by_one
from jepa_mpc.agent.data_policies.noise import hold, pink
from jepa_mpc.envs import PixelEnv
from jepa_mpc.errors import UserError
from jepa_mpc.files import read_json, write_json, write_whole
from jepa_mpc.registry import same
from jepa_mpc.settings import read, to_json
from jepa_mpc.world_model.weights import read_tensors

FORMAT_VERSION = 1
STATE_LIMIT = 10.0  # a normalised coordinate beyond it says no more than that it is large
_LOG_STD_RANGE = (-20.0, 2.0)
_HOLD_CHANCE = 0.01  # of a step outside a held action to begin one


@dataclass(frozen=True)
class Return:
    """The mean return of n episodes and its interval at 95 %, by Student's t."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.1f} [{self.low:.1f}, {self.high:.1f}]"


@dataclass(frozen=True)
class ActorInfo:
    """All that stands in `config.json`."""

    task: str
    angles: tuple[bool, ...]  # per coordinate of qpos: an angle, read as cosine and sine
    hidden_sizes: tuple[int, ...]
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    training: dict[str, Any]  # the training settings
    num_steps: int  # environment steps that it learned from
    simulator: str
    commit: str
    learning_seconds: float
    greedy_return: Return | None = None  # of the actor's most likely actions, over episodes of the task's length
    random_return: Return | None = None  # of uniform actions, from the same starts
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True)
class Actor:
    """A Gaussian over actions, squashed into their bounds by tanh, given a state (S,) from `read_state`."""

    weights: dict[str, NDArray[np.float32]]
    low: NDArray[np.float32]
    high: NDArray[np.float32]

    def distribution(self, state: NDArray[np.floating]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Returns mean and std (A,) of the Gaussian, before tanh."""
        weights = self.weights
        features = normalise(state, weights["state_mean"], weights["state_std"])
        for layer in range(sum(name.startswith("hidden.") for name in weights) // 2):
            features = np.maximum(weights[f"hidden.{layer}.weight"] @ features + weights[f"hidden.{layer}.bias"], 0)
        mean, log_std = (weights[f"{head}.weight"] @ features + weights[f"{head}.bias"] for head in ("mean", "log_std"))
        return mean, np.exp(np.clip(log_std, *_LOG_STD_RANGE))

    def act(self, state: NDArray[np.floating], rng: np.random.Generator | None = None) -> NDArray[np.floating]:
        """Returns an action (A,): a sample, or the most likely one where there is no generator."""
        mean, std = self.distribution(state)
        squashed = np.tanh(mean if rng is None else mean + std * rng.normal(size=mean.shape))
        return self.low + 0.5 * (squashed + 1) * (self.high - self.low)


def read_state(env: PixelEnv, angles: tuple[bool, ...]) -> NDArray[np.float64]:
    """Returns what the actor is told (S,): cosine and sine of the angles, the other coordinates, the velocities."""
    qpos, turning = env.qpos, np.array(angles)
    return np.concatenate([np.cos(qpos[turning]), np.sin(qpos[turning]), qpos[~turning], env.qvel])


def normalise(state: NDArray, mean: NDArray, std: NDArray) -> NDArray[np.float32]:
    """Returns the state in units of its std, within `STATE_LIMIT`."""
    return np.clip((state - mean) / std, -STATE_LIMIT, STATE_LIMIT).astype(np.float32)


def save_actor(folder: Path, actor: Actor, info: ActorInfo) -> None:
    """Writes the files, each whole or not at all."""
    write_whole(folder / "actor.safetensors", save(actor.weights))
    write_json(folder / "config.json", to_json(info))  # last: its being there says finished


def load_actor(folder: Path, task: str, command: str = "train-sac") -> tuple[Actor, ActorInfo]:
    """Returns the actor of that folder. Raises `UserError` if it is missing, damaged, of another version or task."""
    path = folder / "config.json"
    stored = read_json(path, f"train a policy with `jepa-mpc {command} --task {task}`")
    if isinstance(stored, dict) and (version := stored.get("format_version")) != FORMAT_VERSION:
        raise UserError(f"policy {folder} has format {version}, not {FORMAT_VERSION}; train it again")
    info = read(ActorInfo, stored, f"{path} is damaged; train the policy again")
    if not same(info.task, task):
        raise UserError(f"policy {folder} was trained on task {info.task!r}, not {task!r}")
    weights = _read_weights(folder / "actor.safetensors", info.hidden_sizes, len(info.action_low))
    low, high = (np.array(bound, np.float32) for bound in (info.action_low, info.action_high))
    return Actor(weights, low, high), info


def _read_weights(path: Path, hidden_sizes: tuple[int, ...], num_actions: int) -> dict[str, NDArray[np.float32]]:
    """Returns an actor's weights. Raises `UserError`, which names the first that does not fit, or is not finite."""
    weights = read_tensors(path)[0]
    sizes = [weights["state_mean"].numel() if "state_mean" in weights else 0, *hidden_sizes]
    shapes: dict[str, tuple[int, ...]] = {"state_mean": (sizes[0],), "state_std": (sizes[0],)}
    layers = [(f"hidden.{layer}", *size) for layer, size in enumerate(zip(sizes[1:], sizes[:-1], strict=True))]
    for name, outputs, inputs in (*layers, *((head, num_actions, sizes[-1]) for head in ("mean", "log_std"))):
        shapes |= {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}
    for name in {**shapes, **weights}:
        found = tuple(weights[name].shape) if name in weights else "missing"
        if found != (expected := shapes.get(name, "unknown")):
            raise UserError(f"{path} does not fit its config.json: {name} is {found}, expected {expected}")
        if weights[name].dtype != torch.float32 or not weights[name].isfinite().all():
            raise UserError(f"{path} is damaged: {name} must be finite float32 numbers; train the policy again")
    return {name: value.numpy() for name, value in weights.items()}


def sac(actor: Actor, angles: tuple[bool, ...], env: PixelEnv, block: int, rng: np.random.Generator) -> Policy:
    """Acts by samples of the actor and pink noise, in a share drawn once an episode: from nearly greedy to all noise.

    Now and then a random action is held for up to two blocks, so that data leave the ways that earn reward.
    """
    noise = pink(env, 1, rng)
    share = rng.uniform() ** 3  # an eighth for the median episode; an arm seldom pushes anything under much more

    def actions() -> Iterator[NDArray[np.floating]]:
        while True:
            if rng.uniform() < _HOLD_CHANCE:
                yield from hold(env.action_space, 1, 2 * block, rng)
            else:
                yield (1 - share) * actor.act(read_state(env, angles), rng) + share * next(iter(noise(None)))

    return one_by_one(env, block, actions())


def _load(folder: Path, task: str) -> MakePolicy:
    actor, info = load_actor(folder, task)
    return functools.partial(sac, actor, info.angles)


SAC = Trained(_load)
