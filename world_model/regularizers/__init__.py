"""The remedies against collapse by name; a file of one registers it, and one imported here is always there."""

# ruff: isort: skip_file
from jepa_mpc.world_model.regularizers.base import REGULARIZERS as REGULARIZERS, Regularizer as Regularizer
from jepa_mpc.world_model.regularizers.base import RegularizerConfig as RegularizerConfig
from jepa_mpc.world_model.regularizers import ema, vicreg, simclr, moco, kl, pldm, sigreg  # noqa: F401
