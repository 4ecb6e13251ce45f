"""Plans to pictured goals with a trained world model: `jepa-mpc plan --task reacher`.

`torchrun --nproc-per-node N -m jepa_mpc plan ...` shares the episodes, and the first process reports.
"""

if __name__ == "__main__":  # first, so that Ctrl-C in the imports below is answered too
    from jepa_mpc.cli import run

    run("plan")

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from jepa_mpc import envs, files, places
from jepa_mpc.agent.agent_config import PLANNING_CHOICES, AgentConfig, choose_planning, planning_of
from jepa_mpc.agent.calibration import Calibration
from jepa_mpc.agent.numbers import NumberOptions, read_goal
from jepa_mpc.agent.picture_file import load_goal
from jepa_mpc.agent.planning_agent import PlanningAgent, load_proposer
from jepa_mpc.cli import option_value, parse
from jepa_mpc.devices import choose_device
from jepa_mpc.distributed import process_group, rank
from jepa_mpc.errors import UserError
from jepa_mpc.eval import report
from jepa_mpc.eval.measure import DISTANCE, REACHED, Run, on_pairs, on_suite, to_numbers, to_pictures
from jepa_mpc.eval.numbers import Truth
from jepa_mpc.eval.protocols import PROTOCOLS, ProtocolName
from jepa_mpc.eval.results import CheckpointFacts, Results
from jepa_mpc.eval.trial import BATCH_SIZE
from jepa_mpc.eval.video import GIF, MP4
from jepa_mpc.provenance import provenance, simulator_version
from jepa_mpc.settings import Count, Seed, checked, to_json
from jepa_mpc.world_model.checkpoint import CheckpointInfo, load_checkpoint, load_info
from jepa_mpc.world_model.fit_probe import of_poses

RESULTS = "results.json"
WRITTEN = (RESULTS, DISTANCE, REACHED, GIF, MP4)


@dataclass(frozen=True)
class RunConfig:
    """Plan to goals given as pictures, and measure how often they are reached.

    `--preset lewm` plans LeWorldModel's way; `--planner NAME` chooses the search, whose options follow.
    """

    task: str = "reacher"
    """Task in the registry."""
    checkpoint: Path | None = None
    """Checkpoint folder; the task's bundled one unless given."""
    protocol: ProtocolName = "standard"
    """What counts: touch a goal 25 steps ahead, a far one, hold it, reach it strictly, or the suite's reward."""
    num_episodes: Count = 50
    """Start and goal pairs."""
    seed: Seed = 0
    """Decides the pairs and the search."""
    budget: Count | None = None
    """Environment steps to reach a goal in; the protocol's unless given."""
    goal_offset: Count | None = None
    """How many steps ahead a goal of the same episode lies; the task's unless given."""
    device: str = "auto"
    """cpu, cuda, mps, or auto: the first of cuda, mps and cpu that is there."""
    output: Path | None = None
    """Run folder; `runs/<date>-<task>-<protocol>` unless given."""
    video: bool = True
    """Write videos of a few episodes."""
    goal_image: tuple[Path, ...] = ()
    """A picture of your own as the goal, 64×64 or larger, or several (--several-goals). Success is then not decided."""
    goal_camera: str | None = None
    """Which of several cameras took --goal-image, where it is a picture of one."""
    calibration: Path | None = None
    """Of the camera that took --goal-image, as `jepa-mpc calibrate` has written it."""
    by_numbers: tyro.conf.OmitArgPrefixes[NumberOptions] = NumberOptions()
    """Goals and limits by numbers. A --goal-state of names alone tells the goals of the protocol's pairs so."""
    labels: str | None = None
    """`module:function` that --probe was fitted with, by which results say what is true."""
    agent: tyro.conf.OmitArgPrefixes[AgentConfig] = None  # type: ignore[assignment]  # the task's own is put there
    """How to plan; the defaults are the task's."""

    def __post_init__(self):
        if self.agent is None:
            object.__setattr__(self, "agent", planning_of(self.task))


def evaluate(config: RunConfig, write: bool = True, show: bool = False) -> Results:
    """Plans as the settings say, writes the run folder unless told not to, and returns what came of it.

    Of the processes that torchrun starts each does its share, all return the results, and the first one writes, and
    shows them if told to.
    """
    config = checked(config)
    device = str(choose_device(config.device))
    with process_group(torch.device(device)), contextlib.ExitStack() as stack:
        spec, name = _spec(config), str(config.checkpoint or config.task)
        checkpoint = places.checkpoint(name)
        goals = _goals(config, load_info(checkpoint))
        model, info = load_checkpoint(checkpoint, task=config.task, device=device)
        if info.simulator != simulator_version():
            warnings.warn(
                f"checkpoint {name} learned from pictures of {info.simulator}, this is {simulator_version()}: "
                "pictures differ, and planning may suffer",
                stacklevel=3,
            )
        spec = replace(spec, image_size=model.config.encoder.image_size)
        env = stack.enter_context(contextlib.closing(envs.make(config.task, image_size=spec.image_size)))
        felt = env.proprio_names if model.config.proprio_dim else ()
        seen = env.cameras if len(env.cameras) > 1 else ()
        if info.interface is not None and (fault := info.interface.misfit(seen, felt)):
            raise UserError(f"checkpoint {name} {fault}; train on data of this simulator")
        proposer = load_proposer(checkpoint, config.agent, device)
        numbers = config.by_numbers.numbers(checkpoint)
        agent = PlanningAgent(model, env.action_space, spec.action_block, config.agent, proposer, numbers=numbers)
        truth = (
            None if numbers is None else Truth(env, numbers.probe, of_poses(config.labels) if config.labels else None)
        )
        measure: Callable[[Run], Callable[..., Results]] = on_suite if config.protocol == "suite" else on_pairs
        if goals is not None:
            measure = partial(to_pictures, goals=goals)
        elif goal := told(config):
            measure = partial(to_numbers, goal=goal)
        folder = stack.enter_context(_run_folder(config)) if write and rank() == 0 else None
        started, made_by = time.monotonic(), provenance()
        batch_size = BATCH_SIZE if config.agent.deadline_ms is None else 1  # a deadline is for one
        results = measure(Run(replace(config, device=device), spec, env, agent, folder, batch_size, truth))(
            task=config.task,
            seed=config.seed,
            parameters=sum(p.numel() for p in model.parameters()),
            planner=config.agent.settings() | ({"objective": "numbers"} if config.by_numbers.goal_state else {}),
            checkpoint=CheckpointFacts(name, info.commit, info.learning_seconds, info.metrics, info.declared),
            wall_seconds=round(time.monotonic() - started, 1),
            **made_by,
        )
        if folder is not None:
            files.write_json(folder / RESULTS, to_json(results))
        if show and rank() == 0:
            report.print_table(results.task, report.describe(results, folder))
        return results


def _goals(config: RunConfig, info: CheckpointInfo) -> NDArray[np.uint8] | None:
    """Returns the goals (G, H, W, 3) that are given as pictures; None if there are none."""
    if not config.goal_image:
        return None
    size, cameras = info.model.encoder.picture_size, info.interface.cameras if info.interface else ()
    goals = np.stack([load_goal(path, size, cameras, config.goal_camera) for path in config.goal_image])
    return goals if config.calibration is None else Calibration.load(config.calibration)(goals)


def _spec(config: RunConfig) -> envs.TaskSpec:
    """Returns the task as it is asked for; raises `UserError` on options that would have no effect."""
    spec = envs.get_task(config.task)
    one = "--goal-state is one episode to those numbers" if told(config) else ""
    if config.goal_image:
        one = "--goal-image is one episode to that picture"
    if config.goal_image and config.by_numbers.goal_state:
        raise UserError("--goal-image and --goal-state are two goals; give one")
    if one:
        for option in ("protocol", "num_episodes"):
            if getattr(config, option) != getattr(RunConfig, option):
                name = option.replace("_", "-")
                raise UserError(f"{one}; leave --{name} out")
    if config.labels and config.by_numbers.probe is None:
        raise UserError("--labels are those that a --probe was fitted with; give both, or neither")
    if config.protocol == "suite" and config.by_numbers.goal_state:
        raise UserError("--goal-state is for pairs, not for the suite's own goals; choose another --protocol")
    if config.calibration is not None and not config.goal_image:
        raise UserError("--calibration is of the camera that took --goal-image; give both, or neither")
    if config.goal_camera is not None and not config.goal_image:
        raise UserError("--goal-camera says which camera took --goal-image; give both, or neither")
    if config.protocol == "suite" and not spec.suite:
        raise UserError(f"task {spec.name!r} has no rewarded suite tasks; choose another --protocol")
    if config.goal_offset is None:
        return spec
    if one or config.protocol == "suite" or PROTOCOLS[config.protocol].far:
        raise UserError("--goal-offset is for goals of the same episode: --protocol standard or hold")
    if config.goal_offset >= (steps := spec.episode_len // spec.action_block * spec.action_block):
        raise UserError(f"--goal-offset must be below an episode's {steps} steps")
    return replace(spec, goal_offset=config.goal_offset)


def told(config: RunConfig) -> dict[str, float]:
    """Returns the goal that --goal-state gives in numbers; nothing where it names the pairs' own."""
    goal = read_goal(config.by_numbers.goal_state)
    return {name: value for name, value in goal.items() if value is not None}


@contextlib.contextmanager
def _run_folder(config: RunConfig) -> Iterator[Path]:
    """Makes the folder, and keeps it for this run alone."""
    folder = config.output or places.new_run(f"{places.slug(config.task)}-{config.protocol}")
    for written in WRITTEN:
        files.refuse_existing(folder / written)
    with files.claimed(folder, to_json(config)):
        try:
            yield folder
        except BaseException:
            files.give_up(folder, ())  # a run does not go on: whoever repeats it begins anew
            raise


def parse_config(args: Sequence[str]) -> RunConfig:
    """Returns what options make of the task's own way to plan, or of a preset's."""
    task = option_value(args, "--task") or RunConfig.task
    words, agent = choose_planning(args, lambda: planning_of(task))
    return parse(RunConfig, words, RunConfig(task=task, agent=agent), names=PLANNING_CHOICES)


def main(args: Sequence[str]) -> None:
    evaluate(parse_config(args), show=True)
