"""A data policy for Pusher-v5: the arm takes its fork to the object, pushes it about, and begins again elsewhere.

It is no expert and has no goal: data of it show the object moved every way over the part of the table that the arm
reaches. Contacts are soft there, for the object is next to massless and its slides are heavy: a hand in a hurry passes
through the object and hardly moves it, while one that stays pressed into it drives it at some 7 cm/s.
"""

from collections.abc import Generator

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.agent.data_policies import MisfitError, Policy, one_by_one
from jepa_mpc.agent.data_policies.noise import hold
from jepa_mpc.envs import PixelEnv
from jepa_mpc.envs.mujoco_env import MujocoEnv, mujoco

WANDER = 0.35  # share of spells that are random torques; they are the shorter ones
WITHIN = 0.65  # share of attempts to push with the object between the fork's fingers
MAX_NOISE = 0.4  # N m, std added to every torque in the noisiest episode
DEPTHS = (0.02, 0.03)  # metres that the fork is pressed into the object; deeper, MuJoCo finds fewer contacts
CENTRE, RADIUS = np.array([0.47, -0.21]), 0.18  # a disc of the table; outside it pushes lead back
SHOULDER = np.array([0.0, -0.6])
NUM_JOINTS = 7
_OBJECT = np.array([0.45, -0.05])  # where the object stands when its slides, y and x, are at 0
_HEIGHT = -0.267  # of a hand that pushes
_TOUCH = 0.07  # metres from the axis of a part of the fork to the object's when they touch
_LENGTH, _ARM, _SLACK = 0.1, 0.1, 0.03  # of a finger, half of the bar, of the object between the fingers to a side
# Joints with the fork level and low, the elbow out to one side; mirrored, to the other.
_POSTURES = np.array([[0.0, 0.6, 0.8, -1.6, -0.5, -0.3, -1.4], [0.0, 0.75, 1.6, -0.5, 0.5, 0.0, -0.7]])
_MIRROR = np.array([1, 1, -1, 1, 1, 1, -1])
_ATTEMPTS, _ITERATIONS = 32, 25  # to find a push, and for the joints that begin it
_PATIENCE = 35  # steps after which an approach is given up
_NEAR, _ARRIVED, _LOST = 0.1, 0.03, 0.1  # metres from where the hand should be
_STIFFNESS = 9.0  # 1/s, of the critically damped spring that draws the joints
_LEVELLING = 0.15  # metres that a radian of the fork's tilt counts as
_LEVEL = 0.85  # cosine of the greatest tilt to begin a push with
_DAMPING, _RELAXATION = 0.02, 0.2  # of the least squares; share of the way to a posture in one of its steps

Steps = Generator[NDArray[np.floating], None, None]  # torques of a spell, without noise


def arm_pusher(env: PixelEnv, block: int, rng: np.random.Generator) -> Policy:
    """Acts in spells of pushing the object, or of wandering, with noise whose amount each episode draws anew."""
    arm = env.unwrapped
    if not isinstance(arm, MujocoEnv) or mujoco.mj_name2id(arm.model, mujoco.mjtObj.mjOBJ_BODY, "tips_arm") < 0:
        raise MisfitError("it acts with the arm of gym/Pusher-v5")
    noise = rng.uniform(0, MAX_NOISE)

    def actions() -> Steps:
        while True:
            push = None if rng.random() < WANDER else _choose(arm, rng)
            for action in _wander(arm, rng) if push is None else _approach_and_push(arm, *push, rng):
                yield action + rng.normal(0, noise, NUM_JOINTS)

    return one_by_one(env, block, actions())


def _wander(env: MujocoEnv, rng: np.random.Generator) -> Steps:
    for _ in range(rng.integers(2, 6)):
        yield from hold(env.action_space, 2, 8, rng)


def _approach_and_push(
    env: MujocoEnv, way: NDArray[np.floating], within: bool, joints: NDArray[np.floating], rng: np.random.Generator
) -> Steps:
    """Goes to the object, and pushes it one way (2,); from between the fingers, it can go on in others."""
    model, data = env.model, env.data
    for step in range(_PATIENCE + 1):
        aim = _aim(data, read_object(env), way, within, depth=0.0)
        gap = np.linalg.norm(aim - read_hand(data)[0])
        if gap < _ARRIVED:
            break
        if step == _PATIENCE:
            return
        near = gap < _NEAR
        yield _drive(env, _change(model, data, aim, joints) if near else joints - env.qpos[:NUM_JOINTS])
    for _ in range(rng.integers(3, 7) if within else 1):
        depth = rng.uniform(*DEPTHS)
        for _ in range(rng.integers(20, 50)):
            hand, turn = read_hand(data)
            aim = _aim(data, read_object(env), way, within, depth)
            fits = _fits(way @ turn, within) and leads_inward(way, read_object(env))
            if not fits or np.linalg.norm(aim - hand) > _LOST:
                break
            aim[:2] += 2 / _STIFFNESS * env.qvel[[8, 7]]  # by which the damped spring lags behind
            yield _drive(env, _change(model, data, aim, joints))
        way = _choose_way(read_object(env), rng)
        if not _fits(way @ read_hand(data)[1], within):
            return


def _choose(env: MujocoEnv, rng: np.random.Generator) -> tuple[NDArray[np.floating], bool, NDArray[np.floating]] | None:
    """Returns which way (2,) to push the object, whether from between the fingers, and the joints (7,) that begin it,
    found by inverse kinematics; or None.
    """
    model, thing = env.model, read_object(env)
    scratch = mujoco.MjData(model)
    for _ in range(_ATTEMPTS):
        way, within = _choose_way(thing, rng), bool(rng.random() < WITHIN)
        joints = rng.uniform(*_POSTURES) * (_MIRROR if rng.random() < 0.5 else 1)
        joints[0] = np.arctan2(*(thing - SHOULDER)[::-1])
        if rng.random() < 0.5:
            joints = env.qpos[:NUM_JOINTS]
        for _ in range(_ITERATIONS):
            scratch.qpos[:NUM_JOINTS] = joints
            mujoco.mj_kinematics(model, scratch)
            mujoco.mj_comPos(model, scratch)
            hand, turn = read_hand(scratch)
            aim = _aim(scratch, thing, way, within, depth=0.0)
            if np.linalg.norm(aim - hand) < _ARRIVED / 2 and scratch.body("tips_arm").xmat[8] > _LEVEL:
                if _fits(way @ turn, within):
                    return way, within, joints
                break
            joints = joints + 0.5 * _change(model, scratch, aim, joints)
    return None


def _choose_way(thing: NDArray[np.floating], rng: np.random.Generator) -> NDArray[np.float64]:
    """Returns a random direction on the table (2,), inward if the object is far out."""
    while True:
        angle = rng.uniform(-np.pi, np.pi)
        way = np.array([np.cos(angle), np.sin(angle)])
        if leads_inward(way, thing):
            return way


def leads_inward(way: NDArray[np.floating], thing: NDArray[np.floating]) -> bool:
    """Returns whether a push that way takes the object back to the disc, if it has left it."""
    offset = thing - CENTRE
    distance = float(np.linalg.norm(offset))
    return distance < RADIUS or way @ offset < -0.3 * distance


def _fits(way: NDArray[np.floating], within: bool) -> bool:
    """Returns whether the fork can push that way of its frame: not back from within, nor forward from outside."""
    return bool(way[0] > -0.2 if within else way[0] < 0.7)


def _aim(
    data: mujoco.MjData, thing: NDArray[np.floating], way: NDArray[np.floating], within: bool, depth: float
) -> NDArray[np.float64]:
    """Returns where the hand is to be (3,), turned as it is, for the object to be pushed that way at that depth."""
    _, turn = read_hand(data)
    way = way @ turn
    ahead, left = np.clip(3 * way, -1, 1)  # a corner of the fork, but for ways that are nearly straight
    if within:
        place = np.array([_TOUCH, -_SLACK * left]) - depth * way / np.abs(way).max()
    else:
        place = np.array([_LENGTH * (1 + ahead) / 2, _ARM * left]) + (_TOUCH - depth) * way
    return np.array([*(thing - turn @ place), _HEIGHT])


def read_object(env: MujocoEnv) -> NDArray[np.float64]:
    """Returns the object's place on the table (2,)."""
    return _OBJECT + env.qpos[[8, 7]]


def read_hand(data: mujoco.MjData) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the hand's place (3,), and the rotation (2, 2) to the table from the fork's frame: ahead, left."""
    hand = data.body("tips_arm")
    ahead = hand.xmat[[0, 3]]
    ahead = ahead / max(float(np.linalg.norm(ahead)), 1e-9)
    return hand.xpos.copy(), np.array([[ahead[0], -ahead[1]], [ahead[1], ahead[0]]])


def _change(
    model: mujoco.MjModel, data: mujoco.MjData, aim: NDArray[np.floating], posture: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Returns the change of the joints (7,) that takes the hand to a place (3,) and levels the fork, to first order.

    A joint that would leave its range goes to the end of it, and the others do the rest. What freedom is left they use
    to near a posture (7,).
    """
    hand = data.body("tips_arm")
    along, about = np.zeros((2, 3, model.nv))
    mujoco.mj_jacBody(model, data, along, about, hand.id)
    upward = hand.xmat[[2, 5]]
    jacobian = np.concatenate([along, _LEVELLING * about[:2]])[:, :NUM_JOINTS]
    error = np.concatenate([aim - hand.xpos, _LEVELLING * np.array([upward[1], -upward[0]])])
    joints = data.qpos[:NUM_JOINTS]
    relaxation = _RELAXATION * (posture - joints)
    low, high = model.jnt_range[:NUM_JOINTS].T - joints
    change = _least_squares(jacobian, error, relaxation)
    stuck = (change < low) | (change > high)
    if stuck.any():
        to_end = np.where(stuck, np.clip(change, low, high), 0)
        change = np.where(stuck, to_end, _least_squares(jacobian * ~stuck, error - jacobian @ to_end, relaxation))
    return np.clip(change, low, high)


def _least_squares(
    jacobian: NDArray[np.floating], error: NDArray[np.floating], preferred: NDArray[np.floating]
) -> NDArray[np.floating]:
    """Returns the joints' change nearest to the preferred one that takes the error away, damped near singularities."""
    weights = jacobian @ jacobian.T + _DAMPING**2 * np.eye(len(error))
    return preferred + jacobian.T @ np.linalg.solve(weights, error - jacobian @ preferred)


def _drive(env: MujocoEnv, change: NDArray[np.floating]) -> NDArray[np.float64]:
    """Returns torques (7,) of a spring to joints that differ by so much from the present ones, through the inertia."""
    model, data = env.model, env.data
    acceleration, torque = np.zeros((2, model.nv))
    acceleration[:NUM_JOINTS] = _STIFFNESS**2 * change - 2 * _STIFFNESS * data.qvel[:NUM_JOINTS]
    mujoco.mj_mulM(model, data, torque, acceleration)
    return (torque + data.qfrc_bias - data.qfrc_passive)[:NUM_JOINTS]
