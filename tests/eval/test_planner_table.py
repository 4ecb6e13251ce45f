"""The table of planners: every one under every objective, each measured once."""

import json

import pytest
from conftest import CHECKPOINT
from watching import assert_asked_the_pairs, watch_agents

from jepa_mpc import envs
from jepa_mpc.agent.agent_config import AGENT_PRESETS
from jepa_mpc.agent.planning_agent import PlanningAgent
from jepa_mpc.eval.tables import planners as planner_table


def test_each_setting_is_measured_once(monkeypatch, run_command, tmp_path):
    every = planner_table.settings()
    few = {name: every[name] for name in ("icem-reachability-small", "cem-latent-small")}
    monkeypatch.setattr(planner_table, "settings", lambda: few)
    options = ["--checkpoint", CHECKPOINT, "--num-episodes", 2, "--seed", 3, "--budget", 10, "--timed-decisions", 3]
    seen = watch_agents(monkeypatch)
    code, out, err = run_command("benchmark planners", *options, "--output", tmp_path / "out")
    assert (code, out) == (0, f"wrote {tmp_path}/out/planners.md\n"), err
    asked, env, spec = seen["PlanningAgent"], envs.make("reacher"), envs.get_task("reacher")
    whole = [one for one in asked if len(one[1]) == 2]  # the rest are timed, one by one
    assert len(whole) == len(few)
    for one in whole:
        by_setting = {"PlanningAgent": [one]}
        assert_asked_the_pairs(by_setting, env, spec, tmp_path, seed=3, num_pairs=2, far=True, kinds=[PlanningAgent])
    rows = {name: json.loads((tmp_path / "out" / f"{name}.json").read_text()) for name in few}
    assert all(row["decision_ms"]["median"] > 0 for row in rows.values())
    table = (tmp_path / "out/planners.md").read_text()
    for name, row in rows.items():
        assert f"| [{name}]({name}.json) | {100 * row['first_hit'][0]:.0f} [" in table
    assert (tmp_path / "out/planners.png").stat().st_size > 5000
    monkeypatch.setattr(planner_table, "measure", lambda *_: pytest.fail("measured again"))
    assert run_command("benchmark planners", *options, "--output", tmp_path / "out")[0] == 0
    assert (tmp_path / "out/planners.md").read_text() == table
    for option, was, now in (("seed", 3, 4), ("budget", 10, 11)):
        code, _, err = run_command("benchmark planners", *options, f"--{option}", now, "--output", tmp_path / "out")
        assert code == 1
        assert f"small.json is a row of another table: {option} is {was} there and {now} now" in err


def test_settings_cover_every_planner_and_objective():
    every = planner_table.settings()
    assert len({(type(config.planner), config.objective) for config in every.values()}) == 10
    assert {"icem-reachability-default", "leworldmodel"} <= set(every)
    assert every["leworldmodel"] == AGENT_PRESETS["lewm"]
