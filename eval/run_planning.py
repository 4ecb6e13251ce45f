"""Plans to pictured goals with a trained world model: `python eval/run_planning.py --task reacher`."""

import functools
import sys
import time
import warnings
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

import envs
from agent.baselines import Agent, DoNothingAgent, RandomAgent
from agent.planning_agent import AgentConfig, PlanningAgent
from envs.registry import simulator_version
from eval import report
from eval.goal_tasks import goal_tasks
from eval.metrics import summarise
from eval.rollout import run_episodes, time_decisions
from planners import PlannerConfig
from world_model.checkpoint import CheckpointError, CheckpointInfo, load_checkpoint
from world_model.train import choose_device

NUM_VIDEO_EPISODES = 4
NUM_TIMED_DECISIONS = 40


class UsageError(Exception):
    """Options that cannot be served; the message is one line that names the fix."""


@dataclass(frozen=True)
class RunConfig:
    """Plan to goals given as pictures, and measure how often they are reached."""

    task: str = "reacher"
    """Task in the registry."""
    checkpoint: Path | None = None
    """Checkpoint folder; `checkpoints/<task>` unless given."""
    planner: Literal["cem", "mppi"] = AgentConfig.planner
    """Search algorithm."""
    objective: Literal["terminal", "minimum", "mean"] = AgentConfig.objective
    """Latent distance to the goal at the horizon's end, at its nearest, or on average."""
    num_episodes: int = 50
    """Start and goal pairs."""
    seed: int = 0
    """Decides the pairs and the search."""
    device: str = "auto"
    """cpu, cuda, mps, or auto: the first of cuda, mps and cpu that is there."""
    output: Path | None = None
    """Run folder; `runs/<date>-<task>-<planner>` unless given."""
    video: bool = True
    """Write videos of a few episodes."""
    goal_image: Path | None = None
    """A picture of your own as the goal, 64×64 or larger. Success is then not decided."""
    horizon: int = AgentConfig.horizon
    """Blocks to look ahead."""
    receding_horizon: int = AgentConfig.receding_horizon
    """Blocks to execute before planning anew."""
    history_len: int = AgentConfig.history_len
    """Real frames that the predictor sees."""
    search: tyro.conf.OmitArgPrefixes[PlannerConfig] = field(default_factory=PlannerConfig)
    """Settings of the search."""

    def agent(self) -> AgentConfig:
        return AgentConfig(
            self.planner, self.objective, self.horizon, self.receding_horizon, self.history_len, self.search
        )


def load_goal_image(path: Path, size: int) -> NDArray[np.uint8]:
    """A user's picture as the model saw its own: (size, size, 3) uint8, the centre square, averaged down."""
    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
    except FileNotFoundError:
        raise UsageError(f"no goal image at {path}") from None
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise UsageError(f"{path} is no picture that can be read ({error}); use a PNG or JPEG") from None
    side = min(image.size)
    if side < size:
        raise UsageError(f"{path} is {image.width}×{image.height}; a goal image needs at least {size}×{size} pixels")
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((size, size), Image.Resampling.BOX))


def _run_folder(config: RunConfig) -> Path:
    now = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = config.output or Path("runs") / f"{now}-{config.task}-{config.planner}"
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output {folder} is a file; name a folder")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def plan_to_goal_image(config: RunConfig, agent: PlanningAgent, env: envs.PixelEnv, spec: envs.TaskSpec) -> Path:
    """One episode toward the user's picture; says how near it came in latent space, and shows it."""
    assert config.goal_image is not None
    goal = load_goal_image(config.goal_image, spec.image_size)
    folder = _run_folder(config)
    picture, _ = env.reset(seed=config.seed)
    pictures = [picture]
    agent.reset(goal[None], [config.seed])
    for _ in range(spec.budget // spec.action_block):
        for action in agent.act(pictures[-1][None])[0]:
            env.advance(action)
        pictures.append(env.render())
    seen = np.stack(pictures)
    distances = agent.latent_distance(seen, np.broadcast_to(goal, seen.shape)).tolist()
    nearest = int(np.argmin(distances))
    report.write_goal_reached(folder / "goal_and_final.png", goal, pictures, nearest, distances)
    report.write_json(
        folder / "results.json",
        {
            "task": config.task,
            "goal_image": str(config.goal_image),
            "success_rate": None,
            "latent_distance": {"start": distances[0], "nearest": distances[nearest], "final": distances[-1]},
            "nearest_step": nearest * spec.action_block,
            "planner": config.agent().settings(),
            "seed": config.seed,
            **report.provenance(),
        },
    )
    report.print_table(
        f"{config.task}: planning to {config.goal_image}",
        [
            ("latent distance at the start", f"{distances[0]:.2f}"),
            ("nearest", f"{distances[nearest]:.2f} after {nearest * spec.action_block} steps"),
            ("final", f"{distances[-1]:.2f}"),
            ("success", "not decided: the goal's state is unknown"),
            ("pictures", str(folder / "goal_and_final.png")),
        ],
    )
    return folder


def evaluate(
    config: RunConfig, agent: PlanningAgent, info: CheckpointInfo, env: envs.PixelEnv, spec: envs.TaskSpec
) -> Path:
    """The task's protocol on held-out pairs, with baselines on the same pairs; writes the run folder."""
    folder, started, provenance = _run_folder(config), time.monotonic(), report.provenance()
    tasks = goal_tasks(env, spec, config.seed, config.num_episodes, Path("data/goal_tasks"))
    rivals: dict[str, Agent] = {
        "random": RandomAgent(env.action_space, spec.action_block),
        "do_nothing": DoNothingAgent(env.action_space, spec.action_block),
    }
    run = functools.partial(run_episodes, env=env, spec=spec, tasks=tasks, seed=config.seed, budget=spec.budget)
    records, traces = run(agent, description="planning")
    ours = summarise(records)
    baselines = {name: summarise(run(rival, description=name)[0]) for name, rival in rivals.items()}
    milliseconds = time_decisions(agent, env, spec, tasks, seed=config.seed, num_decisions=NUM_TIMED_DECISIONS)
    median_ms, p95_ms = np.percentile(milliseconds, [50, 95])
    parameters = sum(p.numel() for p in agent.model.parameters())

    report.write_json(
        folder / "results.json",
        {
            "task": config.task,
            "protocol": {"goal_offset": spec.goal_offset, "budget": spec.budget, "tolerance": spec.tolerance},
            **asdict(ours),
            "baselines": {name: asdict(summary) for name, summary in baselines.items()},
            "decision_ms": {
                "median": median_ms,
                "p95": p95_ms,
                "n": len(milliseconds),
                "device": config.device,
            },
            "parameters": parameters,
            "planner": config.agent().settings(),
            "checkpoint": {
                "path": str(config.checkpoint),
                "commit": info.commit,
                "learning_seconds": info.learning_seconds,
                "metrics": info.metrics,
            },
            "seed": config.seed,
            "wall_seconds": round(time.monotonic() - started, 1),
            **provenance,
            "episodes": [asdict(record) for record in records],
        },
    )
    pictures = np.stack([trace.pictures for trace in traces])
    goals = np.broadcast_to(tasks.goal_picture[:, None], pictures.shape)
    distances = np.stack([agent.latent_distance(seen, goal) for seen, goal in zip(pictures, goals, strict=True)])
    report.write_latent_distance(folder / "latent_distance.png", distances, records, spec)
    if config.video:
        few = slice(NUM_VIDEO_EPISODES)
        with_detail = envs.make(config.task, image_size=report.PANEL)
        report.write_videos(folder, with_detail, tasks[few], traces[few], records[few])
        with_detail.close()

    def rate(summary) -> str:
        low, high = summary.success_interval
        return f"{summary.success_rate:.1%}  [{low:.1%}, {high:.1%}]  n = {summary.num_episodes}"

    steps = "–" if ours.median_steps is None else f"{ours.median_steps:.0f} of {spec.budget}"
    search = config.search
    report.print_table(
        f"{config.task}: goal {spec.goal_offset} steps ahead, within {spec.tolerance} {spec.tolerance_unit}",
        [
            ("success, 95 % interval", rate(ours)),
            ("  random agent", rate(baselines["random"])),
            ("  do-nothing agent", rate(baselines["do_nothing"])),
            ("median steps to success", steps),
            ("decision time", f"median {median_ms:.0f} ms, p95 {p95_ms:.0f} ms  (one episode)"),
            ("parameters", f"{parameters / 1e6:.2f} M"),
            (
                "planner",
                f"{config.planner}, {config.objective} distance, {search.num_samples} samples × "
                f"{search.num_iterations} iterations, horizon {config.horizon} blocks of {spec.action_block}",
            ),
            ("run folder", str(folder)),
        ],
    )
    return folder


def run(config: RunConfig) -> Path:
    """Everything the command does; returns the run folder."""
    spec = envs.get_task(config.task)
    if config.num_episodes < 1:
        raise UsageError(f"--num-episodes must be at least 1, not {config.num_episodes}")
    if config.seed < 0:
        raise UsageError(f"--seed must be at least 0, not {config.seed}")
    config = replace(config, checkpoint=config.checkpoint or Path("checkpoints") / config.task)
    device = choose_device(config.device)
    config = replace(config, device=str(device))
    assert config.checkpoint is not None
    model, info = load_checkpoint(config.checkpoint, task=config.task, device=config.device)
    if info.simulator != simulator_version():
        warnings.warn(
            f"checkpoint {config.checkpoint} learned from pictures of {info.simulator}, this is {simulator_version()}: "
            "pictures differ, and planning may suffer",
            stacklevel=2,
        )
    env = envs.make(config.task)
    try:
        agent = PlanningAgent(model, env.action_space, spec.action_block, config.agent())
        if config.goal_image is not None:
            return plan_to_goal_image(config, agent, env, spec)
        return evaluate(config, agent, info, env, spec)
    finally:
        env.close()


def main() -> None:
    config = tyro.cli(RunConfig)
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)  # noqa: T201
    try:
        run(config)
    except (UsageError, CheckpointError, envs.EnvError, ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")


if __name__ == "__main__":
    main()
