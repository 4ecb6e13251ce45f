"""`jepa-mpc plan` and `run` to goals and within limits by numbers, on the bundled reacher."""

import json
import sys

import numpy as np
import pytest
import torch
from conftest import CHECKPOINT

from jepa_mpc import envs
from jepa_mpc.agent.numbers import Numbers
from jepa_mpc.eval.numbers import Truth, limit_facts
from jepa_mpc.eval.results import NumberFacts, NumberResults, PairResults
from jepa_mpc.eval.trial import EpisodeTrace
from jepa_mpc.settings import read
from jepa_mpc.world_model.checkpoint import load_checkpoint, weights_digest
from jepa_mpc.world_model.probe import Coordinate, Probe, ProbeInfo


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    """A probe of 400 poses, which any simulator shows in a second."""
    env, rng = envs.make("reacher"), np.random.default_rng(0)
    env.reset(seed=0)
    poses = np.stack([rng.uniform(-np.pi, np.pi, 400), rng.uniform(-2.7, 2.7, 400)], axis=1)
    pictures = []
    for pose in poses:
        env.set_pose(pose)
        pictures.append(np.array(env.render()))
    env.close()
    model, _ = load_checkpoint(CHECKPOINT)
    with torch.inference_mode():
        z = torch.cat([model.encode(torch.from_numpy(each)) for each in np.array_split(np.stack(pictures), 4)])
    labels = {"shoulder": poses[:, 0], "wrist": poses[:, 1]}
    fitted = Probe.fit(z, labels, ["shoulder", "wrist"], checkpoint=weights_digest(CHECKPOINT))
    fitted.save(path := tmp_path_factory.mktemp("probe") / "probe.safetensors")
    return path


@pytest.fixture
def command(run_command, monkeypatch, tmp_path, probe):
    monkeypatch.chdir(tmp_path)
    options = ("--task", "reacher", "--checkpoint", CHECKPOINT, "--no-video", "--output", tmp_path / "out")
    return lambda *more, probe=probe: run_command("plan", *options, *(("--probe", probe) if probe else ()), *more)


def test_numbers_of_pairs_are_reached(command, tmp_path, read_results):
    told = ("--protocol", "far", "--num-episodes", 8, "--goal-state", "shoulder", "wrist")
    code, out, err = command(*told)
    assert code == 0, err
    results = read(PairResults, read_results(tmp_path / "out"), "results")
    off = np.stack([each.off for each in results.numbers])
    assert off.shape == (2, 8)
    assert np.median(off) < 0.05
    assert (off.max(0) < 0.1).sum() >= 6
    misread = np.stack([each.misread for each in results.numbers])
    assert (misread.max(0) < 0.2).sum() >= 6
    assert results.limits is None
    assert "shoulder in the end" in out
    assert "off by" in out


def test_one_goal_in_numbers_and_a_limit(command, tmp_path, read_results):
    words = ("--goal-state", "wrist=1.2", "--keep", "wrist=-2.9..2.9", "--budget", 60)
    code, out, err = command(*words)
    assert code == 0, err
    results = read(NumberResults, read_results(tmp_path / "out"), "results")
    shoulder, wrist = results.numbers
    assert shoulder.goal == [None]
    assert not len(shoulder.off)
    assert wrist.goal == [1.2]
    assert wrist.off[0] < 0.1
    assert results.limits.episodes.rate == 0
    assert "wanted 1.200, in truth 1.2" in out or "wanted 1.200, in truth 1.1" in out
    assert "beyond the limits" in out


ROBOT = """
from jepa_mpc import envs
from jepa_mpc.agent.simulated_robot import SimulatedRobot
env = envs.make("reacher")
def arm():
    env.reset(seed=2)
    return SimulatedRobot(env)
"""


def test_a_robot_is_driven_to_numbers_and_within_limits(run_command, monkeypatch, tmp_path, probe):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_arm.py").write_text(ROBOT)
    told = ("--robot", "my_arm:arm", "--checkpoint", CHECKPOINT, "--probe", probe, "--seconds", 5, "--output", "out")
    code, _, err = run_command("run", *told, "--goal-state", "wrist=1.2", "--keep", "wrist=-2.9..2.9")
    assert code == 0, err
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["goal"] == {"wrist": 1.2}
    assert "latent_distance" not in results  # there is no picture of the goal
    wrist = sys.modules.pop("my_arm").env.qpos[1]
    assert wrist == pytest.approx(1.2, abs=0.2)
    assert results["read_at_the_end"]["wrist"] == pytest.approx(wrist, abs=0.2)
    assert set(results["error_of_reading"]) == {"shoulder", "wrist"}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ("--goal-state", "sholder=1"),
            "goal: the probe reads shoulder, wrist, and no 'sholder'; did you mean shoulder?",
        ),
        (("--goal-state", "shoulder=1", "--num-episodes", "3"), "--goal-state is one episode to those numbers; leave"),
        (("--goal-state", "shoulder=1", "--goal-image", "x.png"), "are two goals; give one"),
        (("--keep", "wrist=2..1"), "keep wrist=2..1 holds nothing"),
        (("--keep", "wrist=1"), "--keep 'wrist=1' is no range"),
        (("--goal-state", "wrist=1", "--keep", "wrist=-1..0"), "goal wrist=1 lies where --keep or --avoid forbids"),
        (("--keep", "wrist=-1..0", "--limit-weight", "-1"), "--limit-weight must be at least 0"),
    ],
)
def test_mistakes_are_one_line(command, words, line):
    code, out, err = command(*words)
    assert (code, out) == (1, "")
    assert line in err
    assert err.count("\n") == 1


def test_a_probe_must_be_given_and_be_one(command):
    code, _, err = command("--goal-state", "shoulder=1", probe=None)
    assert code == 1
    assert "--goal-state needs a probe that reads it: fit one, and give --probe" in err
    code, _, err = command("--goal-state", "shoulder=1", probe="nowhere.safetensors")
    assert code == 1
    assert "there is no probe at nowhere.safetensors; fit it again with `jepa-mpc fit-probe`" in err


def test_truth_is_the_simulators_by_name_by_number_and_by_function():
    env = envs.make("reacher")
    coordinates = tuple(Coordinate(name, False, False, 0, 1, 0, 1) for name in ("wrist", "qpos0", "sum", "weight"))
    probe = Probe(ProbeInfo(coordinates, "", 10, 1.0, 0.01), {})
    truth = Truth(env, probe, lambda qpos: {"sum": qpos.sum(-1)})
    env.reset(seed=0)
    env.set_pose(np.array([1.0, 2.0]))
    np.testing.assert_allclose(truth.of_states(np.array([env.get_state()])), [[2, 1, 3, np.nan]])
    env.close()


def test_how_far_off_is_known_only_where_both_are():
    facts = NumberFacts("a", "rad", True, 0.1, 0.2, [3.0, None, 1.0], [3.1, 0.0, 1.0], [-3.0, 0.5, None])
    np.testing.assert_allclose(facts.off, [2 * np.pi - 6])
    np.testing.assert_allclose(facts.misread, [2 * np.pi - 6.1, 0.5])


class OnALine:
    """A simulator whose state is one number."""

    names = ("x",)

    def set_state(self, state):
        self.qpos = state


def test_limits_count_from_where_they_were_first_kept_or_from_the_start_if_they_never_were():
    info = ProbeInfo((Coordinate("x", False, False, 0.0, 10.0, 0.25, 0.5),), "", 10, 1.0, 0.01)
    probe = Probe(info, {"mean": torch.zeros(1)})
    traces = [EpisodeTrace(np.array(x, float)[:, None], None, None) for x in ([0, 1, 3, 5, 3], [6, 7])]
    facts = limit_facts(Numbers(probe, keep={"x": (2, 4)}), Truth(OnALine(), probe), traces)
    assert facts.steps == pytest.approx(3 / 7)
    assert facts.episodes.rate == 1
    assert facts.farthest == pytest.approx((7 - 4) / 0.5)
