"""Is the embedding alive, and what does it hold? Collapse measures and linear probes, for reports only."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from jepa_mpc.world_model.data.dataset import Dataset, spread
from jepa_mpc.world_model.model.jepa import JEPA, disagreement
from jepa_mpc.world_model.model.surprise import Lag, Miss, UsualMiss
from jepa_mpc.world_model.observation import Observation, draw_hidden, hide_views
from jepa_mpc.world_model.regularizers.sigreg import SIGReg

USUAL = 0.95  # of the predictions in held-out episodes
USUAL_DISAGREEMENT = 0.99  # of the pictures in held-out episodes
_RIDGE = 1e-4  # relative to the embeddings' mean variance


class EmbeddingReport(NamedTuple):
    """Measured on held-out episodes; `probe_r2` maps each target's name to its R²."""

    std: float  # mean over dimensions of the std over frames; about 1 under SIGReg, 0 after collapse
    effective_rank: float
    sigreg: float  # SIGReg's statistic of 512 frames; 1.05 if they were independent and N(0, I)
    probe_r2: dict[str, float]


def effective_rank(z: Tensor) -> float:
    """Returns exp of the entropy of the normalised singular values of centred z (N, D) (Roy & Vetterli, 2007).

    Between 1 and D. It ignores scale: read it beside the std.
    """
    singular = torch.linalg.svdvals((z - z.mean(0)).double())
    p = singular / singular.sum().clamp_min(1e-30)
    return float(torch.exp(-(p * p.clamp_min(1e-30).log()).sum()))


def linear_probe_r2(train_z: Tensor, train_y: Tensor, test_z: Tensor, test_y: Tensor) -> Tensor:
    """Returns R² (P,) on the test set of ridge regression from embeddings (N, D) to targets (N, P), where these are
    known.
    """
    (train_z, train_y), (test_z, test_y) = (
        (z[known], y[known]) for z, y in ((train_z, train_y), (test_z, test_y)) for known in [~y.isnan().any(1)]
    )
    mean, y_mean = train_z.mean(0), train_y.mean(0)
    x, y = (train_z - mean).double(), (train_y - y_mean).double()
    gram = x.T @ x
    gram.diagonal().add_(_RIDGE * gram.diagonal().mean() + 1e-12)
    weights = torch.linalg.solve(gram, x.T @ y)
    residual = test_y - y_mean - (test_z - mean).double() @ weights
    return 1 - residual.square().sum(0) / (test_y - test_y.mean(0)).square().sum(0)


@torch.no_grad()
def encode_rows(
    model: JEPA, data: Dataset, rows: np.ndarray, batch_size: int = 512, dropout: float | None = None
) -> Tensor:
    """Encodes rows of the data set (N, D), onto the CPU; the model is left in the mode it was in. As goals, if it is
    said how often a camera is missing in one: these are pictures, so nothing is felt in them.
    """
    was_training, device = model.training, model.action_mean.device
    model.eval()
    encoded = []
    if dropout is not None:  # drawn for all rows, whoever encodes which
        hidden = draw_hidden(len(data.action), data.num_views + 1, dropout, torch.Generator().manual_seed(0))[:, :-1]
    for batch in np.array_split(rows, max(1, -(-len(rows) // batch_size))):
        seen = data.observations(batch)
        if dropout is not None:
            seen = Observation(hide_views(seen.pixels, hidden[batch]))
        encoded.append(model.encode(seen.to(device)).cpu())
    model.train(was_training)
    return torch.cat(encoded)


def report_embedding(model: JEPA, data: Dataset, num_frames: int) -> EmbeddingReport:
    """Measures `num_frames` pictures spread over the held-out episodes, with probes fitted on as many others."""
    measured = []
    for episodes in (data.train_episodes, data.held_out_episodes):
        rows = spread(data.rows_of(episodes), num_frames)
        targets, names = data.probe_targets(rows)
        measured += [encode_rows(model, data, rows), torch.from_numpy(targets)]
    r2, test_z = linear_probe_r2(*measured), measured[2]
    generator = torch.Generator().manual_seed(0)  # the same rows and directions at every call
    drawn = test_z[torch.randperm(len(test_z), generator=generator)[:512]]
    return EmbeddingReport(
        std=float(test_z.std(0).mean()),
        effective_rank=effective_rank(test_z),
        sigreg=float(SIGReg().eval()(drawn, generator)),
        # What never changes, such as a target's place, is nothing to read.
        probe_r2={name: value for name, value in zip(names, r2.tolist(), strict=True) if math.isfinite(value)},
    )


@torch.no_grad()
def usual_disagreement(model: JEPA, data: Dataset, num_pictures: int = 5000) -> float:
    """Returns what both encoders' disagreement seldom exceeds on pictures of the held-out episodes as they are."""
    rows = spread(data.rows_of(data.in_own_looks(data.held_out_episodes)), num_pictures)
    device = model.action_mean.device
    apart = []
    for batch in np.array_split(rows, -(-len(rows) // 512)):
        seen = data.observations(batch).to(device)
        apart.append(disagreement(*model.encode_by_both(seen)))
    return float(torch.cat(apart).quantile(USUAL_DISAGREEMENT))


@torch.no_grad()
def usual_miss(model: JEPA, data: Dataset, num_frames: int, num_windows: int = 5000) -> UsualMiss | None:
    """Returns by how much one-step predictions miss within windows of so many frames, spread over the held-out episodes
    in the scene's own looks; None if none is as long.
    """
    episodes = data.in_own_looks(data.held_out_episodes)
    steps = data.stride * np.arange(num_frames)
    starts = np.concatenate([data.rows_of([episode])[: -steps[-1]] for episode in episodes.tolist()])
    if not len(starts):
        return None
    rows = spread(starts, num_windows)[:, None] + steps
    once, where = np.unique(rows, return_inverse=True)
    z = encode_rows(model, data, once)[where.reshape(rows.shape)].to(model.action_mean.device)
    predicted = model.predict(z[:, :-1], torch.from_numpy(data.action[rows[:, :-1]]).to(z.device))
    median = (z[:, 1:] - predicted).norm(dim=-1).median()
    misses = [Miss.of(z[:, t + 1], predicted[:, t], z[:, t], z[:, max(t - 1, 0)]) for t in range(num_frames - 1)]
    share = [float(miss.share(median).quantile(USUAL)) for miss in misses]
    lag = Lag.none(z[:, 0])
    for miss in misses[1:]:  # before the first, nobody knows how things moved
        lag = lag.after(miss, median)
    usual_lag = float(lag.value.quantile(USUAL))  # 0 where there were too few frames
    return UsualMiss(float(median), tuple(share), usual_lag if usual_lag > 0 else None)
