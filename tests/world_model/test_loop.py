"""The loop against one written out by hand: what is drawn, how far each step goes, and what happens beside it."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from jepa_mpc.world_model.training.loop import LoopConfig, Phase, batches, run_phases

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


def by_hand(layer, num_steps, learning_rate, seed, optimizers):
    """The same steps, without the loop."""
    for step in range(num_steps):
        rng = np.random.default_rng([*seed, step])
        torch.manual_seed(int(rng.integers(2**62)))
        x = torch.from_numpy(rng.normal(size=(6, 3))).float()
        layer.zero_grad()
        error = layer(nn.functional.dropout(x, 0.5)) - (step + 1) * x[:, :2]
        error.square().mean().backward()
        norm = torch.cat([p.grad.flatten() for p in layer.parameters()]).norm()
        assert norm > 0.05
        for parameter in layer.parameters():
            parameter.grad *= 0.05 / norm
        for optimizer in optimizers:
            warm_up = min(1, (step + 1) / 4)
            optimizer.param_groups[0]["lr"] = learning_rate * warm_up * (1 + math.cos(math.pi * step / num_steps)) / 2
            optimizer.step()


@pytest.mark.parametrize("use_muon", [False, True])
@pytest.mark.parametrize("seed", [0, 7])
def test_two_phases_take_the_steps_that_one_would_by_hand(tmp_path, seed, use_muon):
    torch.manual_seed(seed)
    first, _ = line("first", 9, 0.03)
    second, _ = line("second", 7, 0.05, use_muon=use_muon)
    expected = [nn.Linear(3, 2), nn.Linear(3, 2)]
    weights = nn.ModuleList([first.trained, second.trained])
    nn.ModuleList(expected).load_state_dict(weights.state_dict())
    run_phases([first, second], weights, tmp_path, loop(seed))
    adam = torch.optim.AdamW(expected[0].parameters(), weight_decay=0.1)
    by_hand(expected[0], 9, 0.03, [seed, 0], [adam])
    optimizers = [torch.optim.AdamW(expected[1].parameters(), weight_decay=0.1)]
    if use_muon:
        muon = torch.optim.Muon([expected[1].weight], weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
        optimizers = [muon, torch.optim.AdamW([expected[1].bias], weight_decay=0.1)]
    by_hand(expected[1], 7, 0.05, [seed, 1], optimizers)
    for ours, theirs in zip(weights.parameters(), nn.ModuleList(expected).parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


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
    phase, _ = line("first", 12, 0.03, report=lambda step: {"how far": 10.0 * step})
    progress = run_phases([phase], phase.trained, tmp_path, loop())
    assert [entry for entry in written if entry[0] == "how far"] == [("how far", 10.0 * s, s) for s in (0, 5, 10)]
    losses = [entry for entry in written if entry[0] == "first/error"]
    assert [step for _, _, step in losses] == [3, 6, 9, 12]
    assert progress.losses == {"first": {"error": losses[-1][1]}}


def test_a_phase_of_no_steps_prepares_nothing(tmp_path):
    def never():
        raise AssertionError

    layer = nn.Linear(1, 1)
    run_phases([Phase("idle", 0, 0.1, layer, never, never, report=never)], layer, tmp_path, loop())
