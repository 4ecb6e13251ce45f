"""Headless rendering that works unasked, as fast as software OpenGL allows without changing the picture.

dm_control's defaults spend most of a 64×64 frame on a 2048² shadow map and finely sliced capsules. Shrinking
the shadow map and the slice counts, while keeping shadows, reflections and multisampling, moves the mean pixel
by less than 0.5/255 at several times the speed (`python envs/benchmark_rendering.py` measures both).
"""

import os
import sys

# mujoco reads this once, at import. EGL needs neither a display nor a window system.
if sys.platform.startswith("linux"):
    os.environ.setdefault("MUJOCO_GL", "egl")

SHADOW_SIZE = 256
NUM_SLICES = 8
NUM_STACKS = 4

NO_OPENGL_HINT = (
    "no OpenGL for headless rendering; install it with "
    "`apt-get install libegl1 libgl1-mesa-dri` (EGL), or `apt-get install libosmesa6` and set MUJOCO_GL=osmesa"
)


def apply_fast_quality(model) -> None:
    """Sets `model.vis.quality` of an `mjModel`; must run before the first frame is rendered."""
    quality = model.vis.quality
    quality.shadowsize = min(quality.shadowsize, SHADOW_SIZE)
    quality.numslices = min(quality.numslices, NUM_SLICES)
    quality.numstacks = min(quality.numstacks, NUM_STACKS)
