"""Packages that only some data sets need."""

import importlib
from typing import Any

from jepa_mpc.world_model.data.hdf5 import DatasetError


def needed(module: str, extra: str, why: str) -> Any:
    """Returns a module of an extra. Raises `DatasetError`, which names that, if it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = error.name or module
        raise DatasetError(f"{package} is missing, {why}; `pip install 'jepa-mpc[{extra}]'`") from error
