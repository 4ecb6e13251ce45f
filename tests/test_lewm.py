"""Beside le-wm and stable-worldmodel: their data sets are read as they read them."""

import h5py
import numpy as np
import pytest
from conftest import INFO, synthetic_episodes
from test_train import debug_config

from world_model.checkpoint import load_checkpoint
from world_model.dataset import Dataset, DatasetError, write_dataset
from world_model.train import train

LENGTHS = [30, 17, 41, 26, 33]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """A file as stable-worldmodel 0.1.1 writes it: a row a step, chunks of one row, ep_len int32."""
    path, rng = tmp_path_factory.mktemp("lewm") / "pusht.h5", np.random.default_rng(0)
    N = sum(LENGTHS)
    with h5py.File(path, "w", libver="latest") as file:
        for name, values in {
            "pixels": rng.integers(0, 256, (N, 32, 32, 3), np.uint8),
            "action": rng.standard_normal((N, 2), np.float32),
            "proprio": rng.standard_normal((N, 3), np.float32),
            "state": rng.standard_normal((N, 4), np.float32),
        }.items():
            file.create_dataset(name, data=values, chunks=(1, *values.shape[1:]), maxshape=(None, *values.shape[1:]))
        ends = np.cumsum(LENGTHS)
        file["ep_len"], file["ep_offset"] = np.array(LENGTHS, np.int32), (ends - LENGTHS).astype(np.int64)
    return path


@pytest.mark.parametrize("frameskip", [1, 3, None])
def test_windows_of_their_files_take_every_nth_picture_and_all_actions_between(theirs, frameskip):
    data, skip = Dataset(theirs, task="push_t", held_out_fraction=0.2, frameskip=frameskip), frameskip or 5
    assert (data.info.task, data.info.action_block, data.stride) == ("push_t", skip, skip)
    rows = data.sample_rows(500, 4, np.random.default_rng(1))
    pixels, actions = data.windows(rows)
    with h5py.File(theirs) as file:
        stored, action = file["pixels"][:], file["action"][:]
    ends, starts = np.cumsum(LENGTHS), set()
    for window, taken, (first, *_, last) in zip(pixels.numpy(), actions.numpy(), rows, strict=True):
        episode = np.searchsorted(ends, first, side="right")
        assert episode == np.searchsorted(ends, last, side="right") < 4  # the last one is held out
        np.testing.assert_array_equal(window, stored[first : last + 1 : skip])
        np.testing.assert_array_equal(taken.reshape(-1, 2), action[first:last])
        starts.add(int(first))
    possible = [n - 3 * skip for n in LENGTHS[:4]]
    assert len(starts) > 0.9 * sum(possible)
    left = data.blocks_left(rows[:, -1])
    np.testing.assert_array_equal(left, (ends[np.searchsorted(ends, rows[:, -1], "right")] - 1 - rows[:, -1]) // skip)
    future = data.sample_future(rows[:, 0], np.random.default_rng(2))
    assert ((future - rows[:, 0]) % skip == 0).all()
    assert ((future - rows[:, 0]) // skip <= data.blocks_left(rows[:, 0])).all()


def test_no_block_runs_over_an_episodes_end(theirs):
    data = Dataset(theirs)
    inside = np.isfinite(data.action).all(axis=1)
    expected = np.concatenate([np.arange(n) < n - 5 for n in LENGTHS])
    np.testing.assert_array_equal(inside, expected)
    mean, std = data.action_stats()
    assert np.isfinite(mean).all()
    assert (std > 0).all()


def test_a_model_is_trained_on_their_files(theirs, tmp_path):
    config = debug_config(tmp_path / "run", theirs, num_frames=3, predictor_num_frames=3)
    model, info = load_checkpoint(train(config))
    assert model.config.action_dim == 10
    assert info.data["action_block"] == 5
    assert set(info.metrics["embedding"]["probe_r2"]) == {f"qpos{i}" for i in range(4)}


def test_files_whose_episodes_do_not_add_up_are_refused(theirs, tmp_path):
    path = tmp_path / "cut.h5"
    path.write_bytes(theirs.read_bytes())
    with h5py.File(path, "a") as file:
        file["pixels"].resize(100, axis=0)
    with pytest.raises(DatasetError, match="truncated, or its episodes do not lie one after another"):
        Dataset(path)


def test_our_own_files_can_be_read_in_longer_blocks(tmp_path):
    write_dataset(tmp_path / "d.h5", synthetic_episodes(4, 12), INFO)
    one, two = Dataset(tmp_path / "d.h5"), Dataset(tmp_path / "d.h5", frameskip=2)
    assert (one.info.action_block, two.info.action_block) == (1, 2)
    np.testing.assert_array_equal(two.action[:11], np.hstack([one.action[:11], one.action[1:12]]))
