"""Learns to read numbers off embeddings, from labels of some pictures: `jepa-mpc fit-probe --output FILE`."""

if __name__ == "__main__":  # first, so that Ctrl-C in the imports below is answered too
    from jepa_mpc.cli import run

    run("fit-probe")

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa_mpc import places
from jepa_mpc.cli import parse
from jepa_mpc.devices import choose_device
from jepa_mpc.errors import UserError
from jepa_mpc.files import require_new
from jepa_mpc.registry import load
from jepa_mpc.settings import Count, checked, convert
from jepa_mpc.world_model.checkpoint import load_checkpoint, weights_digest
from jepa_mpc.world_model.data.dataset import Dataset, spread
from jepa_mpc.world_model.probe import MOST_LABELS, Probe
from jepa_mpc.world_model.training.diagnostics import encode_rows


@dataclass(frozen=True)
class FitProbeConfig:
    """Learn to read numbers, such as joint angles, off embeddings, from the labels of some of the data's pictures."""

    output: Path
    """File to write; `jepa-mpc plan --probe` reads it."""
    task: str = "reacher"
    """Task of checkpoint and data."""
    checkpoint: Path | None = None
    """World model, a folder or a bundled one's name; the task's bundled one unless given."""
    data: tuple[Path, ...] = ()
    """HDF5 files with state, which make one data set; `data/TASK.h5` under the home unless given."""
    num_labels: Count | None = None
    """Pictures whose labels are used, spread over the episodes, of those in the scene's own looks if they are enough;
    all, but 20,000 at most, unless given."""
    labels: str | None = None
    """`module:function` that makes of poses (N, Q) other numbers, as a dict of (N,) by name; else the coordinates of
    the poses themselves."""
    device: str = "auto"
    """cpu, cuda, mps, or auto: the first of cuda, mps and cpu that is there."""


def fit_probe(config: FitProbeConfig) -> Probe:
    """Fits the probe, writes it, and returns it."""
    config = checked(config)
    require_new(config.output)
    device = str(choose_device(config.device))
    checkpoint = places.checkpoint(config.checkpoint or config.task)
    model, _ = load_checkpoint(checkpoint, task=config.task, device=device)
    data = Dataset(config.data or (places.dataset(config.task),), task=config.task, in_memory="no")
    own = data.rows_of(data.in_own_looks(np.arange(len(data.ep_len))))
    rows = np.flatnonzero(~np.isnan(data.qpos).any(axis=1))  # whose pose is told
    own, every = np.intersect1d(own, rows), rows
    num = min(len(rows), MOST_LABELS) if config.num_labels is None else config.num_labels
    if num > min(len(rows), MOST_LABELS):
        raise UserError(f"--num-labels must be at most {min(len(rows), MOST_LABELS)} of these data, not {num}")
    rows = spread(own if config.num_labels is not None and num <= len(own) else rows, num)
    angles: list[str] = []
    if config.labels is None:
        labels, angles = state_numbers(data, rows)
    else:
        labels = of_poses(config.labels)(data.qpos[rows])
    if not labels:
        raise UserError("these data have no state to read; fit the probe on data that do, with --data")
    episode = np.searchsorted(data.ep_offset, rows, side="right") - 1
    in_own = np.isin(rows, own)
    judged = in_own if in_own.any() else None
    known = state_numbers(data, every)[0] if config.labels is None else None
    z = encode_rows(model, data, rows)
    probe = Probe.fit(z, labels, angles, episode, weights_digest(checkpoint), judged, known)
    probe.save(config.output)
    return probe


def state_numbers(data: Dataset, rows: NDArray[np.int64]) -> tuple[dict[str, NDArray[np.float64]], list[str]]:
    """Returns the coordinates (N,) of rows by name, but for those that never vary, and the names of angles."""
    names = data.info.names or tuple(f"qpos{index}" for index in range(data.qpos.shape[1]))
    labels = {name: column for name, column in zip(names, data.qpos[rows].T, strict=True) if np.ptp(column) > 0}
    return labels, [name for name, is_angle in zip(names, data.info.angles, strict=True) if is_angle]


def of_poses(reference: str) -> Callable[[NDArray[np.float64]], dict[str, NDArray[np.float64]]]:
    """Returns the function of that name, whose numbers are held against what they must be."""
    function = convert(Callable[[Any], Any], load(reference), (reference,))

    def numbers(qpos: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        made = function(qpos)
        if not (isinstance(made, Mapping) and made):
            raise UserError(f"{reference} must return a dict of numbers by name, not {made!r}")
        found = {str(name): np.asarray(values) for name, values in made.items()}
        for name, values in found.items():
            if values.shape != qpos.shape[:-1] or values.dtype.kind not in "fiu":
                raise UserError(
                    f"{reference} must return {qpos.shape[:-1]} numbers of {name!r}, not {values.dtype} {values.shape}"
                )
        return found

    return numbers


def main(args: Sequence[str]) -> None:
    config = parse(FitProbeConfig, args)
    probe = fit_probe(config)
    print(f"wrote {config.output}, from {probe.info.num_labels} labels")  # noqa: T201
    for coordinate in probe.coordinates:
        print(f"  {coordinate.describe()}")  # noqa: T201
