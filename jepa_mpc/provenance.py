"""What it takes to make a figure again: commit, command, date and machine."""

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from jepa_mpc.places import SOURCE

_CODE = (".", ":!docs/results", ":!*/card.md")  # all but what publishing rows writes


def version(package: str) -> str:
    """Returns a package's installed version, or "not installed"."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def simulator_version() -> str:
    """Returns the version that decides what pictures look like; data sets and checkpoints carry it."""
    return f"mujoco {version('mujoco')}"


def git_commit() -> str:
    """Returns the checkout's commit, `-dirty` if its code differs from it; outside a checkout the package's version."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(SOURCE), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if (SOURCE / ".git").exists():
            commit = git("rev-parse", "--short=12", "HEAD")
            return f"{commit}-dirty" if git("diff", "HEAD", "--name-only", "--", *_CODE) else commit
    except (OSError, subprocess.CalledProcessError):
        pass
    return f"version {version('jepa-mpc')}"


def command_line() -> str:
    """Returns the running command as one would type it, without this machine's paths to the program."""
    program, *options = sys.argv
    if Path(program).name in ("jepa-mpc", "__main__.py"):
        return shlex.join(["jepa-mpc", *options])
    ours = Path(program).resolve().is_relative_to(SOURCE)
    return shlex.join(["python", os.path.relpath(program, SOURCE) if ours else program, *options])


def provenance() -> dict[str, Any]:
    """Returns what stands in every result."""
    return {
        "commit": git_commit(),
        "command": command_line(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": {
            "platform": platform.platform(),
            "python": platform.python_version(),
            "simulator": simulator_version(),
        },
    }
