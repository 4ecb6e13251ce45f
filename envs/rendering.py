"""Headless rendering that works unasked, as fast as software OpenGL allows without changing the picture.

dm_control's defaults spend most of a 64×64 frame on a 2048² shadow map, finely sliced capsules and a buffer of
640×480 pixels. Shrinking all three, while keeping shadows, reflections and multisampling, moves the mean pixel by
less than 0.5/255 at several times the speed (`jepa-mpc speed rendering` measures both). Robots of very
many mesh faces are drawn with fewer.
"""

import os
import sys
import weakref
from typing import Any, NamedTuple

import numpy as np

from jepa_mpc.errors import reason

# dm_control reads this once, at import. EGL needs neither a display nor a window system.
_TOO_LATE = not os.environ.get("MUJOCO_GL") and "dm_control._render" in sys.modules
if sys.platform.startswith("linux"):
    os.environ["MUJOCO_GL"] = os.environ.get("MUJOCO_GL", "").strip().lower() or "egl"

SHADOW_SIZE = 256
NUM_SLICES = 8
NUM_STACKS = 4
MANY_FACES = 20_000  # above this, meshes are drawn with fewer
FEW_FACES = 200  # a mesh of no more stays as it is
CELLS_PER_EXTENT = 100  # three cells span two pixels of a 64×64 picture of the whole scene

FORKED = (
    "this process was forked from one that has rendered, and OpenGL does not outlive that; "
    'start it by "spawn", or render nothing before'
)
_INSTALL = {
    "egl": "no OpenGL for headless rendering; install it with `apt-get install libegl1 libgl1-mesa-dri` (EGL), "
    "or `apt-get install libosmesa6` and set MUJOCO_GL=osmesa",
    "osmesa": "no OSMesa; install it with `apt-get install libosmesa6`, or leave MUJOCO_GL unset for EGL",
}

_contexts: "weakref.WeakSet[Any]" = weakref.WeakSet()  # dm_control's OpenGL contexts
_has_rendered = False
forked = False  # whether a parent of this process has rendered before it was forked


class View(NamedTuple):
    """Where a camera stands that the model does not have. Metres and degrees, as MuJoCo's free camera takes them."""

    lookat: tuple[float, float, float]
    distance: float
    azimuth: float = 90.0
    elevation: float = -90.0  # from above


def keep_from_forks(context: Any) -> None:
    """Remembers one of dm_control's OpenGL contexts, which a forked process must not touch: it would hang for ever."""
    global _has_rendered
    _has_rendered = True
    _contexts.add(context)


def _after_fork() -> None:
    global forked
    forked = forked or _has_rendered
    for context in _contexts:
        context._render_executor._terminated = True  # so that it is not freed either


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def why_no_pictures(error: Exception) -> str:
    """Returns the one line that says why MuJoCo cannot render here, and the cure."""
    chosen, platform = os.environ.get("MUJOCO_GL", ""), os.environ.get("PYOPENGL_PLATFORM", "")
    if _TOO_LATE:
        cause = "dm_control was imported first and chose OpenGL for a display; import jepa_mpc.envs before it"
    elif chosen and chosen not in _INSTALL:
        cause = f"MUJOCO_GL={chosen} does not render without a display; set it to egl or osmesa, or leave it unset"
    elif platform not in ("", chosen):
        cause = f"PYOPENGL_PLATFORM={platform} contradicts MUJOCO_GL={chosen}; leave it unset"
    elif isinstance(error, ValueError) or "MUJOCO_EGL_DEVICE_ID" in str(error):
        cause = f"MUJOCO_EGL_DEVICE_ID={os.environ['MUJOCO_EGL_DEVICE_ID']} is no device here; leave it unset"
    else:
        cause = _INSTALL.get(chosen, "no OpenGL")
    return f"{cause} ({reason(error)})"


def apply_fast_quality(model, image_size: int) -> None:
    """Sets `model.vis` of an `mjModel` for square pictures and thins its meshes; must run before the first frame."""
    # MuJoCo clears and resolves the whole buffer, 640×480 by default, for every frame.
    model.vis.global_.offwidth = model.vis.global_.offheight = image_size
    quality = model.vis.quality
    quality.shadowsize = min(quality.shadowsize, SHADOW_SIZE)
    quality.numslices = min(quality.numslices, NUM_SLICES)
    quality.numstacks = min(quality.numstacks, NUM_STACKS)
    if model.nmeshface > MANY_FACES and not _reads_faces(model):
        decimate_meshes(model, model.stat.extent / CELLS_PER_EXTENT)


def decimate_meshes(model, cell: float) -> None:
    """Draws the meshes of an `mjModel` with fewer faces, in place; must run before the first frame is rendered.

    Vertices in one cell (in metres) of a grid become one of them, and faces that shrink to a line or meet another are
    dropped (Rossignac & Borrel, 1993). Vertices and hulls, which are what bodies collide with, stay as they are.
    """
    for mesh in range(model.nmesh):
        first, num = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
        if num <= FEW_FACES:
            continue
        vertices = model.mesh_vert[model.mesh_vertadr[mesh] :][: model.mesh_vertnum[mesh]]
        faces = _representatives(vertices, cell)[model.mesh_face[first : first + num]]
        # A face and its back are two: the smallest vertex goes first, the sense of rotation stays.
        turn = (faces.argmin(1)[:, None] + np.arange(3)) % 3
        solid = np.flatnonzero((faces != np.roll(faces, 1, axis=1)).all(1))
        _, firsts = np.unique(np.take_along_axis(faces, turn, axis=1)[solid], axis=0, return_index=True)
        kept = solid[np.sort(firsts)]
        model.mesh_face[first : first + len(kept)] = faces[kept]
        for corners in (model.mesh_facenormal, model.mesh_facetexcoord):
            corners[first : first + len(kept)] = corners[first + kept]
        model.mesh_facenum[mesh] = len(kept)


def _representatives(vertices: np.ndarray, cell: float) -> np.ndarray:
    """Returns for each vertex (V, 3) the index of the one that is nearest to the mean of those in its cell."""
    _, cells = np.unique(np.floor(vertices / cell).astype(np.int64), axis=0, return_inverse=True)
    cells = cells.ravel()
    means = np.stack([np.bincount(cells, axis) for axis in vertices.T], axis=1) / np.bincount(cells)[:, None]
    order = np.lexsort((((vertices - means[cells]) ** 2).sum(1), cells))
    _, firsts = np.unique(cells[order], return_index=True)
    return order[firsts][cells]


def _reads_faces(model) -> bool:
    """Says whether physics look at meshes' faces: sensors that cast rays or feel surfaces, flexes, distance fields."""
    import mujoco  # here, since importing this file picks the OpenGL platform first

    sensors = (mujoco.mjtSensor.mjSENS_RANGEFINDER, mujoco.mjtSensor.mjSENS_TACTILE)
    fields = model.geom_type == mujoco.mjtGeom.mjGEOM_SDF
    return bool(model.nflex or fields.any() or np.isin(model.sensor_type, sensors).any())
