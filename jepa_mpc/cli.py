"""One command, `jepa-mpc`: how a command begins, reads its options, and ends.

A command is a module with `main(args)`, imported when it is called, so that help and mistakes are answered at once. The
same module is a script: `python eval/run_planning.py` is `jepa-mpc plan`.
"""

import errno
import importlib
import inspect
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

from jepa_mpc.errors import UserError, reason
from jepa_mpc.places import HOME_VARIABLE
from jepa_mpc.registry import did_you_mean, split_camera

T = TypeVar("T")


class Command(NamedTuple):
    """What stands behind a word or two of the command line."""

    module: str
    summary: str
    resumes: bool = False  # started again after an interruption, it goes on where it was
    of_a_task: bool = False  # has --task, which is looked up before anything heavy is imported


_on_task = partial(Command, of_a_task=True)
_long_on_task = partial(_on_task, resumes=True)
GROUPS: dict[str, dict[str, Command]] = {
    "from nothing to a robot that plans": {
        "tasks": Command("envs.list_tasks", "List the tasks there are, or show one of them."),
        "collect": _long_on_task("agent.collect", "Collect a data set of reward-free episodes."),
        "train": _long_on_task("world_model.train", "Train a world model from a data set."),
        "plan": _on_task("eval.run_planning", "Plan to goals given as pictures, and measure success."),
        "run": Command("agent.run_robot", "Drive a real robot to a goal picture, at its own rate."),
        "export": Command("agent.export", "Write an agent as an ONNX file, which runs without PyTorch."),
        "fit-probe": _on_task("world_model.fit_probe", "Learn to read numbers, such as joint angles, off embeddings."),
        "calibrate": Command("agent.calibrate", "Learn another camera from a few of its pictures."),
        "improve": _long_on_task("eval.improve", "Practise without reward, and train on what came of it."),
        "evaluate": _long_on_task("eval.tables.variations", "Measure success when pictures are a little different."),
    },
    "policies, to collect data or to propose plans": {
        "train-sac": _long_on_task("agent.data_policies.train_sac", "Train SAC from state and reward."),
        "train-latent-policy": _long_on_task("world_model.latent_policy.train", "Train a policy on embeddings."),
    },
    "benchmarks, and the rivals in them": {
        "benchmark tasks": Command("eval.tables.tasks", "Measure bundled checkpoints on held-out pairs.", resumes=True),
        "benchmark agents": _long_on_task("eval.tables.agents", "Measure every agent on one task's pairs."),
        "benchmark planners": _long_on_task("eval.tables.planners", "Measure success against decision time."),
        "benchmark robot": _long_on_task("eval.tables.robot", "Measure success on a robot with delays, in real time."),
        "benchmark surprise": _long_on_task("eval.tables.surprise", "Measure how well surprise tells what is wrong."),
        "benchmark collapse": _long_on_task("eval.collapse.study", "Train every remedy against collapse."),
        "train-her": _long_on_task("agent.rivals.train_her", "Train a rival: SAC with hindsight, from state."),
        "train-dreamer": _long_on_task("agent.rivals.train_dreamer", "Train a rival: DreamerV3."),
    },
    "speed": {
        "speed planning": Command("eval.speed.planning", "Time a decision and its parts, against the floor."),
        "speed exported": Command("eval.speed.exported", "Time an exported agent's decisions, against PyTorch's."),
        "speed data": Command("eval.speed.data", "Time reading windows from files and from memory."),
        "speed training": Command("eval.speed.training", "Time training by processes, threads and precision."),
        "speed rendering": Command("eval.speed.rendering", "Time pictures against the simulator's defaults."),
    },
    "data from elsewhere, and to there": {
        "inspect": Command("world_model.data.inspect_data", "Look at recorded data: what is wrong, and its fix."),
        "convert data": Command("world_model.convert.data", "Read recorded data as a data set to train on."),
        "convert lerobot": Command("world_model.convert.lerobot", "Write a data set for LeRobot."),
        "convert lewm": Command("world_model.convert.lewm_release", "Read or write a LeWorldModel release."),
        "convert minari": _on_task("world_model.convert.minari", "Write a data set for Minari."),
    },
}
_CAMERA = """--camera CAMERA: what the task is seen through: a camera of the robot's model, or a free view,
AZIMUTH,ELEVATION[,DISTANCE[,X,Y,Z]] in degrees and metres; several with a + between them."""
COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}


def main() -> NoReturn:
    """Runs `jepa-mpc`."""
    words = _set_home(sys.argv[1:])
    for count in (2, 1):
        if (name := " ".join(words[:count])) in COMMANDS:
            run(name, words[count:])
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # what is left only prints, and whoever reads it may stop
    if not words or words[0] in ("-h", "--help"):
        print(overview())  # noqa: T201
        sys.exit(0)
    if words[0] == "--version":
        from jepa_mpc.provenance import version

        print(version("jepa-mpc"))  # noqa: T201
        sys.exit(0)
    family = [name for name in COMMANDS if name.startswith(f"{words[0]} ")]
    if family and (len(words) == 1 or words[1] in ("-h", "--help")):
        print(overview(family))  # noqa: T201
        sys.exit(0 if len(words) > 1 else 2)
    asked = " ".join(words[: 2 if family else 1])
    hint = did_you_mean(asked, family or COMMANDS) or "`jepa-mpc --help` lists them"
    print(f"error: unknown command {asked!r}; {hint}", file=sys.stderr)  # noqa: T201
    sys.exit(2)


def overview(names: Sequence[str] = ()) -> str:
    """Returns the commands of those names, or all, a line each, under the headings of their groups."""
    lines = ["usage: jepa-mpc COMMAND [OPTIONS]", ""]
    for title, group in GROUPS.items():
        shown = {name: command for name, command in group.items() if not names or name in names}
        if shown:
            lines += [f"{title}:", *(f"  {name:<20} {command.summary}" for name, command in shown.items()), ""]
    lines += [
        "`jepa-mpc COMMAND --help` lists a command's options; `jepa-mpc --version` prints the version.",
        f"Every command takes --home DIR, or reads {HOME_VARIABLE}: where data, runs and caches lie.",
        "Commands that simulate a --task take --camera too; --task robot.xml@CAMERA says the same.",
    ]
    return "\n".join(lines)


def run(name: str, args: Sequence[str] | None = None) -> NoReturn:
    """Runs a command and exits: with 1 after a mistake that is one line, with 130 after Ctrl-C."""
    command = COMMANDS[name]
    if (Path(sys.path[0]) / Path(sys.argv[0]).name).is_file() and args is None:
        del sys.path[0]  # a script's own folder, whose modules would stand before others of their names
    for number in {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}:  # so that robots stop, and what is
        if signal.getsignal(number) is not signal.SIG_IGN:  # half-written is cleared away; nohup has it ignored
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        logging.basicConfig(format="%(message)s")
        logging.getLogger("jepa_mpc").setLevel(logging.INFO)  # what simulators and libraries tell is theirs
        warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)  # noqa: T201
        options = _set_home(list(sys.argv[1:] if args is None else args))
        if _takes_camera(name):
            options = _with_camera(options)
        task = option_value(options, "--task") if command.of_a_task else None
        is_recorded = option_value(options, "--data") is not None  # which may be of no task that we know
        if task and (":" in task or not is_recorded):
            importlib.import_module("jepa_mpc.envs.registry").get_task(task)
        importlib.import_module(f"jepa_mpc.{command.module}").main(options)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        fix = "; make room, and start the same command again" if is_full else ""
        sys.exit(f"error: {error.strerror or reason(error)}{where}{fix}")
    except KeyboardInterrupt:
        hint = "; the same command goes on from here" if command.resumes else ""
        print(f"interrupted{hint}", file=sys.stderr)  # noqa: T201
        sys.exit(130)
    sys.exit(0)


def parse(
    kind: type[T],
    args: Sequence[str],
    default: T | None = None,
    module: str = "",
    names: Mapping[str, Iterable[str]] | None = None,
) -> T:
    """Returns a command's settings from its options, held against their ranges.

    Args:
        kind: the settings' class.
        args: the words typed.
        default: settings to start from.
        module: the command's, where the class stands in another.
        names: what `choose` takes by name, for the help: options and the names that there are.
    """
    import tyro

    from jepa_mpc.settings import checked

    program = _command_of(module or kind.__module__)
    said = [f"{option}: {', '.join(known)}, or module:name." for option, known in (names or {}).items()]
    if program in COMMANDS and _takes_camera(program):
        said.append(_CAMERA)
    description = "\n".join([inspect.getdoc(kind) or "", *said])
    config = tyro.cli(kind, args=args, default=default, prog=f"jepa-mpc {program}".rstrip(), description=description)
    return checked(config)  # type: ignore[return-value]


def _command_of(module: str) -> str:
    """Returns the name of the command that a module is."""
    return " ".join(name for name, each in COMMANDS.items() if module == f"jepa_mpc.{each.module}")


def _takes_camera(name: str) -> bool:
    return COMMANDS[name].of_a_task and not name.startswith("convert")


def option_value(args: Sequence[str], option: str) -> str | None:
    """Returns what an option is set to, before the others are looked at; None if it is not given."""
    return _take(list(args), option)


def typed(config: Any, names: Iterable[str]) -> str:
    """Returns the options of those names as they are typed, each after a space, but for those at their defaults."""
    words = []
    for name in names:
        if (value := getattr(config, name)) != getattr(type(config), name):
            words.append(f" --{name.replace('_', '-')}")
            given = value if isinstance(value, tuple) else (value,)
            words += [f" {each:g}" if isinstance(each, float) else f" {each}" for each in given]
    return "".join(words)


def choose(args: Sequence[str], options: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Takes options that choose a class of settings by name, such as --planner, out of the words.

    Returns the other words, and what each option's registry has under the name given.
    """
    words, chosen = list(args), {}
    for option, registry in options.items():
        if (name := _take(words, option)) is not None:
            chosen[option] = registry[name]
    return words, chosen


def _take(words: list[str], option: str) -> str | None:
    """Removes an option from the words, each time that it is given, and returns what it is set to at last."""
    given, words[:] = words[:], []
    value = None
    while given:
        word = given.pop(0)
        if word == option and given:  # one without a value is left for the parser to refuse
            value = given.pop(0)
        elif word.startswith(f"{option}="):
            value = word.partition("=")[2]
        else:
            words.append(word)
    return value


def _with_camera(words: list[str]) -> list[str]:
    """Returns the words with what --camera names behind the task, as `TASK@CAMERA`."""
    if (camera := _take(words, "--camera")) is None:
        return words
    if (task := _take(words, "--task")) is None:
        raise UserError("--camera is of a robot that --task names; give both")
    return [*words, "--task", seen_through(task, camera)]


def seen_through(task: str, camera: str) -> str:
    """Returns a task's name with a camera. Raises `UserError` if it has one already."""
    name, there = split_camera(task)
    if there:
        raise UserError(f"{name} names the camera {there}, and --camera {camera}; leave one out")
    return f"{task}@{camera}"


def _set_home(words: list[str]) -> list[str]:
    """Sets the home where --home is given; returns the other words."""
    if (place := _take(words, "--home")) is not None:
        os.environ[HOME_VARIABLE] = place
    return words
