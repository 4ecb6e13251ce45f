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
from typing import Any, Literal

import numpy as np
import rich
import torch
from gymnasium.spaces import Box
from torch.utils.flop_counter import FlopCounterMode

from jepa_mpc.agent.agent_config import AGENT_PRESETS, AgentConfig
from jepa_mpc.agent.planning_agent import PlanningAgent
from jepa_mpc.cli import parse
from jepa_mpc.errors import UserError
from jepa_mpc.eval.speed.harness import Results, in_turn, measurement, show
from jepa_mpc.eval.speed.stable_worldmodel import stable_worldmodel_solve
from jepa_mpc.settings import Count, Natural
from jepa_mpc.world_model.checkpoint import load_checkpoint
from jepa_mpc.world_model.model.jepa import JEPA, JEPAConfig
from jepa_mpc.world_model.model.predictor import PredictorConfig
from jepa_mpc.world_model.training.config import TRAIN_PRESETS

ACTIONS = Box(-1.0, 1.0, (2,), np.float32)
BLOCK = 5
MATRIX = 1024  # side of the matrices whose product measures the machine
PARTS = ("encode", "rollout", "sampling")
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
    paper = TRAIN_PRESETS["paper"]
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


def stopwatch(owner: Any, method: str, seconds: dict[str, float], name: str) -> None:
    """Replaces `owner.method` by one that adds the time spent inside to `seconds[name]`."""
    function = getattr(owner, method)

    def timed(*args, **kwargs):
        begin = time.perf_counter()
        result = function(*args, **kwargs)
        seconds[name] += time.perf_counter() - begin
        return result

    object.__setattr__(owner, method, timed)


class Subject:
    """An agent in the middle of B episodes, whose next decision can be asked for again and again."""

    def __init__(self, model: JEPA, config: AgentConfig, batch_size: int, history: int):
        self.agent = PlanningAgent(model, ACTIONS, BLOCK, config)
        size = model.config.encoder.picture_size
        self._goals, self._pictures = np.random.default_rng(0).integers(0, 256, (2, batch_size, *size, 3), np.uint8)
        self._history = history
        self.prepare()
        self.multiply_adds = count_multiply_adds(self.decide)  # which also warms up
        self._inside = dict.fromkeys(PARTS, 0.0)
        for part in ("encode", "rollout"):
            stopwatch(self.agent.model, part, self._inside, part)  # in half precision, the agent's own copy
        stopwatch(self.agent._planner, "noise", self._inside, "sampling")

    def prepare(self) -> None:
        """Plans up to the decision that is to be timed."""
        self.agent.reset(self._goals, range(len(self._goals)))
        for _ in range(self._history - 1):
            self.agent.act(self._pictures)

    def decide(self) -> None:
        self.agent.act(self._pictures)

    def time(self) -> dict[str, float]:
        """Times one decision: seconds of it and of its parts, the machine's multiply-adds a second just before, and
        seconds at that rate.
        """
        self.prepare()
        rate = machine_rate()
        self._inside.update(dict.fromkeys(PARTS, 0.0))
        begin = time.perf_counter()
        self.decide()
        seconds = time.perf_counter() - begin
        parts = {**self._inside, "rest": seconds - sum(self._inside.values())}
        return {"seconds": seconds, **parts, "rate": rate, "floor": self.multiply_adds / rate}

    def row(self, name: str, decisions: Sequence[dict[str, float]]) -> Results:
        """Returns medians over decisions: milliseconds, their parts, multiply-adds, the floor and the ratio to it."""
        of = {key: np.array([each[key] for each in decisions]) for key in decisions[0]}
        ms, config = {key: 1e3 * float(np.median(values)) for key, values in of.items()}, self.agent.config
        return {
            "name": name,
            "batch_size": len(self._goals),
            "samples": config.planner.num_samples,
            "rounds": config.planner.num_iterations,
            "horizon": config.horizon,
            "precision": str(self.agent.model.predictor.position.dtype).removeprefix("torch."),
            "decisions": len(decisions),
            "median_ms": ms["seconds"],
            "p95_ms": 1e3 * float(np.percentile(of["seconds"], 95)),
            **{f"{part}_ms": ms[part] for part in (*PARTS, "rest")},
            "multiply_adds": self.multiply_adds,
            "machine_gmacs": float(np.median(of["rate"])) / 1e9,
            "floor_ms": ms["floor"],
            "times_floor": float(np.median(of["seconds"] / of["floor"])),
        }


@measurement
def measure(config: PlanningSpeedConfig) -> Results:
    """Returns a row a subject, and how ours compares with stable-worldmodel's where its checkout is given."""
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    model, _ = load_checkpoint(config.checkpoint)
    if BLOCK * ACTIONS.shape[0] != model.config.action_dim:
        raise UserError(f"{config.checkpoint} takes other actions than are timed here; use one of task reacher")
    theirs: dict[str, Callable[[], Any]] = {}
    if config.stable_worldmodel is not None and config.paper_decisions:
        theirs["theirs"] = stable_worldmodel_solve(config.stable_worldmodel, paper_model(), PAPER_SEARCH)
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
        found = in_turn({"ours": subject.time, **theirs}, config.paper_decisions)
        rows.append(subject.row("paper size", found["ours"]))
        if theirs:
            ours = [each["seconds"] for each in found["ours"]]
            results["stable_worldmodel"] = {
                "median_ms": 1e3 * float(np.median(found["theirs"])),
                "decisions": len(ours),
                "ours_over_theirs": float(np.median(np.divide(ours, found["theirs"]))),
            }
    return results


def main(args: Sequence[str]) -> None:
    results = measure(parse(PlanningSpeedConfig, args))
    columns = {f"{row['name']}, {row['batch_size']} at once": row for row in results["decisions"]}
    figures = list(results["decisions"][0])[2:]
    show({figure: {name: row[figure] for name, row in columns.items()} for figure in figures})
    if (theirs := results.get("stable_worldmodel")) is not None:
        rich.print(
            f"stable-worldmodel's CEM, a model of the paper's size: {theirs['median_ms']:,.0f} ms; "
            f"ours takes {theirs['ours_over_theirs']:.2f} of that"
        )
