"""Policies that act without a goal, to collect data and to stand beside the planner as baselines."""

import math
from collections.abc import Callable

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

# A policy maps the picture (H, W, 3) that begins a block to the block's actions (block, A).
Policy = Callable[[NDArray[np.uint8] | None], NDArray[np.float32]]
MakePolicy = Callable[[gym.spaces.Box, int, np.random.Generator], Policy]

_STRETCH = 1024  # steps of coloured noise drawn at once


def uniform(space: gym.spaces.Box, block: int, rng: np.random.Generator) -> Policy:
    """Independent uniform actions over the whole action space."""
    return lambda picture: rng.uniform(space.low, space.high, (block, *space.shape)).astype(np.float32)


def coloured(space: gym.spaces.Box, block: int, rng: np.random.Generator, exponent: float) -> Policy:
    """Gaussian actions whose power falls with frequency as 1 / f^exponent, clipped to the action space.

    White noise cancels itself out and stays where it began; pink noise (exponent 1) goes places (Eberhard et al.,
    2023). A standard deviation is half the half-range.
    """
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


def pink(space: gym.spaces.Box, block: int, rng: np.random.Generator) -> Policy:
    """Coloured noise of exponent 1."""
    return coloured(space, block, rng, exponent=1.0)


def held(space: gym.spaces.Box, block: int, rng: np.random.Generator) -> Policy:
    """Uniform actions, each held for a random 1 to 2 blocks' worth of steps."""
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


POLICIES: dict[str, MakePolicy] = {"uniform": uniform, "pink": pink, "held": held}
