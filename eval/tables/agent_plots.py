"""What the agents' figures look like against what they cost."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.ticker import NullFormatter

from jepa_mpc.eval.figures import COLOURS, GREY, LINES, MARKERS, new_figure, save

if TYPE_CHECKING:
    from jepa_mpc.eval.tables.agents import AgentRow, Point

# Mean return from pixels at 100 k, 500 k and 1 M control steps, trained on the reward of the very task. DreamerV3 and
# DrQ-v2: scores/ of danijar/dreamerv3 at e3f0224, episodes within 50 k steps, 8 to 10 seeds; TD-MPC2: its own release.
PUBLISHED_STEPS = (100_000, 500_000, 1_000_000)
PUBLISHED = {
    "DreamerV3": {"reacher-easy": (432, 856, 953), "reacher-hard": (38, 322, 855)},
    "TD-MPC2": {"reacher-easy": (360, 918, 982), "reacher-hard": (130, 723, 910)},
    "DrQ-v2": {"reacher-easy": (242, 745, 944), "reacher-hard": (47, 308, 670)},
}
NAMES = {
    "jepa": "planning, ours",
    "jepa_short": "planning, ours, fewer steps",
    "dreamer": "DreamerV3",
    "sac": "SAC with hindsight, from state",
    "inverse": "inverse model on our embeddings",
    "gcbc": "behaviour cloning on our embeddings",
    "random": "random actions",
    "do_nothing": "no actions",
    "oracle": "planning with the simulator",
}


def _points(rows: Sequence["AgentRow"]) -> list["Point"]:
    """Returns those of all seeds; a curve's last point is the row itself, on fewer pairs."""
    return [point for row in rows for point in (*row.curve[:-1], row)]


def _style(index: int) -> dict:
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)], "alpha": 0.85}


def plot_success(path: Path, rows: dict[str, list["AgentRow"]]) -> None:
    """Plots success on far goals against the steps seen in learning and against the time that it took."""
    figure = new_figure(11, 4.2)
    panels = figure.subplots(1, 2, sharey=True)
    labels = ("environment steps seen in learning", "learning time, minutes, on 2 cores or fewer")
    for axes, label, fact, unit in zip(panels, labels, ("steps", "learning_seconds"), (1, 60), strict=True):
        for index, (name, measured) in enumerate(rows.items()):
            values = [(getattr(p.facts, fact) / unit, 100 * p.protocols["far"].success_rate) for p in _points(measured)]
            style = {**_style(index), "label": NAMES.get(name, name)}
            if any(x for x, _ in values):
                axes.plot(*zip(*values, strict=True), linestyle="-" if measured[0].curve else "none", **style)
            else:  # learned nothing: a level to compare with
                axes.axhline(values[0][1], **{**style, "marker": ""}, linestyle=LINES[1 + index % 3], linewidth=1.5)
        axes.set(xlabel=label, xscale="log", ylim=(-3, 103))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("goals of another episode reached, % of pairs")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    save(figure, path)


def plot_returns(path: Path, rows: dict[str, list["AgentRow"]], suite: Sequence[str], action_repeat: int) -> None:
    """Plots return on the suite's own tasks against control steps, beside published curves of agents trained on it."""
    figure = new_figure(11, 4.2)
    panels = figure.subplots(1, len(suite), sharey=True, squeeze=False)[0]
    for axes, task in zip(panels, suite, strict=True):
        for index, (name, measured) in enumerate(rows.items()):
            values = [(action_repeat * point.facts.steps, point.suite[task].mean) for point in _points(measured)]
            if any(x for x, _ in values):
                style = {**_style(index), "label": NAMES.get(name, name)}
                axes.plot(*zip(*values, strict=True), linestyle="-" if measured[0].curve else "none", **style)
        for marker, line, (name, curves) in zip("hpd", LINES[1:], PUBLISHED.items(), strict=True):
            if task in curves:
                label = f"{name}, published, trained on this reward"
                axes.plot(PUBLISHED_STEPS, curves[task], line, marker=marker, color=GREY, label=label)
        axes.set(title=task, xlabel="control steps seen in learning", xscale="log", ylim=(-20, 1020))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("return of an episode of 1,000 control steps")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    save(figure, path)
