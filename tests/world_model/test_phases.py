"""What every step of a training is made of, by hand: its loss and gradients, what follows it, what is reported."""

import copy
import dataclasses
import itertools
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import INFO, synthetic_episodes

from jepa_mpc.world_model.data.augment import AugmentConfig, augment
from jepa_mpc.world_model.data.dataset import Dataset, write_dataset
from jepa_mpc.world_model.model.encoder import EncoderConfig
from jepa_mpc.world_model.model.jepa import JEPA, JEPAConfig
from jepa_mpc.world_model.model.predictor import PredictorConfig
from jepa_mpc.world_model.model.reachability import Reachability, ReachabilityConfig
from jepa_mpc.world_model.regularizers import REGULARIZERS
from jepa_mpc.world_model.regularizers.alternatives import (
    covariance,
    info_nce,
    kl_to_standard_normal,
    nt_xent,
    variance_hinge,
)
from jepa_mpc.world_model.regularizers.sigreg import SIGReg
from jepa_mpc.world_model.training.config import TrainConfig
from jepa_mpc.world_model.training.diagnostics import effective_rank, linear_probe_r2, report_embedding, usual_miss
from jepa_mpc.world_model.training.guard import CollapseGuard
from jepa_mpc.world_model.training.phases import (
    distil_phase,
    encode_all,
    joint_phase,
    predictor_phase,
    reachability_phase,
    recalibrate_batchnorm,
)


class Recording(Dataset):
    """A data set that remembers what was last drawn from it."""

    def sample_rows(self, *args):
        self.rows = super().sample_rows(*args)
        return self.rows

    def sample_future(self, rows, rng):
        self.goals = super().sample_future(rows, rng)
        return self.goals


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("phases") / "square.h5"
    recorded = synthetic_episodes(num_episodes=30, num_blocks=6)
    small = [dataclasses.replace(each, pixels=each.pixels[:, 2::4, 2::4]) for each in recorded]
    write_dataset(path, small, INFO)
    return Recording(path, held_out_fraction=0.1)


def settings(**changes):
    small = {"batch_size": 5, "num_frames": 4, "predictor_batch_size": 6, "predictor_num_frames": 5}
    return TrainConfig(output=None, **{"precision": "float32", "augment": False, **small, **changes})


def model_for(config, **more):
    """A small model no weight of which is zero, with action normalisers that do something."""
    torch.manual_seed(0)
    model = JEPA(
        JEPAConfig(
            2,
            config.embed_dim,
            16,
            EncoderConfig(image_size=8, channels=(4, 4)),
            PredictorConfig(width=16, depth=1, num_heads=2, dropout=config.predictor.dropout),
            ReachabilityConfig(hidden=16, metric_dim=4, velocity=True),
            spherical=config.regularizer.spherical,
            **more,
        )
    )
    for parameter in model.predictor.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.action_mean.copy_(torch.tensor([0.2, -0.3]))
    model.action_std.copy_(torch.tensor([0.5, 2.0]))
    return model


def joint(data, name, options=None, watch=None, **changes):
    """A joint phase with its model and regulariser."""
    config = settings(regularizer=REGULARIZERS[name](**(options or {})), **changes)
    model = model_for(config)
    regularizer = config.regularizer.make(model)
    guard = CollapseGuard()
    return joint_phase(config, model, regularizer, guard, data, watch), model, regularizer, guard


def rolled_out(model, z, actions, num_context):
    """The futures of an open loop that sees `num_context` frames, one prediction at a time."""
    window = z[:, :num_context]
    while window.shape[1] <= actions.shape[1]:
        window = torch.cat([window, model.predict(window, actions[:, : window.shape[1]])[:, -1:]], dim=1)
    return window[:, num_context:]


def epps_pulley(x, knots):
    """The statistic of N numbers, over the whole symmetric line."""
    t = torch.linspace(-3, 3, 2 * knots - 1)
    gauss, phase = torch.exp(-(t**2) / 2), x[:, None] * t
    distance = (phase.cos().mean(0) - gauss) ** 2 + phase.sin().mean(0) ** 2
    return len(x) * torch.trapezoid(distance * gauss, t)


def told(inverse, z, actions):
    """How badly an inverse model tells the actions, step by step."""
    steps = (inverse.layers(torch.cat(pair, dim=1)) for pair in itertools.pairwise(z.unbind(1)))
    return torch.stack([F.mse_loss(said, done) for said, done in zip(steps, actions.unbind(1), strict=True)]).mean()


def learning(model, regularizer):
    """What the joint phase trains, by part and name."""
    parts = {"encoder": model.encoder, "projector": model.projector, "predictor": model.predictor}
    parts["its own"] = regularizer
    return {f"{part} {name}": p for part, module in parts.items() for name, p in module.named_parameters()}


# Each remedy's options, none of them 0 or 1, and the weights that its penalties should then have.
REMEDIES = {
    "none": ({}, {}),
    "ema": ({}, {}),
    "vicreg": ({"variance_weight": 0.3, "covariance_weight": 0.6}, {"variance": 0.3, "covariance": 0.6}),
    "simclr": ({"weight": 0.3, "temperature": 0.4}, {"contrast": 0.3}),
    "moco": ({"weight": 0.3, "temperature": 0.4, "queue_size": 40}, {"contrast": 0.3}),
    "kl": ({"weight": 0.3}, {"kl": 0.3}),
    "pldm": (
        {"variance_weight": 0.3, "covariance_weight": 0.6, "temporal_weight": 0.4, "inverse_weight": 0.7},
        {"variance": 0.3, "covariance": 0.6, "temporal": 0.4, "inverse": 0.7},
    ),
    "sigreg": ({"weight": 0.3, "num_proj": 3, "knots": 9, "inverse_weight": 0.6}, {"sigreg": 0.3, "inverse": 0.6}),
}


def penalties_by_hand(name, regularizer, z, target, predicted, actions):
    steps, flat, pairs = z.unbind(1), z.flatten(0, 1), (predicted.flatten(0, 1), target[:, 1:].flatten(0, 1))
    return {
        "none": dict,
        "ema": dict,
        "vicreg": lambda: {"variance": variance_hinge(flat), "covariance": covariance(flat)},
        "simclr": lambda: {"contrast": nt_xent(*pairs, 0.4)},
        "moco": lambda: {"contrast": info_nce(*pairs, regularizer.queue, 0.4)},
        "kl": lambda: {"kl": kl_to_standard_normal(z, regularizer.log_var(z))},
        "pldm": lambda: {
            "variance": torch.stack([variance_hinge(step) for step in steps]).mean(),
            "covariance": torch.stack([covariance(step) for step in steps]).mean() / (z.shape[2] - 1),
            "temporal": torch.stack([F.mse_loss(*pair) for pair in itertools.pairwise(steps)]).mean(),
            "inverse": told(regularizer.inverse, z, actions),
        },
        # On one dimension every direction is the line itself, whatever is drawn.
        "sigreg": lambda: {
            "sigreg": torch.stack([epps_pulley(step[:, 0], 9) for step in steps]).mean(),
            "inverse": told(regularizer.inverse, z, actions),
        },
    }[name]()


def test_every_remedy_has_its_loss_written_out_here():
    assert set(REMEDIES) == set(REGULARIZERS)


@pytest.mark.parametrize("name", REMEDIES)
def test_a_joint_steps_loss_and_gradients_are_its_terms_by_their_weights(data, name):
    options, weights = REMEDIES[name]
    embed_dim = 1 if name == "sigreg" else 6
    phase, model, regularizer, _ = joint(data, name, options, rollout_weight=0.7, max_context=1, embed_dim=embed_dim)
    if name == "kl":  # so little noise that the draw is its mean
        torch.nn.init.zeros_(regularizer.log_var.weight)
        torch.nn.init.constant_(regularizer.log_var.bias, -40.0)
    if name in ("ema", "moco"):  # a slow copy that differs from what it copies
        with torch.no_grad():
            regularizer.projector[-1].weight.mul_(0.5)
    by_hand, copied = copy.deepcopy((model.train(), regularizer))
    step_loss, batch = phase.begin(), phase.load(np.random.default_rng(3))
    loss, terms = step_loss(1, batch)
    loss.backward()

    (pixels, _), actions = data.windows(data.rows)
    assert pixels.shape == (5, 4, 8, 8, 3)
    z = target = by_hand.encode(pixels)
    if name in ("ema", "moco"):
        target = by_hand.encode(pixels, copied.encoder, copied.projector).detach()
    predicted = by_hand.predict(z[:, :-1], actions)
    normalised = (actions - torch.tensor([0.2, -0.3])) / torch.tensor([0.5, 2.0])
    expected = {
        "prediction": F.mse_loss(predicted, target[:, 1:]),
        "rollout": F.mse_loss(rolled_out(by_hand, z, actions, 1), target[:, 1:]),
        **penalties_by_hand(name, copied, z, target, predicted, normalised),
    }
    assert set(terms) == set(expected)
    for term, value in expected.items():
        torch.testing.assert_close(terms[term], value, rtol=1e-4, atol=1e-6, msg=term)
    whole = sum({"prediction": 1, "rollout": 0.7, **weights}[term] * value for term, value in expected.items())
    torch.testing.assert_close(loss, whole, rtol=1e-4, atol=1e-6)
    whole.backward()
    ours, theirs = learning(model, regularizer), learning(by_hand, copied)
    assert {id(p) for p in phase.trained.parameters()} == {id(p) for p in ours.values()}
    assert not {id(p) for p in regularizer.parameters()} & {id(p) for p in model.parameters()}
    for name, parameter in ours.items():
        if theirs[name].grad is None:
            assert parameter.grad is None, name
        else:
            torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-3, atol=1e-5, msg=name)


def test_without_a_weight_on_the_rollout_the_loss_is_lewms_two_terms(data):
    phase, _, _, _ = joint(data, "sigreg", {"weight": 0.3}, rollout_weight=0.0)
    loss, terms = phase.begin()(1, phase.load(np.random.default_rng(3)))
    torch.testing.assert_close(loss, terms["prediction"] + 0.3 * terms["sigreg"])
    assert terms["rollout"] > 0


@pytest.mark.parametrize("make", [lambda data, **kw: joint(data, "none", **kw)[:2], None], ids=["joint", "predictor"])
def test_rollouts_start_from_one_frame_to_as_many_as_are_allowed(data, make):
    seen = set()
    phase, model = (make or alone)(data, max_context=3, num_frames=4, predictor_num_frames=4)
    step_loss = phase.begin()
    for seed in range(8):
        _, terms = step_loss(1, phase.load(np.random.default_rng(seed)))
        (pixels, _), actions = data.windows(data.rows)
        with torch.no_grad():
            z = model.encode(pixels)
            errors = [F.mse_loss(rolled_out(model, z, actions, k), z[:, k:]) for k in (1, 2, 3)]
        (starts,) = np.nonzero(np.isclose(errors, terms["rollout"].item(), rtol=1e-4))
        seen |= {*starts.tolist()}
    assert seen == {0, 1, 2}


def test_a_window_of_two_frames_leaves_one_to_start_from(data):
    phase, _, _, _ = joint(data, "none", max_context=3, num_frames=2)
    for seed in range(5):
        _, terms = phase.begin()(1, phase.load(np.random.default_rng(seed)))
        torch.testing.assert_close(terms["rollout"], terms["prediction"])


def test_draws_of_the_regulariser_are_the_steps_own(tmp_path):
    """On a data set of one window over and over, nothing else can differ."""
    (episode,) = synthetic_episodes(1, 6)
    small = dataclasses.replace(episode, pixels=episode.pixels[:, 2::4, 2::4])
    write_dataset(tmp_path / "d.h5", [small] * 3, INFO)
    data = Recording(tmp_path / "d.h5")
    losses = {}
    for name in ("none", "sigreg", "kl"):
        phase, _, _, _ = joint(data, name, num_frames=7, max_context=1)
        step_loss = phase.begin()
        losses[name] = [step_loss(1, phase.load(np.random.default_rng(seed)))[0].item() for seed in (0, 1, 0)]
    for name, (first, other, again) in losses.items():
        assert first == again
        assert (first == other) == (name == "none")


def test_the_guard_sees_the_batches_that_are_logged(data):
    phase, model, regularizer, guard = joint(data, "ema", log_every=20)
    torch.nn.init.normal_(regularizer.projector[-1].weight)  # the slow copy is another
    regularizer.eval()
    step_loss, batch = phase.begin(), phase.load(np.random.default_rng(0))
    assert regularizer.training
    step_loss(19, batch)
    assert guard.now.isnan().all()
    step_loss(20, batch)
    with torch.no_grad():
        z = model.encode(data.windows(data.rows)[0]).flatten(0, 1)
    torch.testing.assert_close(guard.now, torch.tensor([z.std(0).mean().item(), effective_rank(z)]))
    assert guard.last_step == 20


def test_noise_on_embeddings_does_not_hide_a_collapse(data):
    phase, model, regularizer, guard = joint(data, "kl", log_every=1)
    torch.nn.init.zeros_(model.projector[-1].weight)  # one embedding for all pictures, and a draw of std 1 around it
    torch.nn.init.zeros_(regularizer.log_var.weight)
    phase.begin()(0, phase.load(np.random.default_rng(0)))
    assert guard.now[0] < 1e-6


def test_products_of_half_precision_are_asked_for(data):
    losses = {}
    for precision in ("float32", "bfloat16"):
        phase, _, _, _ = joint(data, "sigreg", precision=precision)
        losses[precision], _ = phase.begin()(1, phase.load(np.random.default_rng(0)))
    assert losses["bfloat16"] != losses["float32"]
    torch.testing.assert_close(losses["bfloat16"], losses["float32"], rtol=0.05, atol=0)


def test_a_report_is_on_held_out_pictures_alone_and_leaves_training_on(data):
    watched = []
    phase, model, _, _ = joint(data, "none", watch=lambda *seen: watched.append(seen), report_frames=10**6)
    phase.begin()
    reported = phase.report(40)
    assert model.training
    assert watched == [(model, data, 40)]
    train, held_out = (data.rows_of(episodes) for episodes in (data.train_episodes, data.held_out_episodes))
    assert len(held_out) == 3 * 7
    model.eval()
    with torch.no_grad():
        z, fitted_on = (model.encode(torch.from_numpy(data.pixels[rows])) for rows in (held_out, train))
    assert reported["embedding/std"] == pytest.approx(z.std(0).mean().item(), rel=1e-4)
    assert reported["embedding/effective_rank"] == pytest.approx(effective_rank(z), rel=1e-4)
    y, names = data.probe_targets(held_out)
    r2 = linear_probe_r2(fitted_on, torch.from_numpy(data.probe_targets(train)[0]), z, torch.from_numpy(y))
    assert [reported[f"probe_r2/{name}"] for name in names] == pytest.approx(r2.tolist(), rel=1e-3)


def test_a_report_of_few_frames_spreads_them_over_the_episodes(data):
    phase, model, _, _ = joint(data, "none", report_frames=4)
    reported = phase.report(0)
    rows = data.rows_of(data.held_out_episodes)[[0, 6, 13, 20]]
    with torch.no_grad():
        z = model.eval().encode(torch.from_numpy(data.pixels[rows]))
    assert reported["embedding/std"] == pytest.approx(z.std(0).mean().item(), rel=1e-4)
    again = torch.Generator().manual_seed(0)
    shuffled = z[torch.randperm(4, generator=again)]
    assert reported["embedding/sigreg"] == pytest.approx(SIGReg().eval()(shuffled, again).item(), rel=1e-4)


def test_the_statistic_of_a_report_is_of_512_frames(tmp_path):
    recorded = synthetic_episodes(45, 12)
    small = [dataclasses.replace(each, pixels=each.pixels[:, 2::4, 2::4]) for each in recorded]
    write_dataset(tmp_path / "d.h5", small, INFO)
    data, model = Dataset(tmp_path / "d.h5", held_out_fraction=0.9), model_for(settings()).eval()
    rows = data.rows_of(data.held_out_episodes)
    with torch.no_grad():
        z, again = model.encode(torch.from_numpy(data.pixels[rows])), torch.Generator().manual_seed(0)
    assert len(z) == 40 * 13
    expected = SIGReg().eval()(z[torch.randperm(len(z), generator=again)[:512]], again).item()
    assert report_embedding(model, data, 10**6).sigreg == pytest.approx(expected, rel=1e-4)


def test_each_phase_has_its_own_steps_and_learning_rate(data):
    options = {"num_steps": 3, "predictor_steps": 4, "reachability_steps": 5}
    rates = {"learning_rate": 0.1, "predictor_learning_rate": 0.2, "reachability_learning_rate": 0.3}
    phases = [
        make(**options, **rates)[0]
        for make in (partial(joint, data, "none"), partial(alone, data), partial(reaching, data))
    ]
    assert [(phase.name, phase.num_steps, phase.learning_rate, phase.use_muon) for phase in phases] == [
        ("joint", 3, 0.1, False),
        ("predictor", 4, 0.2, True),
        ("reachability", 5, 0.3, False),
    ]


@pytest.mark.parametrize("name", ["ema", "moco"])
def test_slow_copies_follow_after_every_joint_step(data, name):
    phase, model, regularizer, _ = joint(data, name, {"rate": 0.25})
    slow = torch.nn.ModuleList([regularizer.encoder, regularizer.projector])
    before = copy.deepcopy(slow)
    with torch.no_grad():
        for parameter in itertools.chain(model.encoder.parameters(), model.projector.parameters()):
            parameter.add_(1)
    phase.after_step()
    for now, old in zip(slow.parameters(), before.parameters(), strict=True):
        torch.testing.assert_close(now, old + 0.25)


def alone(data, **changes):
    """A predictor's phase and its model, whose BatchNorm stays as it is."""
    config = settings(**changes)
    model = model_for(config).eval()
    with torch.no_grad():
        z = model.encode(torch.from_numpy(data.pixels[:]))

    def frozen():
        model.train()
        return z

    return predictor_phase(config, model, data, frozen), model


def test_a_step_of_the_predictor_alone_is_on_the_final_encoders_embeddings(data):
    phase, model = alone(data, rollout_weight=0.7, max_context=1)
    step_loss, batch = phase.begin(), phase.load(np.random.default_rng(3))
    assert not model.encoder.training
    assert not model.projector.training
    assert model.predictor.training
    assert {id(p) for p in phase.trained.parameters()} == {id(p) for p in model.predictor.parameters()}
    loss, terms = step_loss(1, batch)
    (pixels, _), actions = data.windows(data.rows)
    assert pixels.shape[:2] == (6, 5)
    with torch.no_grad():
        z = model.encode(pixels)
        one_step = F.mse_loss(model.predict(z[:, :-1], actions), z[:, 1:])
        rollout = F.mse_loss(rolled_out(model, z, actions, 1), z[:, 1:])
    torch.testing.assert_close(terms["prediction"], one_step, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(terms["rollout"], rollout, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(loss, one_step + 0.7 * rollout, rtol=1e-4, atol=1e-6)
    loss.backward()
    assert all(p.grad is None for p in model.encoder.parameters())
    assert all(p.grad is not None for p in model.predictor.parameters())


def reaching(data, **changes):
    """A phase of the metric with metric, slow copy and embeddings, which are noise."""
    config = settings(reachability_batch_size=200, discount=0.6, expectile=0.8, target_rate=0.25, **changes)
    torch.manual_seed(0)
    metric, target = (Reachability(ReachabilityConfig(hidden=16, metric_dim=4, velocity=True), 6) for _ in range(2))
    z = torch.randn(len(data.action), 6)
    phase = reachability_phase(config, SimpleNamespace(reachability=metric), target, data, lambda: z)
    return phase, metric, target, z


def whitened(z):
    """z (N, D) scaled so that all directions vary alike, but for those below a hundredth of the mean."""
    centred = (z - z.mean(0)).double().numpy()
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    variance = singular**2 / len(z)
    scaled = centred @ directions.T / np.sqrt(variance + 0.01 * variance.mean())
    return torch.from_numpy(scaled @ directions).float()


def test_a_step_of_the_metric_by_hand(data):
    phase, metric, target, z = reaching(data)
    step_loss, batch = phase.begin(), phase.load(np.random.default_rng(3))
    by_hand = copy.deepcopy(metric)
    loss, terms = step_loss(1, batch)
    loss.backward()
    (before, now, after), goal = data.rows.T, data.goals
    assert len(goal) == 200
    episode = np.arange(len(z)) // 7
    np.testing.assert_array_equal(episode[goal], episode[now])
    assert (goal >= now).all()
    assert (goal == now).any()  # an arrival, which is zero blocks away
    assert (goal > now + 1).any()
    z = whitened(z)
    distance = by_hand(z[now][:, None], z[before][:, None], z[goal])
    with torch.no_grad():
        ahead = 1 + 0.6 * target(z[after][:, None], z[now][:, None], z[goal])
    blocks = torch.where(torch.from_numpy(now[:, None] == goal), 0.0, ahead)
    too_far = (distance - blocks).clamp_min(0).square()
    too_near = (blocks - distance).clamp_min(0).square()
    weighted = 0.8 * too_far + 0.2 * too_near
    expected = (weighted.diagonal().mean() + weighted.mean()) / 2
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(terms["reachability"], expected, rtol=1e-4, atol=0)
    expected.backward()
    for ours, theirs in zip(metric.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5)
    assert all(p.grad is None for p in target.parameters())
    assert {id(p) for p in phase.trained.parameters()} == {id(p) for p in metric.parameters()}


def test_the_metrics_slow_copy_goes_a_part_of_the_way(data):
    phase, metric, target, _ = reaching(data)
    before = [p.clone() for p in target.parameters()]
    phase.after_step()
    for slow, old, fast in zip(target.parameters(), before, metric.parameters(), strict=True):
        torch.testing.assert_close(slow, 0.75 * old + 0.25 * fast)


def test_statistics_are_taken_again_and_frozen_embeddings_are_by_them(data):
    model = model_for(settings())
    before = model.encoder.layers[0][1].running_mean.clone()
    momenta = [module.momentum for module in model.modules() if hasattr(module, "momentum")]
    recalibrate_batchnorm(model.train(), data)
    z = encode_all(model, data)
    assert momenta == [module.momentum for module in model.modules() if hasattr(module, "momentum")] == [0.1] * 3
    assert not model.training
    assert not torch.equal(model.encoder.layers[0][1].running_mean, before)
    with torch.no_grad():
        torch.testing.assert_close(z, model.encode(torch.from_numpy(data.pixels[:])), rtol=1e-4, atol=1e-5)


VARIED = AugmentConfig(clean=0.1, change=0.5)


def test_a_varied_joint_steps_loss_is_that_of_the_varied_pictures(data):
    phase, model, _, _ = joint(data, "none", augment=True, augmentation=VARIED, max_context=1, rollout_weight=0.7)
    by_hand, batch = copy.deepcopy(model.train()), phase.load(np.random.default_rng(3))
    loss, terms = phase.begin()(1, batch)
    (pixels, _), actions = data.windows(data.rows)
    assert torch.equal(batch[1].pixels, pixels)  # threads draw windows ahead as they are stored
    varied = augment(pixels, VARIED, torch.Generator().manual_seed(batch[0]))
    assert not torch.equal(varied, pixels.float())
    z = by_hand.encode(varied)
    one_step = F.mse_loss(by_hand.predict(z[:, :-1], actions), z[:, 1:])
    rollout = F.mse_loss(rolled_out(by_hand, z, actions, 1), z[:, 1:])
    torch.testing.assert_close(terms["prediction"], one_step, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(loss, one_step + 0.7 * rollout, rtol=1e-4, atol=1e-6)


def two_encoders(config):
    """A small model whose second encoder is another than the first."""
    model = model_for(config, robust=True)
    for parameter in model.robust.parameters():
        parameter.data += 0.1
    return model


def test_a_distilling_steps_loss_is_how_far_varied_pictures_are_from_plain_ones(data):
    config = settings(augment=True, augmentation=VARIED, distil_steps=5)
    model = two_encoders(config).eval()
    by_hand, phase = copy.deepcopy(model), distil_phase(config, model, data)
    step_loss, batch = phase.begin(), phase.load(np.random.default_rng(3))
    loss, _ = step_loss(0, batch)
    assert data.rows.shape == (20, 1)  # as many pictures as a joint step's
    pixels = torch.from_numpy(data.pixels[data.rows])
    varied = augment(pixels, VARIED, torch.Generator().manual_seed(batch[0]))
    with torch.no_grad():
        wanted = by_hand.encode(pixels, by_hand.encoder, by_hand.projector)
    student = by_hand.robust.train()
    expected = F.mse_loss(by_hand.encode(varied, student["encoder"], student["projector"]), wanted)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-6)
    assert {id(p) for p in phase.trained.parameters()} == {id(p) for p in model.robust.parameters()}
    assert not model.encoder.training


def test_in_the_end_it_is_known_how_far_apart_both_encoders_usually_are(data):
    config = settings(augment=True, augmentation=VARIED, distil_steps=5)
    model = two_encoders(config).eval()
    assert model.usual_disagreement.isinf()
    phase = distil_phase(config, model, data)
    phase.begin()
    phase.finish()
    assert not model.robust.training
    pixels = torch.from_numpy(data.pixels[data.rows_of(data.held_out_episodes)])
    with torch.no_grad():
        z = model.encode(pixels, model.encoder, model.projector)
        other = model.encode(pixels, model.robust["encoder"], model.robust["projector"])
    expected = torch.quantile((z - other).square().mean(1), 0.99)
    torch.testing.assert_close(model.usual_disagreement, expected, rtol=1e-4, atol=0)


def test_the_second_encoder_is_taken_where_both_disagree(data):
    model = two_encoders(settings()).eval()
    pixels = torch.from_numpy(data.pixels[:40])
    with torch.no_grad():
        z = model.encode(pixels, model.encoder, model.projector)
        other = model.encode(pixels, model.robust["encoder"], model.robust["projector"])
        torch.testing.assert_close(model.encode(pixels), z)  # nothing is learned yet
        apart = (z - other).square().mean(1)
        model.usual_disagreement.copy_(apart.median())
        far = apart > apart.median()
        chosen = model.encode(pixels)
        torch.testing.assert_close(chosen[far], other[far])
        torch.testing.assert_close(chosen[~far], z[~far])
        assert far.any()
        assert not far.all()
        torch.testing.assert_close(model.train().encode(pixels), model.encode(pixels, model.encoder, model.projector))


def test_the_joint_phase_before_it_sees_pictures_as_they_are(data):
    losses = []
    for changes in ({}, {"augment": True, "augmentation": VARIED, "distil_steps": 5}):
        config = settings(regularizer=REGULARIZERS["sigreg"](), **changes)
        model = model_for(config, robust=config.distil_steps > 0)
        phase = joint_phase(config, model, config.regularizer.make(model), CollapseGuard(), data)
        losses.append(phase.begin()(1, phase.load(np.random.default_rng(3)))[0])
    assert torch.equal(*losses)


def test_a_second_encoder_begins_as_the_first_when_the_joint_phase_ends(data):
    config = settings(augment=True, augmentation=VARIED, distil_steps=5)
    model = two_encoders(config)
    phase = joint_phase(config, model, config.regularizer.make(model), CollapseGuard(), data)
    model.usual_disagreement.fill_(0.1)
    phase.finish()
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(model.robust["encoder"].state_dict()[name], value)
    assert model.usual_disagreement.isinf()


def test_without_its_switch_how_pictures_would_be_varied_is_nothing(data):
    losses = []
    for changes in ({}, {"augmentation": VARIED}):
        phase, _, _, _ = joint(data, "sigreg", **changes)
        losses.append(phase.begin()(1, phase.load(np.random.default_rng(3)))[0])
    assert torch.equal(*losses)


def test_reports_see_pictures_as_they_are(data):
    reported = []
    for augmented in (False, True):
        phase, _, _, _ = joint(data, "none", augment=augmented, augmentation=VARIED)
        phase.begin()
        reported.append(phase.report(0))
    assert reported[0] == reported[1]


@pytest.mark.parametrize("config", [None, VARIED])
def test_batchnorm_is_calibrated_on_pictures_like_those_of_training(data, config):
    """Written out for the first layer, whose statistics are those of its convolution's outputs."""
    model = model_for(settings()).eval()
    convolution, norm = model.encoder.layers[0][:2]
    recalibrate_batchnorm(model, data, config, num_batches=3)
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    means, variances = [], []
    for _ in range(3):
        pixels = data.windows(data.sample_rows(256, 1, rng))[0].pixels
        with torch.no_grad():
            seen = convolution(model.normalise_pixels(augment(pixels, config, generator)))
        means.append(seen.mean((0, 2, 3)))
        variances.append(seen.var((0, 2, 3)))
    torch.testing.assert_close(norm.running_mean, torch.stack(means).mean(0), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(norm.running_var, torch.stack(variances).mean(0), rtol=1e-3, atol=1e-4)


def test_embeddings_are_frozen_of_pictures_as_they_are_by_statistics_of_varied_ones(data):
    plain, varied = model_for(settings()), model_for(settings())
    recalibrate_batchnorm(plain, data)
    recalibrate_batchnorm(varied, data, VARIED)
    z = encode_all(varied, data)
    statistics = [model.projector[1].running_var for model in (plain, varied)]
    assert (statistics[0] - statistics[1]).abs().max() > 0.05 * statistics[0].max()
    with torch.no_grad():
        torch.testing.assert_close(z, varied.encode(torch.from_numpy(data.pixels[:])), rtol=1e-4, atol=1e-5)


# What predictions usually miss by.


def usual_by_hand(model, data, episodes, num_frames):
    """A plain loop over all windows."""
    missed, moved, windows = [], [], []
    with torch.no_grad():
        for episode in episodes:
            offset, length = data.ep_offset[episode], data.ep_len[episode]
            for start in range(length - (num_frames - 1) * data.stride):
                rows = offset + start + data.stride * np.arange(num_frames)
                z = model.encode(torch.from_numpy(data.pixels[rows]))[None]
                predicted = model.predict(z[:, :-1], torch.from_numpy(data.action[rows[:-1]])[None])
                missed.append((predicted - z[:, 1:]).square().sum(-1).sqrt()[0].numpy())
                moved.append((predicted - z[:, :-1]).square().sum(-1).sqrt()[0].numpy())
                windows.append((z[0].double().numpy(), predicted[0].double().numpy()))
    median = np.sort(np.ravel(missed))[(np.size(missed) - 1) // 2]
    lag = np.quantile([lag_by_hand(*window, median) for window in windows], 0.95) if num_frames > 2 else None
    return [median, *np.quantile(missed / (median + np.array(moved)), 0.95, axis=0), lag if lag and lag > 0 else -1]


def lag_by_hand(z, predicted, median):
    """What of the foreseen changes of motion has not come, from the second prediction on."""
    absent = foreseen = 0.0
    for t in range(1, len(predicted)):
        moved = predicted[t] - z[t]
        changed = moved - (z[t] - z[t - 1])
        weight = 1 / (median**2 + moved @ moved)
        absent = 0.9 * absent - weight * (z[t + 1] - predicted[t]) @ changed
        foreseen = 0.9 * foreseen + weight * changed @ changed
    return absent / (foreseen + 1)


def numbers(usual):
    return [usual.median, *usual.share, -1 if usual.lag is None else usual.lag]


@pytest.fixture
def held_out(tmp_path):
    """A function that writes episodes and reads them again, the last third of them held out."""

    def write(varied, lengths=(6, 9, 6), frameskip=1):
        episodes = [synthetic_episodes(1, length, seed=seed)[0] for seed, length in enumerate(lengths)]
        small = [
            dataclasses.replace(
                each,
                pixels=each.pixels[:, 2::4, 2::4],
                action=each.action[:, : 2 // frameskip],  # so that a block is two numbers
                randomised=bool(other),
            )
            for each, other in zip(episodes, varied, strict=True)
        ]
        write_dataset(tmp_path / "d.h5", small, INFO)
        return Dataset(tmp_path / "d.h5", held_out_fraction=0.6, frameskip=frameskip)

    return write


@pytest.mark.parametrize(
    ("num_frames", "frameskip", "lengths"),
    [(2, 1, (6, 9, 6)), (4, 1, (6, 700, 600)), (7, 1, (6, 9, 6)), (3, 2, (6, 9, 6))],
)
def test_usual_errors_are_quantiles_of_held_out_windows(held_out, num_frames, frameskip, lengths):
    """By how many frames are seen."""
    data, model = held_out((0, 0, 0), lengths, frameskip), model_for(settings()).eval()
    assert data.held_out_episodes.tolist() == [1, 2]
    found = numbers(usual_miss(model, data, num_frames))
    assert len(found) == num_frames + 1
    np.testing.assert_allclose(found, usual_by_hand(model, data, [1, 2], num_frames), rtol=1e-4)


def test_usual_errors_are_those_of_the_scenes_own_looks(held_out):
    data, model = held_out((0, 0, 1)), model_for(settings()).eval()
    found = numbers(usual_miss(model, data, 4))
    np.testing.assert_allclose(found, usual_by_hand(model, data, [1], 4), rtol=1e-4)
    assert found != pytest.approx(usual_by_hand(model, data, [1, 2], 4), rel=1e-2)


def test_of_many_windows_some_are_taken_all_over_the_episodes(held_out):
    data, model = held_out((0, 0, 0)), model_for(settings()).eval()
    rows = [7, 10, 14, 18, 22]  # of the rows that begin a window, 7–15 and 17–22, the 1st, 4th, 8th, 11th and last
    with torch.no_grad():
        z, after = (model.encode(torch.from_numpy(data.pixels[np.add(rows, ahead)]))[:, None] for ahead in (0, 1))
        errors = (model.predict(z, torch.from_numpy(data.action[rows])[:, None]) - after).norm(dim=-1)[:, 0]
    assert usual_miss(model, data, 2, num_windows=5).median == pytest.approx(np.median(errors.numpy()), rel=1e-4)


def test_windows_that_no_episode_holds_leave_what_is_usual_unknown(held_out):
    data, model = held_out((0, 0, 0), lengths=(9, 3, 5)), model_for(settings()).eval()
    assert usual_miss(model, data, 7) is None
    np.testing.assert_allclose(numbers(usual_miss(model, data, 6)), usual_by_hand(model, data, [2], 6), rtol=1e-4)
