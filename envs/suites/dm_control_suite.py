"""Tasks of DeepMind's control suite (Tassa et al., 2018)."""

import gymnasium as gym
import numpy as np

from jepa_mpc.envs.mujoco_env import MujocoEnv, suite


class DMControlEnv(MujocoEnv):
    """The task `domain`-`task` of the suite; the other arguments are `MujocoEnv`'s."""

    def __init__(self, domain: str, task: str, **options):
        # The suite's own time limit never applies: an episode's length belongs to whoever runs it.
        self._suite = suite.load(domain, task, task_kwargs={"time_limit": float("inf"), "random": 0})
        physics, spec = self._suite.physics, self._suite.action_spec()
        self._physics_steps = round(self._suite.control_timestep() / physics.timestep())
        super().__init__(physics, gym.spaces.Box(spec.minimum, spec.maximum, dtype=np.float64), **options)

    @property
    def control_seconds(self):
        return self._suite.control_timestep()

    def _begin_episode(self, seed):
        self._suite.task._random = np.random.RandomState(seed)
        self._suite.reset()

    def _control_step(self, action):
        task = self._suite.task
        task.before_step(action, self._physics)
        self._physics.step(self._physics_steps)
        task.after_step(self._physics)
        return float(task.get_reward(self._physics))
