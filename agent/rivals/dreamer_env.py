"""A task as Dreamer meets it: the picture of now beside that of the goal, and a reward for being there."""

from typing import Any, Literal

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from jepa_mpc import envs
from jepa_mpc.agent.rivals import draw_pose
from jepa_mpc.seeds import episode_rng

RewardName = Literal["sparse", "dense", "own"]
Observation = dict[str, NDArray[np.uint8]]

_MARGIN_POSES = 64


class GoalEnv(gym.Env[Observation, NDArray[np.float32]]):
    """Every episode has a goal as the far protocol draws them: a pose of another episode, at rest.

    Args:
        task: a task in the registry.
        reward: sparse gives 1 for every step within the task's tolerance; dense falls linearly from there to 0 at the
            largest error among poses of the data, on average over the parts of the pose, so it says everywhere and for
            each of them which way is better; own is the simulator's, and there is no goal.
        seed: decides all episodes.
        action_repeat: environment steps that an action is held for; their rewards are summed.
    """

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    render_mode = "rgb_array"
    action_space: gym.spaces.Box  # type: ignore[assignment]
    observation_space: gym.spaces.Dict  # type: ignore[assignment]

    def __init__(self, task: str, reward: RewardName, seed: int, action_repeat: int = 1):
        self._spec, self._env = envs.get_task(task), envs.make(task)
        self._reward, self._seed, self._episode = reward, seed, 0
        self._action_repeat = action_repeat
        if reward == "own" and not self._env.has_reward:
            raise envs.EnvError(f"{task} has no reward of its own; choose --reward sparse or dense")
        if reward == "dense":
            rng = episode_rng("dreamer margin", seed, 0)
            poses = np.array([draw_pose(self._env, self._spec, rng) for _ in range(_MARGIN_POSES)])
            largest = [part.error(poses[:, None], poses).max() for part in self._spec.pose.parts]
            self._margins = [max(0.0, error - self._spec.pose.tolerance) for error in largest]  # some parts never move
        self._length = self._spec.episode_len if reward == "own" else self._spec.budget
        self.action_space = self._env.action_space
        keys = ("rgb",) if reward == "own" else ("rgb", "goal")
        self.observation_space = gym.spaces.Dict(dict.fromkeys(keys, self._env.observation_space))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        rng = episode_rng("dreamer", self._seed, self._episode)
        self._episode, self._steps = self._episode + 1, 0
        if self._reward != "own":
            self._goal_qpos = draw_pose(self._env, self._spec, rng)
            self._env.set_pose(self._goal_qpos)
            self._goal = self._env.render()
        picture, _ = self._env.reset(seed=int(rng.integers(2**31)))
        return self._observe(picture), {}

    def step(self, action):
        earned = 0.0
        for _ in range(min(self._action_repeat, self._length - self._steps)):
            own = self._env.advance(action)
            earned += own if self._reward == "own" else self._closeness()
            self._steps += 1
        return self._observe(self._env.render()), earned, False, self._steps >= self._length, {}

    def _closeness(self) -> float:
        pose, here, there = self._spec.pose, self._env.qpos, self._goal_qpos
        if self._reward == "sparse":
            return float(pose.success(here, there))
        beyond = [max(0.0, float(part.error(here, there)) - pose.tolerance) for part in pose.parts]
        shares = [far / (margin or far or 1) for far, margin in zip(beyond, self._margins, strict=True)]
        return float(np.mean([max(0.0, 1 - share) for share in shares]))

    def _observe(self, picture: NDArray[np.uint8]) -> Observation:
        return {"rgb": picture} if self._reward == "own" else {"rgb": picture, "goal": self._goal}

    def render(self):
        return self._env.render()

    def close(self):
        self._env.close()
