"""The table of bundled checkpoints: what it shows is what was stored, and what is stored is not measured again."""

import json
import re
import shutil
from dataclasses import replace

import pytest
from conftest import ROOT

from jepa_mpc import envs, places
from jepa_mpc.envs.task import TableRow
from jepa_mpc.eval import measure as kinds
from jepa_mpc.eval.book import Book
from jepa_mpc.eval.results import PairResults
from jepa_mpc.eval.tables import tasks as task_table
from jepa_mpc.eval.tables.tasks import CARD_HEADING, TasksConfig, asked, row_name, table, write_task_table


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A checkout with one bundled checkpoint."""
    place = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "checkpoints/two_room", place / "checkpoints/two_room")
    return place


@pytest.fixture(autouse=True)
def there(place, monkeypatch):
    monkeypatch.setattr(places, "checkout", lambda: place)
    monkeypatch.setattr(kinds, "NUM_TIMED_DECISIONS", 2)


def test_the_table_is_what_was_measured_and_goes_on_after_an_interruption(place, monkeypatch):
    config = TasksConfig(num_episodes=2, publish=True)
    measure, measured = task_table.measure, []

    def interrupted(task, row, config):
        if row.protocol == "far" and not measured:
            raise KeyboardInterrupt
        return measure(task, row, config)

    monkeypatch.setattr(task_table, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_task_table(config)
    folder = place / "docs/results/tasks"
    assert len(list(folder.glob("*.json"))) == 2
    monkeypatch.setattr(task_table, "measure", lambda *what: (measured.append(what[:2]), measure(*what))[1])
    path = write_task_table(config)
    assert measured == [("two_room", row) for row in envs.get_task("two_room").rows if row.protocol == "far"]
    first, card = path.read_text(), (place / "checkpoints/two_room/card.md").read_text()
    assert write_task_table(config) == path
    assert len(measured) == 1
    assert (path.read_text(), (place / "checkpoints/two_room/card.md").read_text()) == (first, card)

    lines = re.findall(r"^\| `two_room`, (\w+): ([^|]*) \|[^|]*\| ([\d.]+) \[.*\[JSON\]\((\S+)\) \|$", first, re.M)
    assert [goal for _, goal, _, _ in lines] == ["25 ahead", "100 ahead", "another episode"]
    for protocol, _, rate, name in lines:
        stored = json.loads((folder / name).read_text())
        assert stored["protocol"]["name"] == protocol
        assert stored["num_episodes"] == 2
        assert float(rate) == round(100 * stored["success_rate"], 1)
    assert card.count(CARD_HEADING) == 1
    assert len(re.findall(r"^- \w+, goal .*n = 2; random", card, re.M)) == 3


def test_a_trial_leaves_published_figures_as_they_are(place, run_command, home):
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    code, out, err = run_command("benchmark tasks", "--tasks", "two_room", "--num-episodes", 1)
    assert code == 0, err
    table = home / "runs/tables/tasks-1-seed0/tasks.md"
    assert out == f"wrote {table}\n"
    assert len(list(table.parent.glob("*.json"))) == 3
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before


def test_another_checkpoint_is_measured_anew(place):
    config, (row, *_) = TasksConfig(num_episodes=2), envs.get_task("two_room").rows
    book = Book(PairResults, place / "docs/results/tasks")
    assert book.find(row_name("two_room", row), asked("two_room", row, config)) is not None
    weights = place / "checkpoints/two_room/model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    assert book.find(row_name("two_room", row), asked("two_room", row, config)) is None
    weights.write_bytes(whole)


def test_success_stands_by_how_far_the_goal_was(place):
    config, (row, *_) = TasksConfig(num_episodes=2), envs.get_task("two_room").rows
    measured = Book(PairResults, place / "docs/results/tasks").find("two_room-standard", asked("two_room", row, config))
    (episode, _) = measured.episodes
    # Six pairs: the nearest two are reached, one of the next two, none of the farthest.
    reached = {4.0: True, 20.0: False, 11.0: True, 3.0: True, 30.0: False, 10.0: False}
    episodes = [replace(episode, pair=i, distance=d, success=hit) for i, (d, hit) in enumerate(reached.items())]
    text = table({("two_room", row): replace(measured, episodes=episodes)}, config)
    shares = r"100.0 \[34.2, 100.0\], 3–4 of 224 pixels \| 50.0 \[9.5, 90.5\], 10–11 .* \| 0.0 \[0.0, 65.8\], 20–30 "
    assert re.search(shares, text)
    unknown = [replace(episode, distance=None) for episode in episodes]
    assert "nearest third" not in table({("two_room", row): replace(measured, episodes=unknown)}, config)


def test_rows_have_names_of_their_own():
    names = [row_name(task, row) for task in envs.task_names() for row in envs.get_task(task).rows]
    assert len(set(names)) == len(names)
    assert row_name("gym/Pusher-v5", TableRow("standard", 100, 150)) == "gym-Pusher-v5-standard-offset100-budget150"


def test_the_committed_table_is_drawn_from_the_committed_rows(monkeypatch, tmp_path):
    monkeypatch.setattr(places, "checkout", lambda: ROOT)
    monkeypatch.setattr(task_table, "measure", lambda *row: pytest.fail(f"{row[:2]} is measured again"))
    committed = ROOT / "docs/results/tasks/tasks.md"
    assert write_task_table(TasksConfig(output=tmp_path / "tasks")).read_text() == committed.read_text()
    book = Book(PairResults, committed.parent)
    for task in places.bundled_tasks():
        card = (ROOT / "checkpoints" / task / "card.md").read_text()
        for row in envs.get_task(task).rows:
            results = book.find(row_name(task, row), asked(task, row, TasksConfig()))
            assert task_table.card_item(results) in card


def test_bad_input_is_one_line(run_command):
    for options, message in (
        (["--tasks", "tworoom"], "no checkpoint is bundled for 'tworoom'; there are: two_room"),
        (["--num-episodes", "0"], "--num-episodes must be at least 1, not 0"),
        (["--publish", "--output", "x"], "leave --output out"),
    ):
        code, _, err = run_command("benchmark tasks", *options)
        assert code == 1
        assert message in err
        assert err.count("\n") == 1
