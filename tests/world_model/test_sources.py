"""Recorded data of every format are read as they were recorded, row for row, or refused in one line."""

import gc
import json
import shutil
import sys

import h5py
import numpy as np
import pytest
from conftest import INFO, synthetic_episodes
from recordings import FIXTURES, FPS, recorded, video_folder, write_csv, write_video

from jepa_mpc.errors import UserError
from jepa_mpc.world_model.data.dataset import write_dataset
from jepa_mpc.world_model.data.hdf5 import DatasetError
from jepa_mpc.world_model.data.sources import SOURCES, Numbers, Source, open_source

pytest.importorskip("av")
pytest.importorskip("pyarrow")

CODED = 4.0  # levels of 255, on average, that coding may change


@pytest.fixture
def copy(tmp_path):
    """A copy of a fixture, to be damaged."""
    return lambda name: shutil.copytree(FIXTURES / name, tmp_path / name)


def refused(path, *parts):
    """Opens a source and reads all of it, and expects one line."""

    def read():
        source = open_source(path)
        for index in range(len(source.lengths)):
            source.numbers(index)
            for camera in source.cameras:
                list(source.pictures(index, camera))

    with pytest.raises(UserError) as caught:
        read()
    line = str(caught.value)
    del caught
    gc.collect()  # closes the file
    assert "\n" not in line
    for part in parts:
        assert part in line


def holds(source, front=None, wrist=None, exact=False):
    """Says that a source is what was recorded: numbers exactly, and every picture its own, up to coding."""
    assert source.lengths.tolist() == [30, 24, 17]
    for index, episode in enumerate(recorded()):
        numbers = source.numbers(index)
        np.testing.assert_array_equal(numbers.action.astype(np.float32), episode.action)
        np.testing.assert_array_equal(numbers.state.astype(np.float32), episode.state)
        if numbers.seconds is not None:
            np.testing.assert_allclose(numbers.seconds, np.arange(len(episode.action)) / FPS, atol=1e-6)
        for camera, pictures in ((front, episode.front), (wrist, episode.wrist)):
            if camera is None:
                continue
            read = np.stack([*source.pictures(index, camera)])
            assert read.dtype == np.uint8
            assert read.shape == pictures.shape
            error = np.abs(read[:, None].astype(int) - pictures[None]).mean((2, 3, 4))
            assert error.diagonal().max() <= (0 if exact and camera == wrist else CODED)
            if camera == front:  # the pictures' own rows, and no neighbours
                np.testing.assert_array_equal(error.argmin(1), np.arange(len(read)))


@pytest.mark.parametrize("version", ["v3", "v2"])
def test_what_lerobots_own_writer_wrote_is_read(version):
    """Two episodes in one video, the third in a second; one camera as video, one as PNG."""
    source = open_source(FIXTURES / f"lerobot-{version}")
    assert source.cameras == ("front", "wrist")
    assert source.action_names == source.state_names == ("x.pos", "y.pos")
    assert source.info.step_seconds == 0.1
    holds(source, "front", "wrist", exact=True)


def test_episodes_are_read_in_any_order():
    source, episodes = open_source(FIXTURES / "lerobot-v3"), recorded()
    for index in (2, 0, 1, 0):
        np.testing.assert_array_equal(source.numbers(index).action.astype(np.float32), episodes[index].action)
        np.testing.assert_array_equal(np.stack([*source.pictures(index, "wrist")]), episodes[index].wrist)


@pytest.mark.parametrize("inside", [True, False])
def test_what_stable_worldmodels_own_writer_wrote_is_read(inside):
    pytest.importorskip("lance")

    sys.path.insert(0, str(FIXTURES))
    from make_lerobot import dot

    source = open_source(FIXTURES / "lance" / ("dot.lance" if inside else ""))
    assert source.cameras == ("pixels",)
    holds(source)
    for index, episode in enumerate(recorded()):
        read = np.stack([*source.pictures(index, "pixels")]).astype(int)
        for picture, place in zip(read, episode.state, strict=True):
            assert np.abs(picture - dot(place, 32)).mean() < 1.5


def test_a_folder_of_video_and_csv_is_read(tmp_path):
    source = open_source(video_folder(tmp_path / "log"))
    assert source.cameras == ("pixels",)
    assert (source.action_names, source.state_names) == (("action.x", "action.y"), ("state.x", "state.y"))
    assert source.info.step_seconds == pytest.approx(0.1)
    assert source.numbers(0).seconds is None
    holds(source, "pixels")


def test_a_folder_may_have_several_cameras_and_times(tmp_path):
    source = open_source(video_folder(tmp_path / "log", ("front", "wrist"), timed=True))
    assert source.cameras == ("front", "wrist")
    holds(source, "front", "wrist")


def test_rows_faster_than_the_camera_get_the_picture_nearest_in_time(tmp_path):
    episode, folder = recorded()[0], tmp_path / "log"
    folder.mkdir()
    write_video(folder / "a.mp4", episode.front)
    seconds = np.arange(50) * 0.05 + 0.01
    write_csv(folder / "a.csv", {"timestamp": seconds, "action": np.arange(50.0)})
    source = open_source(folder)
    assert source.info.step_seconds == pytest.approx(0.05)
    read = np.stack([*source.pictures(0, "pixels")]).astype(int)
    nearest = np.abs(read[:, None] - episode.front[None]).mean((2, 3, 4)).argmin(1)
    np.testing.assert_array_equal(nearest, np.round(seconds * FPS + 1e-9))


def hdf5(path, **coding):
    """As stable-worldmodel writes it, with two cameras."""
    episodes = recorded()
    lengths = [len(each.action) for each in episodes]
    with h5py.File(path, "w") as file:
        for name, part in (("pixels", "front"), ("pixels_wrist", "wrist"), ("action", "action"), ("proprio", "state")):
            values = np.concatenate([getattr(each, part) for each in episodes])
            chunks = (1, *values.shape[1:])
            file.create_dataset(name, data=values, chunks=chunks, **coding)
        file["ep_len"], file["ep_offset"] = lengths, np.cumsum([0, *lengths[:-1]])
    return path


def test_le_wms_hdf5_is_read_with_all_its_cameras_also_where_blosc_has_coded_it(tmp_path):
    plugin = pytest.importorskip("hdf5plugin")
    for path in (hdf5(tmp_path / "plain.h5"), hdf5(tmp_path / "packed.h5", **plugin.Blosc(cname="lz4"))):
        source = open_source(path)
        assert source.cameras == ("pixels", "pixels_wrist")
        holds(source, "pixels", "pixels_wrist", exact=True)
        assert source.info.action_block == 0  # which is not said


def test_our_own_hdf5_is_read_as_it_says_of_itself(tmp_path):
    episodes = synthetic_episodes(3, 12)
    write_dataset(tmp_path / "own.h5", episodes, INFO)
    source = open_source(tmp_path / "own.h5")
    assert source.info == INFO
    for index, episode in enumerate(episodes):
        numbers = source.numbers(index)
        np.testing.assert_array_equal(numbers.action[:-1], episode.action)
        assert np.isnan(numbers.action[-1]).all()
        np.testing.assert_array_equal(numbers.state, episode.qpos)
        np.testing.assert_array_equal(np.stack([*source.pictures(index, "pixels")]), episode.pixels)


def minari_file(path, jpeg=False, nested=True):
    """As Minari's library writes it."""
    import io

    from PIL import Image

    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        for index, episode in enumerate(recorded()):
            group = file.create_group(f"episode_{index}")
            group["actions"] = episode.action[:-1]
            pictures = episode.front
            if jpeg:
                files = []
                for picture in pictures:
                    Image.fromarray(picture).save(stream := io.BytesIO(), format="JPEG", quality=95)
                    files.append(np.frombuffer(stream.getvalue(), np.uint8))
                pictures = np.empty(len(files), object)
                pictures[:] = files
            kind = h5py.vlen_dtype(np.uint8) if jpeg else None
            group.create_dataset("observations/image/front" if nested else "observations", data=pictures, dtype=kind)
            if nested:
                group["observations/state"] = episode.state.astype(np.float64)
    return path.parent.parent


@pytest.mark.parametrize("jpeg", [False, True])
def test_minaris_files_are_read(tmp_path, jpeg):
    source = open_source(minari_file(tmp_path / "set/data/main_data.hdf5", jpeg))
    assert source.cameras == ("image/front",)
    assert source.state_names == ("state.0", "state.1")
    assert source.lengths.tolist() == [30, 24, 17]
    for index, episode in enumerate(recorded()):
        numbers = source.numbers(index)
        np.testing.assert_array_equal(numbers.action[:-1], episode.action[:-1])
        assert np.isnan(numbers.action[-1]).all()
        np.testing.assert_array_equal(numbers.state, episode.state)
        read = np.stack([*source.pictures(index, "image/front")]).astype(int)
        assert np.abs(read - episode.front).mean() <= (CODED if jpeg else 0)


def test_minaris_observations_may_be_the_picture_itself(tmp_path):
    source = open_source(minari_file(tmp_path / "set/data/main_data.hdf5", nested=False) / "data/main_data.hdf5")
    assert source.cameras == ("observations",)
    assert source.numbers(0).state.shape == (30, 0)
    np.testing.assert_array_equal(np.stack([*source.pictures(2, "observations")]), recorded()[2].front)


def test_what_minaris_own_library_wrote_is_read(tmp_path, monkeypatch):
    pytest.importorskip("minari", "0.5.4")
    from jepa_mpc.world_model.convert.minari import main

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    episodes = synthetic_episodes(4, 12)
    write_dataset(tmp_path / "d.h5", episodes, INFO)
    main(["--task", "square", "--data", str(tmp_path / "d.h5"), "--dataset-id", "square-v0"])
    source = open_source(tmp_path / "minari/square-v0")
    for index, episode in enumerate(episodes):
        numbers = source.numbers(index)
        np.testing.assert_array_equal(numbers.action[:-1], episode.action)
        np.testing.assert_array_equal(numbers.state, episode.qpos)
        np.testing.assert_array_equal(np.stack([*source.pictures(index, "pixels")]), episode.pixels)


def test_a_format_of_ones_own_is_named():
    class Mine(Source):
        looks = "mine"

        def __init__(self, path):
            super().__init__(path)
            self.info, self.cameras, self.lengths = INFO, ("eye",), np.array([3])

        @classmethod
        def recognises(cls, path):
            return path == FIXTURES

        def read(self, episode):
            return Numbers(np.zeros((3, 1)), np.zeros((3, 0)), None)

        def stream(self, episode, camera):
            yield from np.zeros((2, 8, 8, 3), np.uint8)

    SOURCES.register("mine", Mine)
    try:
        source = open_source(FIXTURES, "mine")
        with pytest.raises(DatasetError, match="episode 0 has 3 rows and 2 pictures of camera 'eye'; leave it out by"):
            list(source.pictures(0, "eye"))
    finally:
        del SOURCES._values["mine"]
    with pytest.raises(UserError, match="unknown data format 'lerobt'; did you mean lerobot"):
        open_source(FIXTURES, "lerobt")


def test_what_is_of_no_format_is_told_what_can_be_read(tmp_path):
    (tmp_path / "text.txt").write_text("?")
    for path in (tmp_path, tmp_path / "text.txt"):
        refused(path, f"{path} is of no format that can be read (lerobot: ", "minari: ", "lance: ", "hdf5: ", "video: ")
    refused(tmp_path / "none", f"there is no {tmp_path / 'none'}; name a data set")


def test_which_of_several_cameras_must_be_said():
    source = open_source(FIXTURES / "lerobot-v3")
    assert source.chosen("wrist") == ["wrist"]
    assert source.chosen("wrist+front") == ["wrist", "front"]
    for names, wrong in (
        (None, "has several cameras"),
        ("left", "has no camera 'left'"),
        ("front+left", "has no camera 'left'"),
        ("front+front", r"has each camera once, not as in 'front\+front'"),
    ):
        with pytest.raises(
            DatasetError, match=rf"{wrong}; choose by --camera one, or several with a \+ .*: front, wrist"
        ):
            source.chosen(names)


def change_info(path, **changed):
    info = json.loads((path / "meta/info.json").read_text())
    (path / "meta/info.json").write_text(json.dumps({**info, **changed}))


def test_lerobots_templates_lead_nowhere_else_and_are_no_code(copy):
    path = copy("lerobot-v3")
    for template, line in (
        ("../../secret.parquet", "leads out of its folder, to ../../secret.parquet"),
        ("/etc/passwd", "leads out of its folder, to /etc/passwd"),
        ("data/{chunk_index.__class__}.parquet", "is no path"),
        ("data/{chunk_index:0999999999d}.parquet", "is no path"),
        ("data/{what}.parquet", "nothing is known of {what}"),
        ("data/none.parquet", "there is no"),
    ):
        change_info(path, data_path=template)
        refused(path, line)


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        (
            {"codebase_version": "v1.6"},
            "is of version v1.6, and v3 and v2 are read; convert it with LeRobot's own tools",
        ),
        ({"codebase_version": None}, "is of version None"),
        ({"fps": 0}, "info.json: fps must be above 0, not 0.0"),
        ({"fps": "ten"}, "info.json: fps must be float, not 'ten'"),
        ({"features": {}}, "has no feature 'action'"),
        ({"features": {"action": {"dtype": "float32", "shape": [2]}}}, "has no feature that is video or image"),
        ({"features": [1]}, "info.json: features must be"),
        ({"features": {"action": {"shape": [2]}}}, "features.action.dtype is missing"),
        ({"video_path": None}, "does not say where its videos are"),
        ({"video_path": "videos/{video_key}/none.mp4"}, "there is no video"),
    ],
)
def test_what_info_json_must_say_is_named(copy, changed, line):
    path = copy("lerobot-v3")
    change_info(path, **changed)
    refused(path, line)


def test_lerobots_tables_are_held_against_each_other(copy):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = copy("lerobot-v3")
    episodes, rows = path / "meta/episodes/chunk-000/file-000.parquet", path / "data/chunk-000/file-000.parquet"
    whole, data = pq.read_table(episodes), pq.read_table(rows)

    def put(table, name, values):
        return table.set_column(table.column_names.index(name), name, pa.array(values))

    pq.write_table(put(whole, "length", [30, 25, 17]), episodes)
    refused(path, "has 24 rows of episode 1, not 25 one after another")
    pq.write_table(put(whole, "length", [30, -1, 17]), episodes)
    refused(path, "column 'length' must be 1 or more for every episode")
    pq.write_table(whole.drop_columns(["length"]), episodes)
    refused(path, "has no column 'length'; it has episode_index, tasks,")
    name = "videos/observation.images.front/from_timestamp"
    pq.write_table(put(whole, name, [0.0, 90.0, 2.4]), episodes)
    refused(path, "file-001.mp4 has no picture at 90.000 s")
    pq.write_table(whole, episodes)
    pq.write_table(put(data, "action", ["left"] * 71), rows)
    refused(path, "column 'action' must be numbers or lists of them, not string")
    pq.write_table(put(data, "action", [[1.0]] * 70 + [[1.0, 2.0]]), rows)
    refused(path, "column 'action' must be lists of one length")
    pq.write_table(put(data, "observation.images.wrist", [{"bytes": b"GIF89a", "path": None}] * 71), rows)
    refused(path, "column 'observation.images.wrist', row 0 is no picture in PNG, JPEG")
    pq.write_table(put(data, "observation.images.wrist", [{"bytes": None, "path": "/etc/passwd"}] * 71), rows)
    refused(path, "column 'observation.images.wrist', row 0 holds no picture")
    rows.write_bytes(rows.read_bytes()[:1000])
    refused(path, "file-000.parquet is truncated or no data set")


def test_a_table_that_declares_more_than_it_holds_is_not_allocated(copy):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path, count = copy("lerobot-v3"), 10_000_000
    rows = path / "data/chunk-000/file-000.parquet"
    zeros = pa.array(np.zeros(count, np.float32))
    table = pa.table({"action": zeros, "timestamp": zeros, "episode_index": zeros})
    pq.write_table(table, rows, compression="zstd", data_page_size=2**30, write_batch_size=count)
    refused(path, f"declares {3 * 8 * count} bytes, more than it holds")


def test_a_table_of_lances_leads_nowhere_else(copy):
    pytest.importorskip("lance")
    path = copy("lance")
    (file,) = (path / "dot.lance/data").iterdir()
    (manifest,) = (path / "dot.lance/_versions").glob("*.manifest")
    outside = path / f"{'s' * (len(file.name) - 12)}.lance"
    file.rename(outside)
    manifest.write_bytes(manifest.read_bytes().replace(file.name.encode(), f"../../{outside.name}".encode()))
    refused(path / "dot.lance", f"dot.lance leads out of its folder, to ../../{outside.name}; copy it whole")
    outside.rename(file)
    refused(path / "dot.lance", "dot.lance leads out of its folder")
    manifest.write_bytes(b"?")
    refused(path / "dot.lance", "dot.lance is truncated or no data set")


def test_lances_columns_are_named(tmp_path):
    lance = pytest.importorskip("lance")
    import pyarrow as pa

    good = {"episode_idx": [0, 0, 1, 1], "action": [[0.0]] * 4, "pixels": [b"?"] * 4}
    for index, (changed, line) in enumerate(
        [
            ({}, "column 'pixels', row 0 is no picture"),
            ({"action": None}, "has no column 'action'"),
            ({"episode_idx": None}, "has no column 'episode_idx'"),
            ({"pixels": None}, "has no column of pictures, of type binary"),
            ({"episode_idx": [0, 1, 0, 1]}, "such as do not lie one after another"),
        ]
    ):
        columns = {name: values for name, values in {**good, **changed}.items() if values is not None}
        lance.write_dataset(pa.table(columns), tmp_path / f"{index}.lance")
        refused(tmp_path / f"{index}.lance", line)
    refused(tmp_path, "holds 0.lance, 1.lance", "name one of them")


def test_hdf5_that_leads_elsewhere_is_refused_in_minaris_groups_too(tmp_path):
    path = minari_file(tmp_path / "set/data/main_data.hdf5") / "data/main_data.hdf5"
    other = minari_file(tmp_path / "other/data/main_data.hdf5") / "data/main_data.hdf5"
    for name in ("episode_1/actions", "episode_0/observations", "episode_1/observations/image", "episode_2"):
        with h5py.File(path, "a") as file:
            held = file[name]
            file.move(name, "kept")
            file[name] = h5py.ExternalLink(str(other), f"/{name}")
        refused(path.parent.parent, "is a link, which is not followed")
        with h5py.File(path, "a") as file:
            del file[name]
            file.move("kept", name)
        del held


def test_groups_that_hold_each_other_end(tmp_path):
    path = minari_file(tmp_path / "set/data/main_data.hdf5") / "data/main_data.hdf5"
    with h5py.File(path, "a") as file:
        file["episode_0/observations/again"] = file["episode_0/observations"]
        file["episode_0/observations/up"] = file["episode_0"]
    source = open_source(path)
    assert "image/front" in source.cameras


def test_minari_without_pictures_or_with_discrete_actions_is_named(tmp_path):
    path = minari_file(tmp_path / "set/data/main_data.hdf5") / "data/main_data.hdf5"
    with h5py.File(path, "a") as file:
        del file["episode_1/actions"]
        file["episode_1/actions"] = np.zeros(23, int)
    refused(path.parent.parent, "column 'episode_1/actions' must be (23, A) float, not (23,) int64")
    with h5py.File(path, "a") as file:
        for index in range(3):
            del file[f"episode_{index}/observations/image"]
    refused(path.parent.parent, "has no pictures among its observations")
    with h5py.File(path, "w"):
        pass
    refused(path.parent.parent, "has no episodes, which are groups episode_0 and so on")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("action,action\n1,2\n", "must begin with a line of column names, each once"),
        ("", "must begin with a line of column names"),
        ("speed\n1\n", "000.csv has no column that begins with 'action', but speed; name one so"),
        ("action,state\n1,2\n3\n", "000.csv, line 3: 1 values, not 2; complete it"),
        ("action\n1\nleft\n", "000.csv, line 3: could not convert string to float: 'left'; write a number or nothing"),
        ("action\n", "000.csv has no rows"),
        ("action\n1\n2\n", "000.mp4 has 30 pictures and 000.csv 2 rows; make them equal, or add a column 'timestamp'"),
        ("timestamp,action\n50,1\n", "000.mp4 has no picture at 50.000 s"),
        (
            "timestamp,action\n0,1\n2900,1\n",
            "000.csv: column 'timestamp' goes on to 2900 s, and 000.mp4 is 3 s long; write seconds, not milliseconds",
        ),
        (
            "timestamp,action\n1764500000.5,1\n",
            "000.csv: column 'timestamp' begins at 1764500000 s, as a clock does; take off the moment of the video's",
        ),
    ],
)
def test_what_a_csv_must_hold_is_named_with_its_line(tmp_path, text, line):
    folder = tmp_path / "log"
    folder.mkdir()
    write_video(folder / "000.mp4", recorded()[0].front)
    (folder / "000.csv").write_text(text)
    refused(folder, line)


@pytest.mark.parametrize("between", [";", "\t"])
def test_values_may_stand_between_semicolons_or_tabs(tmp_path, between):
    folder = video_folder(tmp_path / "log")
    for table in folder.glob("*.csv"):
        table.write_text(table.read_text().replace(",", between))
    holds(open_source(folder), "pixels")


def test_a_video_without_a_table_is_named(tmp_path):
    folder = video_folder(tmp_path / "log", ("front", "wrist"))
    (folder / "001.csv").unlink()
    refused(folder, "001.front.mp4 has no table 001.csv beside it; write one, or take the video away")


def test_videos_of_several_rates_need_times(tmp_path):
    folder = video_folder(tmp_path / "log")
    write_video(folder / "002.mp4", recorded()[2].front, fps=25)
    refused(folder, f"002.mp4 has 25 pictures a second, not {FPS:g} as the first; write both at one rate, or add")


def test_episodes_of_a_folder_must_be_alike(tmp_path):
    folder = video_folder(tmp_path / "log", ("front", "wrist"))
    (folder / "001.wrist.mp4").rename(tmp_path / "away.mp4")
    refused(folder, "001.csv has videos of cameras front, not front, wrist; put them beside it")
    (tmp_path / "away.mp4").rename(folder / "001.wrist.mp4")
    (folder / "001.csv").write_text("action\n" + "1\n" * 24)
    refused(folder, "001.csv has columns action, not note, action.x, action.y, state.x, state.y; make them equal")


def test_episodes_must_be_as_wide_as_the_first(tmp_path):
    path = minari_file(tmp_path / "set/data/main_data.hdf5") / "data/main_data.hdf5"
    with h5py.File(path, "a") as file:
        del file["episode_1/actions"]
        file["episode_1/actions"] = np.zeros((23, 3))
    refused(path, "episode 1 has 24 actions of 3 numbers and states of 2, not 24 of 2 and 2; leave it out by")


@pytest.mark.parametrize(
    ("module", "path", "line"),
    [
        ("av", "lerobot-v3", "av is missing, to read video; `pip install 'jepa-mpc[data]'`"),
        ("pyarrow.parquet", "lerobot-v3", "missing, to read Parquet files; `pip install 'jepa-mpc[data]'`"),
        ("lance", "lance", "lance is missing, to read Lance; `pip install 'jepa-mpc[lance]'`"),
    ],
)
def test_a_package_that_is_missing_is_named_with_its_extra(monkeypatch, module, path, line):
    monkeypatch.setitem(sys.modules, module, None)
    refused(FIXTURES / path, line)
