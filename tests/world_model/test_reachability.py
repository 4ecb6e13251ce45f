import numpy as np
import pytest
import torch

from jepa_mpc.world_model.model.reachability import Reachability, ReachabilityConfig, reachability_loss


class Identity(Reachability):
    """The metric with φ the identity, to compare with hand arithmetic."""

    def __init__(self):
        super().__init__(ReachabilityConfig(hidden=2, metric_dim=2), 2)
        self.features = torch.nn.Identity()


def descend(loss, optimizer, metric, target):
    """One step of the optimiser, and the slow copy's after it."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        for slow, fast in zip(target.parameters(), metric.parameters(), strict=True):
            slow.lerp_(fast, 0.02)


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


def test_gradients_stay_finite_at_distance_zero():
    torch.manual_seed(0)
    metric = Reachability(ReachabilityConfig(hidden=8, metric_dim=4), 3)
    z = torch.randn(4, 3)
    reachability_loss(metric, metric, z, z, z, z, torch.eye(4, dtype=torch.bool), 0.97, 0.9).backward()
    assert all(torch.isfinite(p.grad).all() for p in metric.parameters())


def test_learns_the_steps_around_a_wall():
    """Nine cells bent into a horseshoe: its ends lie side by side in the plane, and eight steps apart."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    cells = np.array([(0, 2), (0, 1), (0, 0), (1, -1), (2, -1), (3, 0), (3, 1), (3, 2), (2, 2.0)]) / 2
    position = torch.tensor(cells, dtype=torch.float32)
    metric, target = (Reachability(ReachabilityConfig(hidden=64, metric_dim=8), 2) for _ in range(2))
    target.load_state_dict(metric.state_dict())
    optimizer = torch.optim.Adam(metric.parameters(), 3e-3)
    for _ in range(1500):
        now = rng.integers(9, size=64)
        after = np.clip(now + rng.choice([-1, 1], size=64), 0, 8)  # a random walk along the horseshoe
        goal = rng.integers(9, size=64)
        is_goal = torch.from_numpy(now[:, None] == goal)
        loss = reachability_loss(metric, target, *(position[i] for i in (now, now, after, goal)), is_goal, 0.97, 0.95)
        descend(loss, optimizer, metric, target)
    with torch.no_grad():
        learned = metric(position[:, None], position[:, None], position[None]).numpy()
    steps = np.abs(np.arange(9)[:, None] - np.arange(9))
    discounted = (1 - 0.97**steps) / (1 - 0.97)
    assert np.abs(learned - discounted).max() < 1  # a random walk is seen to go back half the time
    assert learned[0, 8] > 3 * learned[0, 2] > 0


def test_with_velocity_one_place_lies_nearer_to_what_it_moves_towards():
    """A ball that rolls on along a line at one of two speeds, the sign of which alone decides what it will meet."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    config = ReachabilityConfig(hidden=64, metric_dim=8, velocity=True)
    metric, target = Reachability(config, 1), Reachability(config, 1)
    target.load_state_dict(metric.state_dict())
    optimizer = torch.optim.Adam(metric.parameters(), 3e-3)
    for _ in range(1000):
        now, speed = 0.2 * rng.integers(-5, 6, 128), rng.choice([-0.2, 0.2], 128)
        goal = now + speed * rng.integers(1, 6, 128)
        rows = (torch.tensor(x, dtype=torch.float32)[:, None] for x in (now - speed, now, now + speed, goal))
        is_goal = torch.from_numpy(np.isclose(now[:, None], goal))
        loss = reachability_loss(metric, target, *rows, is_goal, 0.97, 0.9)
        descend(loss, optimizer, metric, target)
    with torch.no_grad():
        here, ahead = torch.zeros(1), torch.tensor([0.4])
        towards, away = metric(here, here - 0.2, ahead), metric(here, here + 0.2, ahead)
    assert towards == pytest.approx(1 + 0.97, abs=0.3)  # two blocks
    assert away > 2 * towards
