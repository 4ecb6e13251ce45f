"""A data policy for Push-T: walks round the block, shoves it from a random side, and begins again elsewhere.

It is no expert and has no goal: data of it show the block moved and turned in every way.
"""

from collections.abc import Generator

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.agent.data_policies import Policy, of_kind, one_by_one
from jepa_mpc.agent.data_policies.noise import hold
from jepa_mpc.envs import PixelEnv
from jepa_mpc.envs.suites import push_t

NOISE = (0.05, 0.6)  # std added to the actions of a spell: from deliberate to erratic, as a search's plans are
WANDER = 0.15  # share of spells that are random walks
CLEARANCE = push_t.RADIUS + 10  # pixels that a walk keeps from the block
CHOICES = 4  # places to push from, of which the nearest is taken
MARGIN = 105  # pixels from a wall within which the block's centre of mass is pushed inward
_LOW, _HIGH = push_t.WALLS[0] + push_t.RADIUS, push_t.WALLS[1] - push_t.RADIUS  # of places where the agent fits
_PATIENCE = 50  # steps after which a walk is given up
_OUTLINE = np.array([[-60, 0], [60, 0], [60, 30], [15, 30], [15, 120], [-15, 120], [-15, 30], [-60, 30]], float)

Steps = Generator[NDArray[np.floating], None, None]  # actions, one by one


def push_t_pusher(env: PixelEnv, block: int, rng: np.random.Generator) -> Policy:
    """Acts in spells of walking up to the block and pushing it, or of wandering, with noise."""
    of_kind(env, push_t.PushTEnv)

    def actions() -> Steps:
        while True:
            noise = rng.uniform(*NOISE)
            for action in _wander(env, rng) if rng.random() < WANDER else _approach_and_push(env, rng):
                yield action + rng.normal(0, noise, 2)

    return one_by_one(env, block, actions())


def _wander(env: PixelEnv, rng: np.random.Generator) -> Steps:
    for _ in range(rng.integers(1, 4)):
        yield from hold(env.action_space, 4, 13, rng)


def _approach_and_push(env: PixelEnv, rng: np.random.Generator) -> Steps:
    contact, normal, aim = _choose(env, rng)
    start = contact + CLEARANCE * normal  # all in the block's frame
    side = rng.choice([-1, 1])
    for _ in range(_PATIENCE):
        agent, block, angle = _read(env)
        goal = push_t.to_world(start, block, angle)
        if np.linalg.norm(goal - agent) < push_t.RADIUS:
            break
        yield _walk(agent, goal, block, angle, side)
    else:
        return
    speed = rng.uniform(0.3, 1.0)
    for _ in range(rng.integers(10, 40)):
        agent, block, angle = _read(env)
        way = push_t.to_world(aim, block, angle) - agent
        way /= max(float(np.linalg.norm(way)), 1e-9)
        if not _leads_inward(way, block, angle) or push_t.distance_to_block(push_t.to_block(agent, block, angle)) > 60:
            return
        yield speed * way


def _read(env: PixelEnv) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Returns the positions of agent and block, and the block's angle."""
    qpos = env.qpos
    return qpos[:2], qpos[2:4], qpos[4]


def _choose(env: PixelEnv, rng: np.random.Generator) -> tuple[NDArray[np.float64], ...]:
    """Returns a point of the outline, the outward normal there, and a point of the block to push toward, in its frame.

    Of random ones that the agent can get to and that lead away from walls near by, the nearest of a few: a demonstrator
    does not walk round the block without need.
    """
    agent, block, angle = _read(env)
    edges = np.roll(_OUTLINE, -1, axis=0) - _OUTLINE
    lengths = np.linalg.norm(edges, axis=1)
    fitting = []
    for _ in range(30):
        edge = rng.choice(len(edges), p=lengths / lengths.sum())
        contact = _OUTLINE[edge] + rng.uniform() * edges[edge]
        normal = np.array([edges[edge][1], -edges[edge][0]]) / lengths[edge]
        left, top, right, bottom = push_t.BOXES[rng.integers(2)]
        aim = rng.uniform([left, top], [right, bottom])
        start = push_t.to_world(contact + CLEARANCE * normal, block, angle)
        way = push_t.to_world(aim, block, angle) - start
        fits = (start > _LOW).all() and (start < _HIGH).all()
        if fits and normal @ (aim - contact) < 0 and _leads_inward(way, block, angle):
            fitting.append((np.linalg.norm(start - agent), contact, normal, aim))
        if len(fitting) == CHOICES:
            break
    return min(fitting, key=lambda choice: choice[0])[1:] if fitting else (contact, normal, aim)


def _leads_inward(way: NDArray[np.floating], block: NDArray[np.floating], angle: float) -> bool:
    """Returns whether a push that way takes the block away from every wall that is near."""
    centre = push_t.to_world(push_t.CENTRE_OF_MASS, block, angle)
    too_low, too_high = centre < MARGIN, centre > push_t.SIDE - MARGIN
    return not (way[too_low] < 0).any() and not (way[too_high] > 0).any()


def _walk(
    agent: NDArray[np.floating], goal: NDArray[np.floating], block: NDArray[np.floating], angle: float, side: int
) -> NDArray[np.floating]:
    """Returns the action toward a goal, round the block where it is in the way, on the side that is given."""
    way = goal - agent
    path = push_t.to_block(agent + np.linspace(0, 1, 9)[1:, None] * way, block, angle)
    if (push_t.distance_to_block(path) < push_t.RADIUS).any():
        here = push_t.to_block(agent, block, angle)
        gap = float(push_t.distance_to_block(here))
        away = (here - _nearest(here)) / max(gap, 1e-9)
        along = side * np.array([-away[1], away[0]])
        way = push_t.to_world(along * push_t.REACH + away * 2 * (CLEARANCE + 10 - gap), np.zeros(2), angle)
    return way / max(float(np.linalg.norm(way)), push_t.REACH)


def _nearest(point: NDArray[np.floating]) -> NDArray[np.float64]:
    """Returns the nearest point of the block, in its frame."""
    candidates = np.clip(point, push_t.BOXES[:, :2], push_t.BOXES[:, 2:])
    return candidates[np.linalg.norm(candidates - point, axis=1).argmin()]
