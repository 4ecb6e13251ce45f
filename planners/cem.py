"""The cross-entropy method (Rubinstein & Kroese, 2004): refit a Gaussian to the elites, act on its mean."""

from dataclasses import dataclass

from jepa_mpc.errors import UserError
from jepa_mpc.planners.base import Planner, PlannerConfig
from jepa_mpc.settings import Count


@dataclass(frozen=True)
class CEMConfig(PlannerConfig):
    """The cross-entropy method."""

    num_elites: Count = 8
    """The best candidates, to which the next distribution is fitted."""


@CEMConfig.makes("cem")
class CEM(Planner):
    config: CEMConfig

    def __init__(self, config, low, high, steps_per_block=1):
        super().__init__(config, low, high, steps_per_block)
        elites, samples = self.config.num_elites, self.config.num_samples
        if elites > samples:
            raise UserError(f"--num-elites must lie in 1–{samples} (--num-samples), not {elites}")

    def refit(self, samples, costs):
        elites = self.elites(samples, costs)
        mean = elites.mean(1)
        return mean, elites.std(1, correction=0), samples[:, :0], mean

    def elites(self, samples, costs):
        """Returns the best candidates (B, K, H, A), best first."""
        index = costs.topk(self.config.num_elites, dim=1, largest=False).indices
        return samples.gather(1, index[:, :, None, None].expand(-1, -1, *samples.shape[2:]))
