"""Collects reward-free episodes with a task's data policy: `python agent/collect.py --task reacher`.

An episode depends on the seed and its own index alone, so neither the number of processes nor an interruption
changes the data. Finished chunks wait beside the output until all are there; started again, it goes on from them.
`torchrun ... agent/collect.py ...` shares the chunks among machines that see one file system.
"""

import difflib
import functools
import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from tqdm import tqdm

from jepa_mpc import envs
from jepa_mpc.agent.data_policies import sac as sac_policy
from jepa_mpc.agent.data_policies.basic import POLICIES, MakePolicy, Policy
from jepa_mpc.distributed import num_ranks, process_group, rank, wait_for_all
from jepa_mpc.envs.blocks import run_block
from jepa_mpc.provenance import simulator_version
from jepa_mpc.world_model.data.dataset import Compression, DatasetInfo, Episode, write_dataset

EPISODES_PER_CHUNK = 20


@dataclass(frozen=True)
class CollectConfig:
    """Collect a data set of reward-free episodes."""

    task: str = "reacher"
    """Task in the registry."""
    policy: str | None = None
    """How to act: a name in `agent/data_policies/basic.py`, or sac; the task's own unless given."""
    policy_path: Path | None = None
    """Folder of the sac policy; `runs/policies/<task>` unless given."""
    num_episodes: int = 2000
    """Episodes to collect."""
    seed: int = 0
    """Decides every episode."""
    output: Path | None = None
    """HDF5 file to write; `data/<task>.h5` unless given."""
    every_step: bool = False
    """Store a picture and an action a step, as le-wm does, and not a picture and its actions a block."""
    compression: Compression = "none"
    """Of the pictures, each by itself; compressed ones are slower to read."""
    num_processes: int = max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    """Simulators that run side by side, under each process that torchrun starts."""


def episode_rng(purpose: str, seed: int, index: int) -> np.random.Generator:
    """The generator of one episode. Different purposes never share a stream, so data and tests never meet."""
    return np.random.default_rng([seed, index, *purpose.encode()])


def run_episode(
    env: envs.PixelEnv, policy: Policy, num_blocks: int, rng: np.random.Generator, every_step: bool = False
) -> Episode:
    """Runs one episode from a random reset; a row is a block, or a step."""
    env.reset(seed=int(rng.integers(2**31)))
    pixels, actions, qpos, qvel = [env.render()], [], [env.qpos], [env.qvel]
    for _ in range(num_blocks):
        block = policy(pixels[-1])
        for part in ([action] for action in block) if every_step else [block]:
            actions.append(run_block(env, part))
            pixels.append(env.render())
            qpos.append(env.qpos)
            qvel.append(env.qvel)
    return Episode(np.stack(pixels), np.stack(actions), np.stack(qpos), np.stack(qvel))


_worker_env = functools.cache(envs.make)  # one simulator per process


def exit_with_parent() -> None:
    """Workers of a parent that was killed would otherwise go on, into the files of its successor."""

    def watch() -> None:
        parent = parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def find_policy(name: str, task: str, path: Path | None = None) -> MakePolicy:
    """The policy of that name, for that task; the sac policy's folder is `runs/policies/<task>` unless given.

    Raises `EnvError`, which suggests the nearest names, if there is none.
    """
    if name == "sac":
        actor, info = sac_policy.load_policy(path or sac_policy.policy_folder(task), task)
        return functools.partial(sac_policy.sac, actor, info.angles)
    if name not in POLICIES:
        known = [*POLICIES, "sac"]
        near = difflib.get_close_matches(name, known) or known
        raise envs.EnvError(f"unknown policy {name!r}; did you mean {' or '.join(near)}?")
    if path is not None:
        raise envs.EnvError(f"--policy-path is for --policy sac, not {name}; leave it out")
    return POLICIES[name]


def _collect_chunk(task: str, make_policy: MakePolicy, seed: int, every_step: bool, indices: range, path: Path) -> int:
    spec, env = envs.get_task(task), _worker_env(task)
    chunk = []
    for index in indices:
        rng = episode_rng("collect", seed, index)
        policy = make_policy(env, spec.action_block, rng)
        chunk.append(run_episode(env, policy, spec.episode_len // spec.action_block, rng, every_step))
    unfinished = path.with_suffix(".unfinished.npz")
    columns: dict[str, Any] = {
        name: np.stack([getattr(episode, name) for episode in chunk]) for name in Episode.__annotations__
    }
    np.savez(unfinished, **columns)
    os.replace(unfinished, path)
    return len(chunk)


def _read_chunks(paths: list[Path]) -> Iterator[Episode]:
    for path in paths:
        with np.load(path, allow_pickle=False) as file:
            columns = {name: file[name] for name in Episode.__annotations__}
        for row in range(len(columns["pixels"])):
            yield Episode(**{name: values[row] for name, values in columns.items()})


def collect(config: CollectConfig) -> Path:
    """Collects and returns the data set's path. An existing file is an `EnvError`: data are never overwritten."""
    spec = envs.get_task(config.task)
    output = config.output or Path("data") / f"{config.task}.h5"
    for option, least in {"num_episodes": 1, "num_processes": 1, "seed": 0}.items():
        if (value := getattr(config, option)) < least:
            raise envs.EnvError(f"--{option.replace('_', '-')} must be at least {least}, not {value}")
    if output.exists():
        raise envs.EnvError(f"{output} exists already; delete it or choose another --output")
    policy = config.policy or spec.data_policy
    make_policy = find_policy(policy, config.task, config.policy_path)

    info = DatasetInfo(
        config.task,
        config.seed,
        policy,
        simulator_version(),
        1 if config.every_step else spec.action_block,
        spec.action_repeat,
        spec.angles,
    )
    parts = output.with_suffix(".parts")
    stamp, said = parts / "info.json", json.dumps(vars(info))
    if stamp.exists() and stamp.read_text() != said:
        raise envs.EnvError(f"{parts} holds an unfinished collection with other settings; delete it to start afresh")
    wait_for_all()
    if rank() == 0:
        parts.mkdir(parents=True, exist_ok=True)
        stamp.write_text(said)
    wait_for_all()

    starts = range(0, config.num_episodes, EPISODES_PER_CHUNK)
    chunks = {
        # The span is in the name: a larger --num-episodes does not mistake a short last chunk for a full one.
        parts / f"{start:08d}-{(stop := min(start + EPISODES_PER_CHUNK, config.num_episodes)):08d}.npz": range(
            start, stop
        )
        for start in starts
    }
    mine = dict(list(chunks.items())[rank() :: num_ranks()])
    missing = {path: indices for path, indices in mine.items() if not path.exists()}
    total = sum(map(len, mine.values()))
    done = total - sum(map(len, missing.values()))
    name = f"collecting {config.task}"
    with tqdm(total=total, initial=done, desc=name, unit="episode", disable=rank() > 0) as bar:
        pool = ProcessPoolExecutor(config.num_processes, mp_context=get_context("spawn"), initializer=exit_with_parent)
        try:
            futures = [
                pool.submit(_collect_chunk, config.task, make_policy, config.seed, config.every_step, indices, path)
                for path, indices in missing.items()
            ]
            for future in as_completed(futures):
                bar.update(future.result())
        finally:
            pool.shutdown(cancel_futures=True)
    wait_for_all()
    if rank() == 0:
        write_dataset(output, _read_chunks(list(chunks)), info, config.compression)
        shutil.rmtree(parts)
    wait_for_all()
    return output


def main() -> None:
    config = tyro.cli(CollectConfig)
    try:
        with process_group(torch.device("cpu")):
            path, is_first = collect(config), rank() == 0
        if is_first:
            print(f"wrote {path}")  # noqa: T201
    except (envs.EnvError, sac_policy.PolicyError, OSError) as error:
        sys.exit(f"error: {error}")
    except BrokenProcessPool:
        sys.exit("error: a simulator process was killed; the same command goes on from here")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on from here")


if __name__ == "__main__":
    main()
