"""Success against decision time: every setting is measured once, on the stored pairs."""

import json
import sys

import numpy as np
from conftest import CHECKPOINT
from watching import assert_asked_the_pairs, watch_agents

from jepa_mpc import envs
from jepa_mpc.agent.planning_agent import PlanningAgent
from jepa_mpc.eval.tables import planners as pareto


def run(module, monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", ["script.py", *map(str, options)])
    module.main()


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
