"""Coloured noise: actions that hang together over time."""

import math

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.agent.data_policies.base import Policy
from jepa_mpc.envs import PixelEnv

_STRETCH = 1024  # steps of coloured noise drawn at once


def coloured(env: PixelEnv, block: int, rng: np.random.Generator, exponent: float) -> Policy:
    """Draws Gaussian actions whose power falls with frequency as 1 / f^exponent, clipped to the action space.

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
    """Returns noise (num_steps, *shape) of unit variance with spectrum 1 / f^exponent (Timmer & König, 1995)."""
    frequencies = np.fft.rfftfreq(num_steps)
    amplitude = np.maximum(frequencies, 1 / num_steps) ** (-exponent / 2)
    amplitude[0] = 0
    real, imaginary = rng.normal(size=(2, len(amplitude), math.prod(shape)))
    noise = np.fft.irfft(amplitude[:, None] * (real + 1j * imaginary), num_steps, axis=0)
    return (noise / noise.std(axis=0)).reshape(num_steps, *shape)


def pink(env: PixelEnv, block: int, rng: np.random.Generator) -> Policy:
    """Draws coloured noise of exponent 1."""
    return coloured(env, block, rng, exponent=1.0)
