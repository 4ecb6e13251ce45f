import dataclasses
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Normal, kl_divergence

from jepa_mpc.settings import read, to_json
from jepa_mpc.world_model.model.encoder import EncoderConfig
from jepa_mpc.world_model.model.jepa import JEPA, JEPAConfig
from jepa_mpc.world_model.model.predictor import PredictorConfig
from jepa_mpc.world_model.regularizers import REGULARIZERS
from jepa_mpc.world_model.regularizers.alternatives import (
    covariance,
    info_nce,
    kl_to_standard_normal,
    nt_xent,
    variance_hinge,
)
from jepa_mpc.world_model.regularizers.base import Latents, RegularizerConfig
from jepa_mpc.world_model.regularizers.sigreg import SIGReg

NAMES = list(REGULARIZERS)
B, T, A, D = 6, 4, 2, 8


def build(name, **options):
    torch.manual_seed(0)
    config = REGULARIZERS[name](**options)
    encoder, predictor = EncoderConfig(channels=(4, 4, 4, 4)), PredictorConfig(width=16, depth=1, num_heads=2)
    model = JEPA(JEPAConfig(A, D, 16, encoder, predictor, spherical=config.spherical))
    torch.nn.init.normal_(model.predictor.output.weight, std=0.2)  # zero at the start: nothing would flow back
    return config.make(model).train(), model.train()


def batch():
    g = torch.Generator().manual_seed(1)
    return torch.randint(256, (B, T, 64, 64, 3), dtype=torch.uint8, generator=g), torch.randn(B, T - 1, A, generator=g)


def run(regularizer, model):
    pixels, actions = batch()
    generator = torch.Generator().manual_seed(2)
    latents = regularizer.embed(model, pixels, generator)
    scores = model.score_predictions(latents.z, latents.target, actions, 2)
    return latents, scores, regularizer(latents, scores.predicted, actions, generator)


@pytest.mark.parametrize("name", NAMES)
def test_every_remedy_weighs_its_own_penalties_and_reaches_the_encoder(name):
    regularizer, model = build(name)
    latents, scores, penalties = run(regularizer, model)
    weights = [value for option, value in vars(regularizer.config).items() if option.endswith("weight") and value]
    assert sorted(map(regularizer.weight, penalties)) == sorted(weights)
    first = next(model.encoder.parameters())
    for penalty in penalties.values():
        (gradient,) = torch.autograd.grad(penalty, first, retain_graph=True, allow_unused=True)
        assert gradient.abs().sum() > 0
    assert latents.z.shape == latents.target.shape == (B, T, D)
    assert scores.one_step.isfinite()


def test_every_remedy_is_there_by_its_name():
    assert NAMES == ["none", "ema", "vicreg", "simclr", "moco", "kl", "pldm", "sigreg"]
    for name in NAMES:
        config = REGULARIZERS[name]()
        assert read(RegularizerConfig, to_json(config), "test") == config
        assert to_json(config)["name"] == name


def test_defaults_are_the_sources_own():
    defaults = {name: dataclasses.asdict(REGULARIZERS[name]()) for name in NAMES}
    assert defaults == {
        "none": {},
        "ema": {"rate": pytest.approx(1 - 0.996)},
        "vicreg": {"variance_weight": 25 / 25, "covariance_weight": 1 / 25},
        "simclr": {"weight": 1, "temperature": 0.1},
        "moco": {"weight": 1, "temperature": 0.07, "rate": pytest.approx(1 - 0.999), "queue_size": 4096},
        "kl": {"weight": 1},
        "pldm": {
            "variance_weight": 3.98,
            "covariance_weight": 6.92,
            "temporal_weight": 0.742,
            "inverse_weight": 1.07,
        },
        "sigreg": {"weight": 0.2, "num_proj": 256, "knots": 17, "inverse_weight": 0},
    }


@pytest.mark.parametrize("name", NAMES)
def test_gradients_flow_through_targets_unless_a_slow_copy_gives_them(name):
    regularizer, model = build(name)
    latents, _, _ = run(regularizer, model)
    assert latents.target.requires_grad == (name not in ("ema", "moco"))


@pytest.mark.parametrize("name", ["ema", "simclr", "moco"])
def test_losses_on_cosines_see_a_sphere(name):
    latents, _, _ = run(*build(name))
    for z in (latents.z, latents.target):
        torch.testing.assert_close(z.norm(dim=-1), torch.full((B, T), D**0.5))


@pytest.mark.parametrize("name", ["ema", "simclr", "moco"])
def test_on_the_sphere_the_squared_error_is_byols_loss(name):
    """Of a predictor that says that nothing moves, whose predictions are embeddings and so lie on the sphere."""
    regularizer, model = build(name)
    torch.nn.init.zeros_(model.predictor.output.weight)
    latents, scores, _ = run(regularizer, model)
    cosine = F.cosine_similarity(latents.z[:, :-1], latents.target[:, 1:], dim=-1)
    torch.testing.assert_close(scores.one_step, (2 - 2 * cosine).mean())
    assert 0.01 < scores.one_step < 4


@pytest.mark.parametrize("name", ["ema", "moco"])
def test_a_slow_copy_follows_at_its_rate(name):
    regularizer, model = build(name, rate=0.1)
    for slow, fast in ((regularizer.encoder, model.encoder), (regularizer.projector, model.projector)):
        before = [p.clone() for p in slow.parameters()]
        with torch.no_grad():
            for parameter in fast.parameters():
                parameter.add_(1)
        regularizer.follow(model)
        for now, old in zip(slow.parameters(), before, strict=True):
            torch.testing.assert_close(now, old + 0.1)
    assert not any(parameter.requires_grad for parameter in regularizer.parameters())


def test_targets_come_from_the_slow_copy():
    regularizer, model = build("ema")
    before = run(regularizer, model)[0]
    with torch.no_grad():
        model.projector[-1].weight.mul_(-1)
    after = run(regularizer, model)[0]
    torch.testing.assert_close(after.target, before.target)
    assert (after.z - before.z).abs().max() > 0.1
    with torch.no_grad():
        next(regularizer.encoder.parameters()).mul_(-1)
    assert (run(regularizer, model)[0].target - before.target).abs().max() > 0.01


def test_at_the_start_the_slow_copy_is_the_encoder():
    latents, _, _ = run(*build("ema"))
    torch.testing.assert_close(latents.target, latents.z)


def test_the_queue_holds_the_newest_keys_first_and_forgets_the_oldest():
    regularizer, model = build("moco", queue_size=30)
    oldest = regularizer.queue.clone()
    latents, _, _ = run(regularizer, model)
    keys = F.normalize(latents.target[:, 1:].reshape(-1, D), dim=1)
    torch.testing.assert_close(regularizer.queue, torch.cat([keys, oldest])[:30])


def test_a_batch_is_not_its_own_negative():
    """Each prediction is told from the queue as it was before the batch's keys went in."""
    regularizer, model = build("moco", queue_size=30)
    queue = regularizer.queue.clone()
    latents, scores, penalties = run(regularizer, model)
    expected = info_nce(scores.predicted.flatten(0, 1), latents.target[:, 1:].flatten(0, 1), queue, 0.07)
    torch.testing.assert_close(penalties["contrast"], expected)


def test_variance_and_covariance_equal_their_definitions():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(40, 5)) * np.array([0.2, 0.5, 1.0, 2.0, 0.0]) + 3
    z[:, 1] += z[:, 0]
    hinge = np.maximum(0, 1 - np.sqrt(z.var(0, ddof=1) + 1e-4)).mean()
    matrix = np.cov(z.T)
    off = (matrix**2).sum() - (np.diag(matrix) ** 2).sum()
    assert variance_hinge(torch.tensor(z)).item() == pytest.approx(hinge, rel=1e-9)
    assert covariance(torch.tensor(z)).item() == pytest.approx(off / 5, rel=1e-9)


def test_groups_of_a_time_step_are_measured_apart():
    z = torch.randn(3, 40, 5)
    for measure in (variance_hinge, covariance):
        torch.testing.assert_close(measure(z), torch.stack([measure(group) for group in z]).mean())


def test_vicreg_is_at_rest_for_uncorrelated_dimensions_of_std_one():
    z = torch.linalg.qr(torch.randn(200, 6, dtype=torch.float64))[0]
    z = torch.linalg.qr(z - z.mean(0))[0] * 200**0.5
    assert variance_hinge(z) < 1e-9
    assert covariance(z) < 1e-9
    assert variance_hinge(0.01 * z) == pytest.approx(0.99, abs=0.01)  # collapse costs nearly one
    assert covariance(z[:, :1].expand(-1, 6)) == pytest.approx(5 * (200 / 199) ** 2)


def test_info_nce_equals_the_definition():
    rng = np.random.default_rng(1)
    queries, keys, negatives = (rng.normal(size=(n, 5)) for n in (7, 7, 20))

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    losses = []
    for query, key in zip(queries, keys, strict=True):
        own, others = np.exp(cosine(query, key) / 0.2), [np.exp(cosine(query, n) / 0.2) for n in negatives]
        losses.append(-np.log(own / (own + sum(others))))
    ours = info_nce(*(torch.tensor(x, dtype=torch.float32) for x in (queries, keys, negatives)), 0.2)
    assert ours.item() == pytest.approx(np.mean(losses), rel=1e-5)


def test_nt_xent_equals_the_definition():
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, 6, 5))
    both = np.concatenate([a, b])
    both /= np.linalg.norm(both, axis=1, keepdims=True)
    losses = []
    for i in range(12):
        similar = np.exp(both @ both[i] / 0.3)
        losses.append(-np.log(similar[(i + 6) % 12] / (similar.sum() - similar[i])))
    ours = nt_xent(torch.tensor(a), torch.tensor(b), 0.3)
    assert ours.item() == pytest.approx(np.mean(losses), rel=1e-5)


def test_contrast_of_collapsed_embeddings_is_chance():
    same = torch.ones(16, 4)
    assert nt_xent(same, same, 0.1).item() == pytest.approx(np.log(31), rel=1e-5)
    assert info_nce(same, same, torch.ones(50, 4), 0.1).item() == pytest.approx(np.log(51), rel=1e-5)


def test_kl_equals_torchs():
    mean, log_var = torch.randn(2, 30, 5)
    theirs = kl_divergence(Normal(mean, (0.5 * log_var).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(kl_to_standard_normal(mean, log_var), 2 * theirs.mean())


def test_a_variational_embedding_is_a_draw_around_its_mean():
    regularizer, model = build("kl")
    latents, _, _ = run(regularizer, model)
    torch.nn.init.zeros_(regularizer.log_var.weight)
    torch.nn.init.constant_(regularizer.log_var.bias, -8.0)
    narrow, _, penalties = run(regularizer, model)
    assert (latents.z - latents.mean).std() > 0.5
    torch.testing.assert_close(latents.target, latents.z, rtol=0, atol=0)  # predicted is what was drawn
    assert (narrow.z - narrow.mean).std().item() == pytest.approx(np.exp(-4), rel=0.2)
    own = narrow.mean.square().mean() + np.exp(-8) - 1 + 8
    torch.testing.assert_close(penalties["kl"], own)


def test_pldm_asks_for_slow_embeddings_that_tell_the_action():
    regularizer, _ = build("pldm")
    z, actions = torch.randn(B, T, D), torch.randn(B, T - 1, A)
    penalties = regularizer(Latents(z, z, z), z[:, 1:], actions, torch.Generator())
    steps = [z[:, t] for t in range(T)]
    expected = {
        "variance": torch.stack([variance_hinge(step) for step in steps]).mean(),
        "covariance": torch.stack([covariance(step) for step in steps]).mean() / (D - 1),
        "temporal": torch.stack([F.mse_loss(a, b) for a, b in itertools.pairwise(steps)]).mean(),
        "inverse": torch.stack(
            [
                F.mse_loss(regularizer.inverse.layers(torch.cat([z[:, t], z[:, t + 1]], 1)), actions[:, t])
                for t in range(T - 1)
            ]
        ).mean(),
    }
    for name, value in expected.items():
        torch.testing.assert_close(penalties[name], value, msg=name)


def test_sigreg_scores_each_time_step_apart():
    regularizer, _ = build("sigreg", num_proj=32)
    z = torch.randn(B, T, D)
    z[:, 0] += 3
    together = regularizer(Latents(z, z, z), z[:, 1:], None, torch.Generator().manual_seed(3))["sigreg"]
    apart = [regularizer.sigreg(z[:, t], torch.Generator().manual_seed(3)) for t in range(T)]
    torch.testing.assert_close(together, torch.stack(apart).mean())


def test_sigreg_has_as_many_directions_and_knots_as_are_asked_for():
    regularizer, _ = build("sigreg", num_proj=40, knots=6)
    z, generator = torch.randn(B, T, D), torch.Generator().manual_seed(3)
    found = regularizer(Latents(z, z, z), z[:, 1:], None, generator)["sigreg"]
    torch.testing.assert_close(found, SIGReg(num_proj=40, knots=6)(z.transpose(0, 1), again(3)))
    for other in ({"num_proj": 6, "knots": 40}, {"num_proj": 40, "knots": 17}, {"num_proj": 256, "knots": 6}):
        assert not torch.isclose(found, SIGReg(**other)(z.transpose(0, 1), again(3)), rtol=1e-4)


def again(seed):
    return torch.Generator().manual_seed(seed)


def test_sigreg_can_ask_besides_that_embeddings_tell_the_action():
    regularizer, _ = build("sigreg", inverse_weight=0.5)
    z, actions = torch.randn(B, T, D), torch.randn(B, T - 1, A)
    penalties = regularizer(Latents(z, z, z), z[:, 1:], actions, torch.Generator())
    said = regularizer.inverse.layers(torch.cat([z[:, :-1], z[:, 1:]], dim=-1))
    torch.testing.assert_close(penalties["inverse"], (said - actions).square().mean())
    assert regularizer.weight("inverse") == 0.5
    plain, _ = build("sigreg")
    assert set(plain(Latents(z, z, z), z[:, 1:], actions, torch.Generator())) == {"sigreg"}  # LeWorldModel's loss
    assert not list(plain.parameters())
