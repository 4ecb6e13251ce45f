"""What a run came to, for people: rows of a table in the terminal or in Markdown, and a plot."""

import textwrap
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa_mpc import envs
from jepa_mpc.eval.metrics import ReturnSummary, SuccessSummary, noticed
from jepa_mpc.eval.results import (
    DecisionTime,
    LimitFacts,
    NumberFacts,
    NumberResults,
    PairResults,
    PictureResults,
    Results,
    SuiteResults,
)
from jepa_mpc.eval.trial import EpisodeRecord

Rows = list[tuple[str, str]]


def describe(results: Results, folder: Path | None) -> Rows:
    """Returns names and values of what the results say."""
    if isinstance(results, PairResults):
        rule, steps = results.protocol, results.median_steps
        rows = [("protocol", f"{rule.name}: {rule.rule}"), ("success, 95 % interval", rate(results))]
        rows += [(_agent(name), rate(summary)) for name, summary in results.baselines.items()]
        rows += [("median steps to success", "–" if steps is None else f"{steps:.0f} of {rule.budget}")]
        shares = (results.first_hit, results.held, results.strict)
        rows += [("touched / held / strict", " / ".join(f"{share.rate:.1%}" for share in shares))]
        rows += _decisions(results.decision_ms, results.planner)
        rows += _numbers(results.numbers, results.limits)
        if (share := noticed(results.episodes)) is not None:
            median = np.median([each.surprise for each in results.episodes])
            rows += [("surprise, median", f"{median:.2f}; above 1 in {share.rate:.1%} of the episodes")]
    elif isinstance(results, SuiteResults):
        rows = []
        for task, summary in results.suite.items():
            rows += [(f"{task}, return", returns(summary))]
            rows += [(_agent(name), returns(baseline)) for name, baseline in summary.baselines.items()]
        rows += _decisions(results.decision_ms, results.planner)
    elif isinstance(results, NumberResults):
        rows = _numbers(results.numbers, results.limits)
    else:
        assert isinstance(results, PictureResults)
        distance = results.latent_distance
        rows = [("goal", results.goal_image), ("latent distance at the start", f"{distance['start']:.2f}")]
        rows += [("nearest", f"{distance['nearest']:.2f} after {results.nearest_step} steps")]
        rows += [("final", f"{distance['final']:.2f}"), ("success", "not decided: the goal's state is unknown")]
        rows += _numbers(results.numbers, results.limits)
    if results.checkpoint.declared:
        rows += [("declared", results.checkpoint.declared)]
    rows += [("parameters", f"{results.parameters / 1e6:.2f} M"), ("planner", planner(results))]
    return rows + ([("run folder", str(folder))] if folder else [])


def planner(results: Results) -> str:
    """Returns how it was planned, in a line."""
    if not results.planner["num_iterations"]:
        return f"none: {results.planner['warm_start']} decides alone"
    search = (
        "{planner}, {objective} ({reduction}), {num_samples} samples × {num_iterations} rounds, "
        "horizon {horizon} blocks of {block}"
    ).format(**results.planner, block=envs.get_task(results.task).action_block)
    proposer = results.planner["warm_start"]
    return search if proposer == "none" else f"{search}, {proposer} proposes"


def _decisions(time: DecisionTime, asked: dict[str, Any]) -> Rows:
    rows = [("decision time", f"median {time.median:.1f} ms, p95 {time.p95:.1f} ms  (one episode)")]
    if time.deadline_ms is not None:
        cut = f"{time.cut_short:.0%} of searches cut short, {time.mean_rounds:.1f} of {asked['num_iterations']} rounds"
        rows.append(("deadline", f"{time.deadline_ms:g} ms: {cut} on average, {time.late:.0%} late"))
    return rows


def _numbers(numbers: Sequence[NumberFacts], limits: LimitFacts | None) -> Rows:
    """Returns what is read, asked for and true in the end; of several episodes how far these are apart."""
    rows = []
    for each in numbers:
        unit = f" {each.unit}" if each.unit else ""
        stated = f"the probe's error: median {each.median:.2g}, 9 in 10 within {each.p90:.2g}{unit}"
        if len(each.read) == 1:
            said = {"read": each.read[0], "wanted": each.goal[0], "in truth": each.true[0]}
            parts = [f"{what} {value:.3f}" for what, value in said.items() if value is not None]
            rows.append((f"{each.name} in the end", f"{', '.join(parts)}{unit}; {stated}"))
            continue
        apart = {"off by": each.off, "misread by": each.misread}
        parts = [
            f"{what} {np.median(far):.3f} (median), 9 in 10 within {np.quantile(far, 0.9):.3f}"
            for what, far in apart.items()
            if len(far)
        ]
        rows.append((f"{each.name} in the end", f"{'; '.join([*parts, stated])}"))
    if limits is not None:
        left = f"{limits.steps:.1%} of the steps, in {limits.episodes.percent()} % of the episodes"
        left += f", by {limits.farthest:.1f} × the probe's error at most" * (limits.farthest > 0)
        rows.append(("beyond the limits", left))
    return rows


def _agent(name: str) -> str:
    return f"  {name.replace('_', '-')} agent"


def print_table(title: str, rows: Rows) -> None:
    """Prints rows of names and values."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, show_header=False, title_justify="left")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def page(*parts: str | list[dict[str, str]]) -> str:
    """Returns Markdown: paragraphs, wrapped at 100, and tables, whose rows have their cells by column."""
    wrap = partial(textwrap.fill, width=100, break_long_words=False, break_on_hyphens=False)
    return "\n\n".join(wrap(part) if isinstance(part, str) else _table(part) for part in parts if part) + "\n"


def _table(rows: list[dict[str, str]]) -> str:
    lines = (rows[0], ["---"] * len(rows[0]), *(row.values() for row in rows))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def rate(summary: SuccessSummary) -> str:
    """Returns a rate with its interval and its n."""
    low, high = summary.success_interval
    return f"{summary.success_rate:.1%}  [{low:.1%}, {high:.1%}]  n = {summary.num_episodes}"


def returns(summary: ReturnSummary) -> str:
    """Returns a mean return with its interval and its n."""
    low, high = summary.interval
    return f"{summary.mean:.0f}  [{low:.0f}, {high:.0f}]  lowest {summary.minimum:.0f}  n = {summary.num_episodes}"


def write_latent_distance(
    path: Path, distances: NDArray[np.floating], records: Sequence[EpisodeRecord], spec: envs.TaskSpec
) -> None:
    """Plots latent distance to the goal (E, K+1) at every block, one line an episode, and where each goal was met."""
    from jepa_mpc.eval.figures import BLACK, BLUE, RED, new_figure, save

    figure = new_figure(7, 4)
    axes = figure.subplots()
    steps = np.arange(distances.shape[1]) * spec.action_block
    for distance, record in zip(distances, records, strict=True):
        colour, line = (BLUE, "-") if record.success else (RED, "--")
        axes.plot(steps, distance, line, color=colour, alpha=0.3, linewidth=1)
        if record.steps is not None:
            axes.plot(record.steps, np.interp(record.steps, steps, distance), "o", color=colour, markersize=3)
    axes.plot(steps, np.median(distances, axis=0), color=BLACK, linewidth=2, label="median of the episodes")
    axes.plot([], [], "-o", color=BLUE, linewidth=1, markersize=3, label="goal met where the dot is (by state)")
    if not all(record.success for record in records):
        axes.plot([], [], "--", color=RED, linewidth=1, label="goal never met")
    axes.set(
        xlabel="environment steps",
        ylabel="latent distance to the goal picture",
        title=f"{spec.name}: {len(records)} episodes",
        ylim=(0, None),
    )
    axes.legend()
    save(figure, path)
