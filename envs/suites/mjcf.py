"""A robot of one's own in an MJCF file: joints drawn at random, actuators driven within their ranges."""

import os

import gymnasium as gym
import numpy as np
from dm_control.suite.utils import randomizers

from jepa_mpc.envs.base import EnvError
from jepa_mpc.envs.mujoco_env import MujocoEnv, engine
from jepa_mpc.errors import reason

_DEEP = 1e-3  # metres by which bodies may overlap at a start
_TRIES = 100


class MJCFEnv(MujocoEnv):
    """The model in a file. An action is every actuator's control, for one physics step.

    An episode begins at rest, with each joint drawn from its range, or from a turn where it has none; what slides or
    flies without limits stays where the model puts it. Poses in which bodies overlap are drawn again, up to a hundred
    times. The other arguments are `MujocoEnv`'s.
    """

    has_reward = False

    def __init__(self, path: str, **options):
        if not os.path.isfile(path):
            raise EnvError(f"there is no model at {path}; name an MJCF file")
        try:
            physics = engine.Physics.from_xml_path(os.path.abspath(path))
        except (ValueError, RuntimeError, OSError) as error:
            where = " ".join(str(error).split()) or reason(error)  # it says over several lines where and why
            raise EnvError(f"{path} is no model that MuJoCo can load: {where}") from error
        model = physics.model.ptr
        if not model.nu:
            raise EnvError(f"{path} has nothing that moves it; give it an <actuator> for each joint to be driven")
        limited = model.actuator_ctrllimited.astype(bool)
        low, high = model.actuator_ctrlrange.T
        low, high = np.where(limited, low, -np.inf), np.where(limited, high, np.inf)
        options.setdefault("camera", 0 if model.ncam else -1)  # one of its own, or from the side
        super().__init__(physics, gym.spaces.Box(low, high, dtype=np.float64), **options)

    @property
    def control_seconds(self):
        return self.model.opt.timestep

    def _begin_episode(self, seed):
        random = np.random.RandomState(seed)
        for _ in range(_TRIES):
            self._physics.reset()
            randomizers.randomize_limited_and_rotational_joints(self._physics, random)
            self._physics.after_reset()
            if not self.data.ncon or self.data.contact.dist.min() > -_DEEP:
                return

    def _control_step(self, action):
        self._physics.set_control(action)
        self._physics.step()
        return 0.0
