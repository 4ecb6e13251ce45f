"""The remedies against collapse by name; a module that is imported here is always there."""

# ruff: isort: skip_file
from jepa_mpc.world_model.regularizers.base import REGULARIZERS as REGULARIZERS, Regularizer as Regularizer
from jepa_mpc.world_model.regularizers.base import RegularizerConfig as RegularizerConfig
from jepa_mpc.world_model.regularizers import rivals, sigreg  # noqa: F401
