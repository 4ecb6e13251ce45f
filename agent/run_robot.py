"""Drives a real robot to a goal picture: `jepa-mpc run --robot module:factory --goal picture.png`."""

if __name__ == "__main__":  # first, so that Ctrl-C in the imports below is answered too
    from jepa_mpc.cli import run

    run("run")

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray
from tqdm import tqdm

from jepa_mpc import files, places
from jepa_mpc.agent.agent_config import read_planning
from jepa_mpc.agent.bounds import checked_bounds
from jepa_mpc.agent.calibration import Calibration
from jepa_mpc.agent.numbers import NumberOptions, read_goal
from jepa_mpc.agent.picture_file import load_goal
from jepa_mpc.agent.planning_agent import PlanningAgent
from jepa_mpc.agent.robot import Block, Driver, Pace, Robot, require_period
from jepa_mpc.cli import parse
from jepa_mpc.errors import UserError, reason
from jepa_mpc.registry import load
from jepa_mpc.settings import NonNegative, Positive, Seed, checked, convert, to_json
from jepa_mpc.world_model.checkpoint import load_info
from jepa_mpc.world_model.data.dataset import NO_SIMULATOR, DatasetInfo, Episode, append_episodes, require_same_origin
from jepa_mpc.world_model.interface import Interface

BLOCKS, RESULTS = "blocks.jsonl", "results.json"


@dataclass(frozen=True)
class RunRobotConfig:
    """Drive a robot to a goal picture, at its own rate. Stop it by Ctrl-C; what was done until then is kept."""

    robot: str
    """`module:function` without arguments that returns the robot (docs/your-robot.md)."""
    goal: Path | None = None
    """Picture of the goal: PNG, JPEG, WEBP or BMP; or say --goal-state."""
    goal_camera: str | None = None
    """Which of several cameras took --goal, where it is a picture of one."""
    checkpoint: str = "reacher"
    """Checkpoint folder, or the name of a bundled one."""
    seconds: Positive = 20.0
    """How long to drive it."""
    calibration: Path | None = None
    """What `jepa-mpc calibrate` wrote for this camera."""
    calibrate_goal: bool = True
    """Whether it holds of the goal too, which this camera took; if not, a camera like training's did."""
    max_surprise: Positive | None = None
    """Stop the robot where a picture is this unforeseen: up to 1 is usual."""
    bridge: bool = True
    """Decide on each block while the one before it is carried out, and foresee where that leads."""
    camera_delay_ms: NonNegative = 0.0
    """From when a picture is taken to when it is seen, where the robot does not say when it was."""
    actuator_delay_ms: NonNegative = 0.0
    """From when an action is sent to when it begins."""
    reserve_ms: NonNegative = 60.0
    """Kept free for a decision: a picture that is not there so long before the block is done without."""
    hold: bool = True
    """Where a block is late, go on with the last action; else send zeros until it is there."""
    seed: Seed = 0
    """Of the search."""
    record: Path | None = None
    """HDF5 data set to append the run to, which `jepa-mpc train --data` reads."""
    output: Path | None = None
    """Folder for the log; one of this moment under `runs` unless given."""
    by_numbers: tyro.conf.OmitArgPrefixes[NumberOptions] = NumberOptions()
    """Goals and limits by numbers."""


def run_robot(config: RunRobotConfig) -> dict[str, Any]:
    """Drives the robot, and returns what came of it; blocks are logged one by one, as they are done."""
    config = checked(config)
    info = load_info(config.checkpoint)
    if (told := info.interface) is None:
        raise UserError(f"checkpoint {config.checkpoint} does not say what actions it takes; train it again")
    goal = _goal(config, told)
    camera = Calibration.load(config.calibration) if config.calibration else None
    if camera is not None and config.calibrate_goal and not isinstance(goal, dict):
        goal = camera(goal)
    numbers = config.by_numbers.numbers(config.checkpoint)
    if config.output is not None:
        files.refuse_existing(config.output)
    if config.record is not None:
        files.require_folder(config.record.parent, f"--record {config.record}")
        if config.record.exists():
            require_same_origin(config.record, _origin(info.task, told, info.planning))
    robot = make_robot(config.robot, told, config.checkpoint)
    planning = replace(read_planning(info.planning, config.checkpoint), blocks_ahead=int(config.bridge))
    agent = PlanningAgent.load(config.checkpoint, planning, bounds=robot, calibration=camera, numbers=numbers)
    pace = Pace(
        config.bridge,
        config.camera_delay_ms / 1e3,
        config.actuator_delay_ms / 1e3,
        config.reserve_ms / 1e3,
        config.hold,
    )
    num_blocks = max(1, round(config.seconds / (robot.period * told.action_block)))
    driver, blocks, stopped = Driver(robot, agent, pace), list[Block](), ""
    if (folder := config.output) is None:
        folder = places.new_run("robot")
    else:
        folder.mkdir(parents=True)
    try:
        with (
            (folder / BLOCKS).open("w") as log,
            contextlib.closing(driver.drive(goal, num_blocks, config.seed)) as drive,
        ):
            for block in tqdm(drive, total=num_blocks, unit="block", leave=False):
                blocks.append(block)
                log.write(json.dumps(_line(block)) + "\n")
                log.flush()
                if config.max_surprise is not None and block.surprise > config.max_surprise:
                    stopped = f"a surprise of {block.surprise:.1f}, above --max-surprise {config.max_surprise:g}"
                    break
    except BaseException as error:
        stopped = reason(error) if isinstance(error, Exception) else "interrupted"
        raise
    finally:
        if config.record is not None and (episodes := list(_episodes(blocks))):
            append_episodes(config.record, episodes, _origin(info.task, told, info.planning))
        if any(block.picture is not None for block in blocks):
            about: dict[str, Any] = {"robot": config.robot, "checkpoint": config.checkpoint}
            about |= {"declared": info.declared} if info.declared else {}
            about |= {"goal": goal if isinstance(goal, dict) else str(config.goal)}
            about |= {"seconds": len(blocks) * robot.period * told.action_block, "stopped": stopped}
            results = about | _results(agent, blocks, None if isinstance(goal, dict) else goal)
            files.write_json(folder / RESULTS, results)
    return results | {"folder": str(folder)}


def _results(agent: PlanningAgent, blocks: Sequence[Block], goal: NDArray[np.uint8] | None) -> dict[str, Any]:
    """Returns what blocks, some of which have pictures, came to on the way to a goal picture, if there is one."""
    with_picture = [block for block in blocks if block.picture is not None]
    pictures, ended = np.stack([block.picture for block in with_picture if block.picture is not None]), {}
    if goal is not None:
        seen = pictures if agent.calibration is None else agent.calibration(pictures)
        distances = agent.latent_distance(seen, goal).tolist()
        ended["latent_distance"] = {"start": distances[0], "nearest": min(distances), "final": distances[-1]}
    if agent.numbers is not None:
        felt = np.stack([block.proprio for block in with_picture])
        read = agent.read(pictures, felt if agent.num_proprio else None)
        ended["read_at_the_end"] = {name: round(float(values[-1]), 4) for name, values in read.items()}
        ended["error_of_reading"] = {each.name: each.p90 for each in agent.numbers.probe.coordinates}
    return {
        "blocks": len(blocks),
        "in_time": float(np.mean([block.in_time for block in blocks])),
        "pictures": len(pictures) / len(blocks),
        "age_ms": 1e3 * float(np.nanmedian([block.age for block in blocks])),
        **ended,
        "most_surprised": float(np.nanmax([block.surprise for block in blocks], initial=0.0)),
    }


def _goal(config: RunRobotConfig, told: Interface) -> NDArray[np.uint8] | dict[str, float]:
    """Returns the goal, a picture or numbers. Raises `UserError` unless there is one, and one only."""
    state = read_goal(config.by_numbers.goal_state)
    if config.goal is None and not state:
        raise UserError("say what the goal is, by --goal PICTURE or by --goal-state NAME=NUMBER …")
    if config.goal is not None and state:
        raise UserError("--goal and --goal-state both say what the goal is; leave one out")
    if config.goal is not None:
        return load_goal(config.goal, told.picture_size, told.cameras, config.goal_camera)
    numbers = {name: value for name, value in state.items() if value is not None}
    if len(numbers) < len(state):
        raise UserError(f"--goal-state {next(iter(state))!r} is no number; write NAME=NUMBER")
    return numbers


def make_robot(reference: str, told: Interface, checkpoint: str) -> Robot:
    """Returns the robot that a function makes. Raises `UserError` on one that a checkpoint cannot drive."""
    make = convert(Callable[[], Any], load(reference), (reference,))
    robot = make()
    for part in ("period", "low", "high", "observe", "act", "stop"):
        if not hasattr(robot, part):
            raise UserError(f"the robot of {reference} has no {part!r}; docs/your-robot.md says what it needs")
    named = tuple(getattr(robot, "cameras", told.cameras))
    if named != told.cameras and (told.cameras or len(named) > 1):
        theirs, ours = (", ".join(names) or "one that has no name" for names in (told.cameras, named))
        raise UserError(
            f"the robot of {reference} has the cameras {ours}; the checkpoint {checkpoint} sees by {theirs}, in this "
            "order"
        )
    low, _ = checked_bounds(robot, f"the robot of {reference}")
    if len(low) != len(told.action_low):
        raise UserError(
            f"the robot of {reference} takes actions of {len(low)} numbers, the checkpoint {checkpoint} gives "
            f"{len(told.action_low)}"
        )
    require_period(robot, told.step_seconds, f"the robot of {reference}")
    return robot


def _line(block: Block) -> dict[str, Any]:
    """Returns what the log says of a block; what is not known is null."""
    numbers = {name: value for name, value in vars(block).items() if isinstance(value, float)}
    known = {name: None if math.isnan(value) else round(value, 4) for name, value in numbers.items()}
    return known | {"in_time": block.in_time, "actions": np.round(block.actions, 4).tolist()}


def _episodes(blocks: Sequence[Block]) -> Iterator[Episode]:
    """Yields stretches of blocks whose pictures all came, a row a block."""
    stretch: list[Block] = []
    for block in [*blocks, None]:
        if block is not None and block.picture is not None:
            stretch.append(block)
            continue
        if len(stretch) > 1:
            pixels = np.stack([each.picture for each in stretch if each.picture is not None])
            action = np.stack([each.actions.ravel() for each in stretch[:-1]])
            felt = np.stack([each.proprio for each in stretch])
            yield Episode(pixels, action, *(np.empty((len(pixels), 0)),) * 2, proprio=felt)
        stretch = []


def _origin(task: str, told: Interface, planning: Any) -> DatasetInfo:
    return DatasetInfo(
        task=task,
        seed=0,
        data_policy="jepa-mpc run",
        simulator=NO_SIMULATOR,
        action_block=told.action_block,
        action_repeat=1,
        angles=(),
        action_low=told.action_low,
        action_high=told.action_high,
        step_seconds=told.step_seconds,
        planning=json.dumps(to_json(planning)),
        cameras=told.cameras,
        proprio_names=told.proprio_names,
    )


def main(args: Sequence[str]) -> None:
    results = run_robot(parse(RunRobotConfig, args))
    for name, value in results.items():
        print(f"{name:<16} {value}")  # noqa: T201
    if results["stopped"]:
        raise UserError(f"the robot was stopped: {results['stopped']}")
