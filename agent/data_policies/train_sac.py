"""Trains a policy that collects data: `python agent/data_policies/train_sac.py --task gym/Pusher-v5`.

Soft Actor-Critic (Haarnoja et al., 2018), by stable-baselines3, from the simulator's state and on its own reward:
`python agent/collect.py --policy sac` then shows the world model pictures of a robot that does something.

Episode n draws all its randomness from generators seeded by (seed, n), so a training that was killed goes on exactly
where its last saved state left it, with the same command. stable-baselines3's own files are pickles: none is used.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import gymnasium as gym
import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from scipy import stats
from torch import Tensor
from tqdm import tqdm

from jepa_mpc import envs
from jepa_mpc.agent.collect import episode_rng
from jepa_mpc.agent.data_policies.basic import uniform_actions
from jepa_mpc.agent.data_policies.sac import (
    STATE_LIMIT,
    Actor,
    PolicyError,
    PolicyInfo,
    Return,
    normalise,
    policy_folder,
    read_state,
    save_policy,
)
from jepa_mpc.provenance import simulator_version
from jepa_mpc.world_model.checkpoint import git_commit

if TYPE_CHECKING:
    from stable_baselines3 import SAC

log = logging.getLogger(__name__)

_LEAST_STD = 0.1  # what hardly moves under random actions, such as a puck, moves when it is learned to be pushed
_REPLAY = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


@dataclass(frozen=True)
class PolicyConfig:
    """Train a policy from the simulator's state and reward, to collect data with."""

    task: str
    """Task in the registry; its simulator must have a reward."""
    output: Path | None = None
    """Folder for the policy and the state to resume from; `runs/policies/<task>` unless given."""
    seed: int = 0
    """Decides the initial weights, the episodes and every random draw."""
    num_steps: int = 100_000
    """Environment steps, in whole episodes."""
    random_steps: int = 2_000
    """The first of them, of uniform actions; states are normalised by what they show."""
    updates_per_step: float = 0.5
    """Gradient steps for each environment step."""
    batch_size: int = 128
    """Transitions in a gradient step."""
    hidden_sizes: tuple[int, ...] = (128, 128)
    """Layers of the actor and of each critic."""
    learning_rate: float = 1e-3
    discount: float = 0.99
    save_every: int = 5_000
    """Environment steps between saved states."""
    report_episodes: int = 20
    """Episodes that the finished policy's return is measured on."""


class StateEnv(gym.Env[NDArray[np.float32], NDArray[np.float32]]):
    """A task without pictures: observations are the normalised state, rewards the simulator's own.

    Episodes are cut at the task's length. The seed and an episode's number decide where it begins; the simulator draws
    one picture there, and none after.
    """

    action_space: gym.spaces.Box  # type: ignore[assignment]

    def __init__(self, env: envs.PixelEnv, spec: envs.TaskSpec, seed: int, random_steps: int):
        self._env, self._spec, self._seed = env, spec, seed
        self.episode, self._steps = 0, 0
        self.action_space = env.action_space
        self.mean, self.std = measure_states(env, spec, seed, random_steps)
        self.observation_space = gym.spaces.Box(-STATE_LIMIT, STATE_LIMIT, self.mean.shape, np.float32)

    def _observe(self) -> NDArray[np.float32]:
        return normalise(read_state(self._env, self._spec.angles), self.mean, self.std)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        rng = episode_rng("policy", self._seed, self.episode)
        self._env.reset(seed=int(rng.integers(2**31)))
        self.episode, self._steps = self.episode + 1, 0
        return self._observe(), {}

    def step(self, action):
        reward = self._env.advance(action)
        self._steps += 1
        return self._observe(), reward, False, self._steps >= self._spec.episode_len, {}


def measure_states(
    env: envs.PixelEnv, spec: envs.TaskSpec, seed: int, random_steps: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and std of states (S,) under random actions."""
    seen = []
    for index in range(max(1, random_steps // spec.episode_len)):
        rng = episode_rng("policy-scale", seed, index)
        env.reset(seed=int(rng.integers(2**31)))
        for action in uniform_actions(env.action_space, spec.episode_len, rng):
            env.advance(action)
            seen.append(read_state(env, spec.angles))
    mean, std = np.mean(seen, 0), np.maximum(np.std(seen, 0), _LEAST_STD)
    return mean.astype(np.float32), std.astype(np.float32)


def build_sac(config: PolicyConfig, env: StateEnv, episode_len: int) -> "SAC":
    """The learner, which alternates an episode of experience with its share of gradient steps."""
    try:
        from stable_baselines3 import SAC
        from stable_baselines3.common.logger import Logger
    except ImportError as error:
        raise PolicyError(
            f"stable-baselines3 is missing; install it with `pip install -e '.[rl]'` ({error})"
        ) from error
    sac = SAC(
        "MlpPolicy",
        env,
        learning_rate=config.learning_rate,
        buffer_size=_num_episodes(config, episode_len) * episode_len,  # nothing is ever overwritten
        learning_starts=config.random_steps,
        batch_size=config.batch_size,
        gamma=config.discount,
        train_freq=(1, "episode"),
        gradient_steps=max(1, round(config.updates_per_step * episode_len)),
        policy_kwargs={"net_arch": list(config.hidden_sizes)},
        seed=config.seed,
        device="cpu",  # networks this small are slower elsewhere
    )
    sac.set_logger(Logger(folder=None, output_formats=[]))
    return sac


def export_actor(sac: "SAC", mean: NDArray[np.float32], std: NDArray[np.float32]) -> Actor:
    """What is left of the learner once it has learned."""
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


def _num_episodes(config: PolicyConfig, episode_len: int) -> int:
    return -(-config.num_steps // episode_len)


def _check(config: PolicyConfig) -> None:
    """Raises `PolicyError` on settings that cannot be served."""
    least = {"seed": 0, "num_steps": 1, "random_steps": 1, "batch_size": 2, "save_every": 1, "report_episodes": 2}
    for option, minimum in least.items():
        if (value := getattr(config, option)) < minimum:
            raise PolicyError(f"--{option.replace('_', '-')} must be at least {minimum}, not {value}")
    for option in ("updates_per_step", "learning_rate"):
        if not (value := getattr(config, option)) > 0:
            raise PolicyError(f"--{option.replace('_', '-')} must be above 0, not {value}")
    if not 0 < config.discount < 1:
        raise PolicyError(f"--discount must lie between 0 and 1, not {config.discount}")
    if not config.hidden_sizes or min(config.hidden_sizes) < 1:
        raise PolicyError(f"--hidden-sizes must be one or more layers of at least 1, not {config.hidden_sizes}")


def train_policy(config: PolicyConfig) -> Path:
    """Trains, and returns the policy's folder. Goes on from a saved state; a finished folder is left alone."""
    _check(config)
    spec = envs.get_task(config.task)
    folder = config.output or policy_folder(config.task)
    settings = json.loads(json.dumps({name: value for name, value in vars(config).items() if name != "output"}))
    settings_path, state_path = folder / "settings.json", folder / "state.safetensors"
    if settings_path.exists() and json.loads(settings_path.read_text()) != settings:
        raise PolicyError(f"{folder} holds a training with other settings; choose another --output")
    if (folder / "config.json").exists():
        log.info("%s is finished already", folder)
        return folder

    simulator = spec.make(spec.image_size, True)
    if not simulator.has_reward:
        raise PolicyError(f"{config.task} has no reward to learn from; collect with --policy {spec.data_policy}")
    env = StateEnv(simulator, spec, config.seed, config.random_steps)
    sac = build_sac(config, env, spec.episode_len)
    folder.mkdir(parents=True, exist_ok=True)
    settings_path.write_text(json.dumps(settings, indent=2) + "\n")
    seconds = _learn(config, sac, env, spec.episode_len, state_path)

    actor = export_actor(sac, env.mean, env.std)
    info = PolicyInfo(
        task=config.task,
        angles=spec.angles,
        hidden_sizes=config.hidden_sizes,
        action_low=tuple(actor.low.tolist()),
        action_high=tuple(actor.high.tolist()),
        training=settings,
        num_steps=sac.num_timesteps,
        greedy_return=measure_return(
            simulator, spec, config, lambda rng: actor.act(read_state(simulator, spec.angles))
        ),
        random_return=measure_return(
            simulator, spec, config, lambda rng: uniform_actions(simulator.action_space, 1, rng)[0]
        ),
        simulator=simulator_version(),
        commit=git_commit(),
        learning_seconds=round(seconds, 1),
    )
    save_policy(folder, actor, info)
    state_path.unlink()  # the experience in it is large, and has served
    return folder


def _learn(config: PolicyConfig, sac: "SAC", env: StateEnv, episode_len: int, state_path: Path) -> float:
    """Trains to the end, from the saved state if there is one; the seconds that it took in all."""
    seconds = _load_state(state_path, sac) if state_path.exists() else 0.0
    env.episode = sac.num_timesteps // episode_len
    if sac.num_timesteps:
        log.info("going on from step %d", sac.num_timesteps)
    began = time.monotonic() - seconds
    num_episodes = _num_episodes(config, episode_len)
    bar = tqdm(total=num_episodes * episode_len, initial=sac.num_timesteps, desc=f"SAC on {config.task}", unit="step")
    with bar:
        for episode in range(env.episode, num_episodes):
            _seed_all(sac, episode_rng("policy-draws", config.seed, episode))
            sac.learn(episode_len, reset_num_timesteps=False)
            done = episode + 1
            bar.update(episode_len)
            bar.set_postfix({"return": f"{np.mean([info['r'] for info in list(sac.ep_info_buffer or ())[-10:]]):.1f}"})
            due = done * episode_len // config.save_every > episode * episode_len // config.save_every
            if due or done == num_episodes:
                _save_state(state_path, sac, time.monotonic() - began)
    return time.monotonic() - began


def _seed_all(sac: "SAC", rng: np.random.Generator) -> None:
    """Every generator that stable-baselines3 draws from: random actions, batches and the actor's noise."""
    sac.action_space.seed(int(rng.integers(2**31)))
    np.random.seed(int(rng.integers(2**31)))
    torch.manual_seed(int(rng.integers(2**31)))


def measure_return(
    env: envs.PixelEnv,
    spec: envs.TaskSpec,
    config: PolicyConfig,
    act: Callable[[np.random.Generator], NDArray[np.floating]],
) -> Return:
    """The return of episodes whose starts the seed decides, the same for every way to act."""
    returns = []
    for index in range(config.report_episodes):
        rng = episode_rng("policy-report", config.seed, index)
        env.reset(seed=int(rng.integers(2**31)))
        returns.append(sum(env.advance(act(rng)) for _ in range(spec.episode_len)))
    mean, margin = float(np.mean(returns)), stats.t.ppf(0.975, len(returns) - 1) * stats.sem(returns)
    return Return(mean, mean - float(margin), mean + float(margin), len(returns))


def _optimizers(sac: "SAC") -> dict[str, torch.optim.Optimizer]:
    assert sac.ent_coef_optimizer is not None
    return {"actor": sac.actor.optimizer, "critic": sac.critic.optimizer, "temperature": sac.ent_coef_optimizer}


def _save_state(path: Path, sac: "SAC", seconds: float) -> None:
    """Weights, the optimisers' moments and all experience, to resume from."""
    assert sac.log_ent_coef is not None
    assert sac.replay_buffer is not None
    tensors = {f"weights/{name}": value for name, value in sac.policy.state_dict().items()}
    tensors["log_temperature"] = sac.log_ent_coef.detach()
    for which, optimizer in _optimizers(sac).items():
        for index, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{which}/{index}/{name}": value for name, value in moments.items()}
    for name in _REPLAY:
        tensors[f"replay/{name}"] = torch.from_numpy(getattr(sac.replay_buffer, name)[: sac.num_timesteps])
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_bytes(save(tensors, {"seconds": str(seconds)}))
    os.replace(unfinished, path)


def _load_state(path: Path, sac: "SAC") -> float:
    """Puts the saved state back; returns the seconds spent so far."""
    assert sac.log_ent_coef is not None
    assert sac.replay_buffer is not None
    moments: dict[str, dict[int, dict[str, Tensor]]] = {}
    weights: dict[str, Tensor] = {}
    try:
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118 (no mapping)
                kind, _, rest = key.partition("/")
                value = file.get_tensor(key)
                if kind == "weights":
                    weights[rest] = value
                elif kind == "optimizer":
                    which, index, name = rest.split("/")
                    moments.setdefault(which, {}).setdefault(int(index), {})[name] = value
                elif kind == "log_temperature":
                    sac.log_ent_coef.data.copy_(value)
                else:
                    getattr(sac.replay_buffer, rest)[: len(value)] = value.numpy()
                    sac.num_timesteps = len(value)
            seconds = float(file.metadata()["seconds"])
        sac.policy.load_state_dict(weights)
        for which, optimizer in _optimizers(sac).items():
            state = {"state": moments.get(which, {}), "param_groups": optimizer.state_dict()["param_groups"]}
            optimizer.load_state_dict(state)
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise PolicyError(f"{path} is damaged; delete it to start afresh") from error
    buffer = sac.replay_buffer
    buffer.pos, buffer.full = sac.num_timesteps % buffer.buffer_size, sac.num_timesteps == buffer.buffer_size
    return seconds


def main() -> None:
    logging.basicConfig(format="%(message)s")
    log.setLevel(logging.INFO)
    config = tyro.cli(PolicyConfig)
    try:
        folder = train_policy(config)
    except (PolicyError, envs.EnvError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on from the last saved state")
    stored = json.loads((folder / "config.json").read_text())
    returns = {
        name: "{mean:.1f} [{low:.1f}, {high:.1f}]".format(**stored[f"{name}_return"]) for name in ("greedy", "random")
    }
    print(f"wrote {folder}: return {returns['greedy']}, of random actions {returns['random']}")  # noqa: T201


if __name__ == "__main__":
    main()
