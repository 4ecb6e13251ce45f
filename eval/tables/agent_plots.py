"""What the agents' figures look like against what they cost."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

Rows = dict[str, list[dict[str, Any]]]

# Mean return from pixels at 100 k, 500 k and 1 M control steps, trained on the reward of the very task. DreamerV3 and
# DrQ-v2: scores/ of danijar/dreamerv3 at e3f0224, episodes within 50 k steps, 8 to 10 seeds; TD-MPC2: its own release.
PUBLISHED_STEPS = (100_000, 500_000, 1_000_000)
PUBLISHED = {
    "DreamerV3": {"reacher-easy": (432, 856, 953), "reacher-hard": (38, 322, 855)},
    "TD-MPC2": {"reacher-easy": (360, 918, 982), "reacher-hard": (130, 723, 910)},
    "DrQ-v2": {"reacher-easy": (242, 745, 944), "reacher-hard": (47, 308, 670)},
}


def _points(measured: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of all seeds; a curve's last point is the row itself, on fewer pairs."""
    return [point for row in measured for point in (*row["curve"][:-1], row)]


def plot_success(path: Path, rows: Rows) -> None:
    """Success on far goals against the steps seen in learning and against the time that it took."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    by_steps, by_time = figure.subplots(1, 2, sharey=True)
    for axes, fact, label in (
        (by_steps, "steps", "environment steps seen"),
        (by_time, "learning_seconds", "learning time, s, 2 cores or fewer"),
    ):
        for index, (name, measured) in enumerate(rows.items()):
            colour = f"C{index}"
            values = [(point["facts"][fact], point["protocols"]["far"]["success_rate"]) for point in _points(measured)]
            if not any(x for x, _ in values):  # learned nothing: a level to compare with
                axes.axhline(values[0][1], color=colour, linestyle="--", linewidth=1, label=name)
                continue
            style = "o-" if measured[0]["curve"] else "o"
            axes.plot(*zip(*values, strict=True), style, color=colour, label=name, alpha=0.8)
        axes.set(xlabel=label, xscale="log", ylim=(-0.03, 1.03))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3)
    by_steps.set_ylabel("goals of another episode reached")
    by_time.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def plot_returns(path: Path, rows: Rows, suite: Sequence[str], action_repeat: int) -> None:
    """Return on the suite's own tasks against control steps, beside published curves of agents trained on them."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, task in zip(figure.subplots(1, len(suite), squeeze=False)[0], suite, strict=True):
        for index, (name, measured) in enumerate(rows.items()):
            values = [
                (action_repeat * point["facts"]["steps"], point["suite"][task]["mean"]) for point in _points(measured)
            ]
            if any(x for x, _ in values):
                style = "o-" if measured[0]["curve"] else "o"
                axes.plot(*zip(*values, strict=True), style, color=f"C{index}", label=name, alpha=0.8)
        for marker, (name, curves) in zip("sv^", PUBLISHED.items(), strict=True):
            if task in curves:
                axes.plot(PUBLISHED_STEPS, curves[task], f"{marker}:", color="grey", label=f"{name}, published")
        axes.set(title=task, xlabel="control steps seen", ylabel="return", xscale="log", ylim=(-20, 1020))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)
