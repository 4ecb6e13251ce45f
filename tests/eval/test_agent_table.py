"""The table of agents: one way to act for everyone, stored rows, the same table after an interruption."""

import json
import re
import shutil
import sys
from dataclasses import replace

import pytest
from conftest import ROOT
from watching import assert_asked_the_pairs, watch_agents

from jepa_mpc import envs
from jepa_mpc.eval.benchmark import main
from jepa_mpc.eval.tables import agents as agent_table
from jepa_mpc.eval.tables.agents import share, write_agent_table
from jepa_mpc.eval.tables.benchmark_config import BenchmarkConfig
from jepa_mpc.eval.tables.contenders import CONTENDERS


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("agents")
    shutil.copytree(ROOT / "checkpoints/two_room", place / "checkpoints/two_room")
    return place


def test_an_interrupted_benchmark_goes_on_and_gives_the_same_table(place, monkeypatch):
    monkeypatch.chdir(place)
    config = BenchmarkConfig(task="two_room", agents="random,jepa,do_nothing", num_episodes=3)
    monkeypatch.setattr(agent_table, "TIMED_DECISIONS", 3)
    monkeypatch.setitem(CONTENDERS._values, "jepa", replace(CONTENDERS["jepa"], seeds=(0,)))
    measure, measured = agent_table.measure, []

    def interrupted(name, seed, config):
        if measured:
            raise KeyboardInterrupt
        measured.append(name)
        measure(name, seed, config)

    monkeypatch.setattr(agent_table, "measure", interrupted)
    seen = watch_agents(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        write_agent_table(config)
    monkeypatch.setattr(
        agent_table, "measure", lambda name, seed, config: (measured.append(name), measure(name, seed, config))
    )
    path = write_agent_table(config)
    first = path.read_text()
    assert measured == ["random", "jepa", "do_nothing"]
    assert write_agent_table(config).read_text() == first
    assert len(measured) == 3
    env, spec = envs.make("two_room"), envs.get_task("two_room")
    assert_asked_the_pairs(seen, env, spec, place, seed=0, num_pairs=3)
    seen = {name: asked[1:] for name, asked in seen.items()}
    assert_asked_the_pairs(seen, env, spec, place, seed=0, num_pairs=3, far=True)
    assert (path.parent / "success.png").stat().st_size > 10_000

    for line in re.findall(r"^\| `.*$", first, re.M):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        stored = json.loads((path.parent / re.search(r"\((\S+\.json)\)", cells[-1]).group(1)).read_text())
        for cell, protocol in zip(cells[2:4], ("standard", "far"), strict=True):
            assert float(cell.split()[0]) == round(100 * stored["protocols"][protocol]["success_rate"], 1)
        assert stored["asked"]["pairs"] == stored["protocols"]["far"]["num_episodes"] == 3
    assert "| `jepa` | pictures |" in first
    assert agent_table.stored("random", 0, BenchmarkConfig(task="two_room", num_episodes=4)) is None


def test_seeds_are_averaged_and_stand_beside_and_make_no_interval_narrower():
    def row(rate):
        return {"protocols": {"far": {"success_rate": rate, "num_episodes": 200}}}

    assert share([row(0.5)], "far") == "50.0 % [43.1, 56.9]"
    assert share([row(0.5), row(0.7)], "far") == "60.0 % [53.1, 66.5] (50.0, 70.0)"


def test_a_clone_without_runs_draws_the_table_from_stored_rows(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    folder = ROOT / "docs/results/agents/reacher"
    if not folder.exists():
        pytest.skip("no results are stored")
    shutil.copytree(folder, tmp_path / "reacher")
    monkeypatch.setattr(agent_table, "measure", lambda *row: pytest.fail(f"{row[:2]} is measured again"))
    config = BenchmarkConfig(task="reacher", output=tmp_path / "reacher")
    done = [n for n in CONTENDERS if all(agent_table.stored(n, s, config) for s in CONTENDERS[n].seeds)]
    assert {"dreamer", "sac", "inverse", "random", "do_nothing"} <= set(done)
    config = replace(config, agents=",".join(done))
    assert write_agent_table(config).read_text() == (folder / "agents.md").read_text()


def test_bad_input_is_one_line(place, monkeypatch):
    monkeypatch.chdir(place)
    for options, message in (
        (["--task", "tworoom"], "no checkpoint is bundled for 'tworoom'"),
        (
            ["--task", "two_room", "--agents", "jepa,dreamr"],
            "unknown agent 'dreamr'; there are: jepa, jepa_short",
        ),
        (["--task", "two_room", "--agents", "dreamer"], "build it with `make dreamer`"),
        (["--task", "two_room", "--seed", "-1"], "--seed at least 0"),
        (["--task", "two_room", "--tasks", "reacher"], "choose one of them"),
    ):
        monkeypatch.setattr(sys, "argv", ["benchmark.py", *options])
        with pytest.raises(SystemExit, match=message):
            main()
