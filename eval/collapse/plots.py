"""Pictures of latent spaces that collapse and of those that do not."""

from collections.abc import Sequence
from pathlib import Path

import imageio.v3 as iio
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.linalg import orthogonal_procrustes

from jepa_mpc.eval.metrics import Rate

NUM_PATHS, PATH_LENGTH = 6, 16  # trajectories drawn, and their blocks
LatentsByStep = dict[int, NDArray[np.float32]]  # by training step, embeddings (E, T, D) of E episodes
Curve = list[tuple[int, float]]

_TITLES = {
    "none": "prediction alone",
    "ema": "momentum target (BYOL)",
    "vicreg": "VICReg",
    "simclr": "negatives (SimCLR)",
    "moco": "queue (MoCo)",
    "kl": "KL to N(0, I)",
    "pldm": "PLDM",
    "sigreg": "SIGReg",
}
_COLOURS = {
    "none": "tab:red",
    "ema": "tab:orange",
    "vicreg": "tab:green",
    "simclr": "tab:purple",
    "moco": "tab:pink",
    "kl": "tab:brown",
    "pldm": "tab:cyan",
    "sigreg": "black",
}


def principal_plane(z: NDArray[np.float32]) -> NDArray[np.float32]:
    """Embeddings (E, T, D), centred, in the plane (E, T, 2) of their first two principal components."""
    flat = z.reshape(-1, z.shape[-1])
    centred = flat - flat.mean(0)
    directions = np.linalg.svd(centred, full_matrices=False)[2][:2]
    return (centred @ directions.T).reshape(*z.shape[:2], 2)


def draw_before_after(path: Path, latents: dict[str, LatentsByStep]) -> None:
    """Rows: models; columns: before the first step and after the last; all on the same axes."""
    planes = {name: [principal_plane(by_step[step]) for step in _ends(by_step)] for name, by_step in latents.items()}
    limit = _limit([plane for pair in planes.values() for plane in pair])
    figure = Figure(figsize=(7.2, 3.7 * len(planes)), layout="constrained")
    panels = figure.subplots(len(planes), 2, squeeze=False, sharex=True, sharey=True)
    for row, (name, pair) in zip(panels, planes.items(), strict=True):
        for axes, plane, step in zip(row, pair, _ends(latents[name]), strict=True):
            _paths(axes, plane, limit)
            axes.set_title(f"{_TITLES[name]}, step {step}")
    figure.supxlabel("first two principal components of the embeddings of six held-out episodes", fontsize=9)
    figure.savefig(path, dpi=110)


def draw_grid(path: Path, latents: dict[str, LatentsByStep]) -> None:
    """Every remedy after its last step, on the same axes."""
    planes = {name: principal_plane(by_step[_ends(by_step)[1]]) for name, by_step in latents.items()}
    limit = _limit(list(planes.values()))
    figure = Figure(figsize=(11, 5.8), layout="constrained")
    panels = figure.subplots(2, -(-len(planes) // 2), sharex=True, sharey=True, squeeze=False).flat
    for axes, (name, plane) in zip(panels, planes.items(), strict=False):
        _paths(axes, plane, limit)
        axes.set_title(_TITLES[name])
    figure.savefig(path, dpi=110)


def draw_curves(path: Path, runs: dict[str, list[dict[str, Curve]]]) -> None:
    """Each measure over training: a line per remedy, the mean over its seeds, and their range."""
    panels = {
        "prediction": ("one-step prediction error", "log"),
        "std": ("std of a dimension", "log"),
        "effective_rank": ("effective rank", "linear"),
        "sigreg": ("SIGReg statistic (1.05 for N(0, I))", "log"),
        "probe_r2": ("linear probe R², least coordinate", "linear"),
    }
    figure = Figure(figsize=(12, 6.4), layout="constrained")
    grid = figure.subplots(2, 3).flat
    for axes, (measure, (title, scale)) in zip(grid, panels.items(), strict=False):
        for name, seeds in runs.items():
            steps = [step for step, _ in seeds[0][measure]]
            values = np.array([[value for _, value in seed[measure]] for seed in seeds])
            width = 2.5 if name in ("none", "sigreg") else 1.2
            axes.plot(steps, values.mean(0), color=_COLOURS[name], linewidth=width, label=_TITLES[name])
            axes.fill_between(steps, values.min(0), values.max(0), color=_COLOURS[name], alpha=0.15, linewidth=0)
        axes.set(title=title, yscale=scale, xlabel="step")
    grid[4].set_ylim(-0.2, 1.02)
    grid[5].axis("off")
    grid[5].legend(*grid[0].get_legend_handles_labels(), loc="center")
    figure.savefig(path, dpi=110)


def draw_robustness(path: Path, success: dict[str, list[tuple[float, Rate]]], random: float) -> None:
    """Planning success against each option's factor, with 95 % intervals; `random` is the random agent's."""
    figure = Figure(figsize=(12, 5.6), layout="constrained")
    panels = figure.subplots(2, -(-len(success) // 2), sharey=True, squeeze=False).flat
    for axes, (name, points) in zip(panels, success.items(), strict=False):
        factors = [factor for factor, _ in points]
        rates = [100 * r.rate for _, r in points]
        spread = [[100 * (r.rate - r.low) for _, r in points], [100 * (r.high - r.rate) for _, r in points]]
        axes.errorbar(factors, rates, spread, marker="o", capsize=3, color=_COLOURS[name.split(":")[0]])
        axes.axhline(100 * random, color="grey", linestyle=":", linewidth=1)
        axes.set(title=name.replace(": ", "\n"), xscale="log", ylim=(-3, 104))
    for axes in figure.axes[len(success) :]:
        axes.axis("off")
    figure.supxlabel("factor on the default", fontsize=10)
    figure.supylabel("planning success, % (dotted: random agent)", fontsize=10)
    figure.savefig(path, dpi=110)


def animate(path: Path, latents: dict[str, LatentsByStep], seconds_per_frame: float = 0.18) -> None:
    """A GIF of latent spaces over training, side by side on the same axes.

    Each frame is turned to fit the one before.
    """
    steps = sorted(set.intersection(*(set(by_step) for by_step in latents.values())))
    planes = {name: turned([principal_plane(by_step[step]) for step in steps]) for name, by_step in latents.items()}
    limit = _limit([plane for series in planes.values() for plane in series])
    frames = []
    for index, step in enumerate(steps):
        figure = Figure(figsize=(3.2 * len(planes), 3.5), layout="constrained")
        canvas = FigureCanvasAgg(figure)
        for axes, (name, series) in zip(figure.subplots(1, len(planes)), planes.items(), strict=True):
            _paths(axes, series[index], limit)
            axes.set_title(_TITLES[name])
        figure.suptitle(f"step {step}", fontsize=10)
        canvas.draw()
        frames.append(np.asarray(canvas.buffer_rgba())[..., :3])
    durations = [1000 * seconds_per_frame] * (len(frames) - 1) + [2000]
    iio.imwrite(path, np.stack(frames), duration=durations, loop=0, plugin="pillow", optimize=True)


def _ends(by_step: LatentsByStep) -> tuple[int, int]:
    return min(by_step), max(by_step)


def _limit(planes: Sequence[NDArray[np.float32]]) -> float:
    return 1.08 * max(float(np.abs(plane[:NUM_PATHS, :PATH_LENGTH]).max()) for plane in planes)


def _paths(axes: Axes, plane: NDArray[np.float32], limit: float) -> None:
    """Trajectories as connected points, their first one ringed."""
    for index, points in enumerate(plane[:NUM_PATHS, :PATH_LENGTH]):
        colour = matplotlib.colormaps["Dark2"](index)
        axes.plot(*points.T, "-o", color=colour, markersize=2.5, linewidth=1)
        axes.plot(*points[0], "o", color=colour, markersize=6, markerfacecolor="white")
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")


def turned(planes: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """The same planes, each rotated or mirrored to lie as near as it can to the one before."""
    turned = [planes[0]]
    for plane in planes[1:]:
        rotation, _ = orthogonal_procrustes(plane.reshape(-1, 2), turned[-1].reshape(-1, 2))
        turned.append(plane @ rotation)
    return turned
