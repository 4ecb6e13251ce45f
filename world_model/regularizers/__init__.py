"""The remedies against collapse, by name. Importing this registers them all."""

# ruff: isort: skip_file
from jepa_mpc.world_model.regularizers.base import REGULARIZERS as REGULARIZERS, Regularizer as Regularizer
from jepa_mpc.world_model.regularizers.base import RegularizerConfig as RegularizerConfig
from jepa_mpc.world_model.regularizers import alternatives, sigreg  # noqa: F401
