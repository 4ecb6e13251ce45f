import numpy as np
import pytest
import torch
from scipy.integrate import quad

from jepa_mpc.world_model.regularizers.sigreg import SIGReg


def reference(x: np.ndarray, knots: int) -> float:
    """Epps–Pulley from its definition, in float64 with complex exponentials, over the whole symmetric line."""
    t = np.linspace(-3, 3, 2 * knots - 1)
    empirical = np.exp(1j * np.outer(t, x)).mean(axis=1)
    distance = np.abs(empirical - np.exp(-(t**2) / 2)) ** 2
    return len(x) * np.trapezoid(distance * np.exp(-(t**2) / 2), t)


def exact(x: np.ndarray) -> float:
    """The same integral by adaptive quadrature."""
    return (
        len(x)
        * quad(
            lambda t: np.abs(np.exp(1j * t * x).mean() - np.exp(-(t**2) / 2)) ** 2 * np.exp(-(t**2) / 2),
            -3,
            3,
            limit=200,
        )[0]
    )


SAMPLES = {
    "normal": lambda rng: rng.normal(size=64),
    "uniform": lambda rng: rng.uniform(-2, 2, 64),
    "shifted": lambda rng: rng.normal(size=200) + 1.5,
    "wide": lambda rng: rng.normal(size=33) * 4,
    "constant": lambda rng: np.full(64, 0.3),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_statistic_equals_the_definition(name):
    x = SAMPLES[name](np.random.default_rng(0))
    ours = SIGReg(knots=17).statistic(torch.tensor(x, dtype=torch.float32)[:, None]).item()
    assert ours == pytest.approx(reference(x, 17), rel=1e-4)
    finer = SIGReg(knots=401).statistic(torch.tensor(x, dtype=torch.float32)[:, None]).item()
    assert finer == pytest.approx(exact(x), rel=1e-4)


def test_gradient_equals_the_definitions():
    x = np.random.default_rng(1).normal(size=40) * 1.3 + 0.2
    ours = torch.tensor(x, dtype=torch.float32, requires_grad=True)
    SIGReg().statistic(ours[:, None]).sum().backward()
    step = 1e-5
    numeric = [(reference(x + step * e, 17) - reference(x - step * e, 17)) / (2 * step) for e in np.eye(len(x))]
    np.testing.assert_allclose(ours.grad, numeric, rtol=1e-4, atol=1e-4 * np.abs(numeric).max())


def test_gradient_flows_to_embeddings():
    z = torch.randn(3, 16, 5, dtype=torch.float64, requires_grad=True, generator=torch.Generator().manual_seed(0))
    sigreg = SIGReg(num_proj=8).double()
    directions = torch.nn.functional.normalize(torch.randn(5, 8, dtype=torch.float64), dim=0)
    assert torch.autograd.gradcheck(lambda z: sigreg.statistic(z @ directions).mean(), z)


def test_projections_are_on_unit_directions_in_full_precision():
    z = 3 * torch.randn(50, 4, generator=torch.Generator().manual_seed(1)) + 1
    found = SIGReg(num_proj=7, knots=9)(z, torch.Generator().manual_seed(0))
    directions = torch.randn(4, 7, generator=torch.Generator().manual_seed(0)).numpy()
    directions /= np.sqrt((directions**2).sum(0))
    expected = np.mean([reference(x, 9) for x in (z.numpy() @ directions).T])
    assert found.item() == pytest.approx(expected, rel=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(SIGReg(num_proj=7, knots=9)(z, torch.Generator().manual_seed(0)), found)


def test_groups_are_scored_apart_and_averaged():
    z = torch.randn(3, 50, 4)
    z[1] += 2
    sigreg = SIGReg(num_proj=64)
    together = sigreg(z, torch.Generator().manual_seed(0))
    apart = [sigreg(group, torch.Generator().manual_seed(0)) for group in z]
    torch.testing.assert_close(together, torch.stack(apart).mean())


def score(z, seed=0):
    return SIGReg(num_proj=512)(z, torch.Generator().manual_seed(seed)).item()


def test_grows_away_from_the_isotropic_gaussian():
    N, D = 512, 16
    normal = torch.randn(N, D, generator=torch.Generator().manual_seed(0))
    # E[N |φ̂ − φ|²] = 1 − |φ|² under the null, whatever N: the level that sampling alone gives.
    null = quad(lambda t: (1 - np.exp(-(t**2))) * np.exp(-(t**2) / 2), -3, 3)[0]
    draws = [torch.randn(N, D, generator=torch.Generator().manual_seed(seed)) for seed in range(20)]
    assert np.mean([score(draw) for draw in draws]) == pytest.approx(null, rel=0.1)
    mixing = torch.eye(D) + 0.9 * torch.randn(D, D, generator=torch.Generator().manual_seed(1)) / D**0.5
    sign = torch.sign(normal[:, :1])
    departures = {
        "shifted": normal + 1,
        "scaled up": normal * 2,
        "scaled down": normal * 0.5,
        "correlated": normal @ mixing,
        "low rank": torch.cat([normal[:, :4], torch.zeros(N, D - 4)], dim=1),
        "constant": torch.zeros(N, D),
        "two clusters": normal * 0.1 + 2 * sign,
    }
    for name, z in departures.items():
        assert score(z) > 1.5 * score(normal), name
    assert score(departures["constant"]) > score(departures["scaled down"])
    assert score(normal + 2) > score(departures["shifted"])


def test_rotation_changes_nothing_in_expectation():
    z = torch.randn(256, 8) * torch.linspace(0.3, 2, 8)
    rotation, _ = torch.linalg.qr(torch.randn(8, 8))
    before, after = (np.mean([score(x, seed) for seed in range(20)]) for x in (z, z @ rotation))
    assert before == pytest.approx(after, rel=0.03)
