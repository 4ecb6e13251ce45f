import time
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jepa_mpc.errors import UserError
from jepa_mpc.planners import (
    PLANNERS,
    REDUCTIONS,
    CEMConfig,
    GradientConfig,
    ICEMConfig,
    MPPIConfig,
    Plan,
    effort,
    shift,
)
from jepa_mpc.planners.cem import CEM
from jepa_mpc.planners.icem import colouring

LOW, HIGH = torch.tensor([-1.0, -2.0]), torch.tensor([1.0, 0.5])
THOROUGH = {
    "num_samples": 400,
    "num_elites": 40,
    "num_iterations": 25,
    "min_std": 0.005,
    "temperature": 0.05,
    "num_gradient_steps": 200,
}


def planner_of(name, low, high, steps_per_block=1, **settings):
    """The planner of that name, with those of the settings that it has."""
    kind = PLANNERS[name]
    known = {field.name for field in fields(kind)}
    config = kind(**{setting: value for setting, value in settings.items() if setting in known})
    return config.make(low, high, steps_per_block)


def plan_of(actions):
    """A plan to start from."""
    return Plan(actions, torch.zeros(len(actions)), actions[:, None][:, :0], 1)


def generators(seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def linear_quadratic(horizon, seed=0):
    """x' = F x + G u with cost Σ |x − goal|² + 0.1 |u|²: its cost function, and the optimum by least squares."""
    rng = np.random.default_rng(seed)
    F, G = np.eye(3) + 0.1 * rng.normal(size=(3, 3)), 0.4 * rng.normal(size=(3, 2))
    start, goal = rng.normal(size=3) * 0.3, rng.normal(size=3) * 0.3
    rows = np.zeros((horizon, 3, horizon, 2))
    for step in range(horizon):
        for cause in range(step + 1):
            rows[step, :, cause] = np.linalg.matrix_power(F, step - cause) @ G
    rest = np.concatenate([goal - np.linalg.matrix_power(F, step + 1) @ start for step in range(horizon)])
    effort = np.sqrt(0.1) * np.eye(2 * horizon)
    stacked = np.concatenate([rows.reshape(3 * horizon, 2 * horizon), effort])
    best = np.linalg.lstsq(stacked, np.concatenate([rest, np.zeros(2 * horizon)]), rcond=None)[0]

    def cost(actions):
        B, S, H, _ = actions.shape
        x, total = torch.tensor(start).float().expand(B, S, 3), torch.zeros(B, S)
        for step in range(H):
            x = x @ torch.tensor(F.T).float() + actions[:, :, step] @ torch.tensor(G.T).float()
            total = total + (x - torch.tensor(goal).float()).square().sum(-1)
            total = total + 0.1 * actions[:, :, step].square().sum(-1)
        return total

    return cost, torch.tensor(best.reshape(horizon, 2)).float()


@pytest.mark.parametrize("name", PLANNERS)
def test_finds_the_analytic_optimum_of_a_linear_quadratic_problem(name):
    cost, best = linear_quadratic(horizon=4)
    bound = torch.full((2,), 2.0)
    assert best.abs().max() < 2
    plan = planner_of(name, -bound, bound, **THOROUGH).plan(cost, 4, generators([0, 1]))
    optimum = cost(best[None, None])[0, 0]
    start = cost(torch.zeros(1, 1, 4, 2))[0, 0]
    reached = cost(plan.actions.unsqueeze(1))[:, 0]
    assert ((reached - optimum) / (start - optimum)).max() < 0.02
    assert (plan.actions - best).abs().max() < 0.15


@pytest.mark.parametrize("name", PLANNERS)
@given(seed=st.integers(0, 2**32 - 1), batch=st.integers(1, 3), horizon=st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_bounds_are_kept_in_every_candidate_and_plan(name, seed, batch, horizon):
    def cost(actions):
        assert actions.shape == (batch, actions.shape[1], horizon, 2)
        assert (actions >= LOW).all()
        assert (actions <= HIGH).all()
        return -actions.sum((-1, -2))  # pulls toward the upper bound

    settings = {"num_samples": 30, "num_elites": 5, "init_std": 3.0}
    plan = planner_of(name, LOW, HIGH, **settings).plan(cost, horizon, generators(range(seed, seed + batch)))
    assert plan.actions.shape == (batch, horizon, 2)
    assert (plan.actions >= LOW - 1e-6).all()
    assert (plan.actions <= HIGH + 1e-6).all()


@pytest.mark.parametrize("name", PLANNERS)
def test_plans_are_within_bounds_to_the_last_digit(name):
    """All candidates are at the ends, so that means are there too, but for rounding."""
    bound = torch.full((3,), 0.4)
    planner = planner_of(
        name, -bound, bound, num_samples=37, num_elites=7, init_std=1e4, num_iterations=1, temperature=0.2
    )
    plan = planner.plan(lambda actions: -actions.sum((-1, -2)), 2, generators(range(100)))
    assert plan.actions.abs().max() <= bound[0]
    assert (plan.actions > 0.39).any()


@pytest.mark.parametrize("name", PLANNERS)
def test_an_action_whose_bounds_are_equal_stays(name):
    low, high = torch.tensor([-1.0, 0.3, -1e-3]), torch.tensor([1.0, 0.3, 1e-3])
    middle, half_range = (low + high) / 2, (high - low) / 2

    def cost(actions):
        return (actions[..., 0] - 0.5).square().sum(-1) + 0.01 * effort(actions, middle, half_range)

    plan = planner_of(name, low, high, num_samples=100, num_iterations=5).plan(cost, 2, generators([0, 1]))
    assert (plan.actions[..., 1] == low[1]).all()
    assert torch.isfinite(plan.cost).all()
    torch.testing.assert_close(plan.actions[..., 0], torch.full((2, 2), 0.5), atol=0.2, rtol=0)


@pytest.mark.parametrize("name", PLANNERS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_cost_that_is_not_finite_ranks_last(name, bad):
    def cost(actions):
        first = actions[..., 0, 0]
        return torch.where(first > 0, bad, (first + 0.5).square())

    settings = {"num_samples": 200, "num_elites": 20, "num_iterations": 8}
    plan = planner_of(name, -torch.ones(1), torch.ones(1), **settings).plan(cost, 1, generators([0]))
    assert plan.actions.item() == pytest.approx(-0.5, abs=0.1)
    assert torch.isfinite(plan.cost).all()


@pytest.mark.parametrize("name", PLANNERS)
def test_survives_costs_that_are_all_bad(name):
    plan = planner_of(name, LOW, HIGH, num_samples=20, num_elites=5).plan(
        lambda actions: torch.full(actions.shape[:2], float("nan")), 2, generators([0])
    )
    assert torch.isfinite(plan.actions).all()


@pytest.mark.parametrize("name", PLANNERS)
@pytest.mark.parametrize("min_std", [0.01, 0.25])  # the larger is reached by some episodes before others
def test_an_episode_plans_the_same_alone_as_among_50(name, min_std):
    cost, _ = linear_quadratic(horizon=3)
    planner = planner_of(name, -torch.ones(2), torch.ones(2), min_std=min_std, num_iterations=6)
    together, seeds = planner.plan(cost, 3, generators(range(50))), (0, 21, 49)
    again = planner.plan(cost, 3, generators(range(50)), shift(together, 1, torch.zeros(2)))
    for seed in seeds:
        alone = planner.plan(cost, 3, generators([seed]))
        torch.testing.assert_close(together.actions[seed], alone.actions[0], atol=1e-5, rtol=0)
        alone = planner.plan(cost, 3, generators([seed]), shift(alone, 1, torch.zeros(2)))
        torch.testing.assert_close(again.actions[seed], alone.actions[0], atol=1e-5, rtol=0)
    assert not torch.equal(together.actions[0], together.actions[1])


@pytest.mark.parametrize("name", PLANNERS)
def test_a_warm_start_is_itself_a_candidate(name):
    seen = []
    warm = torch.tensor([[[0.3, 0.1], [-0.2, 0.4]]])

    def cost(actions):
        seen.append(actions)
        return actions.square().sum((-1, -2))

    planner_of(name, LOW, HIGH).plan(cost, 2, generators([0]), plan_of(warm))
    torch.testing.assert_close(seen[0][:, 0], warm)


@pytest.mark.parametrize("name", ["cem", "icem", "mppi"])
def test_a_search_whose_std_has_converged_stops(name):
    cost, _ = linear_quadratic(horizon=3)
    wide = planner_of(name, LOW, HIGH, num_iterations=50, min_std=5.0)
    assert wide.plan(cost, 3, generators([0, 1])).num_rounds == 1
    narrow = planner_of(name, LOW, HIGH, num_iterations=5, min_std=1e-6)
    assert narrow.plan(cost, 3, generators([0, 1])).num_rounds == 5


class Clock:
    """Time that passes only while a cost is computed, a second for each."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def slow(self, actions):
        self.now += 1
        return actions.square().sum((-1, -2))


@pytest.mark.parametrize("name", PLANNERS)
def test_rounds_that_do_not_fit_before_the_deadline_are_left_out(name, monkeypatch):
    clock = Clock(monkeypatch)
    planner = planner_of(name, LOW, HIGH, num_iterations=4, min_std=1e-6, num_gradient_steps=40)
    plan = planner.plan(clock.slow, 2, generators([0]), deadline=clock.now + 7.5)
    descends = {"gradient": 1, "cem-gradient": 4}  # the rounds of sampling before the descent
    assert plan.num_rounds == descends.get(name, 4)
    assert clock.now == (107.0 if name in descends else 104.0)
    plan = planner.plan(clock.slow, 2, generators([0]), deadline=clock.now + 2.5)
    assert plan.num_rounds == (1 if name == "gradient" else 2)
    # No time at all: the first plan is made all the same, and the plan of before goes on.
    first = planner.plan(clock.slow, 2, generators([0]), deadline=clock.now)
    assert first.num_rounds == 1
    assert torch.isfinite(first.cost).all()
    warm = plan_of(torch.tensor([[[0.3, 0.1], [-0.2, 0.4]]]))
    late = planner.plan(clock.slow, 2, generators([0]), warm, deadline=clock.now)
    assert late.num_rounds == 0
    torch.testing.assert_close(late.actions, warm.actions)


def test_icem_carries_its_elites_into_the_next_round_and_search():
    seen = []

    def cost(actions):
        seen.append(actions)
        return actions.square().sum((-1, -2))

    config = ICEMConfig(num_samples=40, num_elites=4, num_iterations=3, sample_decay=2, noise_exponent=1)
    planner = config.make(LOW, HIGH)
    plan = planner.plan(cost, 2, generators([0]))
    assert [actions.shape[1] for actions in seen] == [40, 20 + 4, 10 + 4]
    best_first = seen[0][0, cost(seen[0])[0].argsort()[:4]]
    torch.testing.assert_close(seen[1][0, -4:], best_first)
    everything = torch.cat(seen[:3], dim=1)
    torch.testing.assert_close(plan.actions[0], everything[0, cost(everything)[0].argmin()])
    seen.clear()
    planner.plan(cost, 2, generators([0]), shift(plan, 1, torch.zeros(2)))
    torch.testing.assert_close(seen[0][:, -4:, 0], plan.elites[:, :, 1])
    seen.clear()
    replace(config, sample_decay=10).make(LOW, HIGH).plan(cost, 2, generators([0]))
    assert [actions.shape[1] for actions in seen] == [40, 8 + 4, 8 + 4]  # never fewer than twice the elites


@pytest.mark.parametrize("num_steps", [1, 7, 10])
@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_coloured_noise_has_unit_variance_and_its_spectrum(num_steps, exponent):
    filter = colouring(num_steps, exponent)
    covariance = filter @ filter.T  # of filtered white noise
    torch.testing.assert_close(covariance.diagonal(), torch.ones(num_steps))
    power = torch.fft.fft(torch.fft.fft(covariance, dim=0).conj(), dim=1).diagonal().real  # E|FFT|² at each frequency
    frequency = torch.fft.fftfreq(num_steps).abs()[1:]
    expected = power[1] * (frequency / frequency[0]) ** -exponent if num_steps > 1 else torch.empty(0)
    torch.testing.assert_close(power[1:], expected, rtol=1e-3, atol=1e-4)


def first_round(name, steps_per_block, exponent, scale=1e-3):
    """Candidates (S, H, A) of a search's first round in units of its std, whose bounds are too far to be met."""
    config = {"num_samples": 3000, "num_iterations": 1, "init_std": scale, "min_std": 1e-9, "noise_exponent": exponent}
    planner = planner_of(name, LOW.repeat(steps_per_block), HIGH.repeat(steps_per_block), steps_per_block, **config)
    seen = []

    def cost(actions):
        seen.append(actions)
        return actions.sum((-1, -2))

    planner.plan(cost, 5, generators([5]))
    return (seen[0][0] - planner.middle) / (scale * planner.half_range)


@pytest.mark.parametrize("steps_per_block", [1, 2])
def test_icems_candidates_are_coloured_along_the_steps_of_all_blocks(steps_per_block):
    T = 5 * steps_per_block
    coloured = first_round("icem", steps_per_block, 1.5)
    white = first_round("cem", steps_per_block, 1.5)
    assert (coloured[0] == white[0]).all()  # the mean
    # A block is its steps one after another, each of both actions.
    steps, source = (x[1:].reshape(-1, T, 2) for x in (coloured, white))
    torch.testing.assert_close(steps, torch.einsum("ts,nsa->nta", colouring(T, 1.5), source), atol=2e-3, rtol=0)
    covariance = torch.einsum("nta,nsa->ts", steps, steps) / (2 * len(steps))
    torch.testing.assert_close(covariance, colouring(T, 1.5) @ colouring(T, 1.5).T, atol=0.06, rtol=0)
    assert covariance[0, 1] > 0.2  # where white noise has nothing
    torch.testing.assert_close(first_round("icem", steps_per_block, 0.0), white)


def searched(config, cost, warm=None, name="cem", **kwargs):
    """A plan, and the candidates (S, H, A) of every round."""
    seen = []

    def watched(actions):
        seen.append(actions[0])
        return cost(actions)

    return planner_of(name, LOW, HIGH, **config).plan(watched, 2, generators([3]), warm, **kwargs), seen


def test_each_round_is_drawn_around_the_elites_of_the_one_before():
    config = {"num_samples": 4000, "num_elites": 7, "num_iterations": 3, "init_std": 0.3, "min_std": 1e-3}
    aim = torch.tensor([0.4, -1.2])

    def cost(actions):
        return (actions - aim).square().sum((-1, -2))

    plan, seen = searched(config, cost)
    assert [len(samples) for samples in seen] == [4000] * 3
    middle, half_range = torch.tensor([0.0, -0.75]), torch.tensor([1.0, 1.25])
    mean, std = middle.expand(2, 2), (0.3 * half_range).expand(2, 2)
    for samples in seen:
        torch.testing.assert_close(samples[0], mean)
        torch.testing.assert_close(samples[1:].mean(0), mean, atol=0.03, rtol=0)
        torch.testing.assert_close(samples[1:].std(0), std, atol=0, rtol=0.05)
        elites = samples[cost(samples[None])[0].argsort()[:7]]
        mean, std = elites.mean(0), elites.std(0, correction=0)
    torch.testing.assert_close(plan.actions[0], mean)
    assert plan.cost.item() == pytest.approx(cost(seen[-1][None]).min().item())
    assert plan.elites.shape == (1, 0, 2, 2)


@pytest.mark.parametrize("name", ["cem", "icem", "mppi"])
def test_the_std_has_a_floor_in_every_dimension(name):
    """One action is pinned down at once; the other costs nothing, so the search goes on, and on in both."""
    config = {"num_samples": 3000, "num_elites": 20, "num_iterations": 6, "min_std": 0.1, "sample_decay": 1.0}

    def cost(actions):
        return actions[..., 0].square().sum(-1) if name != "mppi" else 100 * (actions[..., 0].square().sum(-1) > 0.01)

    _, seen = searched({**config, "noise_exponent": 0, "temperature": 0.01}, cost, name=name)
    assert len(seen) == 6
    drawn = seen[-1][1:3000]
    torch.testing.assert_close(drawn[..., 0].std(0), torch.full((2,), 0.1), atol=0, rtol=0.05)
    assert (drawn[..., 1].std(0) > 0.2 * 1.25).all()


def test_a_search_by_its_defaults_narrows_to_a_hundredth_of_half_the_range():
    def cost(actions):
        return actions[..., 0].square().sum(-1)  # the other action costs nothing, so the search goes on

    _, seen = searched({"num_samples": 3000, "num_iterations": 12}, cost)
    torch.testing.assert_close(seen[-1][1:, :, 0].std(0), torch.full((2,), 0.01), atol=0, rtol=0.1)


def test_a_warm_search_is_drawn_around_the_plan_before_at_its_own_std():
    config = {"num_samples": 3000, "num_iterations": 1, "init_std": 0.9, "warm_std": 0.1}
    warm = torch.tensor([[[0.2, -0.5], [-0.3, -1.0]]])
    _, seen = searched(config, lambda actions: actions.sum((-1, -2)), plan_of(warm))
    torch.testing.assert_close(seen[0][1:].mean(0), warm[0], atol=0.02, rtol=0)
    torch.testing.assert_close(seen[0][1:].std(0), torch.tensor([0.1, 0.125]).expand(2, 2), atol=0, rtol=0.05)


def test_no_rounds_leave_the_plan_as_it_is():
    warm = Plan(torch.tensor([[[0.2, -0.5], [-0.3, -1.0]]]), torch.tensor([3.0]), torch.zeros(1, 4, 2, 2), 5)
    plan, seen = searched({"num_iterations": 0}, None, warm)
    assert not seen
    assert plan.num_rounds == 0
    assert plan.cost == 3
    torch.testing.assert_close(plan.actions, warm.actions)
    torch.testing.assert_close(plan.elites, warm.elites)
    cold, _ = searched({"num_iterations": 0}, None)
    torch.testing.assert_close(cold.actions, torch.tensor([0.0, -0.75]).expand(1, 2, 2))
    assert cold.cost == torch.inf


@pytest.mark.parametrize("name", ["cem", "icem"])
def test_an_episode_that_has_converged_keeps_all_it_has_found_while_others_search(name):
    """The first episode's elites agree at once, so its std is at the floor; the second's lie on two sides."""
    rounds = []

    def cost(actions):
        rounds.append(actions)
        x = actions[..., 0, 0]
        costs = torch.stack([(x[0] - 0.1).abs(), (x[1].abs() - 0.9).abs()])
        return costs + len(rounds)  # each round a new cost

    config = {"num_samples": 300, "num_elites": 10, "num_iterations": 5, "min_std": 0.3, "init_std": 0.5}
    plan = planner_of(name, -torch.ones(1), torch.ones(1), **config).plan(cost, 1, generators([0, 1]))
    first = rounds[0][0, (rounds[0][0] - 0.1).abs().sum((-1, -2)).argsort()[:10]]
    assert plan.num_rounds == len(rounds) > 1
    torch.testing.assert_close(plan.actions[0], first.mean(0) if name == "cem" else first[0])
    if name == "icem":
        torch.testing.assert_close(plan.elites[0], first)
    assert plan.cost[0] == pytest.approx(1, abs=0.05)


def test_descent_takes_adams_steps_in_units_of_half_the_range():
    """Adam written out, from the one start that there is; its rate falls evenly to zero, and bounds are kept."""
    config = {"num_iterations": 0, "num_gradient_steps": 6, "gradient_step": 0.3}
    warm = plan_of(torch.tensor([[[0.5, -1.5], [-0.9, 0.0]]]))
    weight, seen = torch.tensor([3.0, 0.2]), []

    def cost(actions):
        seen.append(actions.detach()[0, 0])
        return (weight * (actions + 4).square()).sum((-1, -2))  # falls beyond the bounds, so they are met

    planner = planner_of("cem-gradient", LOW, HIGH, **config)
    plan = planner.plan(cost, 2, generators([0]), warm)
    middle, half_range = np.array([0.0, -0.75]), np.array([1.0, 1.25])
    x = (warm.actions[0].numpy() - middle) / half_range
    first, second = np.zeros((2, 2)), np.zeros((2, 2))
    for step in range(7):
        np.testing.assert_allclose(seen[step], middle + half_range * x, atol=1e-5)
        gradient = 2 * weight.numpy() * half_range * (middle + half_range * x + 4)
        first, second = 0.9 * first + 0.1 * gradient, 0.99 * second + 0.01 * gradient**2
        corrected = first / (1 - 0.9 ** (step + 1)) / (np.sqrt(second / (1 - 0.99 ** (step + 1))) + 1e-8)
        x = np.clip(x - 0.3 * (1 - step / 6) * corrected, -1, 1)
    assert len(seen) == 7
    torch.testing.assert_close(plan.actions[0], seen[-1])
    assert plan.cost.item() == pytest.approx((weight * (seen[-1] + 4).square()).sum().item(), rel=1e-5)


def test_a_slope_that_is_no_number_stops_only_where_it_is():
    def cost(actions):
        x = actions[..., 0, :]
        hidden = torch.where(x[..., 0] > 2, (x[..., 0] - 2).sqrt(), 0)  # whose slope is 0 times infinity
        return hidden + (x[..., 1] - 0.3).square()

    planner = planner_of("cem-gradient", LOW, HIGH, num_iterations=0, num_gradient_steps=60)
    warm = plan_of(torch.tensor([[[0.2, -0.5]]]))
    plan = planner.plan(cost, 1, generators([0]), warm)
    torch.testing.assert_close(plan.actions[0, 0], torch.tensor([0.2, 0.3]), atol=0.05, rtol=0)


def test_descent_keeps_the_best_place_and_the_best_start():
    """A cost with two valleys of which the deeper holds few starts, and a step so long that it overshoots."""

    def cost(actions):
        x = actions[..., 0, 0]
        return torch.minimum((x + 0.5).square(), (x - 0.5).square() - 0.1)

    config = {"num_samples": 40, "num_elites": 30, "num_gradient_steps": 1, "gradient_step": 0.7}
    costs = []

    def watched(actions):
        costs.append(cost(actions.detach()))
        return cost(actions)

    plan = planner_of("gradient", -torch.ones(1), torch.ones(1), **config).plan(watched, 1, generators([0]))
    torch.testing.assert_close(costs[1][0].sort().values, costs[0][0].sort().values[:30])
    assert [c.shape[1] for c in costs] == [40, 30, 30]  # one round of samples, then the best of them descend
    assert plan.num_rounds == 1
    assert plan.cost.item() == min(c.min().item() for c in costs)
    assert cost(plan.actions[None]).item() == plan.cost.item()
    assert costs[-1].min() > plan.cost  # where it ended was worse


def test_gradient_polish_improves_on_cem():
    cost, best = linear_quadratic(horizon=4)
    bound = torch.full((2,), 2.0)
    costs = {}
    for name in ("cem", "cem-gradient"):
        plan = planner_of(name, -bound, bound, num_gradient_steps=30).plan(cost, 4, generators(range(20)))
        costs[name] = cost(plan.actions.unsqueeze(1))
    optimum = cost(best[None, None])[0, 0]
    assert (costs["cem-gradient"] - optimum).mean() < 0.2 * (costs["cem"] - optimum).mean()


def test_mppi_weighs_candidates_by_exp_of_minus_cost_over_temperature():
    samples = torch.tensor([0.0, 1.0, 3.0]).view(1, 3, 1, 1)
    costs = torch.tensor([[1.0, 2.0, 6.0]])  # mean 3, std √(14/3)
    config = MPPIConfig(num_samples=3, temperature=2.0)
    mean, std, _, plan = config.make(-torch.ones(1), torch.ones(1)).refit(samples, costs)
    assert plan.equal(mean)  # which is what is done, not the best candidate
    weights = np.exp(-np.array([1.0, 2.0, 6.0]) / np.sqrt(14 / 3) / 2)
    weights /= weights.sum()
    expected = weights @ [0, 1, 3]
    assert mean.item() == pytest.approx(expected, rel=1e-5)
    assert std.item() == pytest.approx(np.sqrt(weights @ (np.array([0, 1, 3]) - expected) ** 2), rel=1e-5)


@pytest.mark.parametrize("unit", [1e-6, 1e6, 1e30])
def test_mppi_weighs_costs_of_any_unit_alike(unit):
    samples, costs = torch.tensor([0.0, 1.0, 3.0]).view(1, 3, 1, 1), torch.tensor([[1.0, 2.0, 6.0]])
    planner = MPPIConfig(num_samples=3).make(-torch.ones(1), torch.ones(1))
    for ours, same in zip(planner.refit(samples, unit * costs), planner.refit(samples, costs), strict=True):
        torch.testing.assert_close(ours, same)


def test_mppi_gives_no_weight_to_what_has_no_cost():
    samples, costs = torch.tensor([0.0, 1.0, 3.0, 50.0]).view(1, 4, 1, 1), torch.tensor([[1.0, 2.0, 6.0, torch.inf]])
    planner = MPPIConfig(num_samples=4).make(-torch.ones(1), torch.ones(1))
    for ours, same in zip(
        planner.refit(samples, costs)[:2], planner.refit(samples[:, :3], costs[:, :3])[:2], strict=True
    ):
        torch.testing.assert_close(ours, same)


def test_shift_drops_what_is_done_and_fills_the_end():
    actions = torch.arange(6.0).view(1, 3, 2)
    plan = Plan(actions, torch.zeros(1), torch.stack([actions, actions + 10], dim=1), 3)
    fill = torch.tensor([9.0, 8.0])
    assert shift(plan, 1, fill).actions.tolist() == [[[2, 3], [4, 5], [9, 8]]]
    assert shift(plan, 1, fill).elites.tolist() == [[[[2, 3], [4, 5], [9, 8]], [[12, 13], [14, 15], [9, 8]]]]
    assert shift(plan, 3, fill).actions.tolist() == [[[9, 8]] * 3]


def test_costs_by_hand():
    distance = torch.tensor([[[5.0, 1.0, 2.0], [1.0, 13.0, 10.0]]])  # (1, 2, 3)
    by_hand = {"terminal": [2, 10], "minimum": [1, 1], "mean": [8 / 3, 8]}
    assert set(by_hand) == set(REDUCTIONS)
    for name, costs in by_hand.items():
        torch.testing.assert_close(REDUCTIONS[name](distance), torch.tensor([costs], dtype=torch.float32))
    middle, half_range = torch.tensor([0.0, -0.5]), torch.tensor([1.0, 2.0])
    actions = torch.tensor([[[1.0, -0.5], [0.0, 1.5]]])  # fractions 1 and 0, 0 and 1
    torch.testing.assert_close(effort(actions, middle, half_range), torch.tensor([0.5]))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ICEMConfig(num_elites=65), "--num-elites must lie in 1–64"),
        (ICEMConfig(num_elites=0), "--num-elites must be at least 1"),
        (ICEMConfig(num_samples=0), "--num-samples must be 1 to 100000"),
        (ICEMConfig(num_iterations=-1), "--num-iterations must be at least 0"),
        (MPPIConfig(temperature=0), "--temperature must be above 0"),
        (ICEMConfig(warm_std=0), "--warm-std must be above 0"),
        (ICEMConfig(min_std=0), "--min-std must be above 0"),
        (GradientConfig(gradient_step=-1), "--gradient-step must be above 0"),
        (ICEMConfig(init_std=float("nan")), "--init-std must be a finite number"),
        (ICEMConfig(sample_decay=0.9), "--sample-decay must be at least 1"),
        (ICEMConfig(noise_exponent=-1), "--noise-exponent must be at least 0"),
        (GradientConfig(num_gradient_steps=-1), "--num-gradient-steps must be at least 0"),
    ],
)
def test_impossible_settings_are_refused(config, message):
    with pytest.raises(UserError, match=message):
        config.make(LOW, HIGH)


@pytest.mark.parametrize(
    ("fitted", "line"),
    [
        (lambda plans: plans[:2], "a mean, a std, candidates and a plan, four tensors"),
        (lambda plans: [*plans], ".* four tensors"),
        (lambda plans: None, ".* four tensors"),
        (lambda plans: (plans[0][:1], *plans[1:]), r"its mean: a float tensor \(3, 2, 2\), not float32 \(1, 2, 2\)"),
        (lambda plans: (plans[0], LOW, *plans[2:]), r"its std: a float tensor \(3, 2, 2\), not float32 \(2,\)"),
        (lambda plans: (*plans[:2], plans[0], plans[3]), r"its candidates: a float tensor \(3, 2, 2, 2\), not"),
        (lambda plans: (*plans[:3], plans[3].long()), r"its plan: a float tensor \(3, 2, 2\), not int64"),
        (lambda plans: (*plans[:3], 7), r"its plan: a float tensor \(3, 2, 2\), not int"),
    ],
)
def test_what_a_strangers_refit_returns_is_held_against_what_it_should(fitted, line):
    class Strange(CEM):
        def refit(self, samples, costs):
            return fitted(super().refit(samples, costs))

    with pytest.raises(UserError, match=f"Strange.refit must return {line}"):
        Strange(CEMConfig(), LOW, HIGH).plan(lambda actions: actions.sum((-1, -2)), 2, generators(range(3)))
