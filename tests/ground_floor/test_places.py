"""Things are found from any folder, and one variable moves all that commands make."""

import os
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from conftest import ROOT

from jepa_mpc import places
from jepa_mpc.errors import UserError
from jepa_mpc.provenance import command_line, git_commit, provenance


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv(places.HOME_VARIABLE, str(tmp_path))
    return tmp_path


def test_everything_lies_under_one_home(home):
    assert places.dataset("gym/Reacher-v5") == home / "data/gym/Reacher-v5.h5"
    assert places.dataset("my_robot:arm") == home / "data/my_robot/arm.h5"
    assert places.runs("her", "my_robot:arm-seed0") == home / "runs/her/my_robot/arm-seed0"
    assert places.goal_pairs().is_relative_to(home)
    assert places.slug("my_robots:gym/arm") == "my_robots-gym-arm"  # beside others, in one folder


def test_home_may_begin_with_a_tilde(monkeypatch):
    monkeypatch.setenv(places.HOME_VARIABLE, "~/robots")
    assert places.home() == Path.home() / "robots"
    monkeypatch.setenv(places.HOME_VARIABLE, "~no_such_user_here/robots")
    with pytest.raises(UserError, match="~no_such_user_here/robots begins with the name of no user"):
        places.home()


def test_without_the_variable_home_is_the_checkout_from_any_folder(monkeypatch, tmp_path):
    monkeypatch.delenv(places.HOME_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    assert places.home() == places.SOURCE == ROOT


def test_a_read_only_checkout_gives_way_to_the_users_folder(monkeypatch, tmp_path):
    monkeypatch.delenv(places.HOME_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    assert places.home().name == "jepa-mpc"
    assert not places.home().is_relative_to(ROOT)


def test_bundled_checkpoints_are_found_by_name_and_folders_by_path(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert "reacher" in places.bundled_tasks()
    assert "gym/Reacher-v5" in places.bundled_tasks()
    assert places.checkpoint("reacher") == ROOT / "checkpoints/reacher"
    mine = tmp_path / "reacher"  # one's own folder of that name comes first
    mine.mkdir()
    (mine / "config.json").write_text("{}")
    assert places.checkpoint("reacher") == Path("reacher")
    assert places.checkpoint(tmp_path / "reacher") == mine
    monkeypatch.setenv("HOME", str(tmp_path))
    assert places.checkpoint("~/reacher") == mine
    with pytest.raises(UserError, match=r"no checkpoint at nothing; .* --checkpoint, or a bundled one: .*reacher"):
        places.checkpoint("nothing")


def test_the_command_is_told_without_this_machines_paths(monkeypatch):
    for program, said in (
        (ROOT / "eval/run_planning.py", "python eval/run_planning.py"),
        ("/somewhere/bin/jepa-mpc", "jepa-mpc"),
        (ROOT / "jepa_mpc/__main__.py", "jepa-mpc"),
    ):
        monkeypatch.setattr(sys, "argv", [str(program), "--task", "my robot"])
        assert command_line() == f"{said} --task 'my robot'"


def test_the_commit_is_the_checkouts_from_any_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True)
    expected = done.stdout.strip()[:12] if done.returncode == 0 else "version"
    assert git_commit().startswith(expected)


def test_a_changed_tree_is_said_beside_its_commit(monkeypatch, tmp_path):
    def git(*words):
        subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True)

    monkeypatch.setattr("jepa_mpc.provenance.SOURCE", tmp_path)
    git("init", "--quiet")
    (tmp_path / "code").write_text("one")
    row = tmp_path / "docs/results/row.json"
    row.parent.mkdir(parents=True)
    row.write_text("{}")
    git("add", ".")
    git("commit", "--quiet", "--message", "one")
    assert not git_commit().endswith("-dirty")
    row.write_text("[]")  # as publishing does
    assert not git_commit().endswith("-dirty")
    (tmp_path / "code").write_text("two")
    assert git_commit().endswith("-dirty")


def test_where_git_fails_the_version_counts(monkeypatch, tmp_path):
    monkeypatch.setattr("jepa_mpc.provenance.SOURCE", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path / ".git").mkdir()  # of no repository
    assert git_commit().startswith("version ")


def test_the_date_is_the_same_moment_everywhere():
    assert datetime.fromisoformat(provenance()["date"]).utcoffset() == timedelta(0)
