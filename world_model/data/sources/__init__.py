"""The formats in which recorded data are read, by name. Importing this registers them all."""

# ruff: isort: skip_file
from jepa_mpc.world_model.data.sources.base import SOURCES as SOURCES, Numbers as Numbers, Source as Source
from jepa_mpc.world_model.data.sources.base import done as done, open_source as open_source
from jepa_mpc.world_model.data.sources import lerobot, minari, lance, hdf5, video_folder  # noqa: F401
