"""A data policy for two rooms: walks from place to place, through the door."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.agent.data_policies import Policy, of_kind, one_by_one
from jepa_mpc.envs import PixelEnv
from jepa_mpc.envs.suites import two_room


def two_room_walker(env: PixelEnv, block: int, rng: np.random.Generator) -> Policy:
    """Walks to random places, through the door where it must, with noise of twice the largest action."""
    of_kind(env, two_room.TwoRoomEnv)

    def actions() -> Iterator[NDArray[np.floating]]:
        target: NDArray[np.float64] | None = None
        door = np.array([two_room.WALL, two_room.DOOR])
        while True:
            here = env.qpos
            while target is None or two_room.in_wall(target) or np.linalg.norm(target - here) < 16:
                target = rng.uniform(two_room.BORDER, two_room.SIDE - two_room.BORDER, 2)
            other_room = (here[0] < two_room.WALL) != (target[0] < two_room.WALL)
            way = (door if other_room and np.linalg.norm(door - here) > 10 else target) - here
            yield way / max(float(np.linalg.norm(way)), 1e-9) + rng.normal(0, 2.0, 2)

    return one_by_one(env, block, actions())
