import subprocess
import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest
from conftest import INFO, synthetic_episodes

from jepa_mpc.world_model.data.dataset import NO_SIMULATOR, Dataset, DatasetError, write_dataset


def test_layout_is_the_documented_one(dataset_path):
    with h5py.File(dataset_path) as file:
        assert file["pixels"].shape == (20 * 13, 32, 32, 3)
        assert file["pixels"].dtype == np.uint8
        assert file["pixels"].chunks == (1, 32, 32, 3)
        assert file["action"].dtype == np.float32
        np.testing.assert_array_equal(file["ep_len"], [13] * 20)
        np.testing.assert_array_equal(file["ep_offset"], 13 * np.arange(20))
        last = np.isnan(file["action"][:]).all(axis=1)
        np.testing.assert_array_equal(np.flatnonzero(last), 13 * np.arange(1, 21) - 1)
        np.testing.assert_allclose(file["observation"], np.hstack([file["qpos"], file["qvel"]]), atol=1e-6)
        np.testing.assert_array_equal(file["step_idx"][:13], np.arange(13))
        assert file.attrs["simulator"] == "none"


def test_pictures_alone_are_compressed_where_asked(dataset_path, tmp_path):
    write_dataset(tmp_path / "d.h5", synthetic_episodes(2, 4), INFO, "gzip")
    with h5py.File(tmp_path / "d.h5") as file, h5py.File(dataset_path) as plain:
        assert (file["pixels"].compression, file["action"].compression) == ("gzip", None)
        assert plain["pixels"].compression is None


def test_windows_are_consecutive_frames_of_one_training_episode(dataset_path):
    data = Dataset(dataset_path, held_out_fraction=0.25)
    assert (len(data.train_episodes), len(data.held_out_episodes)) == (15, 5)
    (pixels, _), actions = data.windows(data.sample_rows(200, 5, np.random.default_rng(0)))
    assert pixels.shape == (200, 5, 32, 32, 3)
    assert actions.shape == (200, 4, 2)
    assert np.isfinite(actions.numpy()).all()
    stored = {
        frame.tobytes() + action.tobytes(): row
        for row, (frame, action) in enumerate(zip(data.pixels, data.action, strict=True))
    }
    for window, acts in zip(pixels.numpy(), actions.numpy(), strict=True):
        rows = [stored[frame.tobytes() + action.tobytes()] for frame, action in zip(window[:-1], acts, strict=True)]
        np.testing.assert_array_equal(np.diff(rows), 1)
        assert rows[0] // 13 == (rows[-1] + 1) // 13 < 15


def test_every_window_is_equally_likely(tmp_path):
    episodes = synthetic_episodes(2, 3) + synthetic_episodes(1, 30) + synthetic_episodes(2, 3)
    for row, episode in enumerate(episodes):
        episode.pixels[:, 0, 0, 0], episode.pixels[:, 0, 0, 1] = row, np.arange(len(episode.pixels))
    write_dataset(tmp_path / "d.h5", episodes, INFO)
    data = Dataset(tmp_path / "d.h5")  # the last episode is held out
    (pixels, _), _ = data.windows(data.sample_rows(31 * 400, 4, np.random.default_rng(0)))
    starts = [tuple(start) for start in pixels[:, 0, 0, 0, :2].numpy()]
    counts = {start: starts.count(start) for start in set(starts)}
    assert set(counts) == {(0, 0), (1, 0), (3, 0)} | {(2, step) for step in range(28)}
    assert max(counts.values()) < 1.3 * 400
    assert min(counts.values()) > 0.7 * 400


def test_windows_longer_than_the_episodes_are_refused(dataset_path):
    with pytest.raises(DatasetError, match="no training episode has the 14 frames"):
        Dataset(dataset_path).sample_rows(1, 14, np.random.default_rng(0))


def test_action_stats_leave_out_held_out_episodes_and_last_rows(dataset_path):
    data = Dataset(dataset_path, held_out_fraction=0.25)
    actions = np.concatenate([data.action[13 * e : 13 * e + 12] for e in range(15)])
    mean, std = data.action_stats()
    np.testing.assert_allclose(mean, actions.mean(0), atol=1e-6)
    np.testing.assert_allclose(std, actions.std(0), atol=1e-5)


def test_later_rows_are_of_the_same_episode_however_long_it_is(tmp_path):
    write_dataset(
        tmp_path / "d.h5", [*synthetic_episodes(1, 2), *synthetic_episodes(2, 4)], replace(INFO, action_block=5)
    )
    data = Dataset(tmp_path / "d.h5")  # rows 0–2, 3–7, and 8–12, which are held out
    rows = np.arange(13)
    left = [2, 1, 0, 4, 3, 2, 1, 0, 4, 3, 2, 1, 0]
    np.testing.assert_array_equal(data.blocks_left(rows), left)
    ahead = [data.sample_future(rows, np.random.default_rng(seed)) - rows for seed in range(200)]
    np.testing.assert_array_equal(np.min(ahead, axis=0), 0)
    np.testing.assert_array_equal(np.max(ahead, axis=0), left)
    assert np.mean(ahead, axis=0)[3] == pytest.approx(2, abs=0.4)  # all alike
    np.testing.assert_array_equal(data.rows_of(data.held_out_episodes), np.arange(8, 13))
    np.testing.assert_array_equal(data.rows_of(data.train_episodes), np.arange(8))
    with h5py.File(tmp_path / "d.h5") as file:
        np.testing.assert_array_equal(file["step_idx"][:8], [0, 5, 10, 0, 5, 10, 15, 20])
        np.testing.assert_array_equal(file["ep_idx"][:8], [0, 0, 0, 1, 1, 1, 1, 1])


def test_a_fingerprint_tells_data_apart_wherever_they_lie(tmp_path):
    recorded = synthetic_episodes(3, 4)
    other = [*recorded[:2], replace(recorded[2], action=-recorded[2].action)]
    recut = synthetic_episodes(2, 4) + synthetic_episodes(1, 4, seed=1)
    prints = {}
    for name, (episodes, info) in {
        "one": (recorded, INFO),
        "moved": (recorded, INFO),
        "actions": (other, INFO),
        "episodes": (recut, INFO),
        "fewer": (recorded[:2], INFO),
        "seed": (recorded, replace(INFO, seed=1)),
        "policy": (recorded, replace(INFO, data_policy="other")),
        "looks": (recorded, replace(INFO, randomise=("camera",))),
    }.items():
        write_dataset(tmp_path / f"{name}.h5", episodes, info)
        prints[name] = Dataset(tmp_path / f"{name}.h5").fingerprint()
    assert prints.pop("one") == prints["moved"]
    assert len(set(prints.values())) == len(prints)


def test_probe_targets_read_angles_as_cosine_and_sine(dataset_path):
    data = Dataset(dataset_path)
    targets, names = data.probe_targets(np.arange(10))
    assert names == ["qpos0", "cos_qpos1", "sin_qpos1"]
    np.testing.assert_allclose(targets[:, 0], data.qpos[:10, 0])
    np.testing.assert_allclose(targets[:, 1:], np.stack([np.cos(data.qpos[:10, 1]), np.sin(data.qpos[:10, 1])], axis=1))


def test_a_missing_file_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(DatasetError, match=r"no data set at .*; collect one with `jepa-mpc collect --task reacher`"):
        Dataset(tmp_path / "none.h5", task="reacher")


def test_another_tasks_data_are_refused(dataset_path):
    with pytest.raises(DatasetError, match="was collected on task 'square', not 'reacher'"):
        Dataset(dataset_path, task="reacher")


def test_truncated_and_foreign_files_are_refused(dataset_path, tmp_path):
    whole = dataset_path.read_bytes()
    for name, content in {"half": whole[: len(whole) // 2], "text": b"not HDF5", "empty": b""}.items():
        path = tmp_path / f"{name}.h5"
        path.write_bytes(content)
        with pytest.raises(DatasetError, match="truncated or no data set"):
            Dataset(path)
    short = tmp_path / "short.h5"
    short.write_bytes(whole)
    with h5py.File(short, "a") as file:
        file["pixels"].resize(100, axis=0)
    with pytest.raises(DatasetError, match="names 260 rows, 'pixels' has 100"):
        Dataset(short)


def test_a_data_set_of_one_episode_is_refused(tmp_path):
    write_dataset(tmp_path / "d.h5", synthetic_episodes(1, 5), INFO)
    with pytest.raises(DatasetError, match="at least 2"):
        Dataset(tmp_path / "d.h5")


def test_an_unfinished_data_set_never_bears_the_final_name(tmp_path):
    def episodes():
        yield synthetic_episodes(1, 5)[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "d.h5", episodes(), INFO)
    assert not (tmp_path / "d.h5").exists()


FILL = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from conftest import INFO, synthetic_episodes
from jepa_mpc.world_model.data.dataset import append_episodes, write_dataset
add, num_episodes = {"write": write_dataset, "append": append_episodes}[sys.argv[2]], int(sys.argv[4])
add(Path(sys.argv[3]), (synthetic_episodes(1, 60)[0] for _ in range(num_episodes)), INFO)
"""


@pytest.mark.parametrize("how", ["write", "append"])
def test_a_disk_that_fills_up_leaves_what_was_there_and_nothing_else(tmp_path, how, request):
    """The disk is one that takes no file beyond 36 MB, of which HDF5 may hold back 32; 40 episodes have 7."""
    path = tmp_path / "d.h5"
    if how == "append":
        write_dataset(path, synthetic_episodes(2, 60), INFO)
    before = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
    command = [sys.executable, "-c", FILL, str(request.config.rootpath / "tests"), how, str(path), "40"]
    small = ["bash", "-c", 'ulimit -f 36864; exec "$@"', "bash", *command]
    full = subprocess.run(small, capture_output=True, text=True)
    assert full.returncode == 1  # and not a signal of HDF5's
    assert full.stderr.splitlines()[-1] == f"OSError: [Errno 27] File too large: '{tmp_path}'"
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == before


def in_looks(varied, num_blocks=4, side=8):
    """Episodes of noise, of which those that are varied are as bright as can be."""
    rng, episodes = np.random.default_rng(0), synthetic_episodes(len(varied), num_blocks)
    return [
        replace(
            episode,
            pixels=rng.integers(250 if other else 0, 256 if other else 200, (num_blocks + 1, side, side, 3), np.uint8),
            randomised=bool(other),
        )
        for episode, other in zip(episodes, varied, strict=True)
    ]


def test_a_file_says_which_episodes_looks_were_drawn_only_where_some_were(tmp_path):
    for name, varied in (("some", [0, 1, 1, 0]), ("none", [0, 0, 0, 0])):
        info = replace(INFO, randomise=("camera", "light") if any(varied) else ())
        write_dataset(tmp_path / f"{name}.h5", in_looks(varied), info)
        with h5py.File(tmp_path / f"{name}.h5") as file:
            assert ("ep_randomised" in file) == any(varied)
        data = Dataset(tmp_path / f"{name}.h5")
        assert data.ep_randomised.tolist() == varied
        assert data.info == info


@pytest.mark.parametrize("order", [("simulated", "recorded"), ("recorded", "simulated")])
def test_what_a_robot_recorded_goes_beside_simulated_data(tmp_path, order):
    simulated = replace(INFO, simulator="mujoco 3", action_repeat=2, randomise=("camera",))
    recorded = replace(INFO, simulator=NO_SIMULATOR, angles=(), data_policy="run")
    write_dataset(tmp_path / "simulated.h5", in_looks([0, 1]), simulated)
    blind = [replace(each, qpos=np.empty((len(each.qpos), 0))) for each in in_looks([0, 0])]
    write_dataset(tmp_path / "recorded.h5", blind, recorded)
    data = Dataset([tmp_path / f"{name}.h5" for name in order])
    assert replace(data.info, data_policy="uniform") == simulated
    is_recorded = np.repeat(np.array(order) == "recorded", len(data.qpos) // 2)
    np.testing.assert_array_equal(np.isnan(data.qpos).all(1), is_recorded)
    assert np.isfinite(data.qpos[~is_recorded]).all()
    write_dataset(tmp_path / "other.h5", in_looks([0, 0]), replace(recorded, angles=INFO.angles))
    with pytest.raises(DatasetError, match=r"other.h5 differs from .*simulated.h5 in simulator, action_repeat, random"):
        Dataset([tmp_path / "simulated.h5", tmp_path / "other.h5"])


def test_records_without_poses_go_beside_a_log_with_some(tmp_path):
    recorded = replace(INFO, angles=(), data_policy="run")
    blind = [replace(each, qpos=np.empty((len(each.qpos), 0))) for each in in_looks([0, 0])]
    write_dataset(tmp_path / "run.h5", blind, recorded)
    write_dataset(tmp_path / "log.h5", in_looks([0, 0]), INFO)
    for order in (("run", "log"), ("log", "run")):
        data = Dataset([tmp_path / f"{name}.h5" for name in order])
        assert data.info.angles == INFO.angles
        assert np.isnan(data.qpos).all(1).sum() == len(data.qpos) // 2


def test_files_that_make_one_data_set_each_say_it_for_their_episodes(tmp_path):
    info = replace(INFO, randomise=("camera",))
    for name, varied in (("a", [1, 0]), ("b", [0, 0, 0]), ("c", [0, 1])):
        write_dataset(tmp_path / f"{name}.h5", in_looks(varied), info)
    data = Dataset([tmp_path / f"{name}.h5" for name in "abc"])
    assert data.ep_randomised.tolist() == [1, 0, 0, 0, 0, 0, 1]
    write_dataset(tmp_path / "d.h5", in_looks([0, 0]), INFO)
    with pytest.raises(DatasetError, match=r"differs from .* in randomise; train on each by itself"):
        Dataset([tmp_path / "a.h5", tmp_path / "d.h5"])


def test_episodes_in_own_looks_are_those_whose_looks_were_not_drawn_or_all_if_all_were(tmp_path):
    write_dataset(tmp_path / "d.h5", in_looks([0, 1, 1, 0, 1, 1]), INFO)
    data = Dataset(tmp_path / "d.h5", held_out_fraction=0.34)
    assert data.in_own_looks(data.train_episodes).tolist() == [0, 3]
    assert data.in_own_looks(data.held_out_episodes).tolist() == [4, 5]
    assert data.in_own_looks(np.array([3, 2, 0])).tolist() == [3, 0]


@pytest.mark.parametrize("in_memory", ["yes", "no"])
def test_picture_stats_are_numpys_of_training_pictures_in_own_looks(tmp_path, in_memory):
    write_dataset(tmp_path / "d.h5", in_looks([0, 1, 0, 1, 0, 0], num_blocks=299), INFO)
    data = Dataset(tmp_path / "d.h5", held_out_fraction=0.34, in_memory=in_memory)
    own = np.concatenate([data.pixels[0:300], data.pixels[600:900]]).astype(float)  # more than are read at once
    mean, std = data.picture_stats()
    assert mean.dtype == std.dtype == np.uint8
    np.testing.assert_array_equal(mean, own.mean(0).round())
    np.testing.assert_array_equal(std, own.std(0).round())
    assert 40 < std.mean() < 80
    few = own[[0, 149, 299, 449, 599]]  # spread over all of them
    for found, expected in zip(data.picture_stats(5), (few.mean(0), few.std(0)), strict=True):
        np.testing.assert_allclose(found, expected, atol=0.51)


def test_a_picture_that_never_changes_has_no_std(tmp_path):
    still = [replace(each, pixels=np.full_like(each.pixels, 7 + 31 * 7)) for each in synthetic_episodes(3, 6)]
    write_dataset(tmp_path / "d.h5", still, INFO)
    mean, std = Dataset(tmp_path / "d.h5").picture_stats()
    assert (mean == 224).all()
    assert not std.any()


def test_each_file_holds_out_the_end_of_its_own_and_is_drawn_by_its_share(tmp_path):
    paths = [tmp_path / "old.h5", tmp_path / "new.h5", tmp_path / "single.h5"]
    for path, count, policy in zip(paths, (20, 10, 1), ("uniform", "practice", "uniform"), strict=True):
        write_dataset(path, synthetic_episodes(count, 4), replace(INFO, data_policy=policy))
    data = Dataset(paths, held_out_fraction=0.2)
    assert data.held_out_episodes.tolist() == [16, 17, 18, 19, 28, 29]  # a file of one episode gives it all to training
    assert data.info.data_policy == "uniform and practice"
    windows = 3  # of three frames in an episode of five
    for shares, expected in (((), (16, 8, 1)), ((1, 3, 0), (1, 3, 0)), ((0.5, 0, 0.5), (1, 0, 1))):
        data = Dataset(paths, held_out_fraction=0.2, shares=shares)
        rows = data.sample_rows(20_000, windows, np.random.default_rng(0))
        episode = rows[:, 0] // 5
        assert np.isin(episode, data.train_episodes).all()
        assert (rows[:, -1] // 5 == episode).all()
        drawn = np.bincount(np.searchsorted([20, 30], episode, side="right"), minlength=3)
        np.testing.assert_allclose(drawn / 20_000, np.divide(expected, np.sum(expected)), atol=0.012)
        for file in np.flatnonzero(expected):
            counts = np.bincount(rows[np.searchsorted([20, 30], episode, side="right") == file, 0])
            counts = counts[counts > 0]
            assert len(counts) == windows * (16, 8, 1)[file]
            assert counts.max() < 1.35 * counts.mean()
    with pytest.raises(DatasetError, match="--shares must be 3 numbers, one a data set, not 2"):
        Dataset(paths, shares=(1, 2))
    write_dataset(tmp_path / "long.h5", synthetic_episodes(3, 8), INFO)
    data = Dataset([paths[0], tmp_path / "long.h5"], shares=(1, 0))
    with pytest.raises(DatasetError, match="no training episode of a file with a share has the 6 frames"):
        data.sample_rows(1, 6, np.random.default_rng(0))
