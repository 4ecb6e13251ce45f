"""Goals to train rivals on that learn from reward: poses of the data policy's own episodes, as in the far protocol."""

import numpy as np
from numpy.typing import NDArray

from jepa_mpc import envs
from jepa_mpc.agent.data_policies import find_policy
from jepa_mpc.envs.blocks import run_block


def draw_pose(env: envs.PixelEnv, spec: envs.TaskSpec, rng: np.random.Generator) -> NDArray[np.float64]:
    """Returns the pose (Q,) at a random time of a new episode of the task's data policy."""
    env.reset(seed=int(rng.integers(2**31)))
    policy = find_policy(spec.data_policy, spec.name)(env, spec.action_block, rng)
    for _ in range(rng.integers(spec.episode_len // spec.action_block)):
        run_block(env, policy(None))
    return env.qpos
