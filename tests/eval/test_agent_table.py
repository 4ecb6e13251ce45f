"""The table of agents: one way to act for everyone, stored rows, the same table after an interruption."""

import json
import re
import shutil
from dataclasses import replace

import pytest
from conftest import ROOT
from watching import assert_asked_the_pairs, watch_agents

from jepa_mpc import envs, places
from jepa_mpc.eval.book import Book
from jepa_mpc.eval.metrics import summarise
from jepa_mpc.eval.tables import agents as agent_table
from jepa_mpc.eval.tables.agents import RIVALS, AgentRow, AgentsConfig, asked, row_name, share, write_agent_table
from jepa_mpc.eval.trial import EpisodeRecord


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("agents")
    shutil.copytree(ROOT / "checkpoints/two_room", place / "checkpoints/two_room")
    return place


@pytest.fixture
def there(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setattr(places, "checkout", lambda: place)


def test_an_interrupted_benchmark_goes_on_and_gives_the_same_table(place, there, monkeypatch):
    config = AgentsConfig(
        task="two_room", agents=("random", "jepa", "do_nothing"), max_seeds=1, num_episodes=3, publish=True
    )
    monkeypatch.setattr(agent_table, "TIMED_DECISIONS", 3)
    measure, measured = agent_table.measure, []

    def interrupted(name, *rest):
        if measured:
            raise KeyboardInterrupt
        measured.append(name)
        return measure(name, *rest)

    monkeypatch.setattr(agent_table, "measure", interrupted)
    seen = watch_agents(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        write_agent_table(config)
    monkeypatch.setattr(agent_table, "measure", lambda name, *rest: (measured.append(name), measure(name, *rest))[1])
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

    lines = re.findall(r"^\| `.*json\) \|$", first, re.M)
    assert len(lines) == 3
    for line in lines:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        stored = json.loads((path.parent / re.search(r"\((\S+\.json)\)", cells[-1]).group(1)).read_text())
        for cell, protocol in zip(cells[2:4], ("standard", "far"), strict=True):
            assert float(cell.split()[0]) == round(100 * stored["protocols"][protocol]["success_rate"], 1)
        assert stored["asked"]["pairs"] == stored["protocols"]["far"]["num_episodes"] == 3
    assert "| `jepa` | pictures |" in first
    others = replace(config, num_episodes=4)
    assert Book(AgentRow, place, [path.parent]).find("random-seed0", asked("random", 0, others)) is None


def test_seeds_are_averaged_and_stand_beside_and_make_no_interval_narrower():
    def of(rate):
        episode = EpisodeRecord(0, False, None, None, None, None, 1.0, 1.0, 0.0)
        return summarise([replace(episode, steps=1 if i < 200 * rate else None) for i in range(200)], 50)

    assert share([of(0.5)]) == "50.0 [43.1, 56.9]"
    assert share([of(0.5), of(0.7)]) == "60.0 [53.1, 66.5] (50.0, 70.0)"


def test_a_clone_without_runs_draws_the_table_from_stored_rows(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    folder = ROOT / "docs/results/agents/reacher"
    monkeypatch.setattr(agent_table, "measure", lambda *row: pytest.fail(f"{row[:2]} is measured again"))
    config = AgentsConfig(output=tmp_path / "reacher")
    book = Book(AgentRow, folder)
    done = {n for n in RIVALS if all(book.find(row_name(n, s), asked(n, s, config)) for s in RIVALS[n].seeds)}
    assert {"dreamer", "her", "inverse", "random", "do_nothing"} <= done
    config = replace(config, agents=tuple(done))
    assert write_agent_table(config).read_text() == (folder / "agents.md").read_text()


def test_bad_input_is_one_line(there, run_command):
    for options, message in (
        (["--task", "tworoom"], "unknown task 'tworoom'"),
        (["--task", "push_t"], "no checkpoint is bundled for 'push_t'"),
        (["--task", "two_room", "--agents", "jepa,her", "dreamr"], "unknown rival 'dreamr'; did you mean dreamer?"),
        (["--task", "two_room", "--agents", "dreamer"], "build it with `make dreamer`"),
        (["--task", "two_room", "--seed", "-1"], "--seed must be at least 0, not -1"),
        (["--task", "two_room", "--max-seeds", "0"], "--max-seeds must be at least 1, not 0"),
    ):
        code, _, err = run_command("benchmark agents", *options)
        assert code == 1
        assert message in err
        assert err.count("\n") == 1, err
