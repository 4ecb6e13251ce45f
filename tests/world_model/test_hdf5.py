"""Files that a stranger may have written: one line that names the column, and nothing is followed or allocated."""

import contextlib
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
from conftest import INFO, synthetic_episodes

from jepa_mpc.errors import UserError
from jepa_mpc.world_model.data.dataset import UNUSED, Dataset, DatasetError, write_dataset
from jepa_mpc.world_model.data.hdf5 import guarded

ROWS, EPISODES = 6 * 13, 6


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "own.h5"
    write_dataset(path, synthetic_episodes(EPISODES, 12), INFO)
    return path


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """As stable-worldmodel writes it: a row a step."""
    path, rng = tmp_path_factory.mktemp("theirs") / "theirs.h5", np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file["pixels"] = rng.integers(0, 256, (ROWS, 16, 16, 3), np.uint8)
        file["action"] = rng.standard_normal((ROWS, 2), np.float32)
        file["state"] = rng.standard_normal((ROWS, 4), np.float32)
        file["ep_len"], file["ep_offset"] = np.full(EPISODES, 13, np.int32), 13 * np.arange(EPISODES)
    return path


@pytest.fixture(params=["own", "theirs"])
def copy(request, own, theirs, tmp_path):
    path = tmp_path / "copy.h5"
    path.write_bytes({"own": own, "theirs": theirs}[request.param].read_bytes())
    return path


def change(path, name, value=None, **storage):
    with h5py.File(path, "a") as file:
        shape, kind = file[name].shape, file[name].dtype
        del file[name]
        if storage:
            file.create_dataset(name, shape, kind, **storage)
        elif value is not None:
            file[name] = value


def refused(path, *parts):
    with pytest.raises(UserError) as caught:
        Dataset(path)
    line = str(caught.value)
    assert line.startswith(str(path))
    assert "\n" not in line
    for part in parts:
        assert part in line


SHAPES = {"pixels": "(N, H, W, 3) uint8", "action": f"({ROWS}, A) float", "ep_len": "(E,) integer"}
WRONG = {
    "a scalar": np.float32(3),
    "nothing": h5py.Empty("f"),
    "a text": "three",
    "texts": np.array([b"a"] * ROWS),
    "no rows": np.zeros((0, 2), np.float32),
    "five dimensions": np.zeros((ROWS, 2, 2, 2, 2), np.float32),
    "truth": np.ones((ROWS, 2), bool),
    "complex numbers": np.ones((ROWS, 2), complex),
    "fields": np.zeros(ROWS, [("a", "f4"), ("b", "i4")]),
    "floats": np.full(EPISODES, 13.0),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", SHAPES)
def test_a_column_of_another_kind_is_named_with_what_it_must_be_and_is(copy, name, wrong):
    change(copy, name, WRONG[wrong])
    with h5py.File(copy) as file:
        found = f"{file[name].shape} {file[name].dtype}"
    refused(copy, f"column {name!r} must be {SHAPES[name]}, not {found}; write it again")


@pytest.mark.parametrize("value", [np.zeros(EPISODES + 1, int), np.zeros(EPISODES), "three", np.zeros((2, 3), int)])
def test_which_episodes_are_varied_is_said_of_each_or_not_at_all(copy, value):
    with h5py.File(copy, "a") as file:
        file["ep_randomised"] = value
        found = f"{file['ep_randomised'].shape} {file['ep_randomised'].dtype}"
    refused(copy, f"column 'ep_randomised' must be ({EPISODES},) integer, not {found}; write it again")


@pytest.mark.parametrize("name", ["pixels", "action", "ep_len", "ep_offset"])
def test_a_missing_column_and_a_group_are_named(copy, name):
    change(copy, name)
    refused(copy, f"has no column {name!r}")
    with h5py.File(copy, "a") as file:
        file.create_group(name)
    refused(copy, f"column {name!r} must be", "not a group")


@pytest.mark.parametrize("name", ["pixels", "action", "ep_len", "ep_offset"])
def test_what_lies_in_other_files_is_not_read(copy, tmp_path, name):
    other = tmp_path / "secret"
    other.write_bytes(bytes(100_000))
    for target in (other, tmp_path / "missing"):
        change(copy, name, h5py.ExternalLink(str(target), "/pixels"))
        refused(copy, f"column {name!r} is a link, which is not followed")
        with h5py.File(copy, "a") as file:
            del file[name]
            file[name] = np.zeros((ROWS, 2))
    change(copy, name, external=[(str(other), 0, h5py.h5f.UNLIMITED)])
    refused(copy, f"column {name!r} lies in other files, which are not read")

    with h5py.File(copy, "a") as file:
        del file[name]
        layout = h5py.VirtualLayout((ROWS, 2), np.float32)
        layout[...] = h5py.VirtualSource(str(other), name, shape=(ROWS, 2))
        file.create_virtual_dataset(name, layout)
    refused(copy, f"column {name!r} lies in other files, which are not read")


def test_a_pipe_does_not_hang_and_a_folder_is_named(tmp_path):
    os.mkfifo(tmp_path / "pipe.h5")
    with pytest.raises(DatasetError, match="no data set at"):
        Dataset(tmp_path / "pipe.h5")
    with pytest.raises(DatasetError, match="is a folder; data sets are HDF5 files"):
        Dataset(tmp_path)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (np.full(EPISODES, -13), "its episodes do not lie one after another"),
        (np.array([13] * 5 + [12]), "names 77 rows, 'pixels' has 78"),
        (np.full(EPISODES, 2**62), "names 27670116110564327424 rows"),
        (np.array([0, 26] + [13] * 4), "its episodes do not lie one after another"),
    ],
)
def test_lengths_that_do_not_add_up_are_refused(copy, values, line):
    change(copy, "ep_len", values)
    refused(copy, line)


def test_declared_rows_are_not_allocated(copy):
    with h5py.File(copy, "a") as file:
        for name in ("ep_len", "ep_offset"):
            del file[name]
            file.create_dataset(name, (10**12,), np.int64, chunks=(1,))
    refused(copy, "column 'ep_len' declares 8000000000000 bytes, more than the file holds")


@pytest.mark.parametrize(
    ("name", "value"), [("action", np.nan), ("action", np.inf), ("action", 1e30), ("qpos", np.nan)]
)
def test_numbers_that_are_none_are_named_by_row_and_episode(copy, name, value):
    with h5py.File(copy, "a") as file:
        name = name if name in file else "state"
        file[name][20, 1] = value
    refused(copy, f"column {name!r} must be numbers; in row 20 (episode 1) entry 1 is {np.float32(value)}")


def test_the_last_action_of_an_episode_need_be_none(copy):
    with h5py.File(copy, "a") as file:
        file["action"][12] = np.nan
    rows = Dataset(copy).sample_rows(50, 2, np.random.default_rng(0))
    assert np.isfinite(Dataset(copy).windows(rows)[1].numpy()).all()


def attribute(path, name, value):
    with h5py.File(path, "a") as file:
        file.attrs[name] = value


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("seed", "x", "seed must be int, not 'x'"),
        ("seed", -1, "seed must be at least 0"),
        ("action_block", 1.5, "action_block must be int"),
        ("angles", [True], "column 'qpos' must be of 1 coordinates, as `angles`, not 2"),
        ("action_low", [-1.0] * 7, "column 'action' must be 1 actions of 7 numbers, not 2 in all"),
        ("planning", '{"horizon":', "attribute 'planning' must be JSON"),
        ("planning", "[" * 5000, "attribute 'planning' must be JSON"),
        ("format_version", 99, "has data format 99, this version reads 1"),
    ],
)
def test_attributes_are_read_by_their_types(own, tmp_path, name, value, line):
    path = tmp_path / "copy.h5"
    path.write_bytes(own.read_bytes())
    attribute(path, name, value)
    if name == "action_low":
        attribute(path, "action_high", value)
    refused(path, line)


def test_bounds_that_are_reversed_are_refused_before_a_training(own, tmp_path):
    path = tmp_path / "copy.h5"
    path.write_bytes(own.read_bytes())
    attribute(path, "action_low", [2.0, -1.0])
    attribute(path, "action_high", [1.0, 1.0])
    refused(path, "attribute 'action_low' must not lie above 'action_high'")


def test_bounds_that_bound_nothing_say_nothing(own, tmp_path):
    path = tmp_path / "copy.h5"
    path.write_bytes(own.read_bytes())
    attribute(path, "action_low", [-np.inf, -1.0])
    attribute(path, "action_high", [np.inf, 1.0])
    assert Dataset(path).info == Dataset(own).info


def test_older_files_go_with_those_that_say_more(own, tmp_path):
    path = tmp_path / "newer.h5"
    write_dataset(path, synthetic_episodes(3, 12), INFO.__class__(**{**vars(INFO), "step_seconds": 0.1, "seed": 7}))
    data = Dataset([own, path])
    assert (data.info.step_seconds, data.info.seed, len(data.ep_len)) == (0.1, 0, 9)


def test_a_file_that_may_not_be_read_is_not_called_damaged(own):
    with pytest.raises(PermissionError), guarded(own):
        raise PermissionError


def test_a_locked_file_is_said_to_be_locked(own, tmp_path):
    path = tmp_path / "copy.h5"
    path.write_bytes(own.read_bytes())
    writes = f"import h5py, sys; file = h5py.File({str(path)!r}, 'a'); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", writes], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout.readline() == "open\n"
        refused(path, "is locked: another program has it open for writing")
        writer.stdin.close()


def test_a_coding_without_decoder_names_the_package(theirs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    path = tmp_path / "copy.h5"
    path.write_bytes(theirs.read_bytes())
    with h5py.File(path, "a") as file:
        del file["action"]
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((ROWS, 2))
        properties.set_filter(300, h5py.h5z.FLAG_OPTIONAL)  # which nothing has registered
        space = h5py.h5s.create_simple((ROWS, 2))
        h5py.h5d.create(file.id, b"action", h5py.h5t.NATIVE_FLOAT, space, properties)
    refused(path, "column 'action' is coded by", "`pip install hdf5plugin`")


def test_what_blosc_has_coded_is_read(theirs, tmp_path):
    plugin = pytest.importorskip("hdf5plugin")
    path = tmp_path / "copy.h5"
    path.write_bytes(theirs.read_bytes())
    with h5py.File(path, "a") as file:
        pixels = file["pixels"][:]
        del file["pixels"]
        file.create_dataset("pixels", data=pixels, chunks=(1, 16, 16, 3), **plugin.Blosc())
    np.testing.assert_array_equal(Dataset(path).pixels[:], pixels)


@pytest.mark.parametrize("always", [0.3, -0.3])
def test_an_action_that_never_varies_is_unused_and_said(own, tmp_path, caplog, always):
    path = tmp_path / "copy.h5"
    path.write_bytes(own.read_bytes())
    with h5py.File(path, "a") as file:
        action = file["action"][:]
        action[:, 1] = np.where(np.isnan(action[:, 1]), np.nan, np.float32(always))
        file["action"][:] = action
    mean, std = Dataset(path).action_stats()
    assert "action 1 never varies in these data: it is treated as unused" in caplog.text
    assert (1.0 - mean[1]) / std[1] < 1e-5  # where 1e-6 as a std would read it as 700,000
    assert std[1] == UNUSED
    np.testing.assert_array_equal(std[0], Dataset(own).action_stats()[1][0])


def test_damage_is_no_traceback(copy):
    """Flipped and missing bytes: the file is read, or refused in one line."""
    whole, rng = copy.read_bytes(), np.random.default_rng(0)
    for attempt in range(60):
        damaged = bytearray(whole[: rng.integers(len(whole))] if attempt % 3 == 0 else whole)
        for place in rng.integers(min(20_000, len(damaged) or 1), size=6):
            if damaged:
                damaged[place] = rng.integers(256)
        copy.write_bytes(bytes(damaged))
        with contextlib.suppress(UserError):
            Dataset(copy)
