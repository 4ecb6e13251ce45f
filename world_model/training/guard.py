"""Notices, while a model trains, that its embeddings collapse: the one failure that a falling loss hides."""

import logging

import torch
from torch import Tensor, nn

from jepa_mpc.world_model.training.diagnostics import effective_rank

log = logging.getLogger(__name__)


class CollapseGuard(nn.Module):
    """Compares each batch's embeddings with those of the first.

    Collapsed: for `patience` steps on end, std or effective rank below `fraction` of their start. Both count, for the
    rank ignores scale and the std ignores shape. What it remembers is buffers, so that it is saved with the training.
    """

    start: Tensor
    now: Tensor
    since: Tensor
    last_step: Tensor

    def __init__(self, fraction: float = 0.1, patience: int = 100):
        super().__init__()
        self.fraction, self.patience = fraction, patience
        self.register_buffer("start", torch.full((2,), torch.nan))  # std, effective rank
        self.register_buffer("now", torch.full((2,), torch.nan))
        self.register_buffer("since", torch.tensor(-1))
        self.register_buffer("last_step", torch.tensor(-1))

    def see(self, step: int, z: Tensor) -> None:
        """Takes the embeddings (N, D) of one batch; says so, once, when they have collapsed."""
        self.now.copy_(torch.tensor([float(z.std(0).mean()), effective_rank(z)]))
        if step == 0:
            self.start.copy_(self.now)
        was_collapsed = bool(self.verdict())
        self.last_step.fill_(step)
        if bool((self.now >= self.fraction * self.start).all()):
            self.since.fill_(-1)
        elif self.since < 0:
            self.since.fill_(step)
        if not was_collapsed and (verdict := self.verdict()):
            log.warning("%s", verdict)

    def verdict(self) -> str:
        """Returns one line that names cause and remedy, or nothing if the embeddings are alive."""
        if self.since < 0 or self.last_step - self.since < self.patience:
            return ""
        (std, rank), (std_start, rank_start) = self.now.tolist(), self.start.tolist()
        return (
            f"the embeddings have collapsed since step {int(self.since)} (std {std:.3g}, at first {std_start:.3g}; "
            f"effective rank {rank:.3g}, at first {rank_start:.3g}): the regulariser is too weak against the "
            "prediction error; raise its weight, or train with --regularizer sigreg"
        )
