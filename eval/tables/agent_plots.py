"""What the agents' figures look like against what they cost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jepa_mpc.agent.rivals import RIVALS
from jepa_mpc.envs import TaskSpec
from jepa_mpc.eval.figures import COLOURS, GREY, LINES, MARKERS, new_figure, save
from jepa_mpc.eval.results import AgentRow, Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Cost = Callable[[Point], float]

# Mean return from pixels at 100 k, 500 k and 1 M control steps, trained on the reward of the very task. DreamerV3 and
# DrQ-v2: scores/ of danijar/dreamerv3 at e3f0224, episodes within 50 k steps, 8 to 10 seeds; TD-MPC2: its own release.
PUBLISHED_STEPS = (100_000, 500_000, 1_000_000)
PUBLISHED = {
    "DreamerV3": {"reacher-easy": (432, 856, 953), "reacher-hard": (38, 322, 855)},
    "TD-MPC2": {"reacher-easy": (360, 918, 982), "reacher-hard": (130, 723, 910)},
    "DrQ-v2": {"reacher-easy": (242, 745, 944), "reacher-hard": (47, 308, 670)},
}


def _mean_return(task: str) -> Cost:
    return lambda point: point.suite[task].mean


def _plot(axes: Axes, rows: dict[str, list[AgentRow]], x: Cost, y: Cost, levels: bool = False) -> None:
    """Plots y over x of agents that learned, a curve where one was measured along its training; and of the others the
    levels to compare with.
    """
    for index, (name, measured) in enumerate(rows.items()):
        # Of all seeds; a curve's last point is the row itself, on fewer pairs.
        points = [point for row in measured for point in (*row.curve[:-1], row)]
        values = [(x(point), y(point)) for point in points]
        label = RIVALS[name].label or name
        style: dict[str, Any] = {"color": COLOURS[index % len(COLOURS)], "alpha": 0.85, "label": label}
        if any(cost for cost, _ in values):
            line = "-" if measured[0].curve else "none"
            axes.plot(*zip(*values, strict=True), linestyle=line, marker=MARKERS[index % len(MARKERS)], **style)
        elif levels:
            axes.axhline(values[0][1], linestyle=LINES[1 + index % 3], linewidth=1.5, **style)


def plot_success(path: Path, rows: dict[str, list[AgentRow]]) -> None:
    """Plots success on far goals against the steps seen in learning and against the time that it took."""
    figure = new_figure(11, 4.2)
    panels = figure.subplots(1, 2, sharey=True)
    labels = ("environment steps seen in learning", "learning time, minutes, on 2 cores or fewer")
    costs: tuple[Cost, ...] = (lambda point: point.facts.steps, lambda point: point.facts.learning_seconds / 60)
    for axes, label, cost in zip(panels, labels, costs, strict=True):
        axes.set(xlabel=label, xscale="log", ylim=(-3, 103))
        _plot(axes, rows, cost, lambda point: 100 * point.protocols["far"].success_rate, levels=True)
    _finish(path, figure, "goals of another episode reached, % of pairs")


def plot_returns(path: Path, rows: dict[str, list[AgentRow]], spec: TaskSpec) -> None:
    """Plots return on the suite's own tasks against control steps, beside published curves of agents trained on it."""
    figure = new_figure(11, 4.2)
    panels = figure.subplots(1, len(spec.suite), sharey=True, squeeze=False)[0]
    for axes, task in zip(panels, (rewarded.name for rewarded in spec.suite), strict=True):
        axes.set(title=task, xlabel="control steps seen in learning", xscale="log", ylim=(-20, 1020))
        _plot(axes, rows, lambda point: spec.action_repeat * point.facts.steps, _mean_return(task))
        for marker, line, (name, curves) in zip("hpd", LINES[1:], PUBLISHED.items(), strict=True):
            if task in curves:
                label = f"{name}, published, trained on this reward"
                axes.plot(PUBLISHED_STEPS, curves[task], line, marker=marker, color=GREY, label=label)
    _finish(path, figure, "return of an episode of 1,000 control steps")


def _finish(path: Path, figure: Figure, label: str) -> None:
    from matplotlib.ticker import NullFormatter

    for axes in figure.axes:
        axes.grid(alpha=0.3)
        axes.xaxis.set_minor_formatter(NullFormatter())
    figure.axes[0].set_ylabel(label)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    save(figure, path)
