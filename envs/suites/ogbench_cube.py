"""OGBench's cube-single: a UR5e arm with a gripper moves one 4 cm cube about on the floor (Park et al., 2025)."""

from typing import Any

import gymnasium as gym

from jepa_mpc.envs.base import EnvError
from jepa_mpc.envs.mujoco_env import MujocoEnv, engine, mujoco, refresh, wrapper
from jepa_mpc.envs.rendering import View

OBJECT_BOUNDS = ((0.3, -0.3), (0.55, 0.3))  # metres: from which OGBench draws places of the cube
REST_HEIGHT = 0.02  # of the cube's middle

# From in front and above, through a long lens: a cube is as large far off as near by, 4 to 5 pixels of 64, and where it
# or the hand is shows in the picture, its height in the distance to its shadow.
VIEW = View(lookat=(0.42, 0.0, 0.12), distance=2.6, azimuth=180.0, elevation=-40.0)
FIELD_OF_VIEW = 15.0  # degrees
ARM_OPACITY = 0.0  # leaves links and their shadow out, which takes a third off the time of a picture
HAND_OPACITY = 0.5  # a cube in the grip shows through


class OGBenchCubeEnv(MujocoEnv):
    """The simulation and control of OGBench's data-collection mode; the other arguments are `MujocoEnv`'s.

    An action is (dx, dy, dz, dyaw, gripper) in [−1, 1]: the hand's move in 0.05 s, up to 5 cm and 0.3 rad, and how far
    the gripper closes (1) or opens (−1). Episodes begin with arm and cube anywhere in the workspace. Nothing that
    decides the future is kept outside MuJoCo's state: inverse kinematics start from the joints of the moment.
    """

    ogbench: Any  # OGBench's own environment, for its oracles

    def __init__(self, **options):
        try:
            from ogbench.manipspace.envs.cube_env import CubeEnv
        except ImportError as error:
            raise EnvError(
                "the cube task needs OGBench; install it with `pip install 'jepa-mpc[cube]'`, or on Python 3.13 with "
                f"`pip install --no-deps ogbench` ({error})"
            ) from error
        self.ogbench = CubeEnv(
            "single",
            ob_type="pixels",  # the colours that OGBench's own pictures have: a purple hand
            pixel_transparent_arm=False,
            mode="data_collection",
            visualize_info=False,
            terminate_at_goal=False,
        )
        self.ogbench.compute_observation = lambda: None  # it would render once more, with a renderer of its own
        self.ogbench.reset(seed=0)  # compiles the model
        model = self.ogbench.model
        model.vis.global_.fovy = FIELD_OF_VIEW
        for material in map(model.mat, range(model.nmat)):
            if material.name.startswith("ur5e/"):
                material.rgba[3] = HAND_OPACITY if material.name.startswith("ur5e/robotiq/") else ARM_OPACITY
        physics = engine.Physics.from_model(wrapper.MjModel(model))
        self.ogbench._data = physics.data.ptr
        options = {"camera": VIEW, "hidden_geoms": ("target_object_0",)} | options
        super().__init__(physics, gym.spaces.Box(-1, 1, (5,)), **options)

    @property
    def control_seconds(self):
        return self.ogbench.control_timestep()

    def _begin_episode(self, seed):
        self.ogbench.reset(seed=seed)

    def _control_step(self, action):
        ogbench = self.ogbench
        ogbench.set_control(action)
        mujoco.mj_step(self.model, self.data, nstep=ogbench._n_steps)
        refresh(self.model, self.data)  # for the next action and the picture
        ogbench.post_step()
        return float(ogbench.compute_reward())
