"""Data for the cube task: OGBench's own demonstrator, with noise, moves the cube from place to place."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.agent.data_policies import Policy, of_kind, one_by_one
from jepa_mpc.envs import PixelEnv
from jepa_mpc.envs.suites.ogbench_cube import OBJECT_BOUNDS, REST_HEIGHT, OGBenchCubeEnv, mujoco

MAX_NOISE = 0.5  # standard deviation of the noise on actions, in the noisiest episode
MIN_SPEED = 0.5  # share of the oracle's speed, in the slowest attempt
RANDOM_SHARE = 0.1  # of steps: blocks of uniform actions
ARRIVED = 0.02  # metres from the target, as the oracle has it
CLEARANCE = 0.04  # metres that the hand rises before it turns to the next target
PATIENCE = 80  # steps after which an attempt is given up


def cube_oracle(env: PixelEnv, block: int, rng: np.random.Generator) -> Policy:
    """Picks the cube up and places it elsewhere, again and again.

    As in OGBench's noisy data sets each episode has its own amount of noise, and some actions are random; each attempt
    has its own speed too, for the oracle alone knows only full speed.
    """
    cube = of_kind(env, OGBenchCubeEnv)
    return one_by_one(env, block, demonstrate(cube, block, rng.uniform(0, MAX_NOISE), rng))


def demonstrate(
    cube: OGBenchCubeEnv, block: int, noise: float, rng: np.random.Generator
) -> Iterator[NDArray[np.floating]]:
    """Yields actions (5,), each from the simulator's present state. Random stretches last `block` steps."""
    from ogbench.manipspace.oracles.markov.cube_markov import CubeMarkovOracle

    simulator = cube.ogbench
    oracle = CubeMarkovOracle(env=simulator)
    target: dict[str, Any] = {}
    speed, steps_left, random_left = 1.0, 0, 0
    while True:
        mujoco.mj_rnePostConstraint(cube.model, simulator.data)  # contact forces, by which the oracle feels its grip
        seen = simulator.compute_ob_info()
        if not steps_left or _placed(seen, target):
            target = _new_target(rng)
            speed, steps_left = rng.uniform(MIN_SPEED, 1), PATIENCE
            oracle._done = oracle._step = 0  # its own reset would draw from NumPy's global generator
            oracle._final_pos, oracle._final_yaw = seen["proprio/effector_pos"], 0.0
        steps_left -= 1
        if not random_left and rng.random() < RANDOM_SHARE / block:
            random_left = block
        if random_left:
            random_left -= 1
            yield rng.uniform(-1, 1, 5)
        else:
            action = oracle.select_action(None, seen | target)
            yield action * [speed, speed, speed, speed, 1] + rng.normal(0, noise, 5)


def _new_target(rng: np.random.Generator) -> dict[str, Any]:
    """Returns a place on the floor, and a rotation."""
    return {
        "privileged/target_block_pos": np.array([*rng.uniform(*OBJECT_BOUNDS), REST_HEIGHT]),
        "privileged/target_block_yaw": np.array([rng.uniform(-np.pi, np.pi)]),
    }


def _placed(seen: dict[str, Any], target: dict[str, Any]) -> bool:
    """Returns whether the cube is where it was to go, and the hand has let go of it."""
    cube, hand = seen["privileged/block_0_pos"], seen["proprio/effector_pos"]
    there = np.linalg.norm(target["privileged/target_block_pos"] - cube) < ARRIVED
    return bool(there and hand[2] - cube[2] > CLEARANCE)
