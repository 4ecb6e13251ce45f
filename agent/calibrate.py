"""Learns another camera from a few of its pictures: `jepa-mpc calibrate --pictures FOLDER --output camera.json`."""

if __name__ == "__main__":  # first, so that Ctrl-C in the imports below is answered too
    from jepa_mpc.cli import run

    run("calibrate")

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jepa_mpc.agent.calibration import Calibration
from jepa_mpc.agent.picture_file import load_picture
from jepa_mpc.cli import parse
from jepa_mpc.errors import UserError
from jepa_mpc.files import require_new, write_json
from jepa_mpc.settings import checked, to_json
from jepa_mpc.world_model.checkpoint import load_picture_stats

log = logging.getLogger(__name__)

_FEW = 8  # pictures, below which a moving robot may be left in their mean


@dataclass(frozen=True)
class CalibrateConfig:
    """Make a camera's pictures like those of training, from a few of them in which the robot stands here and there."""

    pictures: Path
    """Folder of pictures, PNG, JPEG, WEBP or BMP, in whatever poses; eight or more are best."""
    output: Path
    """JSON file to write; `PlanningAgent.load` and `--calibration` of `jepa-mpc plan` and `run` read it."""
    checkpoint: str = "reacher"
    """Checkpoint folder, or the name of a bundled one."""


def calibrate(config: CalibrateConfig) -> Calibration:
    """Fits the calibration to a folder's pictures, writes it and returns it. Raises `UserError` where the folder holds
    none, or none that fit.
    """
    config = checked(config)
    require_new(config.output)
    usual = load_picture_stats(config.checkpoint)
    if not config.pictures.is_dir():
        raise UserError(f"--pictures {config.pictures} is no folder")
    paths = sorted(path for path in config.pictures.iterdir() if not path.name.startswith("."))
    if not paths:
        raise UserError(f"--pictures {config.pictures} is empty; put some of the camera's pictures there")
    if len(paths) < _FEW:
        log.warning("%d pictures are few; what moves may be taken for the scene. %d or more are best", len(paths), _FEW)
    found = Calibration.fit(np.stack([load_picture(path, len(usual.mean)) for path in paths]), usual)
    write_json(config.output, to_json(found))
    return found


def main(args: Sequence[str]) -> None:
    config = parse(CalibrateConfig, args)
    print(f"wrote {config.output}: {calibrate(config).describe()}")  # noqa: T201
