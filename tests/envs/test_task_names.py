"""Tasks by name: a stranger's is found by `module:attribute` in every process; wrong ones cost no simulator."""

import subprocess
import sys

import numpy as np
import pytest

from jepa_mpc import envs
from jepa_mpc.envs.registry import TASKS
from jepa_mpc.errors import UserError
from jepa_mpc.workers import run_parallel

MODULE = """
from dataclasses import replace
from jepa_mpc import envs

arm = replace(envs.get_task("two_room"), name="arm", budget=70, image_size=32)
def by_function():
    return replace(arm, budget=80)
def of_another_kind():
    return 7
envs.register(replace(arm, name="registered", budget=90))
"""


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A module of tasks in the folder that one stands in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "strangers_tasks.py").write_text(MODULE)
    yield "strangers_tasks"
    sys.modules.pop("strangers_tasks", None)
    TASKS._found.clear()
    TASKS._values.pop("registered", None)


def first_picture(task):
    return envs.get_task(task).budget, envs.make(task).reset(seed=0)[0]


@pytest.mark.parametrize(("attribute", "budget"), [("arm", 70), ("by_function", 80), ("registered", 90)])
def test_a_strangers_task_has_the_name_that_was_asked_for(stranger, attribute, budget):
    name = f"{stranger}:{attribute}"
    spec = envs.get_task(name)
    assert (spec.name, spec.budget) == (name, budget)
    assert envs.get_task(spec.name) == spec
    ((in_worker, picture),) = run_parallel(first_picture, [(name,)], 1)  # it imports the module by that name alone
    assert in_worker == budget
    np.testing.assert_array_equal(picture, envs.make(name).reset(seed=0)[0])
    assert picture.shape == (32, 32, 3)  # the task's own


def test_a_registered_task_is_listed_and_goes_by_its_name(stranger):
    envs.get_task(f"{stranger}:registered")
    assert envs.get_task("registered").name == "registered"
    assert "registered" in envs.task_names()


@pytest.mark.parametrize(
    ("attribute", "message"),
    [("missing", "has no 'missing'"), ("of_another_kind", "is no task: it is int, not a TaskSpec")],
)
def test_what_is_no_task_is_refused_in_one_line(stranger, attribute, message):
    with pytest.raises(UserError, match=message) as caught:
        envs.get_task(f"{stranger}:{attribute}")
    assert "\n" not in str(caught.value)


def test_names_are_looked_up_without_a_simulator():
    program = (
        "import sys; from jepa_mpc import envs; envs.task_names(); envs.get_task('reacher')\n"
        "try: envs.get_task('recher')\n"
        "except Exception as error: print(error)\n"
        "print(sorted({'gymnasium', 'mujoco', 'dm_control', 'torch', 'pygame', 'ogbench', 'h5py'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["unknown task 'recher'; did you mean reacher?", "[]"]


def test_a_function_that_needs_arguments_is_no_task(monkeypatch):
    monkeypatch.setitem(TASKS._values, "needy", lambda size: None)
    with pytest.raises(UserError, match="needy must be a function of 0 arguments: missing a required argument: 'size'"):
        envs.get_task("needy")
