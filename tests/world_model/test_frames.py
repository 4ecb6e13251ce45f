"""Pictures read from files as they are needed are those that memory would hold."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from conftest import INFO, synthetic_episodes
from test_train import debug_config

from jepa_mpc.world_model.checkpoint import load_checkpoint
from jepa_mpc.world_model.data import frames
from jepa_mpc.world_model.data.dataset import Dataset, DatasetError, write_dataset
from jepa_mpc.world_model.data.frames import Frames
from jepa_mpc.world_model.train import train


def noise_episodes(num_episodes, seed):
    episodes = synthetic_episodes(num_episodes, num_blocks=9, seed=seed)
    for episode in episodes:
        episode.pixels[:] = np.random.default_rng(seed).integers(0, 256, episode.pixels.shape)
    return episodes


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Three files: plain, compressed, plain."""
    folder = tmp_path_factory.mktemp("frames")
    for index, compression in enumerate(("none", "gzip", "none")):
        write_dataset(folder / f"{index}.h5", noise_episodes(7 + index, index), INFO, compression)
    return sorted(folder.glob("*.h5"))


def whole(paths):
    parts = []
    for path in paths:
        with h5py.File(path) as file:
            parts.append(file["pixels"][:])
    return np.concatenate(parts)


@pytest.mark.parametrize("which", [slice(0, 1), slice(1, 2), slice(0, 3)], ids=["plain", "compressed", "several"])
def test_rows_are_those_of_an_array(paths, which):
    paths, rng = paths[which], np.random.default_rng(0)
    read, array = Frames(paths), whole(paths)
    assert (len(read), read.shape, read.dtype) == (len(array), array.shape, array.dtype)
    for shape in ((), (1,), (40,), (8, 5), (3, 2, 4), (0,)):
        rows = rng.integers(0, len(array), shape)
        np.testing.assert_array_equal(read[rows], array[rows])
    for rows in (slice(None), slice(5, 60, 7), slice(60, 5, -3)):
        np.testing.assert_array_equal(read[rows], array[rows])
    for outside in (-1, len(array)):
        with pytest.raises(IndexError, match="rows must lie in"):
            read[[0, outside]]


def resident(path):
    """Bytes of the file's mappings that this process holds in memory."""
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if not line.split()[0].endswith(":"):
            ours = line.endswith(str(path))
        elif ours and line.startswith("Rss:"):
            total += 1024 * int(line.split()[1])
    return total


def test_pages_that_were_given_back_are_read_again(tmp_path, monkeypatch):
    path, rng = tmp_path / "d.h5", np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        array = rng.integers(0, 256, (400, 64, 64, 3), np.uint8)  # 5 MB
        file.create_dataset("pixels", data=array, chunks=(1, 64, 64, 3))
    monkeypatch.setattr(frames, "MAPPED_BYTES", 10**6)
    read, most = Frames([path]), 0
    for first in [*range(0, 400, 20)] * 2:
        np.testing.assert_array_equal(read[first : first + 20], array[first : first + 20])
        most = max(most, resident(path))
    assert 0 < most < 3 * 10**6


def test_pictures_that_were_never_written_are_zeros_and_missing_ends_are_refused(tmp_path):
    path = tmp_path / "sparse.h5"
    with h5py.File(path, "w") as file:
        column = file.create_dataset("pixels", (50, 4, 4, 3), np.uint8, chunks=(1, 4, 4, 3))
        column[7] = column[30] = 9
    rows = np.array([6, 7, 7, 30, 49])
    assert Frames([path])[rows].max(axis=(1, 2, 3)).tolist() == [0, 9, 9, 9, 0]
    assert not Frames([path])[[6, 49]].any()
    with h5py.File(path, "a") as file:
        size = max(file["pixels"].id.get_chunk_info(i).byte_offset for i in range(2))
    cut = tmp_path / "cut.h5"
    cut.write_bytes(path.read_bytes()[: size + 20])
    with pytest.raises(DatasetError, match="truncated"):
        Frames([cut])


def test_small_data_are_kept_in_memory_unless_asked_otherwise(paths):
    kinds = {how: type(Dataset(paths, in_memory=how).pixels) for how in ("auto", "yes", "no")}
    assert kinds == {"auto": np.ndarray, "yes": np.ndarray, "no": Frames}


def test_several_files_are_one_data_set(paths):
    data = Dataset(paths, in_memory="no")
    one = [Dataset(path, in_memory="yes") for path in paths]
    assert len(data.ep_len) == 7 + 8 + 9
    np.testing.assert_array_equal(data.action, np.concatenate([each.action for each in one]))
    np.testing.assert_array_equal(data.ep_offset, 10 * np.arange(24))
    (pixels, _), actions = data.windows(np.array([[68, 69], [70, 71], [150, 151]]))
    np.testing.assert_array_equal(pixels[1, 0], one[1].pixels[0])
    np.testing.assert_array_equal(actions[2, 0], one[2].action[0])


def test_files_that_do_not_go_together_are_refused(paths, tmp_path):
    other = tmp_path / "other.h5"
    write_dataset(other, noise_episodes(3, 0), INFO.__class__(**{**vars(INFO), "action_block": 5}))
    with pytest.raises(DatasetError, match=r"other\.h5 differs from .*0\.h5 in action_block; train on each by itself"):
        Dataset([paths[0], other])
    episodes = [replace(each, pixels=each.pixels[:, ::2, ::2]) for each in noise_episodes(3, 0)]
    write_dataset(other, episodes, INFO)
    with pytest.raises(DatasetError, match=r"pictures differ in size: \(16, 16, 3\), \(32, 32, 3\); train on each"):
        Dataset([paths[0], other])


def test_training_from_files_gives_the_model_of_training_from_memory(paths, tmp_path):
    models = []
    for name, settings in {
        "memory": {"in_memory": "yes"},
        "files": {"in_memory": "no", "num_workers": 2},
        "alone": {"in_memory": "no", "num_workers": 0},
    }.items():
        config = debug_config(tmp_path / name, paths[0], **settings)
        models.append(load_checkpoint(train(config))[0].state_dict())
    for other in models[1:]:
        for name, value in models[0].items():
            torch.testing.assert_close(other[name], value, atol=0, rtol=0, msg=name)
