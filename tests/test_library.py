"""Others build on it: docs/extend.md and docs/your-robot.md run as they stand, from a wheel, in a project with folders
of our rooms' names.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import h5py
import imageio
import numpy as np
import pytest
from conftest import ROOT

import jepa_mpc
from jepa_mpc import envs

PAGE, ROBOTS = ((ROOT / f"docs/{name}.md").read_text() for name in ("extend", "your-robot"))
BLOCKS, ROBOTS_BLOCKS = (re.findall(r"```(\w+)\n(.*?)```", page, re.DOTALL) for page in (PAGE, ROBOTS))
README = (ROOT / "README.md").read_text()

# What makes a command small enough for a test; everything else of it runs as it stands.
SMALL = {
    "tasks": [],
    "collect": ["--num-episodes", "45"],
    "train": ["--preset", "debug"],
    "plan": ["--num-episodes", "2", "--no-video"],
}


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """The folder of programs of an environment in which our wheel is installed, and beside it only what it needs."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    source = folder / "source"  # building leaves files behind
    shutil.copytree(ROOT, source, symlinks=True, ignore=shutil.ignore_patterns(".*", "runs", "build", "*.egg-info"))
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(source)], check=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    python = folder / "venv/bin/python"
    subprocess.run([*pip, "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)], check=True)
    (packages,) = (folder / "venv/lib").glob("python*/site-packages")
    # A path in a .pth file adds the packages there, but not what their own .pth files add, such as our checkout.
    (packages / "needs.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "venv/bin"


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """Somebody's project, which has folders of our rooms' names, and its home for data and runs."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("envs", "agent", "eval", "planners", "world_model"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(f"mine = {name!r}\n")
    for kind, text in [*BLOCKS, *ROBOTS_BLOCKS]:
        if kind in ("python", "xml"):
            (name,) = re.findall(r"^(?:#|<!--) (\S+)", text)
            (folder / name).write_text(text)
    return folder


def run(project, *command):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["JEPA_MPC_HOME"] = str(project / "home")
    done = subprocess.run(list(map(str, command)), cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr[-3000:]}"
    return done.stdout


def test_every_public_name_is_there():
    for name in jepa_mpc.__all__:
        assert getattr(jepa_mpc, name) is not None


def test_the_page_is_short():
    assert PAGE.count("\n") <= 120


def test_the_projects_own_folders_stay_its_own(installed, project):
    code = (
        "import envs, agent, eval, jepa_mpc, jepa_mpc.envs; print(envs.mine, agent.mine, eval.mine, jepa_mpc.__file__)"
    )
    *mine, ours = run(project, installed / "python", "-c", code).split()
    assert mine == ["envs", "agent", "eval"]
    assert Path(ours).is_relative_to(installed.parent)


def test_a_benchmarks_commands_find_the_installed_package(installed, project):
    child = "import os, jepa_mpc; print(os.environ['PYTHONPATH'], os.path.dirname(os.path.dirname(jepa_mpc.__file__)))"
    ours = (
        "import sys; from jepa_mpc.eval.tables.agents import run_command as go; go([sys.executable, '-c', sys.argv[1]])"
    )
    told, found = run(project, installed / "python", "-c", ours, child).split()
    assert told == found


def test_the_wheel_plans_with_its_own_checkpoint(installed, project):
    said = run(project, installed / "jepa-mpc", "plan", "--task", "reacher", "--num-episodes", "10", "--no-video")
    assert "n = 10" in said
    rate = float(re.search(r"success, 95 % interval\s*│\s*([\d.]+)", said)[1])
    assert rate >= 80
    assert list((project / "home/runs").iterdir())


def test_the_few_lines_of_python_run(installed, project):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert run(project, installed / "python", "-c", code).startswith("reached: off by 0.0")
    assert (project / "goal_and_result.png").stat().st_size > 500


def commands_of(blocks):
    return [line for kind, text in blocks if kind == "bash" for line in text.splitlines() if "pip install" not in line]


def record_log(project, num_episodes=4, num_steps=60):
    """Records the page's arm as a video and a table an episode, and returns the actions."""
    env, rng = envs.make(str(project / "arm.xml")), np.random.default_rng(0)
    (folder := project / "my_log").mkdir()
    all_actions = []
    for episode in range(num_episodes):
        env.reset(seed=episode)
        pictures, actions = [], rng.uniform(-1, 1, (num_steps, 2)).astype(np.float32)
        for action in actions:
            pictures.append(np.array(env.render()))
            env.advance(action)
        rate = 1 / env.step_seconds
        imageio.mimwrite(folder / f"{episode:03d}.mp4", pictures, fps=rate, quality=9, macro_block_size=1)
        rows = [f"{a},{b}" for a, b in actions.tolist()]
        (folder / f"{episode:03d}.csv").write_text("\n".join(["action.shoulder,action.elbow", *rows]) + "\n")
        all_actions.append(actions)
    return all_actions


@pytest.mark.slow
def test_a_strangers_robot_works_by_every_command(installed, project):
    recorded, said = record_log(project), {}
    small = {**SMALL, "run": ["--seconds", "2"], "inspect": [], "convert": [], "fit-probe": [], "export": []}
    small["improve"] = ["--num-episodes", "3", "--num-pairs", "2", "--protocol", "far"]
    for line in commands_of(ROBOTS_BLOCKS):
        program, name, *options = shlex.split(line)
        by_numbers = name == "plan" and "--goal-state" in options
        is_one = by_numbers or (name == "plan" and "--goal-image" in options)  # episode
        shorter = ["--no-video"] if is_one else small[name]
        said[line] = run(project, installed / program, name, *options, *shorter)
        if name == "tasks":
            assert "0 shoulder, 1 elbow" in said[line]
        if name == "fit-probe":
            assert "from 100 labels" in said[line]
        if by_numbers:
            assert "wanted 0.300, in truth" in said[line]
        elif name == "plan":
            words = " ".join(said[line].replace("│", " ").split())  # of cells, which may be wrapped
            assert ("cameras above and 90,-40,1.6,0,0,0, proprioception (5 numbers)" if is_one else "n = 2") in words
        if name == "run":
            assert re.search(r"^blocks +10$", said[line], re.M)
    actions = run(project, installed / "python", "on_the_robot.py").splitlines()
    assert len(actions) == 5  # of a block
    assert (project / "data/arm.h5").stat().st_size > 64 * 64 * 3 * 5
    assert list((project / "seen").glob("*.png"))
    with h5py.File(project / "data/my_log.h5") as log:
        ends = np.cumsum(log["ep_len"][:]) - 1
        written = np.delete(log["action"][:], ends, axis=0)
    wanted = np.concatenate([actions[:-1] for actions in recorded])
    np.testing.assert_allclose(written, wanted, rtol=1e-6)
    table = (project / "runs/better/improve.md").read_text()
    assert "| after | 3 |" in table
    assert len(list((project / "runs/better").glob("round-1/practice.h5"))) == 1


def test_a_strangers_files_work_by_every_command(installed, project):
    commands = commands_of(BLOCKS)
    assert {shlex.split(line)[1] for line in commands} == set(SMALL)
    for line in commands:
        program, name, *options = shlex.split(line)
        assert program == "jepa-mpc"
        said = run(project, installed / program, name, *options, *SMALL[name])
        if name == "plan":
            assert "n = 2" in said
    (row,) = re.findall(r"planner\s*│ (.*?)\s*│", said)
    assert row.startswith("my_ways:shooting, my_ways:cosine")


def test_a_strangers_files_work_from_python(installed, project):
    code = (project / "all_of_it.py").read_text()
    small = code.replace("num_episodes=400", "num_episodes=45, num_processes=2")
    small = small.replace('output=Path("runs/mine")', 'output=Path("runs/mine"), **TRAIN_PRESETS["debug"]')
    small = small.replace("agent=", "num_episodes=2, video=False, agent=")
    small = small.replace("import AgentConfig", "import AgentConfig, TRAIN_PRESETS")
    (project / "small.py").write_text(small)
    assert re.fullmatch(r"\d+% of 2\n", run(project, installed / "python", "small.py").splitlines(keepends=True)[-1])
