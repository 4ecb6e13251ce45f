"""What a collapse study leaves behind: tables, a JSON, curves as CSV, and the pictures."""

import csv
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jepa_mpc.eval import report
from jepa_mpc.eval.collapse import plots as collapse_plots
from jepa_mpc.eval.metrics import rate
from jepa_mpc.world_model.regularizers import REGULARIZERS

Row = dict[str, Any]  # one training's result.json
_PAIR = ("none", "sigreg")  # the two to be shown side by side


def write_results(folder: Path, settings: dict[str, Any], rows: list[Row], baselines: dict[str, list[bool]]) -> None:
    """Writes everything into the study's folder, where the trainings lie under `runs`."""
    command = "python " + " ".join(sys.argv)
    report.write_json(folder / "collapse.json", {"command": command, **settings, "baselines": baselines, "rows": rows})
    (folder / "collapse.md").write_text(tables(rows, baselines, command))

    at_defaults = [row for row in rows if not row["option"]]
    over_steps = {row["name"]: read_curves(folder / "runs" / row["name"]) for row in at_defaults}
    with (folder / "collapse.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "measure", "step", "value"])
        for name, measures in over_steps.items():
            for measure, points in measures.items():
                writer.writerows([name, measure, step, f"{value:.4g}"] for step, value in points)

    remedies = dict.fromkeys(row["regularizer"] for row in rows)
    curves = {name: [over_steps[r["name"]] for r in at_defaults if r["regularizer"] == name] for name in remedies}
    latents = {name: _latents(folder / "runs" / f"{name}-seed0") for name in remedies}
    success = {
        f"{name}: {option.replace('_', ' ')}": [(r["factor"], rate(sum(_hits(r)), len(_hits(r)))) for r in sweep]
        for (name, option), sweep in _sweeps(rows).items()
    }
    pair = {name: latents[name] for name in _PAIR}
    collapse_plots.draw_before_after(folder / "before-after.png", pair)
    collapse_plots.draw_grid(folder / "grid.png", latents)
    collapse_plots.draw_curves(folder / "curves.png", curves)
    collapse_plots.draw_robustness(folder / "robustness.png", success, float(np.mean(baselines["random"])))
    collapse_plots.animate(folder / "collapse.gif", pair)


def read_curves(run: Path) -> dict[str, collapse_plots.Curve]:
    """Measures over a training's steps, from its TensorBoard log; the probe's is the least of its coordinates."""
    log = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    log.Reload()
    read = {tag: [(event.step, event.value) for event in log.Scalars(tag)] for tag in log.Tags()["scalars"]}
    probes = [points for tag, points in read.items() if tag.startswith("probe_r2/")]
    return {
        "prediction": read["joint/prediction"],
        **{name: read[f"embedding/{name}"] for name in ("std", "effective_rank", "sigreg")},
        "probe_r2": [(at[0][0], min(value for _, value in at)) for at in zip(*probes, strict=True)],
    }


def num_hyperparameters(regularizer: str) -> int:
    """Fields of the remedy's own config that are not off by default."""
    return sum(value != 0 for value in vars(REGULARIZERS[regularizer]()).values())


def tables(rows: list[Row], baselines: dict[str, list[bool]], command: str) -> str:
    """Markdown: every remedy at its defaults, one option at a time, and each remedy's best and worst."""
    rivals = ", ".join(f"{name.replace('_', '-')} {_percent(hits)}" for name, hits in baselines.items())
    lines = [
        f"Made by `{command}`. Success on {len(_hits(rows[0]))} standard pairs a training; intervals are Wilson's at "
        f"95 %. On the same pairs: {rivals}. All else is read off held-out episodes, on average over the seeds.",
        "",
        *_table(
            *("remedy", "success by seed", "all seeds", "std", "effective rank", "probe R², least", "SIGReg statistic"),
            *("prediction error", "error / variance", "guard", "loss hyper-parameters", "learning time"),
            rows=[_at_defaults(name, rows) for name in dict.fromkeys(row["regularizer"] for row in rows)],
        ),
        "",
        "One option at a time, seed 0. A dagger: the guard reports collapse.",
        "",
    ]
    factors = sorted({row["factor"] for row in rows})
    sweeps = []
    for (name, option), sweep in _sweeps(rows).items():
        found = {row["factor"]: _percent(_hits(row)) + "†" * bool(row["collapsed"]) for row in sweep}
        default = f"{option.replace('_', ' ')}, {getattr(REGULARIZERS[name](), option):.3g}"
        sweeps.append([f"`{name}`", default, *(found.get(factor, "") for factor in factors)])
    lines += _table("remedy", "option, default", *(f"× {factor:g}" for factor in factors), rows=sweeps)
    ends = []
    for name in dict.fromkeys(name for name, _ in _sweeps(rows)):
        tried = sorted((row for row in rows if row["regularizer"] == name), key=lambda row: -sum(_hits(row)))
        ends.append([f"`{name}`", *(f"{_percent(_hits(row))}: {_setting(row)}" for row in (tried[0], tried[-1]))])
    return "\n".join([*lines, "", *_table("remedy", "best", "worst", rows=ends)]) + "\n"


def _at_defaults(name: str, rows: list[Row]) -> list[str]:
    seeds = [row for row in rows if row["regularizer"] == name and not row["option"]]
    embeddings, errors = [r["embedding"] for r in seeds], [r["loss"]["joint"]["prediction"] for r in seeds]
    return [
        f"`{name}`",
        " / ".join(f"{np.mean(_hits(row)):.1%}" for row in seeds),
        _percent([hit for row in seeds for hit in _hits(row)]),
        f"{_mean(e['std'] for e in embeddings):.2g}",
        f"{_mean(e['effective_rank'] for e in embeddings):.1f}",
        f"{_mean(min(e['probe_r2'].values()) for e in embeddings):.2f}",
        f"{_mean(e['sigreg'] for e in embeddings):.1f}",
        f"{_mean(errors):.2g}",
        f"{_mean(error / e['std'] ** 2 for error, e in zip(errors, embeddings, strict=True)):.2g}",
        f"{sum(bool(row['collapsed']) for row in seeds)} of {len(seeds)}",
        str(num_hyperparameters(name)),
        f"{_mean(row['learning_seconds'] for row in seeds):.0f} s",
    ]


def _sweeps(rows: list[Row]) -> dict[tuple[str, str], list[Row]]:
    """By remedy and option, the trainings of seed 0 in the order of the factor, the one at the defaults among them."""
    swept = dict.fromkeys((row["regularizer"], row["option"]) for row in rows if row["option"])
    return {
        (name, option): sorted(
            (r for r in rows if r["regularizer"] == name and r["seed"] == 0 and r["option"] in ("", option)),
            key=lambda row: row["factor"],
        )
        for name, option in swept
    }


def _table(*header: str, rows: Iterable[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]


def _hits(row: Row) -> list[bool]:
    return row["success"]["planning"]


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _percent(hits: list[bool]) -> str:
    share = rate(sum(hits), len(hits))
    return f"{share.rate:.1%} [{100 * share.low:.1f}, {100 * share.high:.1f}]"


def _setting(row: Row) -> str:
    scaled = f"{row['option'].replace('_', ' ')} × {row['factor']:g}" if row["option"] else "defaults"
    return f"{scaled}, seed {row['seed']}"


def _latents(run: Path) -> dict[int, NDArray[np.float32]]:
    """By step, the embeddings (E, T, D) of a few held-out episodes."""
    return {int(path.stem): np.load(path).astype(np.float32) for path in sorted((run / "latents").glob("*.npy"))}
