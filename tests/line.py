"""The simplest simulator there can be, so that tests know every number: a point on a line, which an action moves."""

import gymnasium as gym
import numpy as np

from jepa_mpc.envs import Part, PixelEnv, PoseTest, TaskSpec
from jepa_mpc.envs.registry import TASKS


class Line(PixelEnv):
    """x begins at a whole number from −5 to 5, an action in [−1, 1] is added to it, and the reward is what it becomes.

    Its picture is 100 + 10 x all over.
    """

    has_reward = True
    step_seconds = 0.1

    def __init__(self, image_size: int = 16, fast_rendering: bool = True):
        self.action_space = gym.spaces.Box(-1, 1, (1,), np.float32)
        self.observation_space = gym.spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        self.fast_rendering = fast_rendering
        self.x = 0.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = float(self.np_random.integers(-5, 6))
        return self.render(), {}

    def advance(self, action):
        self.x += float(np.clip(action, -1, 1)[0])
        return self.x

    def render(self):
        return np.full(self.observation_space.shape, round(100 + 10 * self.x), np.uint8)

    def get_state(self):
        return np.array([self.x])

    def set_state(self, state):
        self.x = float(state[0])

    set_pose = set_state

    @property
    def qpos(self):
        return np.array([self.x])

    @property
    def qvel(self):
        return np.zeros(1)

    def position(self, geom):
        return {"point": np.array([self.x / 10, 0.0, 0.0])}[geom]


def x_of(pictures):
    """Where the point is in pictures (..., H, W, 3)."""
    return (np.asarray(pictures)[..., 0, 0, 0].astype(float) - 100) / 10


LINE = TaskSpec(
    name="line",
    make=Line,
    pose=PoseTest((Part((0,)),), 0.5, "m"),
    angles=(False,),
    action_repeat=1,
    data_policy="uniform",
    image_size=16,
    action_block=2,
    episode_len=10,
    goal_offset=4,
    budget=6,
    far_budget=8,
)


def register(monkeypatch, spec=LINE):
    """Lets the spec be found by its name, for as long as the test runs."""
    monkeypatch.setitem(TASKS._values, spec.name, spec)
    return spec
