"""Random actions: independent, coloured, or held."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.agent.data_policies import Policy, one_by_one
from jepa_mpc.envs import PixelEnv
from jepa_mpc.envs.blocks import Bounds

_STRETCH = 1024  # steps of coloured noise drawn at once


def uniform(env: PixelEnv, block: int, rng: np.random.Generator) -> Policy:
    """Draws from the whole action space."""
    return lambda picture: uniform_actions(env.action_space, block, rng)


def uniform_actions(bounds: Bounds, block: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Returns one block (block, A)."""
    return rng.uniform(bounds.low, bounds.high, (block, *bounds.low.shape)).astype(np.float32)


def pink(env: PixelEnv, block: int, rng: np.random.Generator) -> Policy:
    """Draws Gaussian actions whose power falls with frequency as 1 / f, clipped to the action space.

    White noise cancels itself out and stays where it began; pink noise goes places (Eberhard et al., 2023). A standard
    deviation is half the half-range.
    """
    space = env.action_space
    middle, half_range = (space.high + space.low) / 2, (space.high - space.low) / 2

    def actions() -> Iterator[NDArray[np.floating]]:
        while True:
            yield from middle + half_range * 0.5 * coloured_noise(_STRETCH, space.shape, 1.0, rng)

    return one_by_one(env, block, actions())


def coloured_noise(
    num_steps: int, shape: tuple[int, ...], exponent: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Returns noise (num_steps, *shape) of unit variance with spectrum 1 / f^exponent (Timmer & König, 1995)."""
    frequencies = np.fft.rfftfreq(num_steps)
    amplitude = np.maximum(frequencies, 1 / num_steps) ** (-exponent / 2)
    amplitude[0] = 0
    real, imaginary = rng.normal(size=(2, len(amplitude), math.prod(shape)))
    noise = np.fft.irfft(amplitude[:, None] * (real + 1j * imaginary), num_steps, axis=0)
    return (noise / noise.std(axis=0)).reshape(num_steps, *shape)


def held(env: PixelEnv, block: int, rng: np.random.Generator) -> Policy:
    """Draws uniform actions, each held for a random number of steps, up to two blocks."""

    def actions() -> Iterator[NDArray[np.floating]]:
        while True:
            yield from hold(env.action_space, 1, 2 * block, rng)

    return one_by_one(env, block, actions())


def hold(bounds: Bounds, least: int, most: int, rng: np.random.Generator) -> Iterator[NDArray[np.floating]]:
    """Yields one uniform action (A,), `least` to `most` times."""
    action = rng.uniform(bounds.low, bounds.high)
    for _ in range(rng.integers(least, most + 1)):
        yield action
