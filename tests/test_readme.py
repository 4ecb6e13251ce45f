"""The README tells the truth: its commands run, its Python runs, its tree exists, its figures are in the results."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = [line for kind, text in BLOCKS if kind == "bash" for line in text.splitlines() if line.strip()]

# What makes a command small enough for a test; everything else of it runs as it stands.
SMALL = {
    "agent/collect.py": ["--num-episodes", "40"],
    "agent/data_policies/train_sac.py": ["--num-steps", "400", "--random-steps", "200", "--report-episodes", "2"],
    "world_model/train.py": ["--preset", "debug", "--num-frames", "8"],
    "eval/speed/data.py": [
        "--num-episodes",
        "20",
        "--num-batches",
        "2",
        "--num-rounds",
        "1",
        "--large-gigabytes",
        "0.05",
    ],
    "eval/run_planning.py": ["--num-episodes", "2", "--no-video"],
    "eval/tables/tasks.py": ["--tasks", "two_room", "--num-episodes", "1"],
    "eval/tables/agents.py": ["--agents", "do_nothing", "--num-episodes", "1"],
    "eval/collapse/study.py": ["--preset", "debug"],
    "eval/tables/planners.py": ["--num-episodes", "1", "--budget", "5", "--timed-decisions", "1"],
    "eval/speed/planning.py": ["--num-decisions", "2", "--paper-decisions", "0"],
    "envs/list_tasks.py": ["point_mass"],
    "eval/speed/rendering.py": ["--num-frames", "3", "--num-rounds", "1"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "checkpoints", folder / "checkpoints")
    return folder


def test_python_commands_run_one_after_another(folder):
    commands = [line.split("#")[0].split() for line in COMMANDS if line.startswith("python ")]
    assert {command[1] for command in commands} == set(SMALL)
    environment = {**os.environ, "JEPA_MPC_HOME": str(folder)}
    for command in commands:
        _, script, *options = command
        words = [sys.executable, ROOT / script, *options, *SMALL[script]]
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{script} {options}: {done.stderr[-2000:]}"


def test_make_commands_are_targets():
    makefile = (ROOT / "Makefile").read_text()
    targets = [line.split()[1] for line in COMMANDS if line.startswith("make ")]
    assert {"reacher", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_ci_calls_the_readmes_test_command():
    assert "make test" in COMMANDS[1]
    assert "\nmake test\n" in (ROOT / ".ci/run").read_text()


def test_the_ten_lines_of_python_run(folder):
    (code,) = [text for kind, text in BLOCKS if kind == "python"]
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (folder / "reached.png").stat().st_size > 500


def test_links_and_the_tree_exist():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
    (tree,) = [text for kind, text in BLOCKS if kind == "text" and "envs/" in text]
    for name in re.findall(r"^(\S+/)", tree, re.MULTILINE):
        assert (ROOT / name).is_dir(), name


def test_every_result_row_equals_its_json():
    rows = re.findall(
        r"^\|.*?\| ([\d.]+) % \[([\d.]+), ([\d.]+)\] \| (\d+) \|.*?\]\((docs/results/\S+\.json)\) \|$", README, re.M
    )
    assert rows
    for rate, low, high, n, path in rows:
        results = json.loads((ROOT / path).read_text())
        shown = [float(rate), float(low), float(high)]
        stored = [results["success_rate"], *results["success_interval"]]
        assert shown == [round(100 * value, 1) for value in stored], path
        assert int(n) == results["num_episodes"]


RUN = r"\[JSON\]\((docs/results/\S+\.json)\) \|$"


def test_every_suite_row_equals_its_json():
    row = r"^\| `(\S+)` \| (\d+) \[(\d+), (\d+)\] \| (\d+) \| .*? \| (\d+) \| " + RUN
    rows = re.findall(row, README, re.M)
    assert len(rows) == 2
    for task, *figures, path in rows:
        stored = json.loads((ROOT / path).read_text())["suite"][task]
        expected = [stored["mean"], *stored["interval"], stored["minimum"], stored["num_episodes"]]
        assert [float(figure) for figure in figures] == [round(value) for value in expected]


def test_every_timing_row_equals_its_json():
    times = r"([\d,]+) / [\d,]+ ms \|.*\| ([\d.]+) \| [^|]* \| "
    row = r"^\| (bundled|paper size)(, 50)?[^|]*\| (\d) \| (\w+) \| " + times + RUN
    rows = re.findall(row, README, re.M)
    assert len(rows) == 5
    for name, batch, threads, precision, median, times_floor, path in rows:
        results = json.loads((ROOT / path).read_text())
        size = 50 if batch else 1
        (row,) = [row for row in results["decisions"] if (row["name"], row["batch_size"]) == (name, size)]
        assert (int(threads), precision) == (results["threads"], row["precision"])
        assert int(median.replace(",", "")) == round(row["median_ms"])
        assert float(times_floor) == round(row["times_floor"], 1)
