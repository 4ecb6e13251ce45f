"""The improved cross-entropy method (Pinneri et al., 2020, arXiv 2008.06389): CEM with coloured noise, elites that
compete again in the next round and, shifted, in the next search, fewer samples every round, and the best candidate
rather than the mean to act on.
"""

import functools
from dataclasses import dataclass
from typing import Annotated

import torch

from jepa_mpc.planners.cem import CEM, CEMConfig
from jepa_mpc.settings import NonNegative, Range


@dataclass(frozen=True)
class ICEMConfig(CEMConfig):
    """The improved cross-entropy method."""

    noise_exponent: NonNegative = 0.5
    """The noise's power falls with frequency to this power; 0 is white, 2 a random walk."""
    sample_decay: Annotated[float, Range(1)] = 1.25
    """Each round has this many times fewer samples than the one before."""


@ICEMConfig.makes("icem")
class ICEM(CEM):
    config: ICEMConfig

    def refit(self, samples, costs):
        elites = self.elites(samples, costs)
        return elites.mean(1), elites.std(1, correction=0), elites, elites[:, 0]

    def num_samples(self, index):
        decayed = round(self.config.num_samples * self.config.sample_decay**-index)
        return max(decayed, 2 * self.config.num_elites)

    def coloured(self, white):
        if self.config.noise_exponent == 0:
            return white
        steps = white.view(*white.shape[:2], white.shape[2] * self.steps_per_block, -1)
        filter = colouring(steps.shape[2], self.config.noise_exponent).to(steps.device)
        return (filter @ steps).view(white.shape)


@functools.lru_cache
def colouring(num_steps: int, exponent: float) -> torch.Tensor:
    """Returns the filter (T, T) that turns T steps of white noise into noise whose power falls as 1/frequency^exponent.

    Its result has unit variance by the spectrum itself: scaling every sequence by its own std would make all equally
    vigorous, and by the batch's would tie episodes to each other (cf. Timmer & König, 1995).
    """
    frequency = torch.fft.rfftfreq(num_steps)
    gain = frequency.clamp_min(1 / num_steps) ** (-exponent / 2)
    filter = torch.fft.irfft(torch.fft.rfft(torch.eye(num_steps), dim=0) * gain[:, None], n=num_steps, dim=0)
    return filter / filter.square().sum(1, keepdim=True).sqrt()
