"""The joints of a MuJoCo model, and what encoders on those that actuators move would tell: proprioception."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# MuJoCo's kinds, by number, since to import it picks the OpenGL platform: numbers in qpos and in qvel.
_FREE, _BALL, _HINGE = 0, 1, 3
_SIZES = {_FREE: (7, 6), _BALL: (4, 3)}


@dataclass(frozen=True)
class Joint:
    name: str
    positions: slice  # in qpos
    velocities: slice  # in qvel
    endless: bool  # a hinge that turns without limits


def joints(model: Any) -> list[Joint]:
    """Returns the joints of an `mjModel`, in its order."""
    found = []
    columns = (model.jnt_type, model.jnt_qposadr, model.jnt_dofadr, model.jnt_limited)
    for index, (kind, position, velocity, limited) in enumerate(zip(*columns, strict=True)):
        num_positions, num_velocities = _SIZES.get(int(kind), (1, 1))
        found.append(
            Joint(
                name=model.joint(index).name or f"joint {index}",
                positions=slice(int(position), int(position) + num_positions),
                velocities=slice(int(velocity), int(velocity) + num_velocities),
                endless=bool(kind == _HINGE and not limited),
            )
        )
    return found


def driven_joints(model: Any, data: Any) -> list[Joint]:
    """Returns the joints that actuators move, directly or by a tendon, in the pose of an `mjData`; none that is free,
    whose place no encoder knows.
    """
    dofs = np.flatnonzero(np.bincount(data.moment_colind[data.actuator_moment != 0], minlength=model.nv))
    every = joints(model)
    return [every[index] for index in sorted(set(model.dof_jntid[dofs].tolist())) if model.jnt_type[index] != _FREE]


def felt(driven: Sequence[Joint], data: Any) -> NDArray[np.float32]:
    """Returns the joints' positions, endless turns by cosine and sine, and then their velocities: one vector (P,)."""
    positions = [data.qpos[joint.positions] for joint in driven]
    turns = [[np.cos(x), np.sin(x)] if joint.endless else [x] for joint, x in zip(driven, positions, strict=True)]
    velocities = [data.qvel[joint.velocities] for joint in driven]
    return np.concatenate([np.empty(0), *(x for turn in turns for x in turn), *velocities]).astype(np.float32)


def felt_names(driven: Sequence[Joint]) -> tuple[str, ...]:
    """Returns what the numbers (P,) of `felt` are called."""
    positions = [
        [f"cos {joint.name}", f"sin {joint.name}"] if joint.endless else numbered(joint.name, joint.positions)
        for joint in driven
    ]
    velocities = [numbered(f"{joint.name} velocity", joint.velocities) for joint in driven]
    return tuple(name for names in (*positions, *velocities) for name in names)


def numbered(name: str, where: slice) -> list[str]:
    """Returns a name for each number of a slice: its own, where there is only one."""
    num = where.stop - where.start
    return [f"{name} {index}" for index in range(num)] if num > 1 else [name]
