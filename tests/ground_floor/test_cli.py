"""A command answers at once, says mistakes in one line, and ends with the exit status that shells expect."""

import os
import signal
import subprocess
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT

from jepa_mpc import cli
from jepa_mpc.errors import UserError
from jepa_mpc.settings import Count

HEAVY = ("torch", "scipy", "matplotlib", "dm_control", "mujoco", "h5py", "imageio", "stable_baselines3", "tensorboard")
LIGHT = "import sys; sys.argv[0] = 'jepa-mpc'; from jepa_mpc.cli import main\ntry: main()\nfinally: print(*sys.modules)"


@dataclass(frozen=True)
class Settings:
    """Do something."""

    steps: Count = 3
    output: Path = Path("here")


@pytest.fixture
def command(monkeypatch):
    """Puts a function behind the command `try`, which then runs with the words given."""

    def put(function, words=(), **facts):
        module = types.ModuleType("jepa_mpc.tried")
        module.main = function
        monkeypatch.setitem(sys.modules, "jepa_mpc.tried", module)
        monkeypatch.setitem(cli.COMMANDS, "try", cli.Command("tried", "Tries.", **facts))
        monkeypatch.setattr(signal, "signal", lambda *_: None)
        with pytest.raises(SystemExit) as ended:
            cli.run("try", words)
        return ended.value.code

    return put


def fail(error):
    def main(args):
        raise error

    return main


def test_mistakes_are_one_line(command):
    assert command(fail(UserError("no data at x; collect some"))) == "error: no data at x; collect some"
    assert command(fail(FileNotFoundError(2, "No such file or directory", "x.h5"))) == (
        "error: No such file or directory (x.h5)"
    )
    assert command(lambda args: None) == 0


def test_a_bug_keeps_its_traceback(command):
    for bug in (ValueError("x"), KeyError("x")):
        with pytest.raises(type(bug)):
            command(fail(bug))


@pytest.mark.parametrize("resumes", [True, False])
def test_ctrl_c_ends_with_130(command, capsys, resumes):
    assert command(fail(KeyboardInterrupt()), resumes=resumes) == 130
    assert capsys.readouterr().err == ("interrupted" + "; the same command goes on from here" * resumes + "\n")


def test_options_are_held_against_their_ranges(command):
    def main(args):
        assert cli.parse(Settings, args).output == Path.home() / "x"

    assert command(main, ["--output=~/x", "--steps", "1"]) == 0
    assert command(main, ["--output=~/x", "--steps", "0"]) == "error: --steps must be at least 1, not 0"


@pytest.mark.parametrize("words", [["--home", "/a/b", "--steps", "1"], ["--steps", "1", "--home=/a/b"]])
def test_home_is_every_commands_option(command, monkeypatch, words):
    monkeypatch.setenv("JEPA_MPC_HOME", "elsewhere")
    seen = []
    assert command(seen.append, words) == 0
    assert seen == [["--steps", "1"]]
    assert os.environ["JEPA_MPC_HOME"] == "/a/b"


def test_the_last_value_of_an_option_counts():
    assert cli.option_value(["--task", "a", "--task=b"], "--task") == "b"
    assert cli.option_value(["--tasks", "a", "--task"], "--task") is None
    assert cli.option_value(["--home=/a=b"], "--home") == "/a=b"


def test_looking_at_an_option_leaves_it_to_the_command():
    words = ["--steps", "1", "--task", "a"]
    assert cli.option_value(words, "--task") == "a"
    assert words == ["--steps", "1", "--task", "a"]


def test_choices_are_taken_out_of_the_words():
    rest, chosen = cli.choose(["--steps", "1", "--planner", "x", "--last"], {"--planner": {"x": 7}, "--other": {}})
    assert (rest, chosen) == (["--steps", "1", "--last"], {"--planner": 7})
    assert cli.choose(["--planner=x"], {"--planner": {"x": 7}}) == ([], {"--planner": 7})
    assert cli.choose(["--planner", "y", "--planner=x"], {"--planner": {"x": 7}}) == ([], {"--planner": 7})
    assert cli.choose(["--steps", "1", "--planner"], {"--planner": {"x": 7}}) == (["--steps", "1", "--planner"], {})


def run(*words):
    return subprocess.run(
        [sys.executable, "-c", LIGHT, *words],
        capture_output=True,
        text=True,
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--help"], 0, "usage: jepa-mpc"),
        ([], 0, "usage: jepa-mpc"),
        (["--version"], 0, "0."),
        (["plann"], 2, "error: unknown command 'plann'; did you mean plan"),
        (["speed", "renderin"], 2, "did you mean speed rendering"),
        (["speed"], 2, "speed planning"),
        (["--home", "/a", "tasks"], 0, "reacher"),
        (["tasks", "--help"], 0, "usage: jepa-mpc tasks "),
        (["plan", "--task", "reachr"], 1, "error: unknown task 'reachr'; did you mean reacher"),
        (["train", "--task=reachr"], 1, "error: unknown task 'reachr'; did you mean reacher"),
        (["tasks"], 0, "reacher"),
        (["tasks", "--nmae"], 2, "--nmae"),
    ],
)
def test_help_and_mistakes_import_nothing_heavy(words, status, said):
    done = run(*words)
    assert done.returncode == status, done.stderr
    *shown, modules = done.stdout.splitlines()
    assert said in "\n".join(shown) + done.stderr
    assert "Traceback" not in done.stderr
    loaded = {module.split(".")[0] for module in modules.split()}
    assert not loaded & set(HEAVY), loaded & set(HEAVY)


def test_help_waits_for_nothing_heavier_than_torch():
    """What a command's help imports is its module."""
    modules = [f"jepa_mpc.{command.module}" for command in cli.COMMANDS.values()]
    script = f"import sys, importlib\nfor name in {modules}: importlib.import_module(name)\nprint(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, cwd="/")
    loaded = {module.split(".")[0] for module in done.stdout.split()}
    assert done.returncode == 0, done.stderr
    assert loaded & set(HEAVY) == {"torch"}


def test_help_lists_what_an_option_chooses_from(capsys):
    for name, words in (("train", ["sigreg, or module:name", "paper, debug"]), ("plan", ["icem, mppi", "lewm, or"])):
        with pytest.raises(SystemExit):
            cli.run(name, ["--help"])
        said = " ".join(capsys.readouterr().out.split())
        assert said.startswith(f"usage: jepa-mpc {name} ")
        assert all(word in said for word in words)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_is_a_module_that_is_also_its_script(name):
    path = ROOT / (cli.COMMANDS[name].module.replace(".", "/") + ".py")
    source = path.read_text()
    first = source.index('if __name__ == "__main__":')
    assert f'run("{name}")' in source[first:]
    assert "\nimport" not in source[:first]
    assert "\ndef main(args: Sequence[str]) -> None:" in source


def test_ctrl_c_in_the_first_import_is_answered(tmp_path):
    """The interruption arrives while the command's own module is being imported."""
    script = (
        "import os, signal, sys, types\n"
        "from jepa_mpc import cli\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torch': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "cli.run('train', ['--task', 'reacher', '--output', 'x'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 130
    assert done.stderr == "interrupted; the same command goes on from here\n"
    assert not list(tmp_path.iterdir())


TERMINATED = """
import logging, os, signal, sys, types, warnings
from pathlib import Path
from jepa_mpc import cli
from jepa_mpc.files import whole

def main(args):
    warnings.warn("careful")
    logging.getLogger("jepa_mpc.tried").info("going on")
    logging.getLogger("theirs").info("no news")
    with whole(Path("result")):
        os.kill(os.getpid(), signal.SIGTERM)

sys.modules["jepa_mpc.tried"] = types.ModuleType("jepa_mpc.tried")
sys.modules["jepa_mpc.tried"].main = main
cli.COMMANDS["try"] = cli.Command("tried", "Tries.")
cli.run("try")
"""


def test_what_is_told_goes_to_stderr_and_a_terminated_command_clears_up(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", TERMINATED]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "warning: careful\ngoing on\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("word", ["tasks", "--help", "--version", "speed"])
def test_whoever_stops_reading_gets_no_traceback(word):
    read, write = os.pipe()
    os.close(read)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "jepa_mpc", word]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, env=environment)
    os.close(write)
    assert done.returncode in (0, -signal.SIGPIPE)
    assert done.stderr == b""


def test_what_lies_beside_a_script_hides_no_module(tmp_path):
    (tmp_path / "tyro.py").write_text("raise RuntimeError")
    script = tmp_path / "script.py"
    script.write_text("from jepa_mpc.cli import run\nrun('tasks')\n")
    command, environment = [sys.executable, script, "--help"], {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
