"""Recorded data become a data set of ours, number for number, which trains; and one of LeRobot's, which reads equal."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import h5py
import numpy as np
import pytest
from conftest import INFO, synthetic_episodes
from PIL import Image
from recordings import FIXTURES, recorded, video_folder

from jepa_mpc.agent.picture_file import load_picture
from jepa_mpc.world_model.checkpoint import load_info
from jepa_mpc.world_model.convert.lerobot_stats import episode_stats, pooled
from jepa_mpc.world_model.data.dataset import Dataset, DatasetInfo, Episode, write_dataset
from jepa_mpc.world_model.data.sources import open_source

pytest.importorskip("av")
pytest.importorskip("pyarrow")

V3 = FIXTURES / "lerobot-v3"


@pytest.fixture
def converted(run_command, tmp_path):
    """Converts a source by the command; returns the data set, or the line by which it is refused."""

    def convert(source, *options, fails=False, name="out.h5"):
        output = tmp_path / name
        code, out, err = run_command("convert data", source, "--output", output, *options)
        if fails:
            assert (code, out) == (1, "")
            assert not output.exists()
            assert "Traceback" not in err
            return err.splitlines()[-1]
        assert (code, out) == (0, f"wrote {output}\n"), err
        return Dataset(output, held_out_fraction=0.3)

    return convert


def test_lerobots_data_are_ours_number_for_number(converted):
    data, episodes = converted(V3, "--camera", "front", "--task", "dot"), recorded()
    assert data.info.names == open_source(V3).state_names != ()
    assert data.ep_len.tolist() == [30, 24, 17]
    np.testing.assert_array_equal(data.action, np.concatenate([each.action for each in episodes]))
    np.testing.assert_array_equal(data.qpos, np.concatenate([each.state for each in episodes]))
    error = data.pixels[:].astype(int) - np.concatenate([each.front for each in episodes])
    assert np.abs(error).mean() < 2
    actions = np.concatenate([each.action for each in episodes]).astype(float)
    assert data.info.action_low == tuple(actions.min(0))
    assert data.info.action_high == tuple(actions.max(0))
    assert (data.info.task, data.info.data_policy, data.info.step_seconds) == ("dot", "recorded", 0.1)
    assert data.info.action_block == 1


def test_several_cameras_lie_side_by_side_and_the_state_is_what_is_felt(converted):
    both = converted(V3, "--camera", "front+wrist", "--image-size", "8")
    assert (both.info.cameras, both.info.proprio_names) == (("front", "wrist"), open_source(V3).state_names)
    np.testing.assert_array_equal(both.proprio, both.qpos.astype(np.float32))
    for index, camera in enumerate(both.info.cameras):
        alone = converted(V3, "--camera", camera, "--image-size", "8", name=f"{camera}.h5")
        assert (alone.info.cameras, alone.num_views) == ((), 1)
        np.testing.assert_array_equal(both.pixels[:, :, 8 * index :][:, :, :8], alone.pixels)


def test_our_own_data_of_several_cameras_are_read_too(converted, tmp_path):
    converted(V3, "--camera", "front+wrist", "--image-size", "8", name="both.h5")
    source = open_source(tmp_path / "both.h5")
    assert source.cameras == ("front", "wrist")
    again = converted(tmp_path / "both.h5", "--camera", "wrist+front", "--image-size", "8")
    both = Dataset(tmp_path / "both.h5")
    assert again.info.cameras == ("wrist", "front")
    np.testing.assert_array_equal(again.pixels, np.roll(both.pixels, 8, axis=2))


def test_what_was_converted_trains(converted, run_command, tmp_path):
    """And the checkpoint knows bounds, block and time, without any simulator's task."""
    converted(V3, "--camera", "front", "--task", "my_arm")
    options = ["--task", "my_arm", "--data", tmp_path / "out.h5", "--preset", "debug", "--frameskip", "2"]
    code, out, err = run_command("train", *options, "--num-frames", "4", "--output", tmp_path / "run")
    assert code == 0, err
    assert "jepa-mpc collect" not in out
    info = load_info(tmp_path / "run")
    assert info.task == "my_arm"
    assert (info.interface.action_block, info.interface.step_seconds) == (2, 0.1)
    assert len(info.interface.action_low) == 2
    code, _, err = run_command("train", "--task", "my_amr", *options[2:], "--output", tmp_path / "other")
    assert code == 1
    assert "was collected on task 'my_arm', not 'my_amr'" in err


def test_pictures_are_cut_as_a_goal_is(converted, tmp_path):
    data = converted(V3, "--camera", "wrist", "--image-size", "8")
    for row, picture in ((0, recorded()[0].wrist[0]), (35, recorded()[1].wrist[5])):
        Image.fromarray(picture).save(tmp_path / "goal.png")
        np.testing.assert_array_equal(data.pixels[np.array(row)], load_picture(tmp_path / "goal.png", 8))


def test_a_lag_is_taken_back(converted):
    """Actions that act two rows late stand, moved, beside the pictures that they led to; and as many early ones."""
    for lag in (2, -3):
        data = converted(V3, "--camera", "wrist", "--image-size", "16", "--lag", lag, name=f"{lag}.h5")
        assert data.ep_len.tolist() == [length - abs(lag) for length in (30, 24, 17)]
        for index, episode in enumerate(recorded()):
            rows = data.rows_of([index])
            done, seen = slice(max(0, -lag), len(episode.action) - max(0, lag)), slice(max(0, lag), 30 + min(0, lag))
            seen = slice(seen.start, seen.start + len(rows))
            np.testing.assert_array_equal(data.action[rows], episode.action[done])
            np.testing.assert_array_equal(data.qpos[rows], episode.state[seen])
            np.testing.assert_array_equal(data.pixels[rows], episode.wrist[seen, :, 4:20])


def test_episodes_are_left_out(converted, caplog):
    data = converted(V3, "--camera", "wrist", "--image-size", "8", "--drop-episodes", "1")
    assert data.ep_len.tolist() == [30, 17]
    data = converted(V3, "--camera", "wrist", "--image-size", "8", "--min-length", "20", name="long.h5")
    assert data.ep_len.tolist() == [30, 24]
    assert "1 episodes of fewer than 20 rows are left out" in caplog.text


def test_bounds_and_rate_are_told(converted):
    options = [
        "--camera",
        "wrist",
        "--image-size",
        "8",
        "--action-low",
        "-2",
        "--action-high",
        "1.5",
        "3",
        "--fps",
        "20",
    ]
    info = converted(V3, *options).info
    assert (info.action_low, info.action_high, info.step_seconds) == ((-2.0, -2.0), (1.5, 3.0), 0.05)


def test_data_of_ours_stay_what_they_are(converted, tmp_path):
    info = DatasetInfo(**{**vars(INFO), "action_block": 2, "action_low": (-1.0,), "action_high": (1.0,)})
    episodes = [
        Episode(**{**vars(each), "randomised": index == 1}) for index, each in enumerate(synthetic_episodes(3, 9))
    ]
    write_dataset(tmp_path / "own.h5", episodes, info)
    data = converted(tmp_path / "own.h5", "--image-size", "32")
    own = Dataset(tmp_path / "own.h5")
    assert data.info == own.info == info
    assert data.ep_randomised.tolist() == [0, 1, 0]
    for name in ("action", "qpos", "ep_len"):
        np.testing.assert_array_equal(getattr(data, name), getattr(own, name))
    np.testing.assert_array_equal(data.pixels[:], own.pixels[:])


def test_data_without_a_state_are_converted_and_train(converted, run_command, tmp_path):
    folder = video_folder(tmp_path / "log")
    for path in folder.glob("*.csv"):
        lines = [line.split(",")[1:3] for line in path.read_text().splitlines()]
        path.write_text("\n".join(map(",".join, lines)) + "\n")
    data = converted(folder, "--image-size", "32")
    assert data.qpos.shape == (71, 0)
    assert data.info.task == "log"
    options = ["--task", "log", "--data", tmp_path / "out.h5", "--preset", "debug", "--num-frames", "4"]
    code, _, err = run_command("train", *options, "--output", tmp_path / "run")
    assert code == 0, err


def test_what_cannot_be_converted_is_one_line(converted, tmp_path):
    camera = ["--camera", "front"]
    for options, line in (
        ([], f"{V3} has several cameras; choose by --camera one, or several with a + between them: front, wrist"),
        (
            ["--camera", "left"],
            f"{V3} has no camera 'left'; choose by --camera one, or several with a + between them: front, wrist",
        ),
        (
            [*camera, "--image-size", "65"],
            f"--image-size 65: camera 'front' of {V3} is 64×64; at least 65×65 pixels are needed",
        ),
        ([*camera, "--drop-episodes", "3"], f"--drop-episodes 3: {V3} has 3, numbered from 0"),
        ([*camera, "--drop-episodes", "0", "1", "2"], f"{V3} has no episode that is left; drop fewer"),
        ([*camera, "--min-length", "1"], "--min-length must be at least 2, not 1"),
        ([*camera, "--min-length", "31"], f"{V3} has no episode of 31 rows; lower --min-length"),
        ([*camera, "--action-low", "0", "0", "0"], "--action-low must be 2 numbers, or one for all, not 3"),
        ([*camera, "--action-low", "1"], "--action-low must not lie above --action-high"),
        ([*camera, "--format", "lance"], f"{V3} is not of format lance, which is a folder .lance"),
        ([*camera, "--format", "minary"], "unknown data format 'minary'; did you mean minari? there are: "),
    ):
        said = converted(V3, *options, fails=True)
        assert said.startswith(f"error: {line}")


def test_numbers_that_are_none_are_refused_with_their_episodes(converted, tmp_path):
    folder = video_folder(tmp_path / "log")
    lines = (folder / "001.csv").read_text().splitlines()
    lines[5] = "-,,0,0,0"
    (folder / "001.csv").write_text("\n".join(lines))
    said = converted(folder, fails=True)
    assert said.endswith("actions or state of 1 episodes are not all numbers; leave them out by --drop-episodes 1")
    assert converted(folder, "--drop-episodes", "1").ep_len.tolist() == [30, 17]


def test_an_interrupted_conversion_leaves_nothing(tmp_path, monkeypatch, run_command):
    from jepa_mpc.world_model.data.sources.lerobot import LeRobot

    stream = LeRobot.stream

    def interrupted(source, episode, camera):
        if episode == 1:
            raise KeyboardInterrupt
        return stream(source, episode, camera)

    monkeypatch.setattr(LeRobot, "stream", interrupted)
    for name, options in (("convert data", ["--camera", "front"]), ("convert lerobot", [])):
        code, _, err = run_command(name, V3, "--output", tmp_path / "out.h5", *options)
        assert (code, err.splitlines()[-1]) == (130, "interrupted")
        assert not list(tmp_path.iterdir())


@pytest.fixture
def as_lerobot(run_command, tmp_path):
    """Writes a source for LeRobot by the command; returns the folder."""

    def write(source, *options):
        code, out, err = run_command("convert lerobot", source, "--output", tmp_path / "for-lerobot", *options)
        assert (code, out) == (0, f"wrote {tmp_path / 'for-lerobot'}\n"), err
        return tmp_path / "for-lerobot"

    return write


def equal(source, written, cameras):
    """Says that what was written holds a source's numbers exactly, and its pictures in their places, up to coding."""
    assert written.lengths.tolist() == source.lengths.tolist()
    for index in range(len(source.lengths)):
        before, after = source.numbers(index), written.numbers(index)
        done = np.isfinite(before.action).all(1)
        np.testing.assert_array_equal(after.action[done], before.action[done])
        np.testing.assert_array_equal(after.action[~done], before.action[:-1][-1:][: (~done).sum()])
        np.testing.assert_array_equal(after.state, before.state.astype(np.float32))
        for name, other in cameras.items():
            pictures = np.stack([*source.pictures(index, name)]).astype(int)
            error = np.abs(np.stack([*written.pictures(index, other)])[:, None] - pictures[None]).mean((2, 3, 4))
            assert error.diagonal().max() < 2.5
            np.testing.assert_array_equal(pictures[error.argmin(1)], pictures)


def test_what_is_written_for_lerobot_reads_equal(as_lerobot):
    source = open_source(V3)
    written = open_source(as_lerobot(V3, "--task", "push the dot"))
    assert written.cameras == source.cameras
    assert written.action_names == source.action_names
    assert written.info.step_seconds == source.info.step_seconds
    equal(source, written, {"front": "front"})


def test_blocks_of_ours_are_frames_of_lerobots(as_lerobot, tmp_path):
    info = DatasetInfo(**{**vars(INFO), "step_seconds": 0.04, "action_block": 2})
    write_dataset(tmp_path / "own.h5", synthetic_episodes(3, 12), info)
    written = open_source(as_lerobot(tmp_path / "own.h5"))
    assert written.info.step_seconds == pytest.approx(0.08)
    equal(open_source(tmp_path / "own.h5"), written, {"pixels": "pixels"})


def test_the_tables_are_those_of_lerobots_own_writer(as_lerobot):
    """The same columns of the same types, the same keys, and statistics that agree, but where theirs are rough."""
    import pyarrow.parquet as pq

    folder = as_lerobot(V3, "--task", "push the dot")
    for name in ("data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet", "meta/tasks.parquet"):
        ours, theirs = (pq.read_schema(root / name) for root in (folder, V3))
        for column in theirs:
            if not column.name.startswith("stats/") and column.name != "observation.images.wrist":
                assert ours.field(column.name).type == column.type
    theirs, ours = (json.loads((root / "meta/info.json").read_text()) for root in (V3, folder))
    assert theirs.keys() == ours.keys()
    assert {**ours["features"], "observation.images.wrist": None, "observation.images.front": None} == {
        **theirs["features"],
        "observation.images.wrist": None,
        "observation.images.front": None,
    }
    front = [each["features"]["observation.images.front"] for each in (ours, theirs)]
    assert front[0].keys() == front[1].keys()
    assert front[0]["info"].keys() == front[1]["info"].keys()
    for key in ("codebase_version", "total_episodes", "total_frames", "total_tasks", "fps", "data_path", "video_path"):
        assert ours[key] == theirs[key]
    theirs, ours = (json.loads((root / "meta/stats.json").read_text()) for root in (V3, folder))
    assert theirs.keys() == ours.keys()
    for key, stats in theirs.items():
        assert stats.keys() == ours[key].keys()
        for name, value in stats.items():
            if "images" in key and name == "std":  # which overflows there: squares of uint8
                continue
            exact = "images" not in key and not name.startswith("q")
            rough = 0.05 if "images" in key else 1e-5 + 0.2 * np.ptp([stats["min"], stats["max"]])
            np.testing.assert_allclose(ours[key][name], value, atol=1e-5 if exact else rough)
            assert np.shape(ours[key][name]) == np.shape(value)


def test_statistics_are_those_of_all_rows_together():
    rng = np.random.default_rng(0)
    parts = [rng.normal(index, 1, (20 + index, 3)) for index in range(4)]
    shown = [rng.integers(0, 256, (5 + index, 4, 6, 3), np.uint8) for index in range(4)]
    stats = pooled([episode_stats({"a": part}, {"eye": seen}) for part, seen in zip(parts, shown, strict=True)])
    whole, seen = np.concatenate(parts), np.concatenate(shown).reshape(-1, 3) / 255
    for name, function in (("min", np.min), ("max", np.max), ("mean", np.mean), ("std", np.std)):
        np.testing.assert_allclose(stats["a"][name], function(whole, axis=0))
        np.testing.assert_allclose(np.ravel(stats["eye"][name]), function(seen, axis=0))
    assert stats["a"]["count"] == [86]
    assert stats["eye"]["count"] == [26]
    assert np.shape(stats["eye"]["mean"]) == (3, 1, 1)


def test_videos_roll_over_between_episodes(as_lerobot, monkeypatch):
    monkeypatch.setattr("jepa_mpc.world_model.convert.lerobot.VIDEO_MB", 0)
    folder = as_lerobot(V3)
    assert len(list(folder.rglob("*.mp4"))) == 6
    equal(open_source(V3), open_source(folder), {"front": "front"})


def test_what_cannot_be_written_for_lerobot_is_one_line(run_command, tmp_path):
    with h5py.File(tmp_path / "theirs.h5", "w") as file:
        file["pixels"], file["action"] = np.zeros((9, 8, 8, 3), np.uint8), np.full((9, 1), np.nan, np.float32)
        file["ep_len"], file["ep_offset"] = [9], [0]
    (tmp_path / "there").mkdir()
    output = tmp_path / "out"
    for source, options, line in (
        (tmp_path / "theirs.h5", ["--output", output], "does not say how many rows it has a second; say --fps"),
        (tmp_path / "theirs.h5", ["--output", output, "--fps", 5], "actions or state of episode 0 are not all numbers"),
        (V3, ["--output", tmp_path / "there"], "there exists already; delete it or choose another --output"),
        (V3, ["--output", output, "--drop-episodes", "7"], "--drop-episodes 7: "),
        (V3, ["--output", output, "--crf", "52"], "--crf must be 0 to 51, not 52"),
    ):
        code, out, err = run_command("convert lerobot", source, *options)
        assert (code, out) == (1, "")
        assert line in err
        assert sorted(each.name for each in tmp_path.iterdir()) == ["theirs.h5", "there"]


# Reads a folder by LeRobot's own package, and writes what it says of every frame.
THEIRS = """
import sys, types
import numpy as np
sys.modules["torchvision._meta_registrations"] = types.ModuleType("torchvision._meta_registrations")
from lerobot.datasets.lerobot_dataset import LeRobotDataset
data = LeRobotDataset("test/read", root=sys.argv[1], video_backend="pyav")
rows = [data[index] for index in range(len(data))]
columns = {key: np.stack([np.asarray(row[key]) for row in rows]) for key in rows[0] if key != "task"}
np.savez(sys.argv[2], task=[row["task"] for row in rows], fps=data.meta.fps, **columns)
"""
LEROBOT = os.environ.get("LEROBOT_PYTHON") or (sys.executable if find_spec("lerobot") else None)


@pytest.mark.slow
@pytest.mark.skipif(not LEROBOT, reason="LeRobot is not installed; LEROBOT_PYTHON may name a Python that has it")
@pytest.mark.parametrize("kind", ["dot", "own"])
def test_lerobots_own_reader_reads_what_is_written(as_lerobot, tmp_path, kind):
    """Numbers exactly, and the same pictures, bit for bit, as our reader of the same folder."""
    source = V3
    if kind == "own":
        write_dataset(
            tmp_path / "own.h5", synthetic_episodes(3, 12), DatasetInfo(**{**vars(INFO), "step_seconds": 0.08})
        )
        source = tmp_path / "own.h5"
    folder = as_lerobot(source, "--task", "push the dot")
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    command = [LEROBOT, "-c", THEIRS, folder, tmp_path / "read.npz"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    read, written = np.load(tmp_path / "read.npz"), open_source(folder)
    assert set(read["task"]) == {"push the dot"}
    assert read["fps"] == pytest.approx(1 / written.info.step_seconds)
    for index in range(len(written.lengths)):
        rows, numbers = read["episode_index"] == index, written.numbers(index)
        assert rows.sum() == written.lengths[index]
        np.testing.assert_array_equal(read["action"][rows], numbers.action)
        np.testing.assert_array_equal(read["observation.state"][rows], numbers.state)
        np.testing.assert_allclose(read["timestamp"][rows], numbers.seconds)
        for camera in written.cameras:
            pictures = read[f"observation.images.{camera}"][rows].transpose(0, 2, 3, 1)
            np.testing.assert_array_equal(np.round(255 * pictures), np.stack([*written.pictures(index, camera)]))
    equal(open_source(source), written, {"front": "front"} if kind == "dot" else {"pixels": "pixels"})
