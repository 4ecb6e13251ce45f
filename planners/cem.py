"""The cross-entropy method (Rubinstein & Kroese, 2004): refit a Gaussian to the elites."""

import torch

from planners.base import Planner


class CEM(Planner):
    def refit(self, samples, costs):
        elite_index = costs.topk(self.config.num_elites, dim=1, largest=False).indices
        elites = torch.take_along_dim(samples, elite_index[:, :, None, None], dim=1)
        return elites.mean(1), elites.std(1, correction=0)
