"""Policies that act without a goal, to collect data and to stand beside the planner as baselines."""

import functools
import importlib
import math
from collections.abc import Callable, Iterable, Iterator

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from jepa_mpc.envs import PixelEnv
from jepa_mpc.envs.suites import two_room

# A policy maps the picture (H, W, 3) that begins a block to the block's actions (A,), one by one: whoever asks for the
# next has applied the one before, for some policies read the simulator's state.
Policy = Callable[[NDArray[np.uint8] | None], Iterable[NDArray[np.float32]]]
MakePolicy = Callable[[PixelEnv, int, np.random.Generator], Policy]  # from a block's length and a generator

_STRETCH = 1024  # steps of coloured noise drawn at once


def uniform(env: PixelEnv, block: int, rng: np.random.Generator) -> Policy:
    """Independent uniform actions over the whole action space."""
    return lambda picture: uniform_actions(env.action_space, block, rng)


def uniform_actions(space: gym.spaces.Box, block: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """One block (block, A)."""
    return rng.uniform(space.low, space.high, (block, *space.shape)).astype(np.float32)


def coloured(env: PixelEnv, block: int, rng: np.random.Generator, exponent: float) -> Policy:
    """Gaussian actions whose power falls with frequency as 1 / f^exponent, clipped to the action space.

    White noise cancels itself out and stays where it began; pink noise (exponent 1) goes places (Eberhard et al.,
    2023). A standard deviation is half the half-range.
    """
    space = env.action_space
    middle, half_range = (space.high + space.low) / 2, (space.high - space.low) / 2
    noise = np.zeros((0, *space.shape))

    def act(picture: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        nonlocal noise
        if len(noise) < block:
            noise = np.concatenate([noise, coloured_noise(_STRETCH, space.shape, exponent, rng)])
        now, noise = noise[:block], noise[block:]
        return np.clip(middle + half_range * 0.5 * now, space.low, space.high).astype(np.float32)

    return act


def coloured_noise(
    num_steps: int, shape: tuple[int, ...], exponent: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Noise (num_steps, *shape) of unit variance with spectrum 1 / f^exponent (Timmer & König, 1995)."""
    frequencies = np.fft.rfftfreq(num_steps)
    amplitude = np.maximum(frequencies, 1 / num_steps) ** (-exponent / 2)
    amplitude[0] = 0
    real, imaginary = rng.normal(size=(2, len(amplitude), math.prod(shape)))
    noise = np.fft.irfft(amplitude[:, None] * (real + 1j * imaginary), num_steps, axis=0)
    return (noise / noise.std(axis=0)).reshape(num_steps, *shape)


def pink(env: PixelEnv, block: int, rng: np.random.Generator) -> Policy:
    """Coloured noise of exponent 1."""
    return coloured(env, block, rng, exponent=1.0)


def held(env: PixelEnv, block: int, rng: np.random.Generator) -> Policy:
    """Uniform actions, each held for a random number of steps, up to two blocks."""
    space = env.action_space
    action, left = np.zeros(space.shape), 0

    def act(picture: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        nonlocal action, left
        steps = []
        for _ in range(block):
            if not left:
                action, left = rng.uniform(space.low, space.high), int(rng.integers(1, 2 * block + 1))
            left -= 1
            steps.append(action)
        return np.stack(steps).astype(np.float32)

    return act


def scripted(env: PixelEnv, block: int, controller: Callable[[], NDArray[np.floating]]) -> Policy:
    """A policy from a controller, which reads the simulator's state as a demonstrator would and gives one action."""

    def act(picture: NDArray[np.uint8] | None) -> Iterator[NDArray[np.float32]]:
        for _ in range(block):
            yield np.clip(controller(), env.action_space.low, env.action_space.high).astype(np.float32)

    return act


def two_room_walker(env: PixelEnv, block: int, rng: np.random.Generator) -> Policy:
    """Walks to random places, through the door where it must, with noise of twice the largest action."""
    target: NDArray[np.float64] | None = None

    def controller() -> NDArray[np.floating]:
        nonlocal target
        here = env.qpos
        while target is None or two_room.in_wall(target) or np.linalg.norm(target - here) < 16:
            target = rng.uniform(two_room.BORDER, two_room.SIDE - two_room.BORDER, 2)
        door = np.array([two_room.WALL, two_room.DOOR])
        other_room = (here[0] < two_room.WALL) != (target[0] < two_room.WALL)
        way = (door if other_room and np.linalg.norm(door - here) > 10 else target) - here
        return way / max(float(np.linalg.norm(way)), 1e-9) + rng.normal(0, 2.0, 2)

    return scripted(env, block, controller)


def demonstrator(module: str, name: str, env: PixelEnv, block: int, rng: np.random.Generator) -> Policy:
    """The policy of that name in a module of its own, imported when wanted: it may need an optional suite."""
    return getattr(importlib.import_module(module), name)(env, block, rng)


POLICIES: dict[str, MakePolicy] = {
    "uniform": uniform,
    "pink": pink,
    "held": held,
    "two_room_walker": two_room_walker,
    "push_t_pusher": functools.partial(demonstrator, "jepa_mpc.agent.data_policies.push_t", "push_t_pusher"),
    "cube_oracle": functools.partial(demonstrator, "jepa_mpc.agent.data_policies.cube", "cube_oracle"),
    "arm_pusher": functools.partial(demonstrator, "jepa_mpc.agent.data_policies.pusher_v5", "arm_pusher"),
}
