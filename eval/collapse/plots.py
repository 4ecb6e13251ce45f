"""Pictures of latent spaces that collapse and of those that do not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.eval import figures
from jepa_mpc.eval.metrics import Rate
from jepa_mpc.eval.video import write_gif

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NUM_PATHS, PATH_LENGTH = 6, 16  # trajectories drawn, and their blocks
Curve = list[tuple[int, float]]  # values by training step
LatentsByStep = dict[int, NDArray[np.float32]]  # by training step, embeddings (E, T, D) of E episodes

# By remedy: its name, and how its lines are drawn.
_STYLES: dict[str, dict[str, str]] = {
    remedy: {"label": name, "color": getattr(figures, colour), "linestyle": line, "marker": marker}
    for remedy, name, colour, line, marker in (
        ("none", "prediction alone", "RED", "-", "X"),
        ("ema", "momentum target (BYOL)", "ORANGE", "--", "o"),
        ("vicreg", "VICReg", "GREEN", "-.", "s"),
        ("simclr", "negatives (SimCLR)", "PINK", ":", "D"),
        ("moco", "queue (MoCo)", "GREY", "--", "^"),
        ("kl", "KL to N(0, I)", "SKY", "-.", "v"),
        ("pldm", "PLDM", "BLUE", "--", "P"),
        ("sigreg", "SIGReg", "BLACK", "-", "*"),
    )
}


def principal_plane(z: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns embeddings (E, T, D), centred, in the plane (E, T, 2) of their first two principal components."""
    flat = z.reshape(-1, z.shape[-1])
    centred = flat - flat.mean(0)
    directions = np.linalg.svd(centred, full_matrices=False)[2][:2]
    return (centred @ directions.T).reshape(*z.shape[:2], 2)


def draw_before_after(path: Path, latents: dict[str, LatentsByStep]) -> None:
    """Draws rows: models; columns: before the first step and after the last; all on the same axes."""
    ends = [(name, step) for name, by_step in latents.items() for step in (min(by_step), max(by_step))]
    _draw_planes(path, {f"{_STYLES[name]['label']}, step {step}": latents[name][step] for name, step in ends}, 2)


def draw_grid(path: Path, latents: dict[str, LatentsByStep]) -> None:
    """Draws every remedy after its last step, on the same axes."""
    _draw_planes(path, {_STYLES[name]["label"]: z[max(z)] for name, z in latents.items()}, -(-len(latents) // 2))


def _draw_planes(path: Path, latents: dict[str, NDArray[np.float32]], columns: int) -> None:
    planes = {title: principal_plane(z) for title, z in latents.items()}
    side, rows = min(3.6, 11 / columns), -(-len(planes) // columns)
    figure = figures.new_figure(side * columns, (side + 0.1) * rows)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat
    for axes, (title, plane) in zip(panels, planes.items(), strict=False):
        _paths(axes, plane, _limit(planes.values()))
        axes.set_title(title, fontsize=11)
    figure.supxlabel("first two principal components of the embeddings of six held-out episodes", fontsize=9)
    figures.save(figure, path)


def draw_curves(path: Path, runs: dict[str, list[dict[str, Curve]]]) -> None:
    """Draws each measure over training: a line per remedy, the mean over its seeds, and their range."""
    panels = {
        "prediction": ("one-step prediction error", "log"),
        "std": ("std of an embedding's dimension", "log"),
        "effective_rank": ("effective rank (blind to scale: read beside the std)", "linear"),
        "sigreg": ("SIGReg statistic (1.05 for N(0, I))", "log"),
        "probe_r2": ("linear probe R², least coordinate", "linear"),
    }
    figure = figures.new_figure(12, 6.4)
    grid = figure.subplots(2, 3).flat
    for axes, (measure, (title, scale)) in zip(grid, panels.items(), strict=False):
        for name, seeds in runs.items():
            steps = [step for step, _ in seeds[0][measure]]
            values = np.array([[value for _, value in seed[measure]] for seed in seeds])
            style = {"linewidth": 2.2 if name in ("none", "sigreg") else 1.2, "markevery": 0.2, "markersize": 5}
            axes.plot(steps, values.mean(0), **_STYLES[name], **style)
            colour = _STYLES[name]["color"]
            axes.fill_between(steps, values.min(0), values.max(0), color=colour, alpha=0.15, linewidth=0)
        axes.set_title(title, fontsize=10)
        axes.set(yscale=scale, xlabel="training step")
    grid[4].set_ylim(-0.2, 1.02)
    grid[5].axis("off")
    grid[5].legend(*grid[0].get_legend_handles_labels(), loc="center", title="mean of the seeds, and their range")
    figures.save(figure, path)


def draw_robustness(path: Path, success: dict[tuple[str, str], list[tuple[float, Rate]]], random: float) -> None:
    """Draws planning success against each option's factor, with 95 % intervals; `random` is the random agent's."""
    figure = figures.new_figure(12, 5.6)
    panels = figure.subplots(2, -(-len(success) // 2), sharey=True, squeeze=False).flat
    for axes, ((name, option), points) in zip(panels, success.items(), strict=False):
        factors, rates = zip(*points, strict=True)
        rate, low, high = 100 * np.array(rates).T
        axes.errorbar(factors, rate, (rate - low, high - rate), capsize=3, **_STYLES[name])
        axes.axhline(100 * random, color=figures.GREY, linestyle=":", linewidth=1.5)
        axes.set_title(f"{_STYLES[name]['label']}\n{option.replace('_', ' ')}", fontsize=10)
        axes.set(xscale="log", ylim=(-3, 104))
        axes.set_xticks((0.1, 1, 10), ("× 0.1", "× 1", "× 10"))
        axes.minorticks_off()
    for axes in figure.axes[len(success) :]:
        axes.axis("off")
    figure.supxlabel("factor on the option's default", fontsize=10)
    figure.supylabel("goals reached by planning, % of pairs (dotted: random agent)", fontsize=10)
    figures.save(figure, path)


def animate(path: Path, latents: dict[str, LatentsByStep]) -> None:
    """Writes a GIF of latent spaces over training, side by side on the same axes.

    Each frame is turned to fit the one before.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    steps = sorted(set.intersection(*(set(by_step) for by_step in latents.values())))
    planes = {name: turned([principal_plane(by_step[step]) for step in steps]) for name, by_step in latents.items()}
    limit = _limit([plane for series in planes.values() for plane in series])
    frames = []
    for index, step in enumerate(steps):
        figure = figures.new_figure(3.2 * len(planes), 3.5)
        canvas = FigureCanvasAgg(figure)
        for axes, (name, series) in zip(figure.subplots(1, len(planes)), planes.items(), strict=True):
            _paths(axes, series[index], limit)
            axes.set_title(_STYLES[name]["label"])
        figure.suptitle(f"step {step}", fontsize=10)
        canvas.draw()
        frames.append(np.asarray(canvas.buffer_rgba())[..., :3])
    write_gif(path, frames, [180] * (len(frames) - 1) + [2000])


def _limit(planes: Iterable[NDArray[np.float32]]) -> float:
    return 1.08 * max(float(np.abs(plane[:NUM_PATHS, :PATH_LENGTH]).max()) for plane in planes)


def _paths(axes: Axes, plane: NDArray[np.float32], limit: float) -> None:
    """Draws trajectories as connected points, their first one ringed."""
    looks = figures.COLOURS, figures.LINES * 2, figures.MARKERS, plane[:NUM_PATHS, :PATH_LENGTH]
    for colour, line, marker, points in zip(*looks, strict=False):
        axes.plot(*points.T, line, color=colour, marker=marker, markersize=3, linewidth=1)
        axes.plot(*points[0], "o", color=colour, markersize=6, markerfacecolor="white")
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")


def turned(planes: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """Returns the same planes, each rotated or mirrored to lie as near as it can to the one before."""
    from scipy.linalg import orthogonal_procrustes

    turned = [planes[0]]
    for plane in planes[1:]:
        rotation, _ = orthogonal_procrustes(plane.reshape(-1, 2), turned[-1].reshape(-1, 2))
        turned.append(plane @ rotation)
    return turned
