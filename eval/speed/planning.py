"""How long one decision takes, where the time goes, and how far from the floor.

The floor is the decision's multiply-adds, counted by PyTorch, over the rate at which this machine multiplies large
matrices, measured here between the decisions. Everything runs in turn in one process, round by round, so the ratios
hold even where the clock does not.
"""

if __name__ == "__main__":  # first, so that Ctrl-C in the imports below is answered too
    from jepa_mpc.cli import run

    run("speed planning")

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import rich
import torch
from gymnasium.spaces import Box
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from jepa_mpc.agent.agent_config import AGENT_PRESETS, AgentConfig
from jepa_mpc.agent.planning_agent import PlanningAgent
from jepa_mpc.cli import parse
from jepa_mpc.errors import UserError
from jepa_mpc.eval.speed.rounds import Results, measurement
from jepa_mpc.eval.speed.stable_worldmodel import stable_worldmodel_solve
from jepa_mpc.settings import Count, Natural
from jepa_mpc.world_model.checkpoint import load_checkpoint
from jepa_mpc.world_model.model.jepa import JEPA, JEPAConfig
from jepa_mpc.world_model.model.predictor import PredictorConfig
from jepa_mpc.world_model.training.config import PRESETS

ACTIONS = Box(-1.0, 1.0, (2,), np.float32)
BLOCK = 5
MATRIX = 1024  # side of the matrices whose product measures the machine
PARTS = ("encode", "rollout", "sampling", "rest")
PAPER_SEARCH = replace(AGENT_PRESETS["lewm"], receding_horizon=1)  # every decision is a search


@dataclass(frozen=True)
class PlanningSpeedConfig:
    """Time decisions of the bundled model and of one of the paper's size."""

    checkpoint: Path = Path("reacher")
    """The bundled model: a checkpoint's folder, or a task's name."""
    num_decisions: Count = 100
    """Decisions of the bundled model, one episode; a batch of 50 takes a tenth, LeWorldModel's search a 20th."""
    paper_decisions: Natural = 3
    """Decisions of the model of the paper's size, at 300 samples × 30 iterations; 0 leaves it out."""
    paper_precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of that model's products."""
    stable_worldmodel: Path | None = None
    """A checkout of stable-worldmodel, whose CEM then plans with a model of the same sizes, in turn with ours."""
    num_threads: Count | None = None
    """Threads of PyTorch; its own choice unless given."""
    output: Path | None = None
    """JSON file to write."""


def paper_model() -> JEPAConfig:
    """Returns the sizes that the preset "paper" trains, of our own predictor, which rolls out by a cache."""
    paper = PRESETS["paper"]
    sizes = {field.name: paper[field.name] for field in fields(JEPAConfig) if field.name in paper}
    ours = PredictorConfig()
    predictor = replace(sizes.pop("predictor"), kind=ours.kind, dropout=ours.dropout, max_len=ours.max_len)
    return JEPAConfig(action_dim=BLOCK * ACTIONS.shape[0], predictor=predictor, **sizes)


def machine_rate() -> float:
    """Returns the multiply-adds a second of one large float32 matrix product."""
    a, b = torch.randn(MATRIX, MATRIX), torch.randn(MATRIX, MATRIX)
    begin = time.perf_counter()
    a @ b
    return MATRIX**3 / (time.perf_counter() - begin)


def count_multiply_adds(work: Callable[[], Any]) -> int:
    """Counts those of matrix products and convolutions, as PyTorch does."""
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


class Decision(NamedTuple):
    """Seconds of a decision and of its parts, and the machine's multiply-adds a second just before."""

    seconds: float
    parts: dict[str, float]
    rate: float


class Subject:
    """An agent in the middle of B episodes, whose next decision can be asked for again and again."""

    def __init__(self, model: JEPA, config: AgentConfig, batch_size: int, history: int):
        self.agent = PlanningAgent(model, ACTIONS, BLOCK, config)
        size = model.config.encoder.image_size
        rng = np.random.default_rng(0)
        self._goals = rng.integers(0, 256, (batch_size, size, size, 3), dtype=np.uint8)
        self._pictures = rng.integers(0, 256, (batch_size, size, size, 3), dtype=np.uint8)
        self._history = history
        self.prepare()
        self.multiply_adds = count_multiply_adds(self.decide)  # which also warms up
        self._watch = Stopwatch()
        for part in ("encode", "rollout"):
            self._watch.watch(self.agent.model, part, part)  # in half precision, the agent's own copy
        self._watch.watch(self.agent._planner, "noise", "sampling")

    def prepare(self) -> None:
        """Plans up to the decision that is to be timed."""
        self.agent.reset(self._goals, range(len(self._goals)))
        for _ in range(self._history - 1):
            self.agent.act(self._pictures)

    def decide(self) -> None:
        self.agent.act(self._pictures)

    def time(self) -> Decision:
        """Times one decision."""
        self.prepare()
        rate = machine_rate()
        self._watch.seconds.clear()
        begin = time.perf_counter()
        self.decide()
        seconds = time.perf_counter() - begin
        parts = {part: self._watch.seconds.get(part, 0.0) for part in PARTS}
        return Decision(seconds, {**parts, "rest": seconds - sum(parts.values())}, rate)

    def row(self, name: str, decisions: Sequence[Decision]) -> Results:
        """Returns medians over decisions: milliseconds, their parts, multiply-adds, the floor and the ratio to it."""
        seconds = np.array([each.seconds for each in decisions])
        rates = np.array([each.rate for each in decisions])
        floors, config = self.multiply_adds / rates, self.agent.config
        return {
            "name": name,
            "batch_size": len(self._goals),
            "samples": config.planner.num_samples,
            "rounds": config.planner.num_iterations,
            "horizon": config.horizon,
            "precision": str(self.agent.model.predictor.position.dtype).removeprefix("torch."),
            "decisions": len(decisions),
            "median_ms": 1e3 * float(np.median(seconds)),
            "p95_ms": 1e3 * float(np.percentile(seconds, 95)),
            **{f"{part}_ms": 1e3 * float(np.median([each.parts[part] for each in decisions])) for part in PARTS},
            "multiply_adds": self.multiply_adds,
            "machine_gmacs": float(np.median(rates)) / 1e9,
            "floor_ms": 1e3 * float(np.median(floors)),
            "times_floor": float(np.median(seconds / floors)),
        }


@measurement
def measure(config: PlanningSpeedConfig) -> Results:
    """Returns a row a subject, and how ours compares with stable-worldmodel's where its checkout is given."""
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    model, _ = load_checkpoint(config.checkpoint)
    if BLOCK * ACTIONS.shape[0] != model.config.action_dim:
        raise UserError(f"{config.checkpoint} takes other actions than are timed here; use one of task reacher")
    solve = None
    if config.stable_worldmodel is not None and config.paper_decisions:
        solve = stable_worldmodel_solve(config.stable_worldmodel, paper_model(), PAPER_SEARCH)
    machine_rate()
    rows = []
    for name, search, batch_size, share in (
        ("bundled", AgentConfig(), 1, 1),
        ("bundled", AgentConfig(), 50, 10),
        ("bundled, LeWorldModel's search", PAPER_SEARCH, 1, 20),
    ):
        subject = Subject(load_checkpoint(config.checkpoint)[0], search, batch_size, AgentConfig.history_len)
        rows.append(subject.row(name, [subject.time() for _ in range(max(1, config.num_decisions // share))]))
    results: Results = {"threads": torch.get_num_threads(), "decisions": rows}
    if config.paper_decisions:
        torch.manual_seed(0)
        paper = JEPA(paper_model()).eval().requires_grad_(False)
        subject = Subject(paper, replace(PAPER_SEARCH, precision=config.paper_precision), 1, history=1)
        ours, theirs = [], []
        for _ in range(config.paper_decisions):
            ours.append(subject.time())
            if solve is not None:
                theirs.append(solve())
        rows.append(subject.row("paper size", ours))
        if theirs:
            results["stable_worldmodel"] = {
                "median_ms": 1e3 * float(np.median(theirs)),
                "decisions": len(theirs),
                "ours_over_theirs": float(np.median([a.seconds / b for a, b in zip(ours, theirs, strict=True)])),
            }
    return results


def table(results: Results) -> Table:
    """Returns a column a subject."""
    rows = results["decisions"]
    title = f"one decision on {results['threads']} thread(s)"
    shown = Table("", *(row["name"] for row in rows), title=title, title_justify="left")
    for key in list(rows[0])[1:]:
        cells = (f"{row[key]:,.1f}" if isinstance(row[key], float) else str(row[key]) for row in rows)
        shown.add_row(key.replace("_", " "), *cells)
    return shown


def main(args: Sequence[str]) -> None:
    results = measure(parse(PlanningSpeedConfig, args))
    rich.print(table(results))
    if (theirs := results.get("stable_worldmodel")) is not None:
        rich.print(
            f"stable-worldmodel's CEM, a model of the paper's size: {theirs['median_ms']:,.0f} ms; "
            f"ours takes {theirs['ours_over_theirs']:.2f} of that"
        )
