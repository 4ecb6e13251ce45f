"""Times an exported agent's decisions beside PyTorch's on the pictures of episodes, and says how far they differ."""

if __name__ == "__main__":  # first, so that Ctrl-C in the imports below is answered too
    from jepa_mpc.cli import run

    run("speed exported")

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import trange

from jepa_mpc import envs
from jepa_mpc.agent.agent_config import read_planning
from jepa_mpc.agent.export import noise_for
from jepa_mpc.agent.exported import ExportedAgent
from jepa_mpc.agent.planning_agent import PlanningAgent
from jepa_mpc.cli import parse
from jepa_mpc.envs.blocks import run_block
from jepa_mpc.eval.speed.harness import Results, measurement, show
from jepa_mpc.settings import Count

LIMIT = 1e-5  # by which actions are counted as others


@dataclass(frozen=True)
class ExportedSpeedConfig:
    """Time an exported agent's decisions and PyTorch's in turn, with the same pictures and noise.

    Where two candidates cost the same up to rounding, either may be taken, and all that follows is another: such a
    decision is counted, and ends its episode.
    """

    file: Path
    """What `jepa-mpc export` has written."""
    checkpoint: Path = Path("reacher")
    """Checkpoint that it was exported from."""
    num_decisions: Count = 1000
    episode_len: Count = 10
    """Decisions in an episode, which begins at a new pose toward a new goal."""
    num_threads: Count = 1
    """Threads of each."""
    output: Path | None = None
    """JSON file to write."""


@measurement
def measure(config: ExportedSpeedConfig) -> Results:
    """Returns medians of milliseconds, and the differences of actions in the environment's own units."""
    torch.set_num_threads(config.num_threads)
    exported = ExportedAgent.load(config.file, config.num_threads)
    agent = PlanningAgent.load(config.checkpoint, read_planning(exported.info.planning, config.file))
    seconds: dict[str, list[float]] = {"torch": [], "onnxruntime": []}
    apart: list[float] = []
    in_episode = config.episode_len
    with contextlib.closing(envs.make(exported.info.task, image_size=exported.info.interface.image_size)) as env:
        for number in trange(config.num_decisions, unit="decision", leave=False):
            if in_episode == config.episode_len:
                goal, in_episode = np.array(env.reset(seed=2 * number)[0])[None], 0
                env.reset(seed=2 * number + 1)
                for each in (agent, exported):
                    each.reset(goal, [number])
            picture, noise = np.array(env.render())[None], noise_for(agent)
            felt = env.proprio[None] if agent.num_proprio else None
            begin = time.perf_counter()
            block = agent.act(picture, felt)
            between = time.perf_counter()
            other = exported.act(picture, felt, noise)
            seconds["onnxruntime"].append(time.perf_counter() - between)
            seconds["torch"].append(between - begin)
            apart.append(float(np.abs(block - other).max()))
            in_episode += 1
            if apart[-1] > LIMIT:
                in_episode = config.episode_len
            run_block(env, block[0])
    return {
        "decision_ms": {name: 1e3 * float(np.median(each)) for name, each in seconds.items()},
        "share_of_torch": float(np.median(np.divide(seconds["onnxruntime"], seconds["torch"]))),
        "median_difference": float(np.median(apart)),
        "largest_difference": max(apart),
        "decisions_apart": sum(each > LIMIT for each in apart),
        "file_megabytes": config.file.stat().st_size / 1e6,
    }


def main(args: Sequence[str]) -> None:
    found = measure(parse(ExportedSpeedConfig, args))
    show({name: {"median ms": ms} for name, ms in found["decision_ms"].items()})
    ratio, size = found["share_of_torch"], found["file_megabytes"]
    print(  # noqa: T201
        f"ONNX Runtime takes {ratio:.2f} of PyTorch's time; the file has {size:.1f} MB. Actions differ by "
        f"{found['median_difference']:.1e} in the median, and by more than {LIMIT:g} in {found['decisions_apart']} of "
        f"{found['settings']['num_decisions']} decisions"
    )
