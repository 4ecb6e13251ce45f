"""Workers do what they are asked, end with their parent, and leave Ctrl-C to it."""

import functools
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT

from jepa_mpc.errors import UserError
from jepa_mpc.workers import granted_cores, run_parallel


def test_every_call_is_done_once():
    assert sorted(run_parallel(divmod, [(n, 3) for n in range(7)], 2)) == [divmod(n, 3) for n in range(7)]


def test_a_workers_error_is_raised_here():
    with pytest.raises(ZeroDivisionError):
        list(run_parallel(divmod, [(1, 0)], 1))


def test_after_an_error_what_waits_is_not_begun(tmp_path):
    wait = f"import pathlib, time; time.sleep(0.05); pathlib.Path({str(tmp_path / 'last')!r}).touch()"
    with pytest.raises(ZeroDivisionError):
        list(run_parallel(exec, [("1 / 0",), *[("import time; time.sleep(0.05)",)] * 999, (wait,)], 1))
    assert not (tmp_path / "last").exists()


def test_workers_begin_as_they_are_told(tmp_path):
    assert list(run_parallel(os.getcwd, [()], 1, functools.partial(os.chdir, tmp_path))) == [str(tmp_path)]


def test_a_killed_worker_is_one_line():
    with pytest.raises(UserError, match="a worker process was killed; the same command goes on"):
        list(run_parallel(os._exit, [(1,)], 1))


def test_cores_are_those_granted(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5, 6}, raising=False)
    assert granted_cores() == 4
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert granted_cores() == 1
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert granted_cores() == 1


INTERRUPTED = """
import os, signal, sys, time
from jepa_mpc.workers import run_parallel
if __name__ == "__main__":
    os.setpgrp()
    try:
        for pid in run_parallel(os.getpid, [()] * 2, 2):
            print(pid, flush=True)
        os.killpg(os.getpgrp(), signal.SIGINT)
        time.sleep(60)
    except KeyboardInterrupt:
        sys.exit(130)
"""


def test_ctrl_c_reaches_the_parent_alone(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED.replace("os.getpid, [()] * 2", "time.sleep, [(0.2,)] * 2"))
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 130
    assert done.stderr == ""


IMPATIENT = """
import sys, time
from jepa_mpc.workers import run_parallel
def work():
    print("begun", flush=True)
    time.sleep(3)
if __name__ == "__main__":
    try:
        list(run_parallel(work, [()] * 3, 1))
    except KeyboardInterrupt:
        sys.exit(130)
"""


def test_one_who_presses_ctrl_c_twice_is_not_left_hanging(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(IMPATIENT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        parent.stdout.readline()
        for _ in range(2):
            parent.send_signal(signal.SIGINT)
            time.sleep(0.5)
        assert parent.wait(60) == 130


def test_workers_end_with_their_parent(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys, time\n"
        "from jepa_mpc.workers import run_parallel\n"
        "def work(): print(os.getpid(), flush=True); time.sleep(600)\n"
        "if __name__ == '__main__': list(run_parallel(work, [()], 1))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        worker = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    while _runs(worker):  # the test's own time limit is the only one
        time.sleep(0.05)


def _runs(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
