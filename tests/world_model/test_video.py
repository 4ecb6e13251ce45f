"""Pictures of a video by their times, whatever the container, and none from elsewhere."""

import subprocess
from fractions import Fraction

import imageio_ffmpeg
import numpy as np
import pytest

from jepa_mpc.world_model.data.hdf5 import DatasetError
from jepa_mpc.world_model.data.video import VideoWriter, frames, frames_at, video_info

av = pytest.importorskip("av")


def levels(count, height=48, width=64):
    """Grey pictures, each of its own level, with a bright corner at the top left."""
    pictures = np.repeat(np.arange(count, dtype=np.uint8)[:, None, None, None] * 8, 3, axis=3)
    pictures = np.broadcast_to(pictures, (count, height, width, 3)).copy()
    pictures[:, :8, :8] = 250
    return pictures


def write(path, pictures, fps=10, crf=1):
    writer = VideoWriter(path, Fraction(fps), pictures.shape[1:3], crf)
    for picture in pictures:
        writer.write(picture)
    writer.close()
    return path


def which(pictures):
    """Which of `levels` pictures are."""
    return [round(float(picture[20:, 20:].mean()) / 8) for picture in pictures]


def test_pictures_come_back_by_order_and_by_time(tmp_path):
    source = levels(24)
    path = write(tmp_path / "a.mp4", source)
    assert np.abs(np.stack([*frames(path)]).astype(int) - source).max() <= 3
    assert which(frames(path)) == [*range(24)]
    assert video_info(path) == (24, 10.0, 0.0)
    times = np.arange(24) / 10
    assert which(frames_at(path, times, 0.05)) == [*range(24)]
    assert which(frames_at(path, times[13:17].astype(np.float32) + 0.01, 0.05)) == [13, 14, 15, 16]  # from its middle
    assert which(frames_at(path, [0.34, 0.36, 0.36, 2.3], 0.05)) == [3, 4, 4, 23]  # the nearest, also twice
    assert which(frames_at(path, [], 0.05)) == []


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".avi", ".webm"])
def test_every_container_that_is_named_is_read(tmp_path, suffix):
    path = write(tmp_path / "a.mp4", levels(12))
    codec = {".avi": ["-c:v", "mjpeg"], ".webm": ["-c:v", "libvpx-vp9"]}.get(suffix, ["-c", "copy"])
    other = tmp_path / f"b{suffix}"
    program = imageio_ffmpeg.get_ffmpeg_exe()
    subprocess.run([program, "-v", "error", "-i", path, *codec, other], check=True)
    assert which(frames(other)) == [*range(12)]
    assert which(frames_at(other, np.arange(3, 12) / 10, 0.05)) == [*range(3, 12)]
    assert video_info(other).num_frames == 12
    assert video_info(other).fps == pytest.approx(10)


@pytest.mark.parametrize("size", [(48, 64), (33, 47), (300, 400)])
def test_even_odd_and_large_pictures_are_written(tmp_path, size):
    source = levels(4, *size)
    read = np.stack([*frames(write(tmp_path / "a.mp4", source))])
    assert read.shape == source.shape
    assert np.abs(read.astype(int) - source).max() <= 6


def test_a_video_is_turned_as_its_camera_was_held(tmp_path):
    path = write(tmp_path / "a.mp4", levels(3))
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-display_rotation", "90", "-i", path, "-c", "copy"]
    subprocess.run([*command, tmp_path / "held.mp4"], check=True)
    (picture, *_) = frames(tmp_path / "held.mp4")
    assert picture.shape == (64, 48, 3)
    assert picture[-8:, :8].mean() > 240  # a quarter turn to the left takes the corner from the top to the bottom
    assert picture[:8].mean() < 20


def test_a_time_without_a_picture_is_named(tmp_path):
    path = write(tmp_path / "a.mp4", levels(5))
    with pytest.raises(DatasetError, match=r"a\.mp4 has no picture at 0\.900 s, the nearest is at 0\.400 s"):
        list(frames_at(path, [0.0, 0.9], 0.05))
    for times in ([0.2, 0.1], [0.1, np.nan, 0.2]):
        with pytest.raises(DatasetError, match=r"a\.mp4: times must ascend, in seconds"):
            list(frames_at(path, times, 0.05))


def test_what_is_no_video_is_one_line(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(DatasetError, match=r"text\.mp4 is damaged \(.*\); write it again"):
        list(frames(tmp_path / "text.mp4"))
    with pytest.raises(DatasetError, match=r"there is no video .*none\.mp4"):
        list(frames(tmp_path / "none.mp4"))
    with pytest.raises(DatasetError, match=r"a\.gif is no video that can be read; use \.mp4, \.mov"):
        list(frames(tmp_path / "a.gif"))
    whole = write(tmp_path / "a.mp4", levels(12)).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match=r"cut\.mp4"):
        list(frames_at(tmp_path / "cut.mp4", np.arange(12) / 10, 0.05))


def test_a_playlist_leads_nowhere(tmp_path):
    """FFmpeg would follow it by itself, to any file or address."""
    secret = write(tmp_path / "secret.mp4", levels(3))
    for name, content in (
        ("list.mp4", f"ffconcat version 1.0\nfile '{secret}'\n"),
        ("hls.mp4", f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(DatasetError, match=f"{name} is damaged"):
            list(frames(tmp_path / name))


def test_pictures_too_large_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mp4", levels(3))
    monkeypatch.setattr("jepa_mpc.world_model.data.video.MAX_PIXELS", 48 * 64 - 1)
    with pytest.raises(DatasetError, match=r"a\.mp4 has pictures of 64×48; scale them down"):
        list(frames(path))
