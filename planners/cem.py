"""The cross-entropy method (Rubinstein & Kroese, 2004): refit a Gaussian to the elites, act on its mean."""

import torch

from jepa_mpc.planners.base import Planner


class CEM(Planner):
    def refit(self, samples, costs):
        elites = self.elites(samples, costs)
        mean = elites.mean(1)
        return mean, elites.std(1, correction=0), samples[:, :0], mean

    def elites(self, samples, costs):
        """The best candidates (B, K, H, A), best first."""
        index = costs.topk(self.config.num_elites, dim=1, largest=False).indices
        return torch.take_along_dim(samples, index[:, :, None, None], dim=1)
