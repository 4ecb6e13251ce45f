"""Moving pictures of episodes beside their goals, and a GIF's frames in one palette."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from jepa_mpc import envs
from jepa_mpc.eval.pairs import Pairs
from jepa_mpc.eval.trial import EpisodeRecord, EpisodeTrace
from jepa_mpc.pictures import views

GIF, MP4 = "episodes.gif", "episodes.mp4"
PANEL = 192  # pixels; people see more than the agent's 64
_MARGIN, _HEAD, _END = 8, 20, 15  # pixels round a panel and above it; frames to look at the end
_GIF_SECONDS = 0.08  # a frame, at least: browsers show none faster
# A frame is read by its tone as well as by its colour.
_REACHED, _UNDER_WAY, _INK = (0, 158, 115), (210, 210, 210), (40, 40, 40)
Picture = NDArray[np.uint8]  # (H, W, 3)


def write_videos(
    folder: Path,
    env: envs.PixelEnv,
    pairs: Pairs,
    traces: Sequence[EpisodeTrace],
    records: Sequence[EpisodeRecord],
) -> None:
    """Writes `episodes.mp4`, slow, and `episodes.gif`, in real time: goals above, the live view below, framed once one
    is met.

    `env` draws the pictures, so it may show more pixels than the agent's.
    """
    import imageio.v3 as iio

    goals = [env.picture_of(state) for state in pairs.goal_state]
    live = [[env.picture_of(state) for state in trace.states] for trace in traces]
    frames = []
    for step in range(max(map(len, live))):
        columns = []
        for goal, pictures, record in zip(goals, live, records, strict=True):
            reached = record.steps is not None and step >= record.steps
            caption = f"reached at step {record.steps}" if reached else f"step {step}"
            shown = _panel(pictures[min(step, len(pictures) - 1)], caption, reached)
            columns.append(np.concatenate([_panel(goal, "goal"), shown]))
        frames.append(np.concatenate(columns, axis=1))
    every = max(1, round(_GIF_SECONDS / env.step_seconds))
    shown_ms = [round(1000 * every * env.step_seconds)] * len(frames[::every])
    write_gif(folder / GIF, [*frames[::every], frames[-1]], [*shown_ms, 1500])
    frames += [frames[-1]] * _END
    iio.imwrite(folder / MP4, np.stack(frames), fps=12, codec="libx264", macro_block_size=1)


def write_goal_reached(
    path: Path, goal: Picture, pictures: Sequence[Picture], nearest: int, distances: Sequence[float]
) -> None:
    """Writes the user's goal, the nearest picture and the final one side by side."""
    captions = ("goal", f"nearest: {distances[nearest]:.2f} away", f"final: {distances[-1]:.2f} away")
    shown = zip((goal, pictures[nearest], pictures[-1]), captions, strict=True)
    Image.fromarray(np.concatenate([_panel(*each) for each in shown], axis=1)).save(path)


def write_gif(path: Path, frames: Sequence[Picture], milliseconds: Sequence[int], num_colours: int = 64) -> None:
    """Writes frames in one palette, without dithering, so that what stands still does not flicker."""
    every = -(-len(frames) // 16)
    palette = Image.fromarray(np.concatenate(frames[::every])).quantize(num_colours, Image.Quantize.MEDIANCUT)
    images = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    images[0].save(path, save_all=True, append_images=images[1:], duration=list(milliseconds), loop=0, optimize=True)


def _panel(picture: Picture, text: str, reached: bool = False) -> Picture:
    num_views = len(views(picture))
    width, height = num_views * PANEL + 2 * _MARGIN, PANEL + 2 * _MARGIN
    canvas = Image.new("RGB", (width, height + _HEAD), "white")
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((2, _HEAD + 2, width - 3, height + _HEAD - 3), fill=_REACHED if reached else _UNDER_WAY)
    shown = Image.fromarray(picture).resize((num_views * PANEL, PANEL), Image.Resampling.NEAREST)
    canvas.paste(shown, (_MARGIN, _MARGIN + _HEAD))
    draw.text((_MARGIN, 4), text, fill=_REACHED if reached else _INK, font=ImageFont.load_default(13))
    return np.asarray(canvas)
