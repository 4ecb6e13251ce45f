"""A policy that Soft Actor-Critic has trained (Haarnoja et al., 2018), to collect data with; a plain MLP in NumPy.

It reads the simulator's state, which the world model never sees. `agent/data_policies/train_sac.py` leaves a folder of

actor.safetensors   weights, in full precision, and the mean and std that states are normalised by
config.json         format version, task, sizes, bounds of the actions, where it came from, what it earns
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import dacite
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from jepa_mpc.agent.data_policies.basic import Policy, pink, scripted
from jepa_mpc.envs import PixelEnv
from jepa_mpc.errors import UserError

FORMAT_VERSION = 1
STATE_LIMIT = 10.0  # a normalised coordinate beyond it says no more than that it is large
_LOG_STD_RANGE = (-20.0, 2.0)
_HOLD_CHANCE = 0.01  # of a step outside a held action to begin one


class PolicyError(UserError):
    """A policy that cannot be trained or used; the message is one line that names the fix."""


@dataclass(frozen=True)
class Return:
    """The mean return of n episodes and its interval at 95 %, by Student's t."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class PolicyInfo:
    """All that stands in `config.json`."""

    task: str
    angles: tuple[bool, ...]  # per coordinate of qpos: an angle, read as cosine and sine
    hidden_sizes: tuple[int, ...]
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    training: dict[str, Any]  # the training settings
    num_steps: int  # environment steps that it learned from
    greedy_return: Return  # of the actor's most likely actions, over episodes of the task's length
    random_return: Return  # of uniform actions, from the same starts
    simulator: str
    commit: str
    learning_seconds: float
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True)
class Actor:
    """A Gaussian over actions, squashed into their bounds by tanh, given a state (S,) from `read_state`."""

    weights: dict[str, NDArray[np.float32]]
    low: NDArray[np.float32]
    high: NDArray[np.float32]

    def distribution(self, state: NDArray[np.floating]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Mean and std (A,) of the Gaussian, before tanh."""
        weights = self.weights
        features = normalise(state, weights["state_mean"], weights["state_std"])
        for layer in range(sum(name.startswith("hidden.") for name in weights) // 2):
            features = np.maximum(weights[f"hidden.{layer}.weight"] @ features + weights[f"hidden.{layer}.bias"], 0)
        mean, log_std = (weights[f"{head}.weight"] @ features + weights[f"{head}.bias"] for head in ("mean", "log_std"))
        return mean, np.exp(np.clip(log_std, *_LOG_STD_RANGE))

    def act(self, state: NDArray[np.floating], rng: np.random.Generator | None = None) -> NDArray[np.floating]:
        """An action (A,): a sample, or the most likely one where there is no generator."""
        mean, std = self.distribution(state)
        squashed = np.tanh(mean if rng is None else mean + std * rng.normal(size=mean.shape))
        return self.low + 0.5 * (squashed + 1) * (self.high - self.low)


def read_state(env: PixelEnv, angles: tuple[bool, ...]) -> NDArray[np.float64]:
    """What the actor is told (S,): cosine and sine of the angles, the other coordinates, the velocities."""
    qpos, turning = env.qpos, np.array(angles)
    return np.concatenate([np.cos(qpos[turning]), np.sin(qpos[turning]), qpos[~turning], env.qvel])


def normalise(state: NDArray, mean: NDArray, std: NDArray) -> NDArray[np.float32]:
    """The state in units of its std, within `STATE_LIMIT`."""
    return np.clip((state - mean) / std, -STATE_LIMIT, STATE_LIMIT).astype(np.float32)


def policy_folder(task: str) -> Path:
    """Where a task's policy lies unless another place is named."""
    return Path("runs/policies") / task


def save_policy(folder: Path, actor: Actor, info: PolicyInfo) -> None:
    """Writes the files, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "actor.safetensors": save(actor.weights),
        "config.json": (json.dumps(asdict(info), indent=2) + "\n").encode(),  # last: its being there says finished
    }
    for name, content in files.items():
        unfinished = (folder / name).with_suffix(".unfinished")
        unfinished.write_bytes(content)
        os.replace(unfinished, folder / name)


def load_policy(folder: Path, task: str) -> tuple[Actor, PolicyInfo]:
    """The actor of that folder. Raises `PolicyError` if it is missing, damaged, of another version or task."""
    try:
        stored = json.loads((folder / "config.json").read_text())
        if (version := stored["format_version"]) != FORMAT_VERSION:
            raise PolicyError(f"policy {folder} has format {version}, not {FORMAT_VERSION}; train it again")
        info = dacite.from_dict(PolicyInfo, stored, dacite.Config(strict=True, cast=[tuple]))
        weights = load_file(folder / "actor.safetensors")
        _check_shapes(weights, info)
    except FileNotFoundError as error:
        raise PolicyError(
            f"no policy at {folder}; train it with `python agent/data_policies/train_sac.py --task {task}`"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError, dacite.DaciteError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise PolicyError(f"policy {folder} is damaged ({reason}); delete the folder and train it again") from error
    if info.task != task:
        raise PolicyError(f"policy {folder} was trained on task {info.task!r}, not {task!r}")
    low, high = (np.array(bound, np.float32) for bound in (info.action_low, info.action_high))
    return Actor(weights, low, high), info


def _check_shapes(weights: dict[str, NDArray], info: PolicyInfo) -> None:
    sizes = [len(weights["state_mean"]), *info.hidden_sizes]
    shapes: dict[str, tuple[int, ...]] = {"state_mean": (sizes[0],), "state_std": (sizes[0],)}
    layers = [(f"hidden.{layer}", *size) for layer, size in enumerate(zip(sizes[1:], sizes[:-1], strict=True))]
    for name, outputs, inputs in (*layers, *((head, len(info.action_low), sizes[-1]) for head in ("mean", "log_std"))):
        shapes |= {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}
    if {name: value.shape for name, value in weights.items()} != shapes:
        raise ValueError("its weights do not fit its config.json")


def sac(actor: Actor, angles: tuple[bool, ...], env: PixelEnv, block: int, rng: np.random.Generator) -> Policy:
    """Samples of the actor, mixed with pink noise in a share drawn once an episode: from nearly greedy to all noise.

    Now and then a random action is held for up to two blocks, so that data leave the ways that earn reward.
    """
    space, noise = env.action_space, pink(env, 1, rng)
    share = rng.uniform() ** 3  # an eighth for the median episode; an arm seldom pushes anything under much more
    action, left = np.zeros(space.shape), 0

    def controller() -> NDArray[np.floating]:
        nonlocal action, left
        if not left and rng.uniform() < _HOLD_CHANCE:
            action, left = rng.uniform(space.low, space.high), int(rng.integers(1, 2 * block + 1))
        if left:
            left -= 1
            return action
        return (1 - share) * actor.act(read_state(env, angles), rng) + share * next(iter(noise(None)))

    return scripted(env, block, controller)
