"""Plans to pictured goals with a trained world model: `python eval/run_planning.py --task reacher`.

`torchrun --nproc-per-node N eval/run_planning.py ...` shares the episodes, and the first process reports.
"""

import functools
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray

from jepa_mpc import envs
from jepa_mpc.agent.agent_config import AGENT_PRESETS, AgentConfig, config_for
from jepa_mpc.agent.base import Agent, DoNothingAgent, RandomAgent
from jepa_mpc.agent.planning_agent import PlanningAgent, load_proposer
from jepa_mpc.cli import choose, option_value
from jepa_mpc.devices import choose_device
from jepa_mpc.distributed import process_group, rank
from jepa_mpc.errors import UserError
from jepa_mpc.eval import report
from jepa_mpc.eval.goal_tasks import GoalTasks, goal_tasks, suite_tasks
from jepa_mpc.eval.metrics import summarise, summarise_returns
from jepa_mpc.eval.picture_goal import UsageError, load_goal_image, plan_to_picture
from jepa_mpc.eval.protocols import PROTOCOLS, SUITE_CONTROL_STEPS, ProtocolName
from jepa_mpc.eval.trial import BATCH_SIZE, run_episodes, time_decisions
from jepa_mpc.planners import PLANNERS
from jepa_mpc.provenance import simulator_version
from jepa_mpc.world_model.checkpoint import load_checkpoint

NUM_VIDEO_EPISODES = 4
NUM_TIMED_DECISIONS = 100


@dataclass(frozen=True)
class RunConfig:
    """Plan to goals given as pictures, and measure how often they are reached."""

    task: str = "reacher"
    """Task in the registry."""
    checkpoint: Path | None = None
    """Checkpoint folder; `checkpoints/<task>` unless given."""
    protocol: ProtocolName = "standard"
    """What counts: touch a goal 25 steps ahead, a far one, hold it, reach it strictly, or the suite's reward."""
    num_episodes: int = 50
    """Start and goal pairs."""
    seed: int = 0
    """Decides the pairs and the search."""
    budget: int | None = None
    """Environment steps to reach a goal in; the protocol's unless given."""
    goal_offset: int | None = None
    """How many steps ahead a goal of the same episode lies; the task's unless given."""
    device: str = "auto"
    """cpu, cuda, mps, or auto: the first of cuda, mps and cpu that is there."""
    output: Path | None = None
    """Run folder; `runs/<date>-<task>-<protocol>` unless given."""
    video: bool = True
    """Write videos of a few episodes."""
    goal_image: Path | None = None
    """A picture of your own as the goal, 64×64 or larger. Success is then not decided."""
    agent: tyro.conf.OmitArgPrefixes[AgentConfig] = field(default_factory=AgentConfig)
    """How to plan; the defaults are the task's."""


@dataclass(frozen=True)
class Run:
    """What every kind of run needs."""

    config: RunConfig
    spec: envs.TaskSpec
    env: envs.PixelEnv
    agent: PlanningAgent
    folder: Path
    goal: NDArray[np.uint8] | None  # the user's own

    def batch_size(self) -> int:
        """Episodes planned at once: a deadline is for one."""
        return BATCH_SIZE if self.config.agent.deadline_ms is None else 1

    def rivals(self) -> dict[str, Agent]:
        space, block = self.env.action_space, self.spec.action_block
        return {"random": RandomAgent(space, block), "do_nothing": DoNothingAgent(space, block)}


def to_own_goal(run: Run) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """One episode toward the user's picture."""
    config, spec = run.config, run.spec
    assert run.goal is not None
    budget = config.budget or spec.far_budget
    found = plan_to_picture(run.goal, run.agent, run.env, spec, seed=config.seed, budget=budget, folder=run.folder)
    distance = found["latent_distance"]
    rows = [
        ("goal", str(config.goal_image)),
        ("latent distance at the start", f"{distance['start']:.2f}"),
        ("nearest", f"{distance['nearest']:.2f} after {found['nearest_step']} steps"),
        ("final", f"{distance['final']:.2f}"),
        ("success", "not decided: the goal's state is unknown"),
        ("pictures", str(run.folder / "goal_and_final.png")),
    ]
    return {"goal_image": str(config.goal_image), "budget": budget, **found}, rows


def on_pairs(run: Run) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """A protocol's held-out pairs, with baselines on the same pairs."""
    config, spec, env = run.config, run.spec, run.env
    protocol = PROTOCOLS[config.protocol]
    budget = config.budget or protocol.budget(spec)
    tasks = goal_tasks(env, spec, config.seed, config.num_episodes, Path("data/goal_tasks"), protocol.far)
    go = functools.partial(
        run_episodes, env=env, spec=spec, tasks=tasks, protocol=protocol, seed=config.seed, budget=budget
    )
    records, traces = go(run.agent, description="planning", batch_size=run.batch_size())
    ours = summarise(records, budget)
    baselines = {name: summarise(go(rival, description=name)[0], budget) for name, rival in run.rivals().items()}
    distances = np.stack(
        [
            run.agent.latent_distance(trace.pictures, goal)
            for trace, goal in zip(traces, tasks.goal_picture, strict=True)
        ]
    )
    report.write_latent_distance(run.folder / "latent_distance.png", distances, records, spec)
    if config.video:
        few = slice(NUM_VIDEO_EPISODES)
        with_detail = envs.make(config.task, image_size=report.PANEL)
        report.write_videos(run.folder, with_detail, tasks[few], traces[few], records[few])
        with_detail.close()
    timing, timing_rows = _time(run, tasks)  # last, when other processes are done

    steps = "–" if ours.median_steps is None else f"{ours.median_steps:.0f} of {budget}"
    rows = [
        ("protocol", f"{protocol.name}: {protocol.describe(spec)}"),
        ("success, 95 % interval", report.rate(ours.success_rate, ours.success_interval, ours.num_episodes)),
        *(
            (f"  {name.replace('_', '-')} agent", report.rate(b.success_rate, b.success_interval, b.num_episodes))
            for name, b in baselines.items()
        ),
        ("median steps to success", steps),
        ("touched / held / strict", f"{ours.first_hit.rate:.1%} / {ours.held.rate:.1%} / {ours.strict.rate:.1%}"),
        *timing_rows,
    ]
    results = {
        "protocol": {
            **asdict(protocol),
            "rule": protocol.describe(spec),
            "steps": protocol.steps_kept(spec),
            "goal_offset": None if protocol.far else spec.goal_offset,
            "budget": budget,
            "tolerance": protocol.tolerance(spec),
        },
        **asdict(ours),
        "baselines": {name: asdict(summary) for name, summary in baselines.items()},
        **timing,
        "episodes": [asdict(record) for record in records],
    }
    return results, rows


def on_suite(run: Run) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The control suite's own tasks and rewards, with baselines on the same episodes."""
    config, spec = run.config, run.spec
    if not spec.suite:
        raise UsageError(f"task {spec.name!r} has no rewarded suite tasks; choose another --protocol")
    budget = config.budget or SUITE_CONTROL_STEPS // spec.action_repeat
    results: dict[str, Any] = {}
    rows: list[tuple[str, str]] = []
    timing_tasks = None
    for task in spec.suite:
        env = task.make(spec.image_size, True)
        tasks = suite_tasks(env, task, config.seed, config.num_episodes)
        timing_tasks = timing_tasks or tasks
        go = functools.partial(
            run_episodes,
            env=env,
            spec=spec,
            tasks=tasks,
            protocol=PROTOCOLS["far"],
            seed=config.seed,
            budget=budget,
        )
        records, _ = go(run.agent, description=task.name, batch_size=run.batch_size())
        ours = summarise_returns(records)
        baselines = {
            name: summarise_returns(go(rival, description=f"{task.name}, {name}")[0])
            for name, rival in run.rivals().items()
        }
        env.close()
        results[task.name] = {
            **asdict(ours),
            "baselines": {name: asdict(summary) for name, summary in baselines.items()},
            "returns": [record.reward for record in records],
        }
        rows.append((f"{task.name}, return", report.returns(ours)))
        rows += [(f"  {name.replace('_', '-')} agent", report.returns(summary)) for name, summary in baselines.items()]
    assert timing_tasks is not None
    timing, timing_rows = _time(run, timing_tasks)
    protocol = {"name": "suite", "control_steps": budget * spec.action_repeat}
    return {"protocol": protocol, "suite": results, **timing}, rows + timing_rows


def _time(run: Run, tasks: GoalTasks) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Decision time of one episode planned alone, and what a deadline cost."""
    if rank() > 0:
        return {}, []
    milliseconds = time_decisions(
        run.agent, run.env, run.spec, tasks, seed=run.config.seed, num_decisions=NUM_TIMED_DECISIONS
    )
    median, p95 = np.percentile(milliseconds, [50, 95])
    timing: dict[str, Any] = {"median": median, "p95": p95, "n": len(milliseconds), "device": run.config.device}
    rows = [("decision time", f"median {median:.1f} ms, p95 {p95:.1f} ms  (one episode)")]
    asked, done = run.config.agent.planner.num_iterations, run.agent.rounds_done
    if (deadline := run.config.agent.deadline_ms) is not None:
        cut = sum(rounds < asked for rounds in done) / len(done)
        late = sum(time > deadline for time in milliseconds) / len(milliseconds)
        timing |= {"deadline_ms": deadline, "cut_short": cut, "mean_rounds": float(np.mean(done)), "late": late}
        rows.append(
            (
                "deadline",
                f"{deadline:g} ms: {cut:.0%} of searches cut short, {np.mean(done):.1f} of {asked} rounds on average, "
                f"{late:.0%} late",
            )
        )
    return {"decision_ms": timing}, rows


def run(config: RunConfig, show: bool = True) -> Path:
    """Everything the command does, the printed table if it is to be shown; returns the run folder.

    Of several processes only the first one's folder is meant to be read.
    """
    if rank() > 0:
        with tempfile.TemporaryDirectory() as scratch:
            return _run(replace(config, video=False, output=Path(scratch)), show=False)
    return _run(config, show)


def _run(config: RunConfig, show: bool) -> Path:
    spec = envs.get_task(config.task)
    for option, least in {"num_episodes": 1, "seed": 0, "budget": 1, "goal_offset": 1}.items():
        if (value := getattr(config, option)) is not None and value < least:
            raise UsageError(f"--{option.replace('_', '-')} must be at least {least}, not {value}")
    if config.goal_offset is not None:
        if config.goal_image or config.protocol == "suite" or PROTOCOLS[config.protocol].far:
            raise UsageError("--goal-offset is for goals of the same episode: --protocol standard or hold")
        if config.goal_offset >= spec.episode_len:
            raise UsageError(f"--goal-offset must be below an episode's {spec.episode_len} steps")
        spec = replace(spec, goal_offset=config.goal_offset)
    checkpoint = config.checkpoint or Path("checkpoints") / config.task
    config = replace(config, checkpoint=checkpoint, device=str(choose_device(config.device)))
    model, info = load_checkpoint(checkpoint, task=config.task, device=config.device)
    if info.simulator != simulator_version():
        warnings.warn(
            f"checkpoint {checkpoint} learned from pictures of {info.simulator}, this is {simulator_version()}: "
            "pictures differ, and planning may suffer",
            stacklevel=2,
        )
    spec = replace(spec, image_size=model.config.encoder.image_size)
    env = envs.make(config.task, image_size=spec.image_size)
    try:
        proposer = load_proposer(checkpoint, config.agent, config.device)
        agent = PlanningAgent(model, env.action_space, spec.action_block, config.agent, proposer)
        goal = None if config.goal_image is None else load_goal_image(config.goal_image, spec.image_size)
        folder, started, provenance = _run_folder(config), time.monotonic(), report.provenance()
        kind: Callable[[Run], tuple[dict[str, Any], list[tuple[str, str]]]] = on_pairs
        if goal is not None:
            kind = to_own_goal
        elif config.protocol == "suite":
            kind = on_suite
        results, rows = kind(Run(config, spec, env, agent, folder, goal))
    finally:
        env.close()
    parameters = sum(p.numel() for p in model.parameters())
    episodes = results.pop("episodes", None)
    settings = config.agent.settings()
    report.write_json(
        folder / "results.json",
        {
            "task": config.task,
            **results,
            "parameters": parameters,
            "planner": settings,
            "checkpoint": {
                "path": str(checkpoint),
                "commit": info.commit,
                "learning_seconds": info.learning_seconds,
                "metrics": info.metrics,
            },
            "seed": config.seed,
            "wall_seconds": round(time.monotonic() - started, 1),
            **provenance,
            **({"episodes": episodes} if episodes is not None else {}),
        },
    )
    planner = (
        "{planner}, {objective} ({reduction}), {num_samples} samples × {num_iterations} rounds, "
        "horizon {horizon} blocks of {block}".format(**settings, block=spec.action_block)
    )
    if not config.agent.planner.num_iterations:
        planner = f"none: {config.agent.warm_start} decides alone"
    rows += [("parameters", f"{parameters / 1e6:.2f} M"), ("planner", planner), ("run folder", str(folder))]
    if show:
        report.print_table(config.task, rows)
    return folder


def _run_folder(config: RunConfig) -> Path:
    now = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = config.output or Path("runs") / f"{now}-{config.task.replace('/', '-')}-{config.protocol}"
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output {folder} is a file; name a folder")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def parse_config(args: Sequence[str] | None = None) -> RunConfig:
    """Returns what command-line options make of the task's own way to plan, or of a preset's."""
    words, chosen = choose(sys.argv[1:] if args is None else args, {"--preset": AGENT_PRESETS, "--planner": PLANNERS})
    task = option_value(words, "--task") or RunConfig.task
    agent = chosen.get("--preset") or config_for(envs.get_task(task))
    if planner := chosen.get("--planner"):
        agent = agent.searched_by(planner)
    return tyro.cli(RunConfig, args=words, default=RunConfig(task=task, agent=agent))


def main() -> None:
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)  # noqa: T201
    try:
        config = parse_config()
        with process_group(choose_device(config.device)):
            run(config)
    except (UserError, ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")


if __name__ == "__main__":
    main()
