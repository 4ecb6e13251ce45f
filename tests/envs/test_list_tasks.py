"""`jepa-mpc tasks`: every task in a line, at the price of none; one of them in full, and its picture."""

import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from jepa_mpc import envs
from jepa_mpc.envs.registry import TASKS


def tasks(*options):
    command = [sys.executable, "-m", "jepa_mpc", "tasks", *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_every_task_is_listed_with_its_policy_its_tolerance_and_whether_it_is_bundled():
    lines = {line.split()[0]: line for line in tasks().stdout.splitlines()[1:]}
    assert set(lines) == set(TASKS)
    assert lines["reacher"].split() == ["reacher", "uniform", "0.05", "rad", "bundled"]
    assert lines["gym/Pusher-v5"].split() == ["gym/Pusher-v5", "arm_pusher", "0.03", "m", "bundled"]
    assert lines["dmc/walker-walk"].split() == ["dmc/walker-walk", "pink", "0.02", "of", "each", "range", "–"]
    generic = envs.get_task("dmc/walker-walk")  # what is printed without making it is what it is
    assert (generic.data_policy, f"{generic.pose.tolerance} {generic.pose.unit}") == ("pink", "0.02 of each range")


def test_listing_imports_no_simulator():
    program = "import sys; from jepa_mpc.envs import list_tasks; list_tasks.main([]); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    heavy = {"mujoco", "dm_control", "torch", "scipy", "matplotlib", "h5py", "imageio", "rich", "pygame"}
    assert not heavy & set(done.stdout.splitlines()[-1].split())


def test_one_task_is_shown_in_full(tmp_path):
    done = tasks("cartpole", "--picture", tmp_path / "cartpole.png")
    shown = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert done.stderr == ""
    assert shown["picture"] == "64 × 64"
    assert shown["action"] == "1 numbers in [-1, 1]"
    assert shown["period"] == "40 ms a step, 200 ms a block"
    assert shown["coordinates"] == "2; angles: 1"
    assert shown["reached"] == "within 0.02 of the range: distance of slider / 3.6; angle of hinge_1 / 6.28"
    assert shown["cameras"].startswith("fixed, lookatcart")
    assert shown["goal"] == "25 steps ahead in 50; of another episode in 100"
    assert shown["data"] == "episodes of 200 steps by pink"
    assert shown["checkpoint"] == "bundled"
    picture = np.asarray(Image.open(tmp_path / "cartpole.png"))
    np.testing.assert_array_equal(picture, envs.make("cartpole").reset(seed=0)[0])


def test_a_task_is_shown_through_the_camera_that_is_named(tmp_path):
    done = tasks("reacher", "--camera", "90,-30", "--picture", tmp_path / "seen.png")
    assert done.stdout.startswith("task         reacher@90,-30\n")
    expected = envs.make("reacher@90,-30").reset(seed=0)[0]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "seen.png")), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["recher"], "unknown task 'recher'; did you mean reacher?"),
        (["--task", "reacher"], "the task's name stands by itself: `jepa-mpc tasks reacher`"),
        (["reacher@hand", "--camera", "fixed"], "reacher names the camera hand, and --camera fixed; leave one out"),
        (["--picture", "x.png"], "--picture and --camera are of one task; name it"),
        (["--camera", "hand"], "--picture and --camera are of one task; name it"),
        (["reacher", "--camera", "foot"], "MuJoCo's model 'two-link planar reacher' has no camera 'foot'"),
        (["two_room", "--picture", "README.md"], "README.md exists already; delete it or choose another --picture"),
        (["two_room", "--picture", "README.md/x.png"], "--picture README.md/x.png cannot be written"),
    ],
)
def test_what_cannot_be_shown_is_one_line(options, message):
    done = tasks(*options)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1
