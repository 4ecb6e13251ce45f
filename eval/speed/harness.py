"""What the measurements of speed share: ways in turn, one file of results whose place is checked first, a table."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import rich
from rich.table import Table
from tqdm import tqdm

from jepa_mpc.files import require_new, write_json
from jepa_mpc.provenance import provenance
from jepa_mpc.settings import checked, to_json

C = TypeVar("C")
T = TypeVar("T")
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


def in_turn(ways: Mapping[str, Callable[[], T]], num_rounds: int) -> dict[str, list[T]]:
    """Returns what each way came to, round by round: what slows one way slows all."""
    rounds: dict[str, list[T]] = {name: [] for name in ways}
    with tqdm(total=num_rounds * len(ways), leave=False) as bar:
        for _ in range(num_rounds):
            for name, way in ways.items():
                rounds[name].append(way())
                bar.update()
    return rounds


def rates_in_turn(ways: Mapping[str, Callable[[], float]], num_rounds: int) -> Results:
    """Returns each way's median rate, its share of the first way's, and the rounds."""
    rounds = in_turn(ways, num_rounds)
    medians = {name: float(np.median(rates)) for name, rates in rounds.items()}
    first = next(iter(medians.values()))
    shares = {name: rate / first for name, rate in medians.items()}
    return {"windows_per_second": medians, "of_the_first": shares, "rounds": rounds}


def show_rates(results: Results) -> None:
    """Prints what `rates_in_turn` found, a row a way."""
    rates, shares = results["windows_per_second"], results["of_the_first"]
    show({way: {"windows/s": rates[way], "of the first": shares[way]} for way in rates})


def show(rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints a table of rows by name, each with its figures by column."""
    table, forms = Table("", *next(iter(rows.values()))), {float: "{:,.2f}", int: "{:,}"}
    for name, row in rows.items():
        table.add_row(name, *(forms.get(type(each), "{}").format(each) for each in row.values()))
    rich.print(table)
