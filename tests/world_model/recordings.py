"""Recorded episodes in every format that is read, made of the same arrays."""

import csv
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jepa_mpc.world_model.data.video import VideoWriter

FIXTURES = Path(__file__).parent / "fixtures"
FPS = 10


class Recorded(NamedTuple):
    """An episode of T rows."""

    front: np.ndarray  # (T, 64, 64, 3)
    wrist: np.ndarray  # (T, 16, 24, 3)
    state: np.ndarray  # (T, 2)
    action: np.ndarray  # (T, 2)


def recorded():
    """What the fixtures were made of: three episodes."""
    with np.load(FIXTURES / "lerobot-v3/source.npz") as source:
        return [Recorded(*(source[f"{index}/{name}"] for name in Recorded._fields)) for index in range(3)]


def write_video(path, pictures, fps=FPS):
    writer = VideoWriter(path, Fraction(fps), pictures.shape[1:3], crf=10)
    for picture in pictures:
        writer.write(picture)
    writer.close()


def write_csv(path, columns):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def video_folder(folder, cameras=("",), timed=False):
    """Writes a folder of video and CSV: 000.mp4 and 000.csv, or 000.front.mp4 and so on."""
    folder.mkdir()
    for index, episode in enumerate(recorded()):
        for camera in cameras:
            pictures = episode.wrist if camera == "wrist" else episode.front
            write_video(folder / (f"{index:03d}.{camera}.mp4" if camera else f"{index:03d}.mp4"), pictures)
        columns = {"note": ["-"] * len(episode.action)}
        columns |= {f"action.{name}": values for name, values in zip("xy", episode.action.T, strict=True)}
        columns |= {f"state.{name}": values for name, values in zip("xy", episode.state.T, strict=True)}
        columns |= {"timestamp": np.arange(len(episode.action)) / FPS} if timed else {}
        write_csv(folder / f"{index:03d}.csv", columns)
    return folder
