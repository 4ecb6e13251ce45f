import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from jepa_mpc import cli
from jepa_mpc.places import HOME_VARIABLE
from jepa_mpc.world_model.data.dataset import DatasetInfo, Episode, write_dataset

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs are born without

ROOT = Path(__file__).parent.parent
CHECKPOINT = ROOT / "checkpoints" / "reacher"


LONGEST = ("test_library.py", "test_train.py", "test_distributed.py", "test_readme.py")


def pytest_collection_modifyitems(items):
    """Begins with the longest files, so that in the end no process waits for one of them alone."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def synthetic_episodes(num_episodes: int, num_blocks: int, seed: int = 0) -> list[Episode]:
    """A bright square that actions push about: pictures a tiny model can learn, without a simulator."""
    rng = np.random.default_rng(seed)
    episodes = []
    for _ in range(num_episodes):
        action = rng.uniform(-1, 1, (num_blocks, 2)).astype(np.float32)
        position = np.clip(np.cumsum(np.vstack([rng.uniform(-1, 1, 2), 0.3 * action]), axis=0), -1, 1)
        pixels = np.zeros((num_blocks + 1, 32, 32, 3), np.uint8)
        for frame, (x, y) in zip(pixels, ((position + 1) * 12).astype(int), strict=True):
            frame[y : y + 8, x : x + 8] = 255
        episodes.append(Episode(pixels, action, position, np.zeros_like(position)))
    return episodes


INFO = DatasetInfo(
    task="square",
    seed=0,
    data_policy="uniform",
    simulator="none",
    action_block=1,
    action_repeat=1,
    angles=(False, True),
)


@pytest.fixture(scope="session")
def dataset_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "square.h5"
    write_dataset(path, synthetic_episodes(num_episodes=20, num_blocks=12), INFO)
    return path


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory):
    """Where commands leave data, runs and caches, unless a test says otherwise: never in the checkout."""
    place = tmp_path_factory.mktemp("home")
    os.environ[HOME_VARIABLE] = str(place)
    return place


@pytest.fixture
def run_command(monkeypatch, capsys):
    """Runs one of our commands in this process; returns exit code, stdout and stderr."""

    def run(name, *options):
        options = list(map(str, options))
        monkeypatch.setattr(sys, "argv", ["jepa-mpc", *name.split(), *options])
        handler = signal.getsignal(signal.SIGTERM)
        with pytest.raises(SystemExit) as stop:
            cli.run(name, options)
        signal.signal(signal.SIGTERM, handler)
        out, code = capsys.readouterr(), stop.value.code
        return (1, out.out, f"{out.err}{code}\n") if isinstance(code, str) else (code, out.out, out.err)

    return run


@pytest.fixture
def read_results():
    return lambda folder: json.loads((folder / "results.json").read_text())


class Clock:
    """Goes on by a tick a look, and by what a test adds to it; never by itself."""

    def __init__(self):
        self.seconds, self.tick = 1000.0, 0.0

    def __call__(self):
        self.seconds += self.tick
        return self.seconds


@pytest.fixture
def clock(monkeypatch):
    """Stands in for `time.perf_counter`, so that no machine is too slow or too busy for a test."""
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock
