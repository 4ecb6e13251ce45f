"""The run folder: results.json, videos of a few episodes beside their goals, latent distance over time."""

import json
import platform
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.table import Table

from jepa_mpc import envs
from jepa_mpc.eval.goal_tasks import GoalTasks
from jepa_mpc.eval.metrics import ReturnSummary
from jepa_mpc.eval.trial import EpisodeRecord, EpisodeTrace
from jepa_mpc.provenance import simulator_version
from jepa_mpc.world_model.checkpoint import git_commit

PANEL = 192  # pixels; people see more than the agent's 64
_MARGIN = 8
_GREEN, _GREY, _INK = (46, 160, 67), (200, 200, 200), (40, 40, 40)


def provenance() -> dict[str, Any]:
    """What it takes to make a figure again."""
    return {
        "commit": git_commit(),
        "command": "python " + " ".join(sys.argv),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": {
            "platform": platform.platform(),
            "python": platform.python_version(),
            "simulator": simulator_version(),
        },
    }


def write_json(path: Path, results: dict[str, Any]) -> None:
    path.write_text(json.dumps(results, indent=2) + "\n")


def print_table(title: str, rows: Sequence[tuple[str, str]]) -> None:
    table = Table(title=title, show_header=False, title_justify="left")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def rate(share: float, interval: tuple[float, float], n: int) -> str:
    return f"{share:.1%}  [{interval[0]:.1%}, {interval[1]:.1%}]  n = {n}"


def returns(summary: ReturnSummary) -> str:
    low, high = summary.interval
    return f"{summary.mean:.0f}  [{low:.0f}, {high:.0f}]  lowest {summary.minimum:.0f}  n = {summary.num_episodes}"


def write_videos(
    folder: Path,
    env: envs.PixelEnv,
    tasks: GoalTasks,
    traces: Sequence[EpisodeTrace],
    records: Sequence[EpisodeRecord],
) -> None:
    """`episodes.mp4` and `episodes.gif`: goals above, the live view below, framed in green once the goal is met.

    `env` draws the pictures, so it may show more pixels than the agent's.
    """
    goals = [_draw(env, state) for state in tasks.goal_state]
    live = [[_draw(env, state) for state in trace.states] for trace in traces]
    frames = []
    for step in range(max(len(pictures) for pictures in live)):
        columns = []
        for goal, pictures, record in zip(goals, live, records, strict=True):
            reached = record.steps is not None and step >= record.steps
            shown = min(step, len(pictures) - 1)
            caption = f"reached at step {record.steps}" if reached else f"step {step}"
            columns.append(_column(goal, pictures[shown], caption, reached))
        frames.append(np.concatenate(columns, axis=1))
    frames += [frames[-1]] * 15  # time to look at the end
    iio.imwrite(folder / "episodes.mp4", np.stack(frames), fps=12, codec="libx264", macro_block_size=1)
    _write_gif(folder / "episodes.gif", frames)


def write_latent_distance(
    path: Path, distances: NDArray[np.floating], records: Sequence[EpisodeRecord], spec: envs.TaskSpec
) -> None:
    """Latent distance to the goal (E, K+1) at every block, one line an episode, and where each goal was met."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    steps = np.arange(distances.shape[1]) * spec.action_block
    for distance, record in zip(distances, records, strict=True):
        colour = "tab:green" if record.success else "tab:red"
        axes.plot(steps, distance, color=colour, alpha=0.25, linewidth=1)
        if record.steps is not None:
            axes.plot(record.steps, np.interp(record.steps, steps, distance), "o", color=colour, markersize=3)
    axes.plot(steps, np.median(distances, axis=0), color="black", linewidth=2, label="median")
    axes.plot([], [], "o", color="tab:green", label="goal met (judged from state)")
    if not all(record.success for record in records):
        axes.plot([], [], color="tab:red", label="never met")
    axes.set(
        xlabel="environment steps",
        ylabel="latent distance to the goal picture",
        title=f"{spec.name}: {len(records)} episodes",
        ylim=(0, None),
    )
    axes.legend()
    figure.savefig(path, dpi=120)


def write_goal_reached(
    path: Path,
    goal: NDArray[np.uint8],
    pictures: Sequence[NDArray[np.uint8]],
    best: int,
    distances: Sequence[float],
) -> None:
    """For a user's own goal: the goal, the nearest picture and the final one, (H, W, 3) each, side by side."""
    captions = ("goal", f"nearest: {distances[best]:.2f} away", f"final: {distances[-1]:.2f} away")
    panels = [
        _caption(picture, text, False)
        for picture, text in zip((goal, pictures[best], pictures[-1]), captions, strict=True)
    ]
    iio.imwrite(path, np.concatenate(panels, axis=1))


def _draw(env: envs.PixelEnv, state: NDArray[np.float64]) -> NDArray[np.uint8]:
    env.set_state(state)
    return env.render()


def _column(goal: NDArray[np.uint8], live: NDArray[np.uint8], caption: str, reached: bool) -> NDArray[np.uint8]:
    return np.concatenate([_caption(goal, "goal", False), _caption(live, caption, reached)], axis=0)


def _caption(picture: NDArray[np.uint8], text: str, highlight: bool) -> NDArray[np.uint8]:
    side = PANEL + 2 * _MARGIN
    canvas = Image.new("RGB", (side, side + 20), "white")
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((2, 22, side - 3, side + 17), fill=_GREEN if highlight else _GREY)
    canvas.paste(Image.fromarray(picture).resize((PANEL, PANEL), Image.Resampling.NEAREST), (_MARGIN, _MARGIN + 20))
    draw.text((_MARGIN, 4), text, fill=_GREEN if highlight else _INK, font=_font())
    return np.asarray(canvas)


def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", 13)


def _write_gif(path: Path, frames: Sequence[NDArray[np.uint8]]) -> None:
    small = [Image.fromarray(frame).quantize(48, method=Image.Quantize.MEDIANCUT) for frame in frames]
    small[0].save(path, save_all=True, append_images=small[1:], duration=80, loop=0, optimize=True)
