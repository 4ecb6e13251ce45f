"""Gymnasium's MuJoCo environments as pixel environments (Towers et al., 2024)."""

from typing import Any

import gymnasium as gym
import numpy as np

from jepa_mpc.envs.base import EnvError
from jepa_mpc.envs.mujoco_env import MujocoEnv, engine, mujoco, wrapper

# Wrappers that every environment gets: an episode's length belongs to whoever runs it, the others check calls.
_LEFT_OUT = (gym.wrappers.TimeLimit, gym.wrappers.OrderEnforcing, gym.wrappers.PassiveEnvChecker)


class GymnasiumEnv(MujocoEnv):
    """A Gymnasium environment; the other arguments are `MujocoEnv`'s.

    Gymnasium keeps the physics and the reward. It renders without making its own context current, so that two
    environments in one process spoil each other's pictures; here dm_control renders, from the same simulation.
    """

    _gym: Any  # Gymnasium's own class of it, which has no common type

    def __init__(self, env: gym.Env, **options):
        self._gym = env.unwrapped
        name = env.spec.id if env.spec else type(self._gym).__name__
        self.time_limit = (env.spec and env.spec.max_episode_steps) or self.time_limit
        while isinstance(env, gym.Wrapper):
            if type(env) not in _LEFT_OUT:
                kind = type(env).__name__
                raise EnvError(f"{name} is registered with a {kind}, which would be left out here; register it without")
            env = env.env
        if not isinstance(self._gym.action_space, gym.spaces.Box):
            raise EnvError(f"{name} has discrete actions; planners here search continuous ones: choose another task")
        if not all(hasattr(self._gym, part) for part in ("model", "data", "do_simulation")):
            raise EnvError(f"{name} is no MuJoCo environment (it has no qpos and qvel to save and restore)")
        physics = engine.Physics.from_model(wrapper.MjModel(self._gym.model))
        self._gym.data = physics.data.ptr
        simulate = self._gym.do_simulation

        def simulate_and_look(ctrl, n_frames):
            # A step leaves positions of bodies where they were one physics step ago; pictures and rewards read them.
            simulate(ctrl, n_frames)
            for refresh in (mujoco.mj_kinematics, mujoco.mj_comPos, mujoco.mj_camlight):
                refresh(self._gym.model, self._gym.data)

        self._gym.do_simulation = simulate_and_look
        options.setdefault("camera", 0 if self._gym.model.ncam else -1)  # one of its own, or from the side
        space = self._gym.action_space
        if space.shape == (len(limited := self._gym.model.actuator_ctrllimited),):
            # Gymnasium gives an actuator without limits the range that the model has for it, from 0 to 0.
            endless = np.where((limited == 0) & (space.low == space.high), np.inf, 0)
            space = gym.spaces.Box(space.low - endless, space.high + endless, dtype=np.float64)
        super().__init__(physics, space, **options)

    @property
    def control_seconds(self):
        return self._gym.dt

    def _begin_episode(self, seed):
        self._gym.reset(seed=seed % 2**31)

    def _control_step(self, action):
        # Where it would end an episode is not asked: an episode's length belongs to whoever runs it.
        _, reward, *_ = self._gym.step(action)
        return float(reward)
