"""Video, a picture at a time: each by its time in the file, read and written through FFmpeg's libraries (PyAV).

A file is opened as the container that its name says, never as a playlist that leads elsewhere, and nothing is decoded
that is larger than a picture may be.
"""

import contextlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.errors import reason
from jepa_mpc.pictures import MAX_PIXELS
from jepa_mpc.world_model.data.extras import needed
from jepa_mpc.world_model.data.hdf5 import DatasetError

CONTAINERS = {".mp4": "mov", ".mov": "mov", ".m4v": "mov", ".mkv": "matroska", ".webm": "matroska", ".avi": "avi"}
_SMALL = 256 * 256  # pixels, of which several threads would wait for each other longer than they work


class VideoInfo(NamedTuple):
    """What a video says of itself."""

    num_frames: int
    fps: float  # on average; 0 if it is not said
    start: float  # seconds, of its first picture


def video_info(path: Path) -> VideoInfo:
    """Returns what a video says of itself; pictures are counted where it does not say how many there are."""
    with _opened(path) as (container, stream):
        start = float((stream.start_time or 0) * stream.time_base)
        count = stream.frames or sum(packet.size > 0 for packet in container.demux(stream))
        return VideoInfo(count, float(stream.average_rate or 0), start)


def frames(path: Path) -> Iterator[NDArray[np.uint8]]:
    """Yields all pictures (H, W, 3), one after another."""
    convert = _Converter(path)
    with _opened(path) as (container, stream):
        for frame in container.decode(stream):
            yield convert(frame)


def frames_at(path: Path, seconds: Sequence[float] | NDArray[np.floating], tolerance: float) -> Iterator[NDArray]:
    """Yields for each time, in ascending order, the picture (H, W, 3) uint8 that is nearest to it.

    Raises `DatasetError` where none is as near as `tolerance`, in seconds.
    """
    wanted = np.asarray(seconds, float)
    if not len(wanted):
        return
    if not (np.diff(wanted) >= 0).all():  # which NaN is not either
        raise DatasetError(f"{path}: times must ascend, in seconds; write them again")
    done, held, at, convert = 0, None, -np.inf, _Converter(path)
    for time, frame in _timed(path, wanted[0], tolerance):
        while done < len(wanted) and held is not None and wanted[done] - at <= time - wanted[done]:
            _require_near(path, wanted[done], at, tolerance)
            yield held
            done += 1
        if done == len(wanted):
            return
        held, at = convert(frame), time
    for late in wanted[done:]:
        if held is None:
            raise DatasetError(f"{path} ends before {late:.3f} s; write it again")
        _require_near(path, late, at, tolerance)
        yield held


def _require_near(path: Path, wanted: float, at: float, tolerance: float) -> None:
    if abs(wanted - at) > tolerance:
        raise DatasetError(f"{path} has no picture at {wanted:.3f} s, the nearest is at {at:.3f} s; write it again")


class _Converter:
    """Makes pictures (H, W, 3) of a file's frames: RGB, turned as the camera was held."""

    def __init__(self, path: Path):
        self._path, self._to_rgb = path, needed("av.video.reformatter", "data", "to read video").VideoReformatter()

    def __call__(self, frame: Any) -> NDArray[np.uint8]:
        if frame.width * frame.height > MAX_PIXELS:
            raise DatasetError(f"{self._path} has pictures of {frame.width}×{frame.height}; scale them down")
        return np.rot90(self._to_rgb.reformat(frame, format="rgb24").to_ndarray(), round(frame.rotation / 90))


def _timed(path: Path, begin: float, tolerance: float) -> Iterator[tuple[float, Any]]:
    """Yields frames and their times, from one on that is not after the beginning."""
    with _opened(path) as (container, stream):
        for place in (begin - tolerance, 0.0):
            container.seek(max(0, int(place / stream.time_base)), stream=stream)
            for count, frame in enumerate(container.decode(stream)):
                if frame.pts is None:
                    raise DatasetError(f"{path} has a picture without a time; write it again, as MP4")
                time = float(frame.pts * stream.time_base)
                if count == 0 and place > 0 and time > begin + tolerance:
                    break  # by an index that leads astray
                yield time, frame
            else:
                return


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """Gives a video's container and its stream of pictures."""
    av = needed("av", "data", "to read video")
    kind = CONTAINERS.get(path.suffix.lower())
    if kind is None:
        raise DatasetError(f"{path} is no video that can be read; use {', '.join(CONTAINERS)}")
    if not path.is_file():
        raise DatasetError(f"there is no video {path}; put it there, or write the data set again")
    if not path.stat().st_size:
        raise DatasetError(f"{path} is empty; write it again, or take it and its table away")
    try:
        # A file's own bytes, so that no address or protocol in a name, and no playlist, is followed.
        with path.open("rb") as file, av.open(file, format=kind, metadata_errors="replace") as container:
            if not (container.streams.video and container.streams.video[0].codec_context):
                raise DatasetError(f"{path} holds no pictures that can be decoded; write it again")
            stream = container.streams.video[0]
            if stream.width * stream.height < _SMALL:
                stream.codec_context.thread_count = 1
            if not 0 < stream.width * stream.height <= MAX_PIXELS:
                raise DatasetError(f"{path} has pictures of {stream.width}×{stream.height}; scale them down")
            yield container, stream
    except (av.FFmpegError, ValueError) as error:
        raise DatasetError(f"{path} is damaged ({reason(error)}); write it again") from error


class VideoWriter:
    """Writes pictures to an MP4 file, one after another, at an even rate; to be closed.

    H.264 with a key frame every other picture, so that any is found fast. Colour is halved in size, as every player
    expects, but where pictures are small, or of an odd size.
    """

    def __init__(self, path: Path, fps: Fraction, size: tuple[int, int], crf: int):
        height, width = size
        av = needed("av", "data", "to write video")
        self.path, self.num_frames, self._av = path, 0, av
        is_small = height * width < _SMALL
        self.pix_fmt = "yuv444p" if is_small or height % 2 or width % 2 else "yuv420p"
        self._container = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
        options = {"crf": str(crf), "g": "2", "bf": "0"} | ({"threads": "1"} if is_small else {})
        self._stream = self._container.add_stream("libx264", rate=fps, options=options)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, self.pix_fmt

    def write(self, picture: NDArray[np.uint8]) -> None:
        """Adds a picture (H, W, 3)."""
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.pts = self.num_frames
        frame.time_base = 1 / self._stream.codec_context.framerate
        self._container.mux(self._stream.encode(frame))
        self.num_frames += 1

    def close(self) -> None:
        """Writes what is still to be written."""
        self._container.mux(self._stream.encode(None))
        self._container.close()
