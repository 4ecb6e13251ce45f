"""Lists the tasks there are, without making one, or shows one of them."""

if __name__ == "__main__":  # first, so that Ctrl-C in the imports below is answered too
    from jepa_mpc.cli import run

    run("tasks")

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from jepa_mpc.cli import option_value, parse, seen_through
from jepa_mpc.envs.registry import SUITE_NAMES, TASKS, get_task, make
from jepa_mpc.envs.task import SUITE_POLICY, SUITE_TOLERANCE, SUITE_UNIT, Part, PoseTest, Untold
from jepa_mpc.errors import UserError
from jepa_mpc.files import require_new, whole
from jepa_mpc.places import bundled_tasks
from jepa_mpc.settings import Seed


@dataclass(frozen=True)
class ListConfig:
    """List the tasks there are, or show one of them."""

    name: Annotated[str, tyro.conf.Positional] = ""
    """Task to make and show, by its name, gym/<Id> or module:attribute; all are listed unless given."""
    camera: str | None = None
    """What it is seen through, as of `jepa-mpc collect`; NAME@CAMERA says the same."""
    picture: Path | None = None
    """PNG file to write its picture to, as the agent sees it."""
    seed: Seed = 0
    """Decides the pose in that picture."""


def listing() -> Iterator[str]:
    """Yields a line a task: name, data policy, what counts as reached, and whether a checkpoint is bundled."""
    yield f"{'task':<30} {'data policy':<16} {'reached within':<28} checkpoint"
    bundled = bundled_tasks()
    for name in TASKS:
        policy, tolerance, unit = SUITE_POLICY, SUITE_TOLERANCE, SUITE_UNIT
        if name in bundled or name not in SUITE_NAMES:
            spec = get_task(name)
            policy, tolerance, unit = spec.data_policy, spec.pose.tolerance, spec.pose.unit
        yield f"{name:<30} {policy:<16} {f'{tolerance:g} {unit}':<28} {'bundled' if name in bundled else '–'}"


def describe(name: str, picture: Path | None = None, seed: int = 0) -> dict[str, str]:
    """Makes the simulator once, returns what there is to know of it, and writes its picture if a path is given."""
    if picture is not None:
        require_new(picture, "--picture")
    spec, env = get_task(name), make(name)
    spec.check(env)
    pixels, _ = env.reset(seed=seed)
    if picture is not None:
        from PIL import Image

        with whole(picture) as scratch:
            Image.fromarray(pixels).save(scratch, "PNG")
    low, high = env.action_space.low.ravel(), env.action_space.high.ravel()
    bounds = {f"[{a:g}, {b:g}]" for a, b in zip(low, high, strict=True)}
    shown = {
        "task": name,
        "picture": f"{pixels.shape[0]} × {pixels.shape[1]}",
        "action": f"{len(low)} numbers in {' or '.join(sorted(bounds))}",
        "block": f"{spec.action_block} actions",
        "period": f"{1000 * env.step_seconds:g} ms a step, {1000 * env.step_seconds * spec.action_block:g} ms a block",
        "coordinates": f"{len(env.qpos)}; angles: {', '.join(map(str, np.flatnonzero(spec.angles))) or 'none'}",
        **({"called": ", ".join(f"{i} {name}" for i, name in enumerate(env.names))} if env.names else {}),
        **({"cameras": ", ".join(env.all_cameras)} if env.all_cameras else {}),
        "reached": rule(spec.pose, env.names),
        "goal": f"{spec.goal_offset} steps ahead in {spec.budget}; of another episode in {spec.far_budget}",
        "data": f"episodes of {spec.episode_len} steps by {spec.data_policy}",
        "checkpoint": "bundled" if name in bundled_tasks() else "–",
    }
    env.close()
    return shown


def rule(test: PoseTest, names: Sequence[str] = ()) -> str:
    """Returns in words when a pose, whose coordinates have these names, counts as the goal's."""

    def said(part: Part) -> str:
        scale = f" / {part.scale:.3g}" if part.scale != 1 else ""
        called = (names[index] if index < len(names) else str(index) for index in part.coordinates)
        return f"{part.kind} of {', '.join(called)}{scale}"

    if isinstance(test, Untold):
        return "not told by this simulator: plan to pictures with --goal-image"
    return f"within {test.tolerance:g} {test.unit}: {'; '.join(map(said, test.parts))}"


def main(args: Sequence[str]) -> None:
    if option_value(args, "--task") is not None:
        raise UserError("the task's name stands by itself: `jepa-mpc tasks reacher`")
    config = parse(ListConfig, args)
    name = seen_through(config.name, config.camera) if config.name and config.camera else config.name
    if not config.name and (config.picture or config.camera):
        raise UserError("--picture and --camera are of one task; name it: `jepa-mpc tasks reacher …`")
    for line in listing() if not name else ():
        print(line)  # noqa: T201
    for label, value in describe(name, config.picture, config.seed).items() if name else ():
        print(textwrap.fill(f"{label:<12} {value}", 100, subsequent_indent=" " * 13))  # noqa: T201
