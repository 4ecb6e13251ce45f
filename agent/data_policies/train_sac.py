"""Trains a policy that collects data: `jepa-mpc train-sac --task gym/Pusher-v5`.

Soft Actor-Critic (Haarnoja et al., 2018), by stable-baselines3, from the simulator's state and on its own reward:
`jepa-mpc collect --policy sac` then shows the world model pictures of a robot that does something.

Episode n draws all its randomness from generators seeded by (seed, n), so a training that was killed goes on exactly
where its last saved state left it, with the same command. stable-baselines3's own files are pickles: none is used.
"""

if __name__ == "__main__":  # first, so that Ctrl-C in the imports below is answered too
    from jepa_mpc.cli import run

    run("train-sac")

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from jepa_mpc import envs, files, places
from jepa_mpc.agent.data_policies.noise import uniform_actions
from jepa_mpc.agent.data_policies.sac import (
    STATE_LIMIT,
    Actor,
    ActorInfo,
    Return,
    load_actor,
    normalise,
    read_state,
    save_actor,
)
from jepa_mpc.cli import parse
from jepa_mpc.errors import UserError
from jepa_mpc.provenance import git_commit, simulator_version
from jepa_mpc.seeds import episode_rng
from jepa_mpc.settings import Count, Fraction, Natural, NonNegative, Positive, Range, Seed, checked, to_json
from jepa_mpc.world_model.training.state import newest_state, restore, save_state

if TYPE_CHECKING:
    from stable_baselines3 import SAC

log = logging.getLogger(__name__)

_HINDSIGHTS = ("ep_start", "ep_length")  # what its experience has besides
_LEAST_STD = 0.1  # what hardly moves under random actions, such as a puck, moves when it is learned to be pushed


@dataclass(frozen=True)
class SACConfig:
    """Train a policy from the simulator's state and reward, to collect data with."""

    task: str
    """Task in the registry; its simulator must have a reward."""
    output: Path | None = None
    """Folder for the policy and the state to resume from; `runs/policies/<task>` unless given."""
    seed: Seed = 0
    """Decides the initial weights, the episodes and every random draw."""
    num_steps: Count = 100_000
    """Environment steps, in whole episodes."""
    random_steps: Count = 2_000
    """The first of them, of uniform actions; states are normalised by what they show."""
    updates_per_step: Positive = 0.5
    """Gradient steps for each environment step."""
    batch_size: Annotated[int, Range(2, 10**6)] = 128
    """Transitions in a gradient step."""
    hidden_sizes: tuple[Count, ...] = (128, 128)
    """Layers of the actor and of each critic."""
    learning_rate: Positive = 1e-3
    """Step of Adam."""
    discount: Fraction = 0.99
    """Of rewards, from one step to the next."""
    save_every: Count = 5_000
    """Environment steps between saved states."""
    report_episodes: Annotated[int, Range(2, 10**6)] = 20
    """Episodes that the finished policy's return is measured on."""


class StateEnv(gym.Env[Any, NDArray[np.float32]]):
    """A task without pictures: observations are the normalised state, rewards the simulator's own.

    Episodes are cut at the task's length. The seed and an episode's number decide where it begins; the simulator draws
    one picture there, and none after.
    """

    stream = "policy"  # of random numbers, which begin the episodes
    action_space: gym.spaces.Box  # type: ignore[assignment]

    def __init__(self, env: envs.PixelEnv, spec: envs.TaskSpec, seed: int, random_steps: int):
        self._env, self._spec, self._seed = env, spec, seed
        self.length, self.episode, self._steps = spec.episode_len, 0, 0
        self.action_space = env.action_space
        self.mean, self.std = measure_states(env, spec, seed, random_steps)
        self.observation_space = gym.spaces.Box(-STATE_LIMIT, STATE_LIMIT, self.mean.shape, np.float32)

    def scale(self) -> tuple[NDArray[np.float32], ...]:
        """Returns the mean and std of what the actor reads."""
        return self.mean, self.std

    def _observe(self) -> Any:
        return normalise(read_state(self._env, self._spec.angles), self.mean, self.std)

    def _begin(self) -> None:
        self._env.reset(seed=int(self.rng.integers(2**31)))

    def reset(self, *, seed=None, options=None):
        self.rng = episode_rng(self.stream, self._seed, self.episode)
        self.episode, self._steps = self.episode + 1, 0
        self._begin()
        return self._observe(), {}

    def step(self, action):
        reward = self._env.advance(action)
        self._steps += 1
        return self._observe(), reward, False, self._steps >= self.length, {}


def measure_states(
    env: envs.PixelEnv, spec: envs.TaskSpec, seed: int, random_steps: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns mean and std of states (S,) under random actions."""
    seen = []
    for index in range(max(1, random_steps // spec.episode_len)):
        rng = episode_rng("policy-scale", seed, index)
        env.reset(seed=int(rng.integers(2**31)))
        for action in uniform_actions(env.action_space, spec.episode_len, rng):
            env.advance(action)
            seen.append(read_state(env, spec.angles))
    mean, std = np.mean(seen, 0), np.maximum(np.std(seen, 0), _LEAST_STD)
    return mean.astype(np.float32), std.astype(np.float32)


@dataclass
class _Progress:
    steps: Natural = 0
    seconds: NonNegative = 0.0


def build_sac(config: SACConfig, env: StateEnv, num_hindsight: int = 0) -> "SAC":
    """Returns stable-baselines3's SAC, which alternates an episode of experience with its share of gradient steps.

    With hindsight, each goal that was asked for comes with so many that were reached later in the episode, and gradient
    steps follow every step. Networks this small are slower on a GPU.
    """
    try:
        from stable_baselines3 import SAC, HerReplayBuffer
        from stable_baselines3.common.logger import Logger
    except ImportError as error:
        raise UserError(f"stable-baselines3 is missing; `pip install 'jepa-mpc[rl]'` ({error})") from error
    options: dict[str, Any] = {}
    turn = 1 if num_hindsight else env.length
    if num_hindsight:
        options["replay_buffer_class"] = HerReplayBuffer
        options["replay_buffer_kwargs"] = {"n_sampled_goal": num_hindsight, "goal_selection_strategy": "future"}
    sac = SAC(
        "MultiInputPolicy" if num_hindsight else "MlpPolicy",
        env,
        learning_rate=config.learning_rate,
        buffer_size=_num_episodes(config, env) * env.length,  # nothing is ever overwritten
        learning_starts=config.random_steps,
        batch_size=config.batch_size,
        gamma=config.discount,
        train_freq=(turn, "step"),
        gradient_steps=max(1, round(config.updates_per_step * turn)),
        policy_kwargs={"net_arch": list(config.hidden_sizes)},
        seed=config.seed,
        device="cpu",
        **options,
    )
    sac.set_logger(Logger(folder=None, output_formats=[]))  # it says nothing of its own
    return sac


def export_actor(sac: "SAC", mean: NDArray[np.float32], std: NDArray[np.float32]) -> Actor:
    """Returns what is left of the learner once it has learned."""
    weights = {"state_mean": mean, "state_std": std}
    for name, value in sac.actor.state_dict().items():
        head, _, rest = name.partition(".")
        if head == "latent_pi":  # a linear layer at every even place, ReLU between
            layer, kind = rest.split(".")
            name = f"hidden.{int(layer) // 2}.{kind}"
        elif head == "mu":
            name = f"mean.{rest}"
        weights[name] = value.numpy().copy()
    assert isinstance(sac.action_space, gym.spaces.Box)
    return Actor(weights, sac.action_space.low, sac.action_space.high)


def _num_episodes(config: SACConfig, env: StateEnv) -> int:
    return -(-config.num_steps // env.length)


def train(config: SACConfig) -> Path:
    """Trains, and returns the policy's folder. Goes on from a saved state; a finished folder is left alone."""
    spec = envs.get_task(config.task)
    with contextlib.closing(spec.make(spec.image_size, True)) as env:
        if not env.has_reward:
            raise UserError(f"{config.task} has no reward to learn from; collect with --policy {spec.data_policy}")
    return train_on(StateEnv, config, places.runs("policies", config.task))


def train_on(kind: type[StateEnv], config: SACConfig, default: Path, num_hindsight: int = 0) -> Path:
    """Trains in that kind of environment, and returns the policy's folder, the default unless the config names one."""
    config = checked(config)
    if not config.hidden_sizes:
        raise UserError("--hidden-sizes must be one or more layers")
    spec, folder = envs.get_task(config.task), config.output or default
    settings = {name: value for name, value in to_json(config).items() if name != "output"}
    with files.claimed(folder, settings, free=("save_every",)):
        if (folder / "config.json").exists():
            log.info("%s is finished already", folder)
            return folder
        env = kind(spec.make(spec.image_size, True), spec, config.seed, config.random_steps)
        sac = build_sac(config, env, num_hindsight)
        seconds = _learn(config, sac, env, folder)
        actor = export_actor(sac, *env.scale())
        info = ActorInfo(
            task=spec.name,
            angles=spec.angles,
            hidden_sizes=config.hidden_sizes,
            action_low=tuple(actor.low.tolist()),
            action_high=tuple(actor.high.tolist()),
            training=settings,
            num_steps=sac.num_timesteps,
            simulator=simulator_version(),
            commit=git_commit(),
            learning_seconds=round(seconds, 1),
            greedy_return=measure_return(env, config, lambda seen: sac.predict(seen, deterministic=True)[0]),
            random_return=measure_return(env, config, lambda seen: uniform_actions(env.action_space, 1, env.rng)[0]),
        )
        save_actor(folder, actor, info)
        for state in folder.glob("state*.safetensors"):
            state.unlink()  # the experience in it is large, and has served
    return folder


def _learn(config: SACConfig, sac: "SAC", env: StateEnv, folder: Path) -> float:
    """Trains to the end, from the saved state if there is one; returns the seconds that it took in all."""
    from tqdm import tqdm

    state, buffer = _State(sac), sac.replay_buffer
    progress, moments = newest_state(folder, state, _Progress)
    for optimizer, each in zip(state.optimizers, moments, strict=False):
        restore(optimizer, each)
    assert buffer is not None
    sac.num_timesteps = progress.steps
    buffer.pos, buffer.full = progress.steps % buffer.buffer_size, progress.steps == buffer.buffer_size
    if hasattr(buffer, "_current_ep_start"):  # with hindsight
        buffer._current_ep_start[:] = buffer.pos
    env.episode = progress.steps // env.length
    if progress.steps:
        log.info("going on from step %d", progress.steps)
    began = time.monotonic() - progress.seconds
    num_episodes = _num_episodes(config, env)
    bar = tqdm(total=num_episodes * env.length, initial=sac.num_timesteps, desc=f"SAC on {config.task}", unit="step")
    with bar:
        for episode in range(env.episode, num_episodes):
            _seed_all(sac, episode_rng("policy-draws", config.seed, episode))
            sac.learn(env.length, reset_num_timesteps=False)
            done = episode + 1
            bar.update(env.length)
            bar.set_postfix({"return": f"{np.mean([info['r'] for info in list(sac.ep_info_buffer or ())[-10:]]):.1f}"})
            due = done * env.length // config.save_every > episode * env.length // config.save_every
            if due or done == num_episodes:
                progress.steps, progress.seconds = sac.num_timesteps, time.monotonic() - began
                save_state(folder, state, state.optimizers, progress)
    return progress.seconds


def _seed_all(sac: "SAC", rng: np.random.Generator) -> None:
    """Seeds every generator that stable-baselines3 draws from: random actions, batches and the actor's noise."""
    sac.action_space.seed(int(rng.integers(2**31)))
    np.random.seed(int(rng.integers(2**31)))
    torch.manual_seed(int(rng.integers(2**31)))


def measure_return(env: StateEnv, config: SACConfig, act: Callable[[Any], NDArray[np.floating]]) -> Return:
    """Measures the return of episodes whose starts the seed decides, the same for every way to act."""
    from scipy import stats

    returns = []
    env.stream, env.episode = "policy-report", 0
    for _ in range(config.report_episodes):
        (seen, _), over = env.reset(), False
        returns.append(0.0)
        while not over:
            seen, reward, _, over, _ = env.step(act(seen))
            returns[-1] += reward
    mean, margin = float(np.mean(returns)), stats.t.ppf(0.975, len(returns) - 1) * stats.sem(returns)
    return Return(mean, mean - float(margin), mean + float(margin), len(returns))


class _State(nn.Module):
    """What a learner must have back, besides its optimisers' moments: weights, temperature and all experience."""

    def __init__(self, sac: "SAC"):
        super().__init__()
        assert sac.log_ent_coef is not None
        assert sac.ent_coef_optimizer is not None
        self.policy = sac.policy
        self.optimizers = [sac.actor.optimizer, sac.critic.optimizer, sac.ent_coef_optimizer]
        self.register_buffer("log_temperature", sac.log_ent_coef.data)  # these share the learner's memory
        for name in ("observations", "next_observations", "actions", "rewards", "dones", "timeouts", *_HINDSIGHTS):
            value = getattr(sac.replay_buffer, name, {})
            for part, array in value.items() if isinstance(value, dict) else [("", value)]:
                self.register_buffer(f"{name}{part and '/'}{part}", torch.from_numpy(array))


def main(args: Sequence[str]) -> None:
    config = parse(SACConfig, args)
    folder = train(config)
    info = load_actor(folder, config.task)[1]
    print(f"wrote {folder}: return {info.greedy_return}, of random actions {info.random_return}")  # noqa: T201
