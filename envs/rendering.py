"""Headless rendering that works unasked, as fast as software OpenGL allows without changing the picture.

dm_control's defaults spend most of a 64×64 frame on a 2048² shadow map, finely sliced capsules and a buffer of
640×480 pixels. Shrinking all three, while keeping shadows, reflections and multisampling, moves the mean pixel by
less than 0.5/255 at several times the speed (`python eval/speed/rendering.py` measures both). Robots of very
many mesh faces are drawn with fewer.
"""

import os
import sys
from typing import NamedTuple

import numpy as np

# mujoco reads this once, at import. EGL needs neither a display nor a window system.
if sys.platform.startswith("linux"):
    os.environ.setdefault("MUJOCO_GL", "egl")

SHADOW_SIZE = 256
NUM_SLICES = 8
NUM_STACKS = 4
MANY_FACES = 20_000  # above this, meshes are drawn with fewer
FEW_FACES = 200  # a mesh of no more stays as it is
CELLS_PER_EXTENT = 100  # three cells span two pixels of a 64×64 picture of the whole scene

NO_OPENGL_HINT = (
    "no OpenGL for headless rendering; install it with "
    "`apt-get install libegl1 libgl1-mesa-dri` (EGL), or `apt-get install libosmesa6` and set MUJOCO_GL=osmesa"
)


class View(NamedTuple):
    """Where a camera stands that the model does not have. Metres and degrees, as MuJoCo's free camera takes them."""

    lookat: tuple[float, float, float]
    distance: float
    azimuth: float = 90.0
    elevation: float = -90.0  # from above


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
    """For each vertex (V, 3) the index of the one that is nearest to the mean of those in its cell."""
    _, cells = np.unique(np.floor(vertices / cell).astype(np.int64), axis=0, return_inverse=True)
    cells = cells.ravel()
    means = np.stack([np.bincount(cells, axis) for axis in vertices.T], axis=1) / np.bincount(cells)[:, None]
    order = np.lexsort((((vertices - means[cells]) ** 2).sum(1), cells))
    _, firsts = np.unique(cells[order], return_index=True)
    return order[firsts][cells]


def _reads_faces(model) -> bool:
    """Whether physics look at the faces of a mesh: sensors that cast rays or feel surfaces, flexes, distance fields."""
    import mujoco  # here, since importing this file picks the OpenGL platform first

    sensors = (mujoco.mjtSensor.mjSENS_RANGEFINDER, mujoco.mjtSensor.mjSENS_TACTILE)
    fields = model.geom_type == mujoco.mjtGeom.mjGEOM_SDF
    return bool(model.nflex or fields.any() or np.isin(model.sensor_type, sensors).any())
