import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import INFO

from jepa_mpc.world_model.data.dataset import Dataset, Episode, write_dataset
from jepa_mpc.world_model.model.reachability import Reachability, ReachabilityConfig, Whitening, reachability_loss
from jepa_mpc.world_model.training.config import TrainConfig
from jepa_mpc.world_model.training.loop import LoopConfig, run_phases
from jepa_mpc.world_model.training.phases import reachability_phase


class Identity(Reachability):
    """The metric with φ the identity, to compare with hand arithmetic."""

    def __init__(self):
        super().__init__(ReachabilityConfig(hidden=2, metric_dim=2), 2)
        self.features = torch.nn.Identity()


def learned(tmp_path, walks, place, velocity, num_steps, expectile):
    """The metric that the reachability phase learns of walks (E, T) through places, whose embeddings are `place`."""
    nothing = np.zeros((walks.shape[1], 1, 1, 3), np.uint8), np.zeros((walks.shape[1] - 1, 1), np.float32)
    recorded = [Episode(*nothing, walk[:, None].astype(float), np.zeros((len(walk), 1))) for walk in walks]
    write_dataset(tmp_path / "walks.h5", recorded, replace(INFO, angles=(False,)))
    data = Dataset(tmp_path / "walks.h5")
    config = TrainConfig(
        output=tmp_path,
        reachability_steps=num_steps,
        reachability_batch_size=64,
        reachability_learning_rate=5e-3,
        expectile=expectile,
    )
    torch.manual_seed(0)
    z = torch.tensor(place(data.qpos[:, 0]), dtype=torch.float32)
    metric = Reachability(ReachabilityConfig(hidden=64, metric_dim=8, velocity=velocity), z.shape[1])
    target = copy.deepcopy(metric)
    model = SimpleNamespace(reachability=metric)
    phase = reachability_phase(config, model, target, data, lambda: z)
    loop = LoopConfig(
        0, weight_decay=0, warmup_steps=50, grad_clip=10, log_every=500, report_every=500, save_every=10**6
    )
    run_phases([phase], torch.nn.ModuleList([metric, target]), tmp_path, loop)
    return metric.requires_grad_(False)


def test_whitened_embeddings_vary_alike_in_every_direction():
    torch.manual_seed(0)
    mixing = torch.randn(6, 6) * torch.tensor([30.0, 10, 3, 1, 1, 0.1])
    z = torch.randn(5000, 6) @ mixing.T + 7
    white = Whitening.fit(z, floor=0)(z)
    mean_variance = z.var(0, unbiased=False).mean()
    torch.testing.assert_close(white.mean(0), torch.zeros(6), atol=1e-3, rtol=0)
    variances = torch.linalg.eigvalsh(white.T @ white / len(z))
    torch.testing.assert_close(variances, torch.ones(6), atol=1e-2, rtol=0)
    floored = Whitening.fit(z, floor=0.01)(z)
    original = torch.linalg.eigvalsh((z - z.mean(0)).T @ (z - z.mean(0)) / len(z)).clamp_min(0)
    expected = (original / (original + 0.01 * mean_variance)).sort().values
    found = torch.linalg.eigvalsh(floored.T @ floored / len(z))
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("velocity", [False, True])
def test_a_folded_metric_measures_embeddings_as_the_other_did_whitened_ones(velocity):
    torch.manual_seed(0)
    metric = Reachability(ReachabilityConfig(hidden=16, metric_dim=4, velocity=velocity), 6)
    z = torch.randn(200, 6) @ torch.randn(6, 6) + 3
    white = Whitening.fit(z)
    here, before, goal = z[:60], z[60:120], z[120:180]
    expected = metric(white(here), white(before), white(goal))
    metric.fold(white)
    torch.testing.assert_close(metric(here, before, goal), expected, rtol=1e-4, atol=1e-5)


def test_is_a_metric():
    torch.manual_seed(0)
    metric = Reachability(ReachabilityConfig(hidden=16, metric_dim=4), 6)
    a, b, c = torch.randn(3, 50, 6)
    torch.testing.assert_close(metric(a, c, b), metric(b, c, a))
    assert metric(a, b, a).abs().max() == 0
    assert (metric(a, a, c) <= metric(a, a, b) + metric(b, b, c) + 1e-6).all()
    assert metric(a.view(5, 10, 1, 6), a.view(5, 10, 1, 6), b[:5, None, None]).shape == (5, 10, 1)


def test_loss_by_hand():
    z, z_next = torch.tensor([[0.0, 0.0], [3.0, 0.0]]), torch.tensor([[1.0, 0.0], [3.0, 4.0]])
    z_goal = torch.tensor([[4.0, 0.0], [3.0, 0.0]])
    is_goal = torch.tensor([[False, False], [False, True]])
    loss = reachability_loss(Identity(), Identity(), z, z, z_next, z_goal, is_goal, discount=0.5, expectile=0.9)
    # distances, and one block plus half the rest: too far weighs 0.9, too near 0.1
    excess = np.array([[4 - (1 + 1.5), 3 - (1 + 1.0)], [1 - (1 + 0.5 * np.sqrt(17)), 0 - 0]])
    weighted = np.where(excess > 0, 0.9, 0.1) * excess**2
    assert loss.item() == pytest.approx(0.5 * weighted.diagonal().mean() + 0.5 * weighted.mean(), abs=5e-3)


def test_velocity_is_how_the_embedding_has_just_changed():
    metric = Reachability(ReachabilityConfig(hidden=2, metric_dim=2, velocity=True), 2)
    metric.features = metric.goal_features = torch.nn.Identity()
    z, before = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, 4.0]])
    assert metric.state(z, before).tolist() == [[1, 2, 0.5, -2]]
    assert metric.goal(z).tolist() == [[1, 2]]
    assert metric(z, before, torch.tensor([[1.0, 2.0, 0.5, 1.0]])).item() == 3


def test_gradients_stay_finite_at_distance_zero():
    torch.manual_seed(0)
    metric = Reachability(ReachabilityConfig(hidden=8, metric_dim=4), 3)
    z = torch.randn(4, 3)
    reachability_loss(metric, metric, z, z, z, z, torch.eye(4, dtype=torch.bool), 0.97, 0.9).backward()
    assert all(torch.isfinite(p.grad).all() for p in metric.parameters())


def test_learns_the_steps_around_a_wall(tmp_path):
    """Nine cells bent into a horseshoe: its ends lie side by side in the plane, and eight steps apart."""
    cells = np.array([(0, 2), (0, 1), (0, 0), (1, -1), (2, -1), (3, 0), (3, 1), (3, 2), (2, 2.0)]) / 2
    walks = np.random.default_rng(0).integers(9, size=(200, 1)).repeat(40, axis=1)
    for t in range(1, 40):  # a random walk along the horseshoe
        walks[:, t] = np.clip(walks[:, t - 1] + np.random.default_rng(t).choice([-1, 1], size=200), 0, 8)
    metric = learned(tmp_path, walks, lambda cell: cells[cell.astype(int)], False, 1000, 0.95)
    position = torch.tensor(cells, dtype=torch.float32)
    distance = metric(position[:, None], position[:, None], position[None]).numpy()
    steps = np.abs(np.arange(9)[:, None] - np.arange(9))
    discounted = (1 - 0.97**steps) / (1 - 0.97)
    assert np.abs(distance - discounted).max() < 1  # a random walk is seen to go back half the time
    assert distance[0, 8] > 3 * distance[0, 2] > 0


def test_with_velocity_one_place_lies_nearer_to_what_it_moves_towards(tmp_path):
    """A ball that rolls on along a line at one of two speeds, the sign of which alone decides what it will meet."""
    rng = np.random.default_rng(0)
    start, speed = 0.2 * rng.integers(-5, 6, (400, 1)), rng.choice([-0.2, 0.2], (400, 1))
    walks = start + speed * np.arange(-1, 6)
    metric = learned(tmp_path, walks, lambda place: place[:, None], True, 800, 0.9)
    here, ahead = torch.zeros(1), torch.tensor([0.4])
    towards, away = metric(here, here - 0.2, ahead), metric(here, here + 0.2, ahead)
    assert 1 < towards < 3  # two blocks
    assert away > 1.5 * towards
