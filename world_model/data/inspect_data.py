"""Looks at recorded data before a training is spent on them: `jepa-mpc inspect DATA`.

Shapes, rates and ranges, and what is wrong: actions that never vary or stand beside the wrong pictures, numbers that
are none, pictures that are black or repeated, episodes that are too short. Each comes with its fix.
"""

if __name__ == "__main__":  # first, so that Ctrl-C in the imports below is answered too
    from jepa_mpc.cli import run

    run("inspect")

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tyro.conf import Positional

from jepa_mpc.cli import parse
from jepa_mpc.files import require_folder, require_new, whole, write_json
from jepa_mpc.settings import Count, checked, to_json
from jepa_mpc.world_model.data.finding import Finding
from jepa_mpc.world_model.data.inspection import Range, Report, inspect
from jepa_mpc.world_model.data.lag import Lag
from jepa_mpc.world_model.data.sources import open_source


@dataclass(frozen=True)
class InspectConfig:
    """Say what recorded data hold, what is wrong with them, and how to mend that."""

    data: Positional[Path]
    """Folder or file; its format is recognised."""
    output: Path | None = None
    """Folder for a contact sheet of every camera and report.json; nothing is written unless given."""
    format: str | None = None
    """Format by name (a wrong one lists them), or `module:class`; the one it looks like unless given."""
    camera: str | None = None
    """Camera whose pictures to look at; all unless given."""
    num_episodes: Count = 50
    """Episodes whose pictures are looked at, evenly from all; numbers are looked at in all."""
    frameskip: Count | None = None
    """Rows in a block of the training to come, by which episodes may be too short; 1 unless given, and 5 for data sets
    of le-wm, as `jepa-mpc train` has it."""


def look(config: InspectConfig) -> Report:
    """Looks at the data, and writes contact sheets and JSON if asked to."""
    config = checked(config)
    source = open_source(config.data, config.format)
    cameras = None if config.camera is None else source.chosen(config.camera)
    written = []
    if config.output is not None:
        require_folder(config.output, f"--output {config.output}")
        written = [config.output / f"{camera.replace('/', '-')}.png" for camera in cameras or source.cameras]
        for path in (*written, config.output / "report.json"):
            require_new(path)
    report, sheets = inspect(source, cameras, config.num_episodes, config.frameskip, _progress)
    if config.output is not None:
        for path, shown in zip(written, sheets.values(), strict=True):
            if shown:
                _write_sheet(path, shown)
        write_json(config.output / "report.json", to_json(report) | {"lags": _told(report.lags)})
    return report


def _progress(episodes: Sequence[int]) -> Iterator[int]:
    from tqdm import tqdm

    return iter(tqdm(episodes, desc="looking", unit="episode"))


def _told(lags: dict[str, Lag | None]) -> dict[str, object]:
    return {name: lag and lag._asdict() for name, lag in lags.items()}


def _write_sheet(path: Path, rows: Sequence[NDArray[np.uint8]]) -> None:
    """Writes rows of pictures, an episode each, from its first to its last."""
    from PIL import Image

    height, width = (max(row.shape[axis] for row in rows) for axis in (1, 2))
    sheet = np.full((len(rows) * (height + 2), max(map(len, rows)) * (width + 2), 3), 255, np.uint8)
    for top, row in enumerate(rows):
        for left, picture in enumerate(row):
            y, x = top * (height + 2), left * (width + 2)
            sheet[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
    with whole(path) as scratch:
        Image.fromarray(sheet).save(scratch, format="PNG")


def show(report: Report) -> None:
    """Prints the report as tables."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    facts = Table(title=f"{report.path} ({report.format})", show_header=False, title_justify="left")
    rate = f"{report.rows_per_second:.6g} rows a second" if report.rows_per_second else "rate unknown"
    blocks = f", {report.block} actions in each" if report.block > 1 else ""
    lengths = str(report.shortest) if report.shortest == report.longest else f"{report.shortest}–{report.longest}"
    facts.add_row("episodes", f"{report.num_episodes}, {lengths} rows each; {report.num_rows} in all{blocks}; {rate}")
    for camera in report.cameras:
        shares = f"{camera.num_looked_at} looked at: {camera.repeated:.1%} repeated, {camera.empty:.1%} empty"
        facts.add_row(f"camera {camera.name}", f"{camera.width}×{camera.height}; {shares}")
    for name, lag in report.lags.items():
        facts.add_row(f"actions act on {name}", _say(lag))
    console.print(facts)
    if report.actions or report.states:
        ranges = Table("", "least", "mean", "most", "std", title="ranges", title_justify="left")
        for each in (*report.actions, *report.states):
            ranges.add_row(each.name, *_numbers(each))
        console.print(ranges)
    if not report.findings:
        console.print("nothing wrong was found")
    for number, finding in enumerate(report.findings, 1):
        console.print(f"[bold]{number}.[/bold] {_line(finding)}\n   fix: {finding.fix}", highlight=False)


def _numbers(each: Range) -> list[str]:
    return [f"{value:.4g}" for value in (each.least, each.mean, each.most, each.std)]


def _say(lag: Lag | None) -> str:
    if lag is None:
        return "too few rows to say"
    if not lag.is_seen:
        return f"not to be told from {lag.num_rows} rows"
    gain = max(lag.gains)
    when = "at once" if not lag.shift else f"{abs(lag.shift)} rows {'late' if lag.shift > 0 else 'early'}"
    return f"{when}: {gain:.1%} of the change is foretold by them"


def _line(finding: Finding) -> str:
    if not finding.episodes:
        return finding.says
    named = ", ".join(map(str, finding.episodes[:10])) + (", …" if len(finding.episodes) > 10 else "")
    return f"{finding.says} (episode {named})"


def main(args: Sequence[str]) -> None:
    show(look(parse(InspectConfig, args)))
