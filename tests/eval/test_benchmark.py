"""The table of bundled checkpoints: what it shows is what was stored, and what is stored is not measured again."""

import json
import re
import shutil
import sys

import pytest
from conftest import ROOT

from jepa_mpc import envs
from jepa_mpc.eval.benchmark import main
from jepa_mpc.eval.tables import tasks as benchmark
from jepa_mpc.eval.tables.benchmark_config import BenchmarkConfig
from jepa_mpc.eval.tables.tasks import Row, bundled, rows_of


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("benchmark")
    shutil.copytree(ROOT / "checkpoints/two_room", place / "checkpoints/two_room")
    return place


def test_the_table_is_what_was_measured_and_goes_on_after_an_interruption(place, monkeypatch):
    monkeypatch.chdir(place)
    config = BenchmarkConfig(num_episodes=2, output=place / "results")
    measure = benchmark.measure

    def interrupted(row, config):
        if row.protocol == "far":
            raise KeyboardInterrupt
        measure(row, config)

    monkeypatch.setattr(benchmark, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        benchmark.write_task_table(config)
    assert len(list((place / "results").glob("*.json"))) == 2
    measured = []
    monkeypatch.setattr(benchmark, "measure", lambda row, config: (measured.append(row), measure(row, config)))
    path = benchmark.write_task_table(config)
    assert measured == [Row("two_room", "far")]
    first, card = path.read_text(), (place / "checkpoints/two_room/card.md").read_text()
    benchmark.write_task_table(config)
    assert measured == [Row("two_room", "far")]
    assert (path.read_text(), (place / "checkpoints/two_room/card.md").read_text()) == (first, card)

    lines = re.findall(r"^\| two_room, (\w+) \| ([^|]*) \|.*\| ([\d.]+) % \[.*\[JSON\]\((\S+)\) \|$", first, re.M)
    assert [goal for _, goal, _, _ in lines] == [
        "25 steps ahead; 50",
        "100 steps ahead; 150",
        "in another episode; 100",
    ]
    for protocol, _, rate, name in lines:
        stored = json.loads((place / "results" / name).read_text())
        assert stored["protocol"]["name"] == protocol
        assert stored["num_episodes"] == 2
        assert float(rate) == round(100 * stored["success_rate"], 1)
    assert card.count(benchmark.CARD_HEADING) == 1
    assert len(re.findall(r"^- \w+, goal .*n = 2; random", card, re.M)) == 3


def test_another_checkpoint_is_measured_anew(place, monkeypatch):
    monkeypatch.chdir(place)
    config = BenchmarkConfig(num_episodes=2, output=place / "results")
    row = Row("two_room", "far")
    assert benchmark.stored(row, config) is not None
    assert benchmark.stored(row, BenchmarkConfig(num_episodes=3, output=place / "results")) is None
    weights = place / "checkpoints/two_room/model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    assert benchmark.stored(row, config) is None
    weights.write_bytes(whole)


def test_rows_have_names_of_their_own_and_published_figures_a_row(monkeypatch):
    monkeypatch.chdir(ROOT)
    names = [row.name for task in envs.task_names() for row in rows_of(task)]
    assert len(set(names)) == len(names)
    assert set(bundled()) <= set(envs.task_names())
    published = {row.name for task in envs.task_names() for row in rows_of(task) if row.published != "–"}
    assert {"reacher-standard", "two_room-standard-offset100", "push_t-far", "cube-standard"} <= published
    assert {name.rsplit("-offset")[0].rsplit("-", 1)[0] for name in published} <= set(bundled())


def test_the_stored_table_and_cards_are_drawn_from_stored_rows(monkeypatch):
    monkeypatch.chdir(ROOT)
    config = BenchmarkConfig(output=ROOT / "docs/results/tasks")

    def figures(line):
        return [cell.strip() for cell in line.split("|")[:-4] + line.split("|")[-3:]]  # without the best published

    shown = [figures(line) for line in (config.folder / "tasks.md").read_text().splitlines() if "[JSON]" in line]
    drawn = []
    for task in bundled():
        card = (ROOT / "checkpoints" / task / "card.md").read_text()
        for row in rows_of(task):
            results = benchmark.stored(row, config)
            assert results is not None, f"{row.name} is of another checkpoint, or planned another way"
            drawn.append(figures(benchmark.line(row, results)))
            assert benchmark.rates(results) in card
    assert drawn == shown


def test_bad_input_is_one_line(place, monkeypatch):
    monkeypatch.chdir(place)
    for options, message in (
        (["--tasks", "tworoom"], "no checkpoint is bundled for 'tworoom'; there are: two_room"),
        (["--num-episodes", "0"], "--num-episodes must be at least 1"),
    ):
        monkeypatch.setattr(sys, "argv", ["benchmark.py", *options])
        with pytest.raises(SystemExit, match=message):
            main()
