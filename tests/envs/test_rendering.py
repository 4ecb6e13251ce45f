"""What keeps a machine from rendering is said as it is: the true cause and its cure, in one line."""

import subprocess
import sys

import pytest

from jepa_mpc import envs
from jepa_mpc.errors import UserError

LOOK = """
try:
    from jepa_mpc import envs
    print("mean", envs.make("reacher").reset(seed=0)[0].mean())
except envs.EnvError as error:
    print(error)
"""
FORK = """
import os
from jepa_mpc import envs
env = envs.make("reacher")
env.reset(seed=0)
if not (child := os.fork()):
    for look in (env.render, envs.make("reacher").render):
        try:
            look()
        except envs.EnvError as error:
            print(error, flush=True)
    raise SystemExit(3)  # what ends a process frees its pictures' memory, and must not hang either
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), env.render().mean() > 50)
"""
FORK_BEFORE = """
import os
from jepa_mpc import envs
env = envs.make("reacher")
if not (child := os.fork()):
    print(env.reset(seed=0)[0].mean() > 50, flush=True)
    raise SystemExit(3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def lines(program, monkeypatch, **variables):
    for name in ("MUJOCO_GL", "MUJOCO_EGL_DEVICE_ID", "PYOPENGL_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("first", "variables", "said"),
    [
        ("", {"MUJOCO_GL": ""}, "mean "),
        ("", {"MUJOCO_GL": "EGL"}, "mean "),
        ("import dm_control.suite", {"MUJOCO_GL": "egl"}, "mean "),
        (
            "import dm_control.suite",
            {},
            "dm_control was imported first and chose OpenGL for a display",
        ),
        ("", {"MUJOCO_GL": "glfw"}, "MUJOCO_GL=glfw does not render without a display; set it to egl or osmesa"),
        ("", {"MUJOCO_GL": "nonsense"}, "MUJOCO_GL=nonsense does not render"),
        ("", {"MUJOCO_EGL_DEVICE_ID": "97"}, "MUJOCO_EGL_DEVICE_ID=97 is no device here; leave it unset"),
        ("", {"MUJOCO_EGL_DEVICE_ID": "first"}, "MUJOCO_EGL_DEVICE_ID=first is no device here; leave it unset"),
        ("", {"PYOPENGL_PLATFORM": "glx"}, "PYOPENGL_PLATFORM=glx contradicts MUJOCO_GL=egl; leave it unset"),
    ],
)
def test_what_keeps_it_from_rendering_is_said_in_one_line(monkeypatch, first, variables, said):
    monkeypatch.delenv("DISPLAY", raising=False)
    (line,) = lines(f"{first}\n{LOOK}", monkeypatch, **variables)
    assert line.startswith(said)
    assert "apt-get" not in line


def test_rendering_in_a_fork_of_what_has_rendered_is_an_error_and_nothing_hangs(monkeypatch):
    first, second, last = lines(FORK, monkeypatch)
    assert first == second
    assert first.startswith("this process was forked from one that has rendered")
    assert last == "3 True"


def test_a_fork_of_what_has_not_rendered_renders(monkeypatch):
    assert lines(FORK_BEFORE, monkeypatch) == ["True", "3"]


def test_a_closed_simulator_says_so():
    env = envs.make("reacher")
    env.reset(seed=0)
    env.close()
    with pytest.raises(UserError, match="this environment is closed; make another"):
        env.render()


def test_a_picture_may_be_larger_than_the_models_own_buffer():
    env = envs.make("reacher", image_size=700, fast_rendering=False)
    assert env.reset(seed=0)[0].shape == (700, 700, 3)
    env.close()
