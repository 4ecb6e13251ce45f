"""What is measured already is not measured again, and what is another's is not taken for a row."""

import json
from dataclasses import dataclass, replace

import pytest

from jepa_mpc.agent.agent_config import AgentConfig
from jepa_mpc.errors import UserError
from jepa_mpc.eval import book as books
from jepa_mpc.eval.book import Book, TableConfig
from jepa_mpc.settings import to_json

ASKED = {"task": "reacher", "num_episodes": 2, "weights": "abc"}


@dataclass(frozen=True)
class Row:
    rate: float
    steps: list[int | None]


@pytest.fixture
def book(tmp_path):
    return Book(Row, tmp_path / "mine", [tmp_path / "theirs"])


def never():
    pytest.fail("measured again")


def test_a_row_is_measured_once_and_read_back_as_what_it_was(book):
    row = Row(0.5, [3, None])
    assert book.find("a", ASKED) is None
    assert book.once("a", ASKED, lambda: row) == row
    assert book.once("a", ASKED, never) == book.find("a", ASKED) == row


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"asked": {"task": "rea',
        b"\xff\xfe\x00",
        b'{"asked": {}} {}',
        b"[" * 10**5,
        json.dumps({"asked": ASKED, "rate": "high", "steps": []}).encode(),
        json.dumps({"asked": ASKED, "steps": []}).encode(),
        json.dumps({"asked": ASKED, "rate": 10**400, "steps": []}).encode(),
    ],
)
def test_a_damaged_row_is_measured_again(book, content):
    book.once("a", ASKED, lambda: Row(0.5, []))
    (book.folder / "a.json").write_bytes(content)
    assert book.once("a", ASKED, lambda: Row(0.25, [])) == Row(0.25, [])
    assert book.find("a", ASKED) == Row(0.25, [])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"rate": 0.5, "steps": []}, "a.json is no row of this table"),
        ([1, 2], "a.json is no row of this table"),
        (
            {"asked": ASKED | {"task": "cube"}, "rate": 0.5, "steps": []},
            "a.json is a row of another table: task is cube",
        ),
        ({"asked": ASKED | {"seed": 1}, "rate": 0.5, "steps": []}, "seed is 1 there and None now"),
        ({"asked": ASKED | {"num_episodes": 200}}, "num_episodes is 200 there and 2 now; choose another --output"),
    ],
)
def test_a_foreign_row_is_refused_by_name_and_left_as_it_is(book, content, message):
    book.folder.mkdir()
    path = book.folder / "a.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        book.once("a", ASKED, never)
    assert json.loads(path.read_text()) == content


def test_a_row_of_another_checkpoint_is_out_of_date(book):
    book.once("a", ASKED, lambda: Row(0.5, []))
    newer = ASKED | {"weights": "def"}
    assert book.find("a", newer) is None
    assert book.once("a", newer, lambda: Row(0.75, [])) == Row(0.75, [])
    assert book.find("a", newer) == Row(0.75, [])


def test_rows_elsewhere_count_are_copied_and_never_written_to(book, tmp_path):
    theirs = Book(Row, tmp_path / "theirs")
    theirs.once("a", ASKED, lambda: Row(0.5, []))
    theirs.once("b", ASKED | {"num_episodes": 200}, lambda: Row(0.5, []))
    before = {path: path.read_bytes() for path in theirs.folder.iterdir()}
    assert book.once("a", ASKED, never) == Row(0.5, [])
    assert book.once("b", ASKED, lambda: Row(0.0, [])) == Row(0.0, [])
    assert {path: path.read_bytes() for path in theirs.folder.iterdir()} == before
    assert Book(Row, book.folder).find("a", ASKED) == Row(0.5, [])


def test_a_trial_goes_under_runs_and_only_what_is_published_into_the_checkout(tmp_path, monkeypatch, home):
    monkeypatch.setattr(books.places, "checkout", lambda: tmp_path)
    docs, trial = tmp_path / "docs/results/tasks", home / "runs/tables/tasks-200-seed0"
    assert Book.open(Row, "tasks", TableConfig()) == Book(Row, trial, [docs])
    assert Book.open(Row, "tasks", TableConfig(publish=True)) == Book(Row, docs, [trial])
    assert Book.open(Row, "tasks", TableConfig(output=tmp_path / "x")) == Book(Row, tmp_path / "x", [docs])
    with pytest.raises(UserError, match="leave --output out"):
        Book.open(Row, "tasks", TableConfig(output=tmp_path / "x", publish=True))
    monkeypatch.setattr(books.places, "checkout", lambda: None)
    with pytest.raises(UserError, match="--publish writes into docs/results of a checkout"):
        Book.open(Row, "tasks", TableConfig(publish=True))


def test_settings_younger_than_a_row_count_as_their_defaults(book):
    """A way to plan that is new and off is no other way to plan."""
    config = AgentConfig()
    old = to_json(config)
    assert old.pop("blocks_ahead") == 0
    book.once("a", ASKED | {"planner": old}, lambda: Row(0.5, []))
    assert book.find("a", ASKED | {"planner": config}) == Row(0.5, [])
    assert book.find("a", ASKED | {"planner": replace(config, blocks_ahead=1)}) is None
