"""The loop against one written out by hand: what is drawn, how far each step goes, and what happens beside it."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from jepa_mpc.devices import has_bfloat16
from jepa_mpc.world_model.training.loop import LoopConfig, Phase, Progress, batches, run_phases
from jepa_mpc.world_model.training.muon import Float32Muon, orthogonalised
from jepa_mpc.world_model.training.state import TrainError, newest_state, save_state

SHARED = {"weight_decay": 0.1, "warmup_steps": 4, "grad_clip": 0.05, "log_every": 3, "report_every": 5}


def loop(seed=0, **changes):
    return LoopConfig(**{"seed": seed, "save_every": 100, **SHARED, **changes})


def line(name, num_steps, learning_rate, **rest):
    """A phase that fits a line with dropout, and what it drew."""
    layer, drawn = nn.Linear(3, 2), []

    def load(rng):
        x = torch.from_numpy(rng.normal(size=(6, 3))).float()
        drawn.append(x)
        return x

    def step_loss(step, x):
        error = layer(nn.functional.dropout(x, 0.5)) - (step + 1) * x[:, :2]
        return error.square().mean(), {"error": error.abs().mean()}

    return Phase(name, num_steps, learning_rate, layer, load, lambda: step_loss, **rest), drawn


def optimizers(phase, weight_decay):
    """What should move a phase's weights: AdamW, or Muon for the matrices and AdamW for the rest."""
    parameters = [p for p in phase.trained.parameters() if p.requires_grad]
    if not phase.use_muon:
        return [torch.optim.AdamW(parameters, weight_decay=weight_decay, fused=True)]
    matrices = [m.weight for m in phase.trained.modules() if isinstance(m, nn.Linear)]
    rest = [p for p in parameters if all(p is not matrix for matrix in matrices)]
    kind = torch.optim.Muon if has_bfloat16(torch.device("cpu")) else Float32Muon
    muon = kind(matrices, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW(rest, weight_decay=weight_decay, fused=True)]


def by_hand(phase, seed, weight_decay, warmup_steps, grad_clip):
    """Takes a phase's steps without the loop; returns the norms of their gradients."""
    step_loss, movers, norms = phase.begin(), optimizers(phase, weight_decay), []
    for step in range(phase.num_steps):
        rng = np.random.default_rng([*seed, step])
        dropout_seed, batch = int(rng.integers(2**62)), phase.load(rng)
        torch.manual_seed(dropout_seed)
        phase.trained.zero_grad()
        step_loss(step, batch)[0].backward()
        norms.append(nn.utils.clip_grad_norm_(phase.trained.parameters(), grad_clip).item())
        warm_up, decay = min(1, (step + 1) / warmup_steps), (1 + math.cos(math.pi * step / phase.num_steps)) / 2
        for optimizer in movers:
            optimizer.param_groups[0]["lr"] = phase.learning_rate * warm_up * decay
            optimizer.step()
        if phase.after_step:
            phase.after_step()
    if phase.finish:
        phase.finish()
    return norms


@pytest.mark.parametrize("use_muon", [False, True])
@pytest.mark.parametrize("seed", [0, 7])
def test_two_phases_take_the_steps_that_one_would_by_hand(tmp_path, seed, use_muon):
    def two():
        torch.manual_seed(seed)
        phases = [line("first", 9, 0.03)[0], line("second", 7, 0.05, use_muon=use_muon)[0]]
        return phases, nn.ModuleList([phase.trained for phase in phases])

    (phases, weights), (again, expected) = two(), two()
    run_phases(phases, weights, tmp_path, loop(seed))
    for index, phase in enumerate(again):
        assert min(by_hand(phase, [seed, index], 0.1, 4, 0.05)) > 0.05  # clipping counts
    for ours, theirs in zip(weights.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_time_before_a_resumption_counts_and_progress_is_not_to_be_changed(tmp_path):
    phase, _ = line("first", 3, 0.03)
    movers = optimizers(phase, 0.1)
    phase.begin()(0, torch.randn(6, 3))[0].backward()
    movers[0].step()
    save_state(tmp_path, phase.trained, movers, Progress(0, 2, seconds=1000.0))
    assert newest_state(tmp_path, phase.trained, Progress)[0].step == 2
    assert run_phases([phase], phase.trained, tmp_path, loop()).seconds > 1000

    path = tmp_path / "state.safetensors"
    assert path.read_bytes().count(b'step\\": 3') == 1
    path.write_bytes(path.read_bytes().replace(b'step\\": 3', b'step\\": 1'))
    assert newest_state(tmp_path, phase.trained, Progress)[0].step == 2  # of the state before
    (tmp_path / "state.previous.safetensors").unlink()
    with pytest.raises(TrainError, match="is damaged; delete it to start afresh"):
        newest_state(tmp_path, phase.trained, Progress)


@pytest.mark.parametrize("spoilt", ["loss", "gradient"])
def test_what_is_not_finite_moves_nothing(tmp_path, spoilt):
    layer = nn.Linear(2, 2)
    before = layer.weight.detach().clone()

    def step_loss(step, batch):
        zero = 0 * layer.weight.sum()
        loss = zero.sqrt() if spoilt == "gradient" else zero + torch.inf  # whose slope is infinite at 0
        return loss, {}

    with pytest.raises(TrainError, match="not finite at step 0 of bad"):
        run_phases([Phase("bad", 3, 0.1, layer, lambda rng: None, lambda: step_loss)], layer, tmp_path, loop())
    torch.testing.assert_close(layer.weight.detach(), before, rtol=0, atol=0)


def test_batches_differ_by_seed_phase_and_step_and_not_by_workers(tmp_path):
    everything = []
    for seed in (0, 1):
        first, drawn = line("first", 4, 0.03)
        second, drawn_too = line("second", 4, 0.03)
        run_phases([first, second], nn.ModuleList([first.trained, second.trained]), tmp_path / str(seed), loop(seed))
        everything += [*drawn, *drawn_too]
    assert len({x.numpy().tobytes() for x in everything}) == len(everything) == 16


@pytest.mark.parametrize("num_workers", [1, 3])
def test_threads_draw_the_same_batches_in_the_same_order(num_workers):
    def drawn(workers):
        return list(batches(lambda rng: rng.normal(), range(5, 25), [3, 1], workers))

    assert drawn(num_workers) == drawn(0)
    assert len(set(drawn(0))) == 20


def test_what_follows_a_step_follows_every_one_after_the_weights_have_moved(tmp_path):
    seen = []
    phase, _ = line("first", 6, 0.03, after_step=lambda: seen.append(phase.trained.weight.detach().clone()))
    start = phase.trained.weight.detach().clone()
    run_phases([phase], phase.trained, tmp_path, loop())
    assert len(seen) == 6
    for before, after in zip([start, *seen], seen, strict=False):
        assert not torch.equal(before, after)
    torch.testing.assert_close(seen[-1], phase.trained.weight.detach())


def test_reports_are_made_before_the_first_step_and_at_their_interval(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(SummaryWriter, "add_scalar", lambda self, *entry: written.append(entry))
    phase, _ = line("first", 11, 0.03, report=lambda step: {"how far": 10.0 * step})
    progress = run_phases([phase], phase.trained, tmp_path, loop())
    assert [entry for entry in written if entry[0] == "how far"] == [("how far", 10.0 * s, s) for s in (0, 5, 10)]
    losses = [entry for entry in written if entry[0] == "first/error"]
    assert [step for _, _, step in losses] == [3, 6, 9, 11]
    assert progress.losses == {"first": {"error": losses[-1][1]}}


def test_a_phase_of_no_steps_prepares_nothing(tmp_path):
    def never():
        raise AssertionError

    layer = nn.Linear(1, 1)
    run_phases([Phase("idle", 0, 0.1, layer, never, never, report=never)], layer, tmp_path, loop())


@pytest.mark.parametrize("killed_at", [("first", 5), ("second", 4)])
def test_a_killed_training_goes_on_as_if_it_had_not_been_and_its_curves_hold_every_step_once(tmp_path, killed_at):
    """Of weights that do not lie in memory as they are indexed, as the encoder's."""

    def trained(folder, killed_at=None):
        torch.manual_seed(0)
        layer = nn.Conv2d(3, 4, 4).to(memory_format=torch.channels_last)

        def begin(name):
            def step_loss(step, x):
                if (name, step) == killed_at:
                    raise KeyboardInterrupt
                return layer(x).square().mean(), {"error": layer(x).abs().mean()}

            return step_loss

        def load(rng):
            return torch.from_numpy(rng.normal(size=(2, 3, 5, 5))).float()

        phases = [Phase(name, 8, 0.1, layer, load, partial(begin, name)) for name in ("first", "second")]
        run_phases(phases, layer, folder, loop(save_every=3, log_every=1))
        return layer

    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "killed", killed_at)
    resumed, unbroken = trained(tmp_path / "killed"), trained(tmp_path / "unbroken")
    torch.testing.assert_close(resumed.weight, unbroken.weight, rtol=0, atol=0)
    log = EventAccumulator(str(tmp_path / "killed" / "tensorboard"))
    log.Reload()
    assert [event.step for event in log.Scalars("first/error")] == list(range(1, 9))
    assert [event.step for event in log.Scalars("second/error")] == list(range(9, 17))


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (24, 24)])
def test_muon_in_single_precision_takes_the_steps_of_pytorchs(shape):
    generator = torch.Generator().manual_seed(0)
    start, gradients = (torch.randn(*size, *shape, generator=generator) for size in ((), (5,)))
    settings = {"lr": 0.02, "weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}
    weights = []
    for kind in (torch.optim.Muon, Float32Muon):
        weight = torch.nn.Parameter(start.clone())
        optimizer = kind([weight], **settings)
        for gradient in gradients:
            weight.grad = gradient.clone()
            optimizer.step()
        weights.append(weight.detach() - start)
    theirs, ours = weights
    assert (ours - theirs).norm() < 0.02 * theirs.norm()  # which theirs rounds away


def test_orthogonalised_updates_keep_their_directions_and_lose_their_sizes():
    generator = torch.Generator().manual_seed(0)
    u, v = (torch.linalg.qr(torch.randn(size, 6, generator=generator))[0] for size in (9, 14))
    sizes = torch.tensor([1.0, 0.8, 0.5, 0.3, 0.2, 0.1])
    found = orthogonalised(u @ torch.diag(sizes) @ v.T, (3.4445, -4.7750, 2.0315), 5, 1e-7)
    left = u.T @ found @ v
    torch.testing.assert_close(left, torch.diag(left.diagonal()), atol=1e-4, rtol=0)
    assert ((left.diagonal() > 0.6) & (left.diagonal() < 1.3)).all()
