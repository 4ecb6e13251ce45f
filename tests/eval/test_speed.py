"""What the measurements of speed say: counts by hand, times by a clock that tests alone move, no file overwritten."""

import itertools
import json
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CHECKPOINT
from line import LINE, Line, register

from jepa_mpc.agent.agent_config import AgentConfig
from jepa_mpc.errors import UserError
from jepa_mpc.eval.speed import data, planning, rendering, training
from jepa_mpc.eval.speed.harness import measurement, rates_in_turn
from jepa_mpc.eval.speed.planning import PlanningSpeedConfig, Subject, count_multiply_adds, paper_model, stopwatch
from jepa_mpc.planners import CEMConfig
from jepa_mpc.settings import Count
from jepa_mpc.world_model.checkpoint import load_checkpoint
from jepa_mpc.world_model.data.dataset import Dataset
from jepa_mpc.world_model.model.jepa import JEPA
from jepa_mpc.world_model.train import parse_config
from jepa_mpc.world_model.training.config import TRAIN_PRESETS


@dataclass(frozen=True)
class Config:
    num_rounds: Count = 1
    data: Path | None = None
    output: Path | None = None


def test_ways_take_turns_and_their_medians_are_compared_with_the_firsts():
    asked = []
    rates = {"one": iter([1.0, 5.0, 3.0]), "two": iter([6.0, 9.0, 0.0])}
    found = rates_in_turn({name: lambda n=name: asked.append(n) or next(rates[n]) for name in rates}, 3)
    assert asked == ["one", "two"] * 3
    assert found == {
        "windows_per_second": {"one": 3.0, "two": 6.0},
        "of_the_first": {"one": 1.0, "two": 2.0},
        "rounds": {"one": [1.0, 5.0, 3.0], "two": [6.0, 9.0, 0.0]},
    }


def test_results_are_written_with_what_makes_them_again(tmp_path):
    config = Config(num_rounds=2, data=tmp_path / "x.h5", output=tmp_path / "new" / "out.json")
    results = measurement(lambda config: {"found": config.num_rounds})(config)
    stored = json.loads(config.output.read_text())
    assert stored == results
    assert stored["found"] == 2
    assert stored["settings"] == {"num_rounds": 2}  # no path of this machine
    assert {"commit", "command", "date", "machine"} <= stored.keys()


def test_an_output_that_is_there_or_cannot_be_written_is_refused_before_the_work(tmp_path):
    there = tmp_path / "there.json"
    there.write_text("mine")
    for config, message in (
        (Config(output=there), "there.json exists already; delete it or choose another --output"),
        (Config(output=tmp_path), "exists already"),
        (Config(output=there / "out.json"), "--output .* cannot be written"),
        (Config(num_rounds=0), "--num-rounds must be at least 1, not 0"),
    ):
        with pytest.raises(UserError, match=message):
            measurement(lambda config: pytest.fail("it was measured"))(config)
    assert there.read_text() == "mine"


@pytest.mark.parametrize(
    ("measure", "config"),
    [
        (data.measure, data.DataSpeedConfig()),
        (planning.measure, PlanningSpeedConfig()),
        (rendering.measure, rendering.RenderingSpeedConfig()),
        (training.measure, training.TrainingSpeedConfig()),
    ],
)
def test_every_measurement_checks_its_output_first(measure, config, tmp_path):
    there = tmp_path / "there.json"
    there.write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        measure(replace(config, output=there))


# Data


def test_a_rounds_rate_is_its_windows_by_its_seconds(clock):
    def way():
        for _ in range(5):
            clock.seconds += 0.5
            yield None

    assert data.rate(way, batch_size=8) == pytest.approx(5 * 8 / 2.5)


def test_every_way_to_read_draws_the_same_windows(tmp_path):
    path = tmp_path / "noise.h5"
    data.write_noise(path, 3)
    config = data.DataSpeedConfig(batch_size=2, num_frames=4, num_batches=3, num_workers=2)
    read = {name: list(way()) for name, way in data.ways(path, config).items()}
    assert list(read) == ["memory", "memory, 2 workers", "files, 2 workers"]
    first, *others = read.values()
    assert len(first) == 3
    for other in others:
        for (_, ((pixels, _), actions)), (_, ((same, _), actions_too)) in zip(first, other, strict=True):
            np.testing.assert_array_equal(pixels, same)
            np.testing.assert_array_equal(actions, actions_too)


def test_a_file_of_holes_is_a_data_set_that_takes_no_room(tmp_path):
    path = tmp_path / "holes.h5"
    data.write_holes(path, 200)
    assert path.stat().st_size > 200 * 41 * 64 * 64 * 3
    assert path.stat().st_blocks * 512 < path.stat().st_size / 10
    assert len(Dataset(path, in_memory="no").ep_len) == 200


def test_memory_is_watched_before_and_at_its_most(tmp_path, monkeypatch):
    path = tmp_path / "holes.h5"
    data.write_holes(path, 20)
    resident = itertools.chain([1.0, 1.5, 3.0], itertools.repeat(2.0))
    monkeypatch.setattr(data, "_resident", lambda: next(resident))
    found = data.watch_memory(path, data.DataSpeedConfig(batch_size=4, num_frames=4, large_gigabytes=0.005))
    assert found == {"file_gb": path.stat().st_size / 1e9, "before_gb": 1.0, "largest_gb": 3.0}


# Training


def test_a_variant_is_the_training_command_of_its_precision_and_processes(tmp_path):
    config = training.TrainingSpeedConfig(preset="debug", num_steps=7, cores=3, compile=True)
    processes, threads, options = zip(*training.variants(config).values(), strict=True)
    assert (processes, threads) == ((1, 3, 1, 1), (3, 1, 3, 3))
    words = training.command(config, tmp_path / "d.h5", tmp_path / "run", 1, options[2])
    assert words[1:4] == ["-m", "jepa_mpc", "train"]
    asked = parse_config(words[4:])
    assert (asked.num_steps, asked.predictor_steps, asked.reachability_steps) == (7, 0, 0)
    assert (asked.task, asked.data, asked.output) == ("reacher", (tmp_path / "d.h5",), tmp_path / "run")
    assert (asked.precision, asked.batch_size) == ("float32", TRAIN_PRESETS["debug"]["batch_size"])
    assert parse_config(training.command(config, tmp_path, tmp_path, 1, options[3])[4:]).compile
    shared = training.command(config, tmp_path / "d.h5", tmp_path / "run", 3, [])
    assert shared[1:6] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3"]
    assert shared[6:] == training.command(config, tmp_path / "d.h5", tmp_path / "run", 1, [])[1:]


def test_a_training_is_rated_and_one_that_fails_says_why(tmp_path):
    path = tmp_path / "noise.h5"
    data.write_noise(path, 8)
    config = training.TrainingSpeedConfig(preset="debug", num_steps=1)
    rate = training.windows_per_second(config, path, 1, 1, [])
    assert rate > 0
    assert math.isfinite(rate)
    with pytest.raises(UserError, match=r"a training failed: .*missing\.h5") as caught:
        training.windows_per_second(config, tmp_path / "missing.h5", 1, 1, [])
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="training preset"):
        training.measure(replace(config, preset="debgu"))


# Rendering


def test_pictures_are_timed_against_the_defaults(monkeypatch, clock, tmp_path, capsys):
    class Painter(Line):
        def render(self):
            clock.seconds += 1e-3 if self.fast_rendering else 4e-3
            return super().render() + (0 if self.fast_rendering else 3)

    register(monkeypatch, replace(LINE, make=Painter))
    found = rendering.compare("line", num_frames=25, num_rounds=3)
    assert found["fast_frames_per_second"] == pytest.approx(1000)
    assert found["default_frames_per_second"] == pytest.approx(250)
    assert found["ratio"] == pytest.approx(4)
    assert found["mean_difference"] == pytest.approx(3)
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None, raising=False)  # later tests need their cores
    path = tmp_path / "out.json"
    rendering.main(["--tasks", "line", "--num-frames", "25", "--num-rounds", "3", "--output", str(path)])
    stored = json.loads(path.read_text())["tasks"]
    assert stored == {"line": pytest.approx(found)}
    assert "1,000.00" in capsys.readouterr().out


def test_a_task_that_is_not_there_is_said_before_the_work():
    with pytest.raises(UserError, match="unknown task 'recher'"):
        rendering.measure(rendering.RenderingSpeedConfig(tasks=("two_room", "recher")))


# Planning


def test_multiply_adds_of_a_decision_equal_hand_arithmetic():
    """CEM of S samples, one round, horizon 1, one frame: every product of the predictor and the encoder."""
    model, _ = load_checkpoint(CHECKPOINT)
    S, D, W, A, hidden = 7, 64, 128, 10, 512
    config = AgentConfig(CEMConfig(num_samples=S, num_elites=2, num_iterations=1), "latent", horizon=1, history_len=1)
    subject = Subject(model, config, batch_size=1, history=1)
    subject.prepare()
    layer = W * 3 * W + W * W + 2 * W * 4 * W + W * 6 * W  # qkv, out, MLP, modulation
    token = A * W + W * W + D * W + 2 * layer + W * D
    sides, channels = (32, 16, 8, 4), (3, 16, 32, 64, 128)
    encoder = sum(
        side**2 * 16 * before * after for side, before, after in zip(sides, channels, channels[1:], strict=False)
    )
    projector = 128 * 16 * hidden + hidden * D
    counted = count_multiply_adds(subject.decide)
    attention = S * 2 * W * 2  # scores and weighted values of two layers; counted or not by PyTorch's version
    expected = S * token + encoder + projector
    assert expected <= counted <= expected + attention


def test_the_papers_model_has_the_papers_sizes():
    model = JEPA(paper_model())
    millions = {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in model.named_children()}
    assert millions["encoder"] == pytest.approx(5.5, abs=0.1)
    assert millions["predictor"] == pytest.approx(10.8 + 0.8, abs=0.3)  # with the MLP that it ends in
    trained = TRAIN_PRESETS["paper"]
    for size in ("width", "depth", "num_heads", "head_dim", "mlp_width", "projector_hidden"):
        assert getattr(model.config.predictor, size) == getattr(trained["predictor"], size)
    assert model.config.encoder == trained["encoder"]
    assert model.config.predictor.kind == "residual"  # ours, which rolls out by a cache


def test_bfloat16_products_predict_nearly_the_same():
    torch.manual_seed(0)
    model = JEPA(paper_model()).eval().requires_grad_(False)
    for parameter in model.predictor.parameters():
        torch.nn.init.normal_(parameter, std=0.3 * parameter.shape[-1] ** -0.5)
    z, actions = torch.randn(1, 1, 192), torch.randn(1, 4, 3, 10)
    with torch.no_grad():
        exact = model.rollout(z, None, actions)
        model.predictor.bfloat16()
        rounded = model.rollout(z, None, actions)
    assert rounded.dtype == torch.float32
    moved = (exact - z).norm(dim=-1)
    assert ((rounded - exact).norm(dim=-1) < 0.05 * moved).all()


def test_a_stopwatch_adds_up_what_is_spent_inside(clock):
    class Worker:
        def work(self, seconds):
            clock.seconds += seconds
            return seconds + 1

    worker, seconds = Worker(), {"working": 0.0}
    stopwatch(worker, "work", seconds, "working")
    clock.seconds += 100.0  # outside
    assert [worker.work(1), worker.work(2)] == [2, 3]
    assert seconds == {"working": 3.0}


def test_the_planning_benchmark_splits_and_compares(tmp_path, capsys, clock, monkeypatch):
    threads = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    clock.tick = 1e-3  # what a look at the clock takes, and nothing else does: encode, sampling and rollout last one
    options = ["--checkpoint", str(CHECKPOINT), "--num-decisions", "1", "--paper-decisions", "0", "--num-threads", "3"]
    planning.main([*options, "--output", str(tmp_path / "out.json")])
    results = json.loads((tmp_path / "out.json").read_text())
    assert [row["batch_size"] for row in results["decisions"]] == [1, 50, 1]
    for row in results["decisions"]:
        parts = [row[f"{part}_ms"] for part in ("encode", "rollout", "sampling", "rest")]
        assert parts[:3] == pytest.approx([1, row["rounds"], row["rounds"]])
        assert parts[3] > row["rounds"]  # every round looks at the clock itself
        assert sum(parts) == pytest.approx(row["median_ms"])
        assert row["median_ms"] == row["p95_ms"]
        assert row["machine_gmacs"] == pytest.approx(1024**3 / 1e6)  # one product of 1024² matrices in a tick
        assert row["floor_ms"] == pytest.approx(row["multiply_adds"] / 1024**3)
        assert row["times_floor"] == pytest.approx(row["median_ms"] / row["floor_ms"])
    one, fifty, paper = (row["multiply_adds"] for row in results["decisions"])
    assert fifty == 50 * one < 50 * paper
    assert "bundled" in capsys.readouterr().out
    assert threads == [3]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_part_of_a_decision_is_timed_in_either_precision(precision, clock):
    clock.tick = 1e-3
    model, _ = load_checkpoint(CHECKPOINT)
    config = AgentConfig(CEMConfig(num_samples=7, num_elites=2, num_iterations=2), precision=precision)
    decision = Subject(model, config, batch_size=1, history=1).time()
    assert decision["encode"] == pytest.approx(1e-3)
    assert decision["rollout"] == decision["sampling"] == pytest.approx(2e-3)
    parts = [decision[part] for part in ("encode", "rollout", "sampling", "rest")]
    assert sum(parts) == pytest.approx(decision["seconds"])


def test_a_checkout_that_is_not_there_is_said_in_one_line(tmp_path):
    for measure, config in (
        (planning.measure, PlanningSpeedConfig(stable_worldmodel=tmp_path, num_decisions=1)),
        (data.measure, data.DataSpeedConfig(stable_worldmodel=tmp_path, num_episodes=2, large_gigabytes=0)),
    ):
        with pytest.raises(UserError, match="is no checkout of stable-worldmodel"):
            measure(config)


def test_a_package_that_stable_worldmodel_misses_is_named_with_the_extra_that_brings_it(tmp_path):
    reader = tmp_path / "stable_worldmodel/data/formats/hdf5.py"
    reader.parent.mkdir(parents=True)
    reader.write_text("import a_package_of_theirs")
    config = data.DataSpeedConfig(stable_worldmodel=tmp_path, num_episodes=2, large_gigabytes=0)
    with pytest.raises(UserError, match=r"needs a_package_of_theirs; pip install 'jepa-mpc\[stable-worldmodel\]'"):
        data.measure(config)
