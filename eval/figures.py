"""What all figures share: colours that the colour-blind tell apart, and a card that is readable on any page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # matplotlib is imported when something is drawn: a command's help draws nothing
    from matplotlib.figure import Figure

# Okabe and Ito's palette without its yellow, which is too light for lines on white.
BLACK, ORANGE, SKY, GREEN, BLUE, RED, PINK = "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7"
GREY = "#5C5C5C"
COLOURS = (BLUE, ORANGE, GREEN, RED, PINK, SKY, BLACK, GREY)
MARKERS = "osD^vPX*<>"  # as many kinds as there are lines in any of our figures, for colour alone is not enough
LINES = ("-", "--", "-.", ":")


def new_figure(width: float, height: float) -> Figure:
    """Returns an empty figure, sides in inches."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))


def save(figure: Figure, path: Path) -> None:
    """Writes the figure as PNG, on a white card with round corners, so that it can be read on dark pages too."""
    from matplotlib.patches import FancyBboxPatch

    figure.patch.set_alpha(0)
    style = "round,pad=0,rounding_size=0.12"
    inches, width, height = figure.dpi_scale_trans, *figure.get_size_inches()
    figure.add_artist(FancyBboxPatch((0, 0), width, height, style, transform=inches, color="white", zorder=-1))
    figure.savefig(path, dpi=120, facecolor="none")
