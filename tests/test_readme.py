"""The README tells the truth: its commands run, its tree exists, its figures are in the results.

Its Python runs in `test_library.py`, from a wheel.
"""

import json
import os
import re
import shlex
import subprocess
import sys

import pytest
from conftest import ROOT

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = [line.split("#")[0].strip() for kind, text in BLOCKS if kind == "bash" for line in text.splitlines()]
OURS = [line for line in COMMANDS if line.startswith("jepa-mpc ")]

# What makes a command small enough for a test; everything else of it runs as it stands.
SMALL = {
    "collect": ["--num-episodes", "40"],
    "train": ["--preset", "debug", "--num-frames", "8"],
    "plan": ["--num-episodes", "2", "--no-video"],
    "benchmark tasks": ["--tasks", "two_room", "--num-episodes", "1"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("readme")


def name_of(line):
    return next(name for name in SMALL if line.startswith(f"jepa-mpc {name}"))


@pytest.mark.parametrize("line", OURS)  # in the README's order, for one makes what the next one takes
def test_a_command_runs(folder, line):
    words = [sys.executable, "-m", "jepa_mpc", *shlex.split(line)[1:], *SMALL[name_of(line)]]
    environment = {**os.environ, "JEPA_MPC_HOME": str(folder), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{line}: {done.stderr[-2000:]}"


def test_every_command_is_made_small():
    assert {name_of(line) for line in OURS} == set(SMALL)


def test_the_script_that_the_first_command_calls_stays():
    assert "\n\t$(VENV)/bin/python eval/run_planning.py --task reacher\n" in (ROOT / "Makefile").read_text()


def test_make_commands_are_targets():
    makefile = (ROOT / "Makefile").read_text()
    targets = [line.split()[1] for line in COMMANDS if line.startswith("make ")]
    assert {"reacher", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_ci_calls_the_readmes_test_command():
    assert "make test" in COMMANDS
    assert "\nmake test\n" in (ROOT / ".ci/run").read_text()


def test_links_and_the_tree_exist():
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (ROOT / target).exists(), target
    (tree,) = [text for kind, text in BLOCKS if kind == "text" and "envs/" in text]
    for name in re.findall(r"^(\S+/)", tree, re.MULTILINE):
        assert (ROOT / name).is_dir(), name


def test_it_is_one_story():
    assert README.count("\n") <= 130
    tables = re.findall(r"(?:^\|.*\n)+", README, re.MULTILINE)
    assert len(tables) == 1
    assert tables[0].count("\n") <= 12


ROW = re.compile(
    r"^\| `(?P<task>\S+)`, .*? \| (?P<random>[\d.]+) / (?P<idle>[\d.]+) \| (?P<steps>[\d.]+) of (?P<budget>\d+) "
    r"\| (?P<rate>[\d.]+) \[(?P<low>[\d.]+), (?P<high>[\d.]+)\] \| .*? \| \[JSON\]\((?P<path>\S+)\) \|$",
    re.MULTILINE,
)


def test_every_row_equals_its_json():
    rows = list(ROW.finditer(README))
    assert len(rows) == README.count("[JSON]")
    for row in rows:
        results = json.loads((ROOT / row["path"]).read_text())
        assert row["task"] == results["task"]
        baselines = [results["baselines"][name]["success_rate"] for name in ("random", "do_nothing")]
        stored = [*baselines, results["success_rate"], *results["success_interval"]]
        shown = [float(row[name]) for name in ("random", "idle", "rate", "low", "high")]
        assert shown == [round(100 * value, 1) for value in stored], row["path"]
        assert float(row["steps"]) == results["median_steps"]
        assert int(row["budget"]) == results["protocol"]["budget"]
        assert results["num_episodes"] == 200
