"""How long one decision takes, where the time goes, and how far from the floor: `python eval/speed/planning.py`.

The floor is the decision's multiply-adds, counted by PyTorch, over the rate at which this machine multiplies large
matrices, measured here between the decisions. Everything runs in turn in one process, round by round, so the ratios
hold even where the clock does not.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from gymnasium.spaces import Box
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from jepa_mpc import envs
from jepa_mpc.agent.agent_config import AGENT_PRESETS, AgentConfig
from jepa_mpc.agent.planning_agent import PlanningAgent
from jepa_mpc.eval import report
from jepa_mpc.eval.speed.stable_worldmodel import stable_worldmodel_solve
from jepa_mpc.world_model.checkpoint import CheckpointError, load_checkpoint
from jepa_mpc.world_model.model.encoder import EncoderConfig
from jepa_mpc.world_model.model.jepa import JEPA, JEPAConfig
from jepa_mpc.world_model.model.predictor import PredictorConfig

ACTIONS = Box(-1.0, 1.0, (2,), np.float32)
BLOCK = 5
MATRIX = 1024  # side of the matrices whose product measures the machine

# LeWorldModel's sizes (arXiv 2603.19312): ViT-Tiny/14 at 224², 6 layers of 16 heads of 64, latent 192.
PAPER_MODEL = JEPAConfig(
    action_dim=BLOCK * 2,
    embed_dim=192,
    projector_hidden=2048,
    encoder=EncoderConfig(kind="vit", image_size=224, patch_size=14, width=192, depth=12, num_heads=3),
    predictor=PredictorConfig(width=192, depth=6, num_heads=16, head_dim=64, mlp_width=2048, projector_hidden=2048),
)
PAPER_SEARCH = replace(AGENT_PRESETS["lewm"], receding_horizon=1)  # every decision is a search


@dataclass(frozen=True)
class BenchmarkConfig:
    """Time decisions of the bundled model and of one of the paper's size."""

    checkpoint: Path = Path("checkpoints/reacher")
    """The bundled model."""
    num_decisions: int = 100
    """Decisions of the bundled model, one episode; a batch of 50 takes a tenth, LeWorldModel's search a 20th."""
    paper_decisions: int = 3
    """Decisions of the model of the paper's size, at 300 samples × 30 iterations; 0 leaves it out."""
    paper_precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of that model's products."""
    rival: Path | None = None
    """A checkout of stable-worldmodel, whose CEM then plans with a model of the same sizes, in turn with ours."""
    num_threads: int | None = None
    """Threads of PyTorch; its own choice unless given."""
    output: Path | None = None
    """JSON file to write."""


def machine_rate() -> float:
    """Multiply-adds a second of one large float32 matrix product."""
    a, b = torch.randn(MATRIX, MATRIX), torch.randn(MATRIX, MATRIX)
    begin = time.perf_counter()
    a @ b
    return MATRIX**3 / (time.perf_counter() - begin)


def count_multiply_adds(work: Callable[[], Any]) -> int:
    """Of matrix products and convolutions, as PyTorch counts them."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() // 2


class Stopwatch:
    """Adds up the seconds spent inside functions that it wraps."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    def watch(self, owner: Any, method: str, name: str) -> None:
        """Replaces `owner.method` by one that is timed under `name`."""
        function = getattr(owner, method)

        def timed(*args, **kwargs):
            begin = time.perf_counter()
            result = function(*args, **kwargs)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin
            return result

        object.__setattr__(owner, method, timed)


class Subject:
    """An agent in the middle of B episodes, whose next decision can be asked for again and again."""

    def __init__(self, model: JEPA, config: AgentConfig, batch_size: int, history: int):
        self.agent = PlanningAgent(model, ACTIONS, BLOCK, config)
        size = model.config.encoder.image_size
        rng = np.random.default_rng(0)
        self._goals = rng.integers(0, 256, (batch_size, size, size, 3), dtype=np.uint8)
        self._pictures = rng.integers(0, 256, (batch_size, size, size, 3), dtype=np.uint8)
        self._history = history

    def prepare(self) -> None:
        """Up to the decision that is to be timed."""
        self.agent.reset(self._goals, range(len(self._goals)))
        for _ in range(self._history - 1):
            self.agent.act(self._pictures)

    def decide(self) -> None:
        self.agent.act(self._pictures)


def time_subject(name: str, subject: Subject, num_decisions: int) -> dict[str, Any]:
    """Medians over decisions: milliseconds, their parts, multiply-adds, the floor and the ratio to it."""
    subject.prepare()
    multiply_adds = count_multiply_adds(subject.decide)
    times, rates = [], []
    parts: dict[str, list[float]] = {"encode": [], "rollout": [], "sampling": [], "rest": []}
    watch = Stopwatch()
    watch.watch(subject.agent.model, "encode", "encode")
    watch.watch(subject.agent.model, "rollout", "rollout")
    watch.watch(subject.agent._planner, "noise", "sampling")
    for _ in range(num_decisions):
        subject.prepare()
        rates.append(machine_rate())
        watch.seconds.clear()
        begin = time.perf_counter()
        subject.decide()
        times.append(time.perf_counter() - begin)
        for part in ("encode", "rollout", "sampling"):
            parts[part].append(watch.seconds.get(part, 0.0))
        parts["rest"].append(times[-1] - sum(watch.seconds.values()))
    floors = multiply_adds / np.array(rates)
    search = subject.agent.config.planner
    return {
        "name": name,
        "batch_size": len(subject._goals),
        "samples": search.num_samples,
        "rounds": search.num_iterations,
        "horizon": subject.agent.config.horizon,
        "precision": str(subject.agent.model.predictor.position.dtype).removeprefix("torch."),
        "decisions": num_decisions,
        "median_ms": 1e3 * float(np.median(times)),
        "p95_ms": 1e3 * float(np.percentile(times, 95)),
        **{f"{part}_ms": 1e3 * float(np.median(seconds)) for part, seconds in parts.items()},
        "multiply_adds": multiply_adds,
        "machine_gmacs": float(np.median(rates)) / 1e9,
        "floor_ms": 1e3 * float(np.median(floors)),
        "times_floor": float(np.median(np.array(times) / floors)),
    }


def benchmark(config: BenchmarkConfig) -> dict[str, Any]:
    """Every row, and what it takes to make them again."""
    if config.num_decisions < 1 or config.paper_decisions < 0:
        raise ValueError("--num-decisions must be at least 1, --paper-decisions at least 0")
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    provenance = report.provenance()
    model, info = load_checkpoint(config.checkpoint)
    if envs.get_task(info.task).action_block * ACTIONS.shape[0] != model.config.action_dim:
        raise ValueError(f"{config.checkpoint} takes other actions than this benchmark's; use one of task reacher")
    solve = None
    if config.rival is not None and config.paper_decisions:
        solve = stable_worldmodel_solve(config.rival, PAPER_MODEL, PAPER_SEARCH)
    machine_rate()
    history = AgentConfig.history_len
    rows = []
    for name, search, batch_size, share in (
        ("bundled", AgentConfig(), 1, 1),
        ("bundled", AgentConfig(), 50, 10),
        ("bundled, LeWorldModel's search", PAPER_SEARCH, 1, 20),
    ):
        subject = Subject(load_checkpoint(config.checkpoint)[0], search, batch_size, history)
        rows.append(time_subject(name, subject, max(1, config.num_decisions // share)))
    rival_seconds: list[float] = []
    if config.paper_decisions:
        torch.manual_seed(0)
        paper = JEPA(PAPER_MODEL).eval().requires_grad_(False)
        subject, ours = Subject(paper, replace(PAPER_SEARCH, precision=config.paper_precision), 1, history=1), []
        for _ in range(config.paper_decisions):
            ours.append(time_subject("paper size", subject, 1))
            if solve is not None:
                rival_seconds.append(solve())
        middle = sorted(ours, key=lambda row: row["median_ms"])[len(ours) // 2]
        middle |= {"decisions": len(ours), "p95_ms": max(row["median_ms"] for row in ours)}
        middle["times_floor"] = float(np.median([row["times_floor"] for row in ours]))
        rows.append(middle)
    results: dict[str, Any] = {"threads": torch.get_num_threads(), "decisions": rows, **provenance}
    if rival_seconds:
        ratios = [row["median_ms"] / 1e3 / seconds for row, seconds in zip(ours, rival_seconds, strict=True)]
        results["stable_worldmodel"] = {
            "median_ms": 1e3 * float(np.median(rival_seconds)),
            "decisions": len(rival_seconds),
            "ours_over_theirs": float(np.median(ratios)),
        }
    return results


def print_results(results: dict[str, Any]) -> None:
    """One column a subject, milliseconds unless it says otherwise."""
    rows = results["decisions"]
    table = Table(title=f"one decision on {results['threads']} thread(s), ms", title_justify="left")
    for heading in ("", *(row["name"] for row in rows)):
        table.add_column(heading, justify="left" if not heading else "right")
    lines: dict[str, Callable[[dict[str, Any]], str]] = {
        "episodes at once": lambda row: str(row["batch_size"]),
        "samples × rounds × horizon": lambda row: f"{row['samples']} × {row['rounds']} × {row['horizon']}",
        "precision": lambda row: row["precision"],
        "median": lambda row: f"{row['median_ms']:,.1f}",
        "p95": lambda row: f"{row['p95_ms']:,.1f}",
        "  encode": lambda row: f"{row['encode_ms']:,.1f}",
        "  rollout": lambda row: f"{row['rollout_ms']:,.1f}",
        "  sampling": lambda row: f"{row['sampling_ms']:,.1f}",
        "  rest": lambda row: f"{row['rest_ms']:,.1f}",
        "million multiply-adds": lambda row: f"{row['multiply_adds'] / 1e6:,.0f}",
        "floor": lambda row: f"{row['floor_ms']:,.1f}",
        "times the floor": lambda row: f"{row['times_floor']:.1f}",
    }
    for label, cell in lines.items():
        table.add_row(label, *(cell(row) for row in rows))
    console = Console()
    console.print(table)
    if (rival := results.get("stable_worldmodel")) is not None:
        console.print(
            f"stable-worldmodel's CEM, a model of the paper's size: {rival['median_ms']:,.0f} ms; "
            f"ours takes {rival['ours_over_theirs']:.2f} of that"
        )


def main() -> None:
    config = tyro.cli(BenchmarkConfig)
    try:
        results = benchmark(config)
    except (CheckpointError, ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")
    if config.output is not None:
        report.write_json(config.output, results)
    print_results(results)


if __name__ == "__main__":
    main()
