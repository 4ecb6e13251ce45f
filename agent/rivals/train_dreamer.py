"""Trains Dreamer to reach pictured goals: `.venv-dreamer/bin/jepa-mpc train-dreamer --task reacher`.

sheeprl does the learning and keeps its own checkpoints, from which the same command goes on. What is kept in the end is
what acts: the weights of the world model and the actor, without pickles, with the settings beside them.
"""

if __name__ == "__main__":  # first, so that Ctrl-C in the imports below is answered too
    from jepa_mpc.cli import run

    run("train-dreamer")

import contextlib
import functools
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from jepa_mpc import envs, files, places
from jepa_mpc.agent.rivals.dreamer_env import GoalEnv, RewardName
from jepa_mpc.cli import parse
from jepa_mpc.devices import choose_device
from jepa_mpc.errors import UserError
from jepa_mpc.provenance import git_commit, simulator_version
from jepa_mpc.settings import Count, Fraction, Natural, Positive, Seed, checked, to_json

PARTS = ("world_model", "actor")  # of a checkpoint, to act with
BASELINE_EPISODES = 100
BASELINE_SEED = 2**31 - 1  # none that the training's own count up to


@dataclass(frozen=True)
class DreamerConfig:
    """Train DreamerV3 on goals given as pictures, with a reward for reaching them."""

    task: str = "reacher"
    """Task in the registry."""
    reward: RewardName = "dense"
    """1 in the goal and 0 elsewhere, the nearer the more, or the simulator's own without a goal."""
    output: Path | None = None
    """Run folder; `runs/dreamer/<task>-<reward>-seed<seed>` unless given."""
    seed: Seed = 0
    """Decides the initial weights, the episodes and every random draw."""
    size: Literal["1M", "12M", "25M", "50M", "100M", "200M", "400M"] = "1M"
    """Of the model, as the official implementation names them."""
    dense_units: Count = 256
    """Width of the heads, whatever the size; the 1M model's own 64 are few for comparing two pictures."""
    cnn_channels: Count = 8
    """The convolutions have 2, 3, 4 and 4 times as many, whatever the size; the 1M model's own is 4."""
    num_steps: Count = 120_000
    """Environment steps."""
    action_repeat: Count = 5
    """Environment steps that an action is held for."""
    num_envs: Count = 4
    """Simulators that take turns."""
    batch_size: Count = 16
    """Sequences in a gradient step."""
    sequence_length: Count = 8
    """Decisions in a sequence."""
    updates_per_step: Positive = 0.13
    """Gradient steps for each environment step."""
    learning_rate: Positive = 1e-3
    """The official 4e-5 is for a hundred times as many gradient steps as a CPU takes in an hour."""
    entropy: Positive = 1e-3
    """Weight of the actor's entropy."""
    discount: Fraction = 0.9
    """Of rewards, from one action to the next."""
    horizon: Count = 10
    """Decisions imagined ahead."""
    warmup_updates: Natural = 100
    """Gradient steps over which the learning rate rises."""
    random_steps: Natural = 12_000
    """Environment steps before the first of them."""
    save_every: Count = 10_000
    """Environment steps between checkpoints, each of which can be measured."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto: the first of cuda and cpu that is there."""


def speed_up_convolutions() -> None:
    """Lays out the world model so that a CPU convolves pictures of few channels some five times faster, and doubles
    their size by PyTorch's own kernel, which keeps that layout.
    """
    import torch
    from sheeprl.algos.dreamer_v3_5 import agent, dreamer_v3_5

    agent.Upsample = functools.partial(torch.nn.Upsample, scale_factor=2)
    build = dreamer_v3_5.build_agent

    def build_agent(*args):
        parts = build(*args)
        parts[0].to(memory_format=torch.channels_last)
        return parts

    dreamer_v3_5.build_agent = build_agent


@contextlib.contextmanager
def quiet_sheeprl() -> Iterator[None]:
    """Silences the warnings of its import, which are none of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def overrides(config: DreamerConfig, folder: Path, resume_from: Path | None) -> list[str]:
    """Returns the settings as sheeprl's command line takes them; its steps are decisions."""
    decisions = config.num_steps // config.action_repeat
    keys = "[rgb]" if config.reward == "own" else "[rgb,goal]"
    said = {
        "exp": "dreamer_v3_5",
        "algo": f"dreamer_v3_5_{config.size}",
        "algo.dense_units": config.dense_units,
        "algo.cnn_channels_multiplier": config.cnn_channels,
        "algo.horizon": config.horizon,
        "env": "default",
        "env.id": config.task.replace("/", "-"),
        "env.num_envs": config.num_envs,
        "env.sync_env": True,
        "env.capture_video": False,
        "+env.wrapper._target_": "jepa_mpc.agent.rivals.dreamer_env.GoalEnv",
        "+env.wrapper.task": config.task,
        "+env.wrapper.reward": config.reward,
        "+env.wrapper.action_repeat": config.action_repeat,
        "+env.wrapper.seed": "null",
        "seed": 1000 * config.seed,  # sheeprl counts its simulators on from it
        "algo.total_steps": decisions,
        "algo.per_rank_batch_size": config.batch_size,
        "algo.per_rank_sequence_length": config.sequence_length,
        "algo.replay_ratio": config.updates_per_step * config.action_repeat,
        "algo.gamma": config.discount,
        "algo.actor.ent_coef": config.entropy,
        "algo.optimizer.lr": config.learning_rate,
        "algo.optimizer.warmup": config.warmup_updates,
        "algo.learning_starts": config.random_steps // config.action_repeat,
        "algo.cnn_keys.encoder": keys,
        "algo.mlp_keys.encoder": "[]",
        "algo.run_test": False,
        "buffer.size": decisions + 2 * config.num_envs,
        "buffer.checkpoint": True,
        "buffer.memmap": True,
        "checkpoint.every": max(1, config.save_every // config.action_repeat),
        "checkpoint.keep_last": "null",
        "metric.log_every": max(1, 500 // config.action_repeat),
        "fabric.accelerator": config.device,
        "fabric.precision": "bf16-mixed",  # as the official implementation
        "hydra.run.dir": folder / "hydra",
        "log_root": folder.parent,
        "root_dir": folder.name,
        "run_name": "sheeprl",
    }
    if resume_from is not None:
        said["checkpoint.resume_from"] = resume_from
    return [f"{name}={value}" for name, value in said.items()]


def decisions_of(checkpoint: Path) -> int:
    """Returns how many it has seen: sheeprl names it ckpt_<decisions>_<rank>.ckpt."""
    return int(checkpoint.stem.split("_")[1])


def train(config: DreamerConfig) -> Path:
    """Trains, from the newest checkpoint if there is one, and returns the run folder."""
    config = checked(config)
    if config.num_steps < config.action_repeat * config.num_envs:
        raise UserError("--num-steps must give each of --num-envs an action of --action-repeat steps")
    if config.cnn_channels % 2:
        raise UserError(f"--cnn-channels must be even, not {config.cnn_channels}")
    choose_device(config.device)
    try:
        with quiet_sheeprl():
            from sheeprl.cli import run

            speed_up_convolutions()
    except ImportError as error:
        raise UserError(f"sheeprl is missing; `make dreamer` builds .venv-dreamer, which has it ({error})") from error
    envs.get_task(config.task)
    name = f"{places.slug(config.task)}-{config.reward}-seed{config.seed}"
    folder = config.output or places.runs("dreamer", name)
    settings = {name: value for name, value in to_json(config).items() if name != "output"}
    settings["simulator"] = simulator_version()
    with files.claimed(folder, settings):
        newest = max(folder.resolve().glob("sheeprl/version_*/checkpoint/ckpt_*.ckpt"), key=decisions_of, default=None)
        if newest is None or decisions_of(newest) < config.num_steps // config.action_repeat:
            sys.argv = ["sheeprl", *overrides(config, folder.resolve(), newest)]
            run()
        export(folder, settings)
    return folder


def export(folder: Path, settings: dict) -> None:
    """Writes what acts, of every checkpoint, as `actors/<steps>.safetensors`; when it was reached, and the returns in
    training beside those without any, in `config.json`, which is written last: its being there says finished.
    """
    import torch
    import yaml  # sheeprl brings it
    from safetensors.torch import save

    actors = folder / "actors"
    actors.mkdir(exist_ok=True)
    seconds, before = {}, 0.0
    returns: dict[int, float] = {}
    for version in sorted(folder.glob("sheeprl/version_*"), key=lambda path: int(path.name.removeprefix("version_"))):
        start = (version / "config.yaml").stat().st_mtime  # written as the training starts
        for checkpoint in sorted(version.glob("checkpoint/*.ckpt"), key=decisions_of):
            steps = decisions_of(checkpoint) * settings["action_repeat"]
            seconds[steps] = round(before + checkpoint.stat().st_mtime - start, 1)
            # Its list of replay buffers, which is not read here, counts as a plain list.
            with torch.serialization.safe_globals([(list, "sheeprl.utils.fs.BufferFiles")]):
                state = torch.load(checkpoint, map_location="cpu", weights_only=True)
            weights = {f"{part}/{name}": value.contiguous() for part in PARTS for name, value in state[part].items()}
            files.write_whole(actors / f"{steps}.safetensors", save(weights))
        before = max(seconds.values(), default=0.0)
        returns |= {decisions * settings["action_repeat"]: value for decisions, value in _training_returns(version)}
        config = yaml.safe_load((version / "config.yaml").read_text())
    kept = {"settings": settings, "learning_seconds": seconds, "training_returns": sorted(returns.items())}
    kept |= {"baseline_returns": _baseline_returns(settings), "commit": git_commit(), "sheeprl": config}
    files.write_json(actors / "config.json", kept)


def _training_returns(version: Path) -> list[tuple[int, float]]:
    """Returns decisions, and the mean return of the episodes that ended since the line before."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(version)).Reload()
    tag = "Rewards/rew_avg"
    return [(event.step, event.value) for event in events.Scalars(tag)] if tag in events.Tags()["scalars"] else []


def _baseline_returns(settings: dict) -> dict[str, list[float]]:
    """Measures episodes by random actions and by none, on the task of the training."""
    env = GoalEnv(settings["task"], settings["reward"], BASELINE_SEED, settings["action_repeat"])
    space, rng = env.action_space, np.random.default_rng(BASELINE_SEED)
    returns: dict[str, list[float]] = {"random": [], "do_nothing": []}
    for name, earned in returns.items():
        for _ in range(BASELINE_EPISODES):
            env.reset()
            earned.append(0.0)
            over = False
            while not over:
                action = rng.uniform(space.low, space.high) if name == "random" else np.zeros(space.shape)
                _, reward, _, over, _ = env.step(action)
                earned[-1] += reward
    env.close()
    return returns


def main(args: Sequence[str]) -> None:
    print(f"wrote {train(parse(DreamerConfig, args))}")  # noqa: T201
