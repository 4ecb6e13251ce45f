"""What a collapse study leaves behind: tables, a JSON, curves as CSV, and the pictures."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa_mpc import files
from jepa_mpc.eval.collapse import plots
from jepa_mpc.eval.collapse.plots import Curve
from jepa_mpc.eval.metrics import rate
from jepa_mpc.eval.report import page
from jepa_mpc.eval.results import Made
from jepa_mpc.provenance import command_line
from jepa_mpc.settings import to_json
from jepa_mpc.world_model.regularizers import REGULARIZERS

_PAIR = ("none", "sigreg")  # the two to be shown side by side


@dataclass(frozen=True)
class Variant:
    """One training: a remedy, at its defaults or with one of its options scaled."""

    regularizer: str
    option: str = ""
    factor: float = 1.0
    seed: int = 0

    @property
    def name(self) -> str:
        scaled = f"-{self.option}-x{self.factor:g}" if self.option else ""
        return f"{self.regularizer}{scaled}-seed{self.seed}"


@dataclass(frozen=True, kw_only=True)
class StudyRow(Variant, Made):
    """What one training came to."""

    success: dict[str, list[bool]]  # on every pair, by agent: planning
    loss: dict[str, dict[str, float]]  # by phase and term, the last
    embedding: dict[str, Any]  # of held-out episodes, after the training
    collapsed: str  # what the guard said
    learning_seconds: float

    @property
    def hits(self) -> list[bool]:
        return self.success["planning"]


Baselines = dict[str, list[bool]]


def write_results(
    folder: Path, runs: Path, settings: dict[str, Any], rows: list[StudyRow], baselines: Baselines
) -> None:
    """Writes everything into a folder, from the rows and from what the trainings left under `runs`."""
    stored = {"command": command_line(), **settings, "baselines": baselines, "rows": to_json(rows)}
    files.write_json(folder / "collapse.json", stored)
    files.write_whole(folder / "collapse.md", tables(rows, baselines))
    curves: dict[str, list[dict[str, Curve]]] = {}
    with files.whole(folder / "collapse.csv") as scratch, scratch.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "measure", "step", "value"])
        for row in (row for row in rows if not row.option):
            curves.setdefault(row.regularizer, []).append(measures := read_curves(runs / row.name))
            for measure, points in measures.items():
                writer.writerows([row.name, measure, step, f"{value:.4g}"] for step, value in points)
    latents = {name: _latents(runs / Variant(name).name) for name in curves}
    pair = {name: latents[name] for name in _PAIR}
    plots.draw_before_after(folder / "before-after.png", pair)
    plots.draw_grid(folder / "grid.png", latents)
    plots.draw_curves(folder / "curves.png", curves)
    success = {what: [(r.factor, rate(sum(r.hits), len(r.hits))) for r in each] for what, each in sweeps(rows).items()}
    plots.draw_robustness(folder / "robustness.png", success, float(np.mean(baselines["random"])))
    plots.animate(folder / "collapse.gif", pair)


def read_curves(run: Path) -> dict[str, Curve]:
    """Reads measures over a training's steps from its TensorBoard log; the probe's is the least of its coordinates."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

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
    """Counts the remedy's own settings that are not off by default."""
    return sum(value != 0 for value in vars(REGULARIZERS[regularizer]()).values())


def tables(rows: list[StudyRow], baselines: Baselines) -> str:
    """Returns Markdown: every remedy at its defaults, one option at a time, and each remedy's best and worst."""
    agents = ", ".join(f"{name.replace('_', '-')} {_percent(hits)}" for name, hits in baselines.items())
    of = {name: [row for row in rows if row.regularizer == name] for name in dict.fromkeys(r.regularizer for r in rows)}
    defaults = {name: [row for row in each if not row.option] for name, each in of.items()}
    swept, factors = sweeps(rows), sorted({row.factor for row in rows})
    return page(
        f"Made by `jepa-mpc benchmark collapse`. Success on {len(rows[0].hits)} standard pairs a training; intervals "
        f"are Wilson's at 95 %. On the same pairs: {agents}. All else is read off held-out episodes, on average over "
        "the seeds.",
        [_reached(*each) for each in defaults.items()],
        "Effective rank ignores scale: what is left of a collapsed space is noise in every direction, and has the "
        "highest. Read it beside the std.",
        [_embeddings(*each) for each in defaults.items()],
        "One option at a time, seed 0. A dagger: the guard reports collapse.",
        [_sweep(*what, each, factors) for what, each in swept.items()],
        [_best_and_worst(name, of[name]) for name in dict.fromkeys(name for name, _ in swept)],
    )


def _reached(name: str, seeds: list[StudyRow]) -> dict[str, str]:
    return {
        "remedy": f"`{name}`",
        "success by seed": " / ".join(f"{np.mean(row.hits):.1%}" for row in seeds),
        "all seeds": _percent([hit for row in seeds for hit in row.hits]),
        "guard": f"{sum(bool(row.collapsed) for row in seeds)} of {len(seeds)}",
        "loss hyper-parameters": str(num_hyperparameters(name)),
        "learning time": f"{np.mean([row.learning_seconds for row in seeds]):.0f} s",
    }


def _embeddings(name: str, seeds: list[StudyRow]) -> dict[str, str]:
    read, errors = [row.embedding for row in seeds], [row.loss["joint"]["prediction"] for row in seeds]
    relative = [error / each["std"] ** 2 for error, each in zip(errors, read, strict=True)]
    return {
        "remedy": f"`{name}`",
        "std": f"{np.mean([each['std'] for each in read]):.2g}",
        "effective rank": f"{np.mean([each['effective_rank'] for each in read]):.1f}",
        "probe R², least": f"{np.mean([min(each['probe_r2'].values()) for each in read]):.2f}",
        "SIGReg statistic": f"{np.mean([each['sigreg'] for each in read]):.1f}",
        "prediction error": f"{np.mean(errors):.2g}",
        "error / variance": f"{np.mean(relative):.2g}",
    }


def _sweep(name: str, option: str, rows: list[StudyRow], factors: list[float]) -> dict[str, str]:
    found = {row.factor: _percent(row.hits) + "†" * bool(row.collapsed) for row in rows}
    default = f"{option.replace('_', ' ')}, {getattr(REGULARIZERS[name](), option):.3g}"
    cells = {f"× {factor:g}": found.get(factor, "") for factor in factors}
    return {"remedy": f"`{name}`", "option, default": default, **cells}


def _best_and_worst(name: str, rows: list[StudyRow]) -> dict[str, str]:
    def said(row: StudyRow) -> str:
        scaled = f"{row.option.replace('_', ' ')} × {row.factor:g}" if row.option else "defaults"
        return f"{_percent(row.hits)}: {scaled}, seed {row.seed}"

    best, *_, worst = sorted(rows, key=lambda row: -sum(row.hits))
    return {"remedy": f"`{name}`", "best": said(best), "worst": said(worst)}


def sweeps(rows: list[StudyRow]) -> dict[tuple[str, str], list[StudyRow]]:
    """Returns by remedy and option the trainings of seed 0 in the order of the factor, the default's among them."""
    swept = dict.fromkeys((row.regularizer, row.option) for row in rows if row.option)
    return {
        (name, option): sorted(
            (r for r in rows if r.regularizer == name and r.seed == 0 and r.option in ("", option)),
            key=lambda row: row.factor,
        )
        for name, option in swept
    }


def _percent(hits: list[bool]) -> str:
    share = rate(sum(hits), len(hits))
    return f"{share.rate:.1%} [{100 * share.low:.1f}, {100 * share.high:.1f}]"


def _latents(run: Path) -> dict[int, NDArray[np.float32]]:
    """Returns by step the embeddings (E, T, D) of a few held-out episodes."""
    return {int(path.stem): np.load(path).astype(np.float32) for path in sorted((run / "latents").glob("*.npy"))}
