"""What the measurements of speed share: ways taken in turn, and one file of results, whose place is checked first."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rich.table import Table
from tqdm import tqdm

from jepa_mpc.files import require_new, write_json
from jepa_mpc.provenance import provenance
from jepa_mpc.settings import checked, to_json

C = TypeVar("C")
Results = dict[str, Any]


def measurement(measure: Callable[[C], Results]) -> Callable[[C], Results]:
    """Makes a measurement of one: settings and their `output` are checked before it, and what it returns is written
    there with what it takes to make it again.
    """

    @functools.wraps(measure)
    def measure_and_write(config: C) -> Results:
        config = checked(config)
        output: Path | None = vars(config)["output"]
        if output is not None:
            require_new(output)
        settings = {name: value for name, value in vars(config).items() if not isinstance(value, Path)}
        results = {**measure(config), "settings": to_json(settings), **provenance()}
        if output is not None:
            write_json(output, results)
        return results

    return measure_and_write


def rates_in_turn(ways: Mapping[str, Callable[[], float]], num_rounds: int) -> Results:
    """Returns each way's median rate, its share of the first way's, and the rounds: what slows one way slows all."""
    rounds: dict[str, list[float]] = {name: [] for name in ways}
    with tqdm(total=num_rounds * len(ways)) as bar:
        for _ in range(num_rounds):
            for name, way in ways.items():
                rounds[name].append(way())
                bar.update()
    medians = {name: float(np.median(rates)) for name, rates in rounds.items()}
    first = next(iter(medians.values()))
    shares = {name: rate / first for name, rate in medians.items()}
    return {"windows_per_second": medians, "of_the_first": shares, "rounds": rounds}


def rates_table(heading: str, results: Results) -> Table:
    """Returns the table of what `rates_in_turn` found."""
    table = Table(heading, "windows/s", "of the first")
    for name, rate in results["windows_per_second"].items():
        table.add_row(name, f"{rate:,.1f}", f"{results['of_the_first'][name]:.2f}")
    return table
