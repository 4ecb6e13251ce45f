"""A probe reads numbers off embeddings, states by how much it errs, and is nobody else's."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import CHECKPOINT
from safetensors.torch import save_file

from jepa_mpc.errors import UserError
from jepa_mpc.settings import to_json
from jepa_mpc.world_model.checkpoint import weights_digest
from jepa_mpc.world_model.data.dataset import Dataset
from jepa_mpc.world_model.fit_probe import FitProbeConfig, fit_probe, of_poses, state_numbers
from jepa_mpc.world_model.probe import Coordinate, Probe, ProbeInfo

RNG = np.random.default_rng(0)


def by_hand(*coordinates, centres=((0.0, 0.0),), weights=((2.0,),), bias=(1.0,), mean=(0.0, 0.0), scale=1.0, **info):
    """A probe whose numbers can be reckoned: kernel of width 1."""
    told = ProbeInfo(coordinates or (Coordinate("x", False, False, -1, 5, 0.1, 0.2),), **{"checkpoint": "", **info})
    parts = {"mean": mean, "scale": scale, "centres": centres, "weights": weights, "bias": bias}
    return Probe(told, {name: torch.tensor(value) for name, value in parts.items()})


INFO = {"num_labels": 10, "width": 1.0, "ridge": 0.01}


def embeddings(num=300, dims=4, seed=0):
    return torch.randn(num, dims, generator=torch.Generator().manual_seed(seed))


def test_it_reads_a_kernels_sum():
    probe = by_hand(mean=(1.0, 1.0), scale=2.0, **INFO)
    read = probe(torch.tensor([[[1.0, 1.0], [3.0, 1.0]]]))  # 0 and 1 from the centre, once centred and scaled
    torch.testing.assert_close(read, torch.tensor([[[3.0], [1 + 2 * math.exp(-0.5)]]]))


def test_an_angle_is_read_as_cosine_and_sine():
    angle, plain = Coordinate("a", True, True, -3, 3, 0.1, 0.2), Coordinate("x", False, False, -1, 5, 0.1, 0.2)
    probe = by_hand(angle, plain, weights=((0.0, 0.0, 1.0),), bias=(-1.0, -1.0, 0.0), **INFO)
    torch.testing.assert_close(probe(torch.zeros(2)), torch.tensor([-0.75 * math.pi, 1.0]))


def test_a_linear_truth_is_read_within_the_error_that_is_stated():
    z, new = embeddings(), embeddings(seed=1)
    probe = Probe.fit(z, {"x": (2 * z[:, 0] - z[:, 1] + 3).numpy()})
    (x,) = probe.coordinates
    assert x.p90 < 0.1 * (x.high - x.low)
    missed = (probe(new)[:, 0] - (2 * new[:, 0] - new[:, 1] + 3)).abs()
    assert 0.8 < (missed < x.p90).float().mean() < 0.97
    assert 0.4 < (missed < x.median).float().mean() < 0.6


def test_angles_are_read_across_the_turn():
    angle = RNG.uniform(-np.pi, np.pi, 400)
    z = torch.from_numpy(np.stack([np.cos(angle), np.sin(angle)], axis=1)).float()
    probe = Probe.fit(z, {"a": angle + 2 * np.pi}, ["a"])
    (a,) = probe.coordinates
    assert a.p90 < 0.01
    assert -np.pi <= a.low < a.high <= np.pi
    read = probe(torch.tensor([[-1.0, 1e-3], [-1.0, -1e-3]]))[:, 0]
    np.testing.assert_allclose(read.abs(), np.pi, atol=0.02)
    assert a.difference(read[0], float(read[1])).abs() < 0.04


@pytest.mark.parametrize(
    ("labels", "wraps", "ends"),
    [
        (np.linspace(-9, 9, 200), True, (-np.pi, np.pi)),  # more than a turn
        (np.linspace(-3.1, 3.1, 200), True, (-3.1, 3.1)),  # hardly a gap: a sensor that says no more than half a turn
        (np.linspace(-2.8, 2.8, 200), False, (-2.8, 2.8)),
        (np.linspace(1, 6, 200), False, (1, 6)),
    ],
)
def test_an_angle_with_a_stop_is_told_from_one_that_turns(labels, wraps, ends):
    z = torch.from_numpy(np.stack([np.cos(labels), np.sin(labels)], axis=1)).float()
    probe = Probe.fit(z, {"a": labels}, ["a"])
    (a,) = probe.coordinates
    assert a.wraps == wraps
    np.testing.assert_allclose((a.low, a.high), ends, atol=0.05)
    if not wraps:
        np.testing.assert_allclose(probe(z)[:, 0], labels, atol=0.05)
        assert float(a.difference(torch.tensor(a.high), a.low)) == pytest.approx(a.high - a.low)


def circle(angle):
    return torch.from_numpy(np.stack([np.cos(angle), np.sin(angle)], axis=1)).float()


@pytest.mark.parametrize("seed", range(10))
def test_a_hundred_labels_tell_a_joint_that_turns_from_one_with_stops(seed):
    rng = np.random.default_rng(seed)
    for most, wraps in ((np.pi, True), (np.radians(150), False)):
        labels = rng.uniform(-most, most, 100)
        labels[:2] = -most, most
        assert Probe.fit(circle(labels), {"a": labels}, ["a"]).coordinates[0].wraps == wraps


def test_more_labels_than_it_is_fitted_on_tell_where_an_angle_goes():
    labels = RNG.uniform(-2.0, 2.0, 50)
    known = {"a": np.linspace(-np.pi, np.pi, 1000)}
    assert not Probe.fit(circle(labels), {"a": labels}, ["a"]).coordinates[0].wraps
    assert Probe.fit(circle(labels), {"a": labels}, ["a"], known=known).coordinates[0].wraps


def test_a_joint_that_swings_across_the_turn_is_read_without_a_leap():
    angle = np.linspace(2.0, 4.5, 200)
    probe = Probe.fit(circle(angle), {"a": (angle + np.pi) % (2 * np.pi) - np.pi}, ["a"])
    (a,) = probe.coordinates
    assert not a.wraps
    assert a.high - a.low == pytest.approx(2.5)
    read = probe(circle(angle))[:, 0]
    np.testing.assert_allclose(read - read[0], angle - angle[0], atol=0.02)
    (goal,) = a.normal(torch.tensor([3.0])).tolist()
    assert a.low < goal < a.high


def test_what_is_not_there_is_not_claimed_to_be_read():
    noise = RNG.normal(size=300)
    (x,) = Probe.fit(embeddings(), {"x": noise}).coordinates
    assert x.p90 > 1.2  # nine in ten normal numbers are within 1.64


def test_neighbours_in_an_episode_do_not_judge_each_other():
    episode = np.repeat(np.arange(15), 20)
    place, label = RNG.normal(size=(15, 8))[episode], RNG.normal(size=15)[episode]
    z = torch.from_numpy(place + 0.01 * RNG.normal(size=place.shape)).float()
    together, apart = (Probe.fit(z, {"x": label}, groups=groups) for groups in (None, episode))
    assert together.coordinates[0].p90 < 0.1
    assert apart.coordinates[0].p90 > 0.5


def test_the_error_is_that_of_the_labels_that_are_to_judge():
    z = embeddings()
    blurred = np.arange(300) % 2 == 1
    label = z[:, 0].numpy() + blurred * RNG.normal(size=300)
    errors = [Probe.fit(z, {"x": label}, judged=judged).coordinates[0].p90 for judged in (blurred, ~blurred)]
    assert errors[0] > 1.5 * errors[1]


def test_more_labels_than_centres_are_used():
    z = embeddings(1500, 2)
    probe = Probe.fit(z, {"x": np.sin(z[:, 0].numpy())})
    assert probe.info.num_labels == 1500
    assert probe.coordinates[0].p90 < 0.05


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        ({"x": np.ones(20)}, "label 'x' is always 1: there is nothing to read; leave it out"),
        ({"x": np.array([*range(19), np.nan])}, "label 'x' is not a number everywhere: nan"),
    ],
)
def test_labels_that_cannot_be_read_are_named(labels, line):
    with pytest.raises(UserError, match=line):
        Probe.fit(embeddings(20), labels)


@pytest.mark.parametrize(("num", "groups"), [(9, None), (20, np.zeros(20, int))])
def test_too_few_labels_are_refused(num, groups):
    with pytest.raises(UserError, match=f"10 labels or more, of two episodes; there are {num}"):
        Probe.fit(embeddings(num), {"x": np.arange(num)}, groups=groups)


@pytest.fixture
def written(tmp_path):
    """A probe of the bundled reacher, and its file."""
    z = embeddings(50, 64)
    probe = Probe.fit(z, {"shoulder": z[:, 0].numpy()}, checkpoint=weights_digest(CHECKPOINT))
    probe.save(path := tmp_path / "probe.safetensors")
    return probe, path


def test_a_file_is_read_as_it_was_written(written):
    probe, path = written
    there = Probe.load(path, CHECKPOINT)
    assert there.info == probe.info
    torch.testing.assert_close(there(embeddings(5, 64)), probe(embeddings(5, 64)), rtol=0, atol=1e-3)


def test_a_probe_of_another_world_model_is_refused(written, tmp_path):
    shutil.copytree(CHECKPOINT, other := tmp_path / "other")
    with (other / "model.safetensors").open("ab") as file:
        file.write(b" ")
    with pytest.raises(UserError, match=r"reads the world model .*, and .* is .*; fit it again"):
        Probe.load(written[1], other)


@pytest.mark.parametrize("kind", ["missing", "pickle", "model", "cut", "names", "shape", "nan", "range", "unknown"])
def test_a_damaged_file_is_one_line(written, kind):
    probe, path = written
    tensors, info = dict(probe._tensors), to_json(probe.info)
    if kind == "missing":
        path.unlink()
    elif kind == "pickle":
        torch.save(tensors, path)
    elif kind == "model":
        shutil.copyfile(CHECKPOINT / "model.safetensors", path)
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:-10])
    else:
        if kind == "names":
            del tensors["bias"]
        elif kind == "shape":
            tensors["weights"] = tensors["weights"][:-1].contiguous()
        elif kind == "nan":
            tensors["bias"] = tensors["bias"] * math.nan
        elif kind == "range":
            info["coordinates"][0]["p90"] = -1
        elif kind == "unknown":
            info["more"] = 1
        save_file(tensors, path, {"probe": json.dumps(info)})
    with pytest.raises(UserError) as caught:
        Probe.load(path, CHECKPOINT)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_number_is_named_with_the_nearest(written):
    with pytest.raises(UserError, match=r"goal: the probe reads shoulder, and no 'sholder'; did you mean shoulder?"):
        written[0].index("sholder", "goal")


def test_state_has_the_names_that_the_data_say_and_what_never_varies_is_left_out(dataset_path):
    data = Dataset(dataset_path)
    rows = np.arange(len(data.qpos))
    labels, angles = state_numbers(data, rows)
    assert list(labels) == ["qpos0", "qpos1"]
    assert angles == ["qpos1"]
    data.info = replace(data.info, names=("x", "y"))
    data.qpos[:, 0] = 1
    labels, angles = state_numbers(data, rows)
    np.testing.assert_array_equal(labels.pop("y"), data.qpos[:, 1])
    assert not labels
    assert angles == ["y"]


def test_functions_of_poses_are_held_against_what_they_must_return(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_numbers.py").write_text(
        "def tip(qpos):\n    return {'x': qpos[:, 0] + qpos[:, 1]}\n"
        "def short(qpos):\n    return {'x': qpos[0]}\n"
        "def bare(qpos):\n    return qpos[:, 0]\n"
    )
    poses = np.arange(6.0).reshape(3, 2)
    np.testing.assert_array_equal(of_poses("my_numbers:tip")(poses)["x"], [1, 5, 9])
    with pytest.raises(UserError, match=r"must return \(3,\) numbers of 'x', not float64 \(2,\)"):
        of_poses("my_numbers:short")(poses)
    with pytest.raises(UserError, match="must return a dict of numbers by name"):
        of_poses("my_numbers:bare")(poses)


def test_more_labels_than_pictures_are_refused(dataset_path, tmp_path):
    config = FitProbeConfig(tmp_path / "p.safetensors", data=(dataset_path,), num_labels=10**6)
    with pytest.raises(UserError, match="collected on task 'square', not 'reacher'"):
        fit_probe(config)
