"""Collects reward-free episodes with a task's data policy: `jepa-mpc collect --task reacher`.

An episode depends on the seed and its own index alone, so neither the number of processes nor an interruption
changes the data. Finished chunks wait beside the output until all are there; started again, it goes on from them.
`torchrun ... -m jepa_mpc collect ...` shares the chunks among machines that see one file system.
"""

if __name__ == "__main__":  # first, so that Ctrl-C in the imports below is answered too
    from jepa_mpc.cli import run

    run("collect")

import hashlib
import itertools
import json
import logging
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from tyro.constructors import PrimitiveConstructorSpec

from jepa_mpc import envs, places
from jepa_mpc.agent.agent_config import read_planning
from jepa_mpc.agent.bounds import checked_bounds
from jepa_mpc.agent.data_policies import MakePolicy, Policy, find_policy, require_fit
from jepa_mpc.cli import parse
from jepa_mpc.distributed import claimed_by_first, gather_lists, num_ranks, process_group, rank, wait_for_all
from jepa_mpc.envs.blocks import run_block
from jepa_mpc.envs.looks import LOOKS, Look, Looks
from jepa_mpc.errors import UserError, reason
from jepa_mpc.files import give_up, read_arrays, refuse_foreign, require_new, write_arrays
from jepa_mpc.provenance import simulator_version
from jepa_mpc.seeds import episode_rng
from jepa_mpc.settings import Count, Seed, checked, to_json
from jepa_mpc.workers import granted_cores, run_parallel
from jepa_mpc.world_model.data.dataset import Compression, DatasetInfo, Episode, write_dataset

log = logging.getLogger(__name__)

EPISODES_PER_CHUNK = 20


_KINDS = PrimitiveConstructorSpec(  # a list with commas, as one word
    nargs=1,
    metavar="KIND,KIND",
    instance_from_str=lambda args: () if args == ["none"] else tuple(args[0].split(",")),
    is_instance=lambda value: value is None or isinstance(value, tuple),
    str_from_instance=lambda value: ["as the task has it" if value is None else ",".join(value) or "none"],
)


@dataclass(frozen=True)
class CollectConfig:
    """Collect a data set of reward-free episodes."""

    task: str = "reacher"
    """Task in the registry, an MJCF file, gym/<Id>, or `module:attribute`."""
    policy: str | None = None
    """Data policy, by its name (a wrong one lists them all) or as `module:function`; the task's own unless given."""
    policy_path: Path | None = None
    """Folder of a policy that was trained, such as sac; `runs/policies/<task>` unless given."""
    num_episodes: Count = 2000
    """Episodes to collect."""
    seed: Seed = 0
    """Decides every episode."""
    output: Path | None = None
    """HDF5 file to write; `data/<task>.h5` unless given."""
    every_step: bool = False
    """Store a picture and an action a step, as le-wm does, and not a picture and its actions a block."""
    compression: Compression = "none"
    """Of the pictures, each by itself; compressed ones are slower to read."""
    randomise: Annotated[tuple[Look, ...] | None, _KINDS] = None
    """Draw most episodes from other cameras, under other light and in other colours, anew every few blocks: a
    model that does not look through them cannot predict. camera,light,colour or none; the task's own unless given."""
    num_processes: Count = field(default_factory=granted_cores)
    """Simulators that run side by side, under each process that torchrun starts."""


def run_episode(
    env: envs.PixelEnv,
    policy: Policy,
    looks: Sequence[Looks | None],
    rng: np.random.Generator,
    every_step: bool = False,
) -> Episode:
    """Runs an episode from a random reset, a block under each of these looks (None: the scene's own), and returns it,
    a row a block or a row a step; shorter where the simulation diverged or ended by itself.
    """
    env.set_looks(None)  # whatever came before, and however it ended
    env.reset(seed=int(rng.integers(2**31)))
    seen, actions = [_observe(env)], []
    diverged = False
    try:
        for now in looks:
            env.set_looks(now)
            block = policy(seen[-1][0])
            for row in ([action] for action in block) if every_step else (block,):
                actions.append(run_block(env, row))
                seen.append(_observe(env))
    except envs.Diverged as error:
        diverged = not isinstance(error, envs.Ended)
    pixels, qpos, qvel, proprio = map(np.stack, zip(*seen, strict=True))
    action = np.stack(actions) if actions else np.zeros((0, 0), np.float32)
    return Episode(pixels, action, qpos, qvel, any(looks), diverged, proprio)


def _observe(env: envs.PixelEnv) -> tuple[NDArray[Any], ...]:
    """Returns copies of picture, qpos, qvel and proprio; raises `Diverged` where they are no numbers."""
    seen = tuple(map(np.array, (env.render(), env.qpos, env.qvel, env.proprio)))
    if not all(np.isfinite(values).all() for values in seen):
        raise envs.Diverged("qpos, qvel or proprio is no longer finite")
    return seen


_SIMULATORS: dict[str, envs.PixelEnv] = {}  # one in each process


def _one_thread() -> None:
    torch.set_num_threads(1)  # of policies that are models: the processes share the cores


def _collect_chunk(
    spec: envs.TaskSpec,
    make_policy: MakePolicy,
    seed: int,
    every_step: bool,
    kinds: Sequence[Look],
    indices: range,
    path: Path,
) -> list[bool]:
    """Writes a chunk of episodes; returns which of them were cut short."""
    if spec.name not in _SIMULATORS:
        _SIMULATORS[spec.name] = spec.make(spec.image_size, True)
    env, cut = _SIMULATORS[spec.name], []
    columns: dict[str, Any] = {}
    width = len(env.action_space.low) * (1 if every_step else spec.action_block)
    for index in indices:
        rng = episode_rng("collect", seed, index)
        policy = make_policy(env, spec.action_block, rng)
        num_blocks = spec.episode_len // spec.action_block
        looks = Looks.draw_episode(episode_rng("looks", seed, index), kinds, num_blocks)
        episode = run_episode(env, policy, looks, rng, every_step)
        columns |= {f"{index}/{name}": value for name, value in vars(episode).items()}
        columns[f"{index}/action"] = episode.action.reshape(-1, width)  # of an episode without any, too
        cut.append(episode.diverged)
    write_arrays(path, columns)
    return cut


def _read_chunk(path: Path, indices: range) -> list[Episode] | None:
    """Returns the chunk's episodes, or None if it is missing or not as it was written."""
    if (stored := read_arrays(path)) is None:
        return None
    columns: list[dict[str, Any]] = [
        {each.name: stored[f"{i}/{each.name}"] for each in fields(Episode)} for i in indices
    ]
    return [Episode(**each) for each in columns]


def _episodes(chunks: Mapping[Path, range]) -> Iterator[Episode]:
    for path, indices in chunks.items():
        if (episodes := _read_chunk(path, indices)) is None:
            raise UserError(f"{path} was damaged; the same command collects it again")
        yield from episodes


def collect(config: CollectConfig, make_policy: MakePolicy | None = None) -> Path:
    """Collects, and returns the data set's path. Data are never overwritten: an existing file is a `UserError`.

    A policy of no registered name may be given beside its name.
    """
    config = checked(config)
    spec = envs.get_task(config.task)
    output = config.output or places.dataset(config.task)
    require_new(output)
    name = config.policy or spec.data_policy
    asked = spec.randomise if config.randomise is None else config.randomise
    kinds = tuple(kind for kind in LOOKS if kind in asked)  # whatever their order, the same data
    env = spec.make(spec.image_size, True)
    spec.check(env)
    if missing := [kind for kind in kinds if kind not in env.changeable]:
        rest = ",".join(kind for kind in kinds if kind in env.changeable) or "none"
        raise UserError(f"the simulator of {spec.name} cannot change {' or '.join(missing)}; use --randomise {rest}")
    low, high = map(torch.from_numpy, checked_bounds(env.action_space, f"task {spec.name}"))
    if make_policy is None:
        make_policy = find_policy(name, config.task, config.policy_path)
    read_planning(spec.planning, f"task {spec.name}").planner.make(low, high)
    require_fit(name, make_policy, env, spec.action_block)
    info = DatasetInfo(
        task=spec.name,
        seed=config.seed,
        data_policy=name,
        simulator=simulator_version(),
        action_block=1 if config.every_step else spec.action_block,
        action_repeat=spec.action_repeat,
        angles=spec.angles,
        action_low=tuple(env.action_space.low.tolist()),
        action_high=tuple(env.action_space.high.tolist()),
        step_seconds=env.step_seconds,
        planning=json.dumps(to_json(spec.planning)),
        randomise=kinds,
        names=env.names if len(env.names) == len(spec.angles) else (),
        cameras=env.cameras if len(env.cameras) > 1 else (),
        proprio_names=env.proprio_names,
    )
    env.close()
    settings = {**to_json(info), "episode_len": spec.episode_len, "image_size": spec.image_size}
    settings |= {"model": spec.model} if spec.model else {}
    settings["policy_digest"] = _digest(spec, make_policy, name)

    parts = output.with_name(f"{output.name}.parts")
    refuse_foreign(parts)
    starts = range(0, config.num_episodes, EPISODES_PER_CHUNK)
    spans = [range(start, min(start + EPISODES_PER_CHUNK, config.num_episodes)) for start in starts]
    # The span is in the name: a larger --num-episodes does not mistake a short last chunk for a full one.
    chunks = {parts / f"{span.start:08d}-{span.stop:08d}.chunk": span for span in spans}
    with claimed_by_first(parts, settings, free=("names", "proprio_names")):
        mine = dict(list(chunks.items())[rank() :: num_ranks()])
        were_cut = gather_lists(_fill(mine, spec, make_policy, config, kinds))
        done, cut = len(were_cut), sum(were_cut)
        if 2 * cut > done:
            raise UserError(
                f"{cut} of {done} episodes were cut short: the simulation of {spec.name} diverges under the actions of "
                f"{name}; choose another --policy, or give the task narrower bounds"
            )
        if cut:
            log.warning("%d of %d episodes are shorter than the others: their simulation diverged", cut, done)
        if rank() == 0:
            write_dataset(output, _episodes(chunks), info, config.compression)
            give_up(parts, chunks)
        wait_for_all()
    return output


def _fill(
    chunks: Mapping[Path, range],
    spec: envs.TaskSpec,
    make_policy: MakePolicy,
    config: CollectConfig,
    kinds: Sequence[Look],
) -> list[bool]:
    """Collects what is missing or damaged, until most is cut short; returns which episodes are."""
    from tqdm import tqdm

    cut: list[bool] = []
    there: list[bool] = []
    calls = []
    for path, indices in chunks.items():
        if (episodes := _read_chunk(path, indices)) is None:
            calls.append((spec, make_policy, config.seed, config.every_step, kinds, indices, path))
        else:
            there += [bool(episode.diverged) for episode in episodes]
    total = sum(map(len, chunks.values()))
    with tqdm(total=total, desc=f"collecting {spec.name}", unit="episode", disable=rank() > 0) as bar:
        for more in itertools.chain([there], run_parallel(_collect_chunk, calls, config.num_processes, _one_thread)):
            cut += more
            bar.update(len(more))
            if 2 * sum(cut) > len(cut):
                break
    return cut


def _digest(spec: envs.TaskSpec, make_policy: MakePolicy, name: str) -> str:
    """Returns what tells one policy's weights from another's. Raises `UserError` if workers cannot be given them."""
    try:
        pickle.dumps(spec)
        return hashlib.sha256(pickle.dumps(make_policy)).hexdigest()[:12]
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UserError(
            f"task {spec.name} or its policy {name} cannot be handed to other processes ({reason(error)}); define what "
            "it is made of at the top level of a module"
        ) from error


def main(args: Sequence[str]) -> None:
    config = parse(CollectConfig, args)
    with process_group(torch.device("cpu")):
        path, is_first = collect(config), rank() == 0
    if is_first:
        print(f"wrote {path}")  # noqa: T201
