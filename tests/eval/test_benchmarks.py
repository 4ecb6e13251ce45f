"""The scripts that measure planning: what they count is what it should be, and what they are given badly they say."""

import json
import sys

import numpy as np
import pytest
import torch
from conftest import CHECKPOINT
from watching import assert_asked_the_pairs, watch_agents

from jepa_mpc import envs
from jepa_mpc.agent.agent_config import AgentConfig
from jepa_mpc.agent.planning_agent import PlanningAgent
from jepa_mpc.eval.speed import planning as benchmark_planning
from jepa_mpc.eval.speed.planning import PAPER_MODEL, Stopwatch, Subject, count_multiply_adds
from jepa_mpc.eval.tables import planners as pareto
from jepa_mpc.planners import CEMConfig
from jepa_mpc.world_model.checkpoint import load_checkpoint
from jepa_mpc.world_model.model.jepa import JEPA


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
    model = JEPA(PAPER_MODEL)
    millions = {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in model.named_children()}
    assert millions["encoder"] == pytest.approx(5.5, abs=0.1)
    assert millions["predictor"] == pytest.approx(10.8 + 0.8, abs=0.3)  # with the MLP that it ends in


def test_bfloat16_products_predict_nearly_the_same():
    torch.manual_seed(0)
    model = JEPA(PAPER_MODEL).eval().requires_grad_(False)
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

    worker, watch = Worker(), Stopwatch()
    watch.watch(worker, "work", "working")
    clock.seconds += 100.0  # outside
    assert [worker.work(1), worker.work(2)] == [2, 3]
    assert watch.seconds == {"working": 3.0}


def run(module, monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", ["script.py", *map(str, options)])
    module.main()


def test_the_planning_benchmark_splits_and_compares(monkeypatch, tmp_path, capsys, clock):
    clock.tick = 1e-3  # what a look at the clock takes, and nothing else does: encode, sampling and rollout last one
    options = ["--checkpoint", CHECKPOINT, "--num-decisions", 1, "--paper-decisions", 0]
    run(benchmark_planning, monkeypatch, *options, "--output", tmp_path / "out.json")
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


def test_a_rival_that_is_not_there_is_said_in_one_line(monkeypatch, tmp_path):
    options = ["--checkpoint", CHECKPOINT, "--num-decisions", 1, "--paper-decisions", 1, "--rival", tmp_path]
    with pytest.raises(SystemExit, match=r"error: .* is no checkout of stable-worldmodel"):
        run(benchmark_planning, monkeypatch, *options)


def test_the_pareto_run_measures_each_setting_once(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    few = [pair for pair in pareto.settings() if pair[0] in ("icem-reachability-small", "cem-latent-small")]
    monkeypatch.setattr(pareto, "settings", lambda: few)
    options = ["--checkpoint", CHECKPOINT, "--num-episodes", 2, "--seed", 3, "--budget", 10, "--timed-decisions", 3]
    seen = watch_agents(monkeypatch)
    run(pareto, monkeypatch, *options)
    asked, env, spec = seen["PlanningAgent"], envs.make("reacher"), envs.get_task("reacher")
    whole = [one for one in asked if len(one[1]) == 2]  # the rest are timed, one by one
    assert len(whole) == len(few)
    for one in whole:
        by_setting = {"PlanningAgent": [one]}
        assert_asked_the_pairs(by_setting, env, spec, tmp_path, seed=3, num_pairs=2, far=True, kinds=[PlanningAgent])
    first = json.loads((tmp_path / "runs/pareto/pareto.json").read_text())
    assert {row["name"] for row in first["rows"]} == {name for name, _ in few}
    assert all(row["decision_ms"]["median"] > 0 for row in first["rows"])
    table = (tmp_path / "runs/pareto/pareto.md").read_text()
    assert all(name in table for name, _ in few)
    assert (tmp_path / "runs/pareto/pareto.png").stat().st_size > 5000
    monkeypatch.setattr(pareto, "run_episodes", None)  # would fail if anything were measured again
    run(pareto, monkeypatch, *options)
    assert json.loads((tmp_path / "runs/pareto/pareto.json").read_text()) == first


def test_settings_cover_every_planner_and_objective():
    seen = {(type(config.planner), config.objective) for _, config in pareto.settings()}
    assert len(seen) == 10
    names = [name for name, _ in pareto.settings()]
    assert len(set(names)) == len(names)
    assert np.isin(["icem-reachability-default", "leworldmodel"], names).all()
