"""What a run comes to: dataclasses that are written as `results.json` and read back as what they were."""

from dataclasses import dataclass, field
from typing import Any

from jepa_mpc.agent.rivals import Facts
from jepa_mpc.eval.metrics import ReturnSummary, SuccessSummary
from jepa_mpc.eval.protocols import Rule
from jepa_mpc.eval.trial import EpisodeRecord


@dataclass(frozen=True)
class DecisionTime:
    """Milliseconds of a decision of one episode planned alone, over n of them, and what a deadline cost."""

    median: float
    p95: float
    n: int
    device: str = "cpu"
    deadline_ms: float | None = None
    cut_short: float | None = None  # share of the searches that had less than all their rounds
    mean_rounds: float | None = None
    late: float | None = None  # share of the decisions that took longer than the deadline


@dataclass(frozen=True)
class CheckpointFacts:
    """Which world model it was."""

    path: str
    commit: str
    learning_seconds: float
    metrics: dict[str, Any]


@dataclass(frozen=True)
class SuiteReturns(ReturnSummary):
    """Returns on one task of the suite, and those of baselines on the same episodes."""

    baselines: dict[str, ReturnSummary]
    returns: list[float]


@dataclass(frozen=True)
class Made:
    """Of what it was made, as `provenance` says it."""

    commit: str
    command: str
    date: str
    machine: dict[str, str]


@dataclass(frozen=True)
class Results:
    """What every run says of itself."""

    task: str
    seed: int
    parameters: int  # of the world model
    planner: dict[str, Any]  # all settings of planning, flat
    checkpoint: CheckpointFacts
    wall_seconds: float


@dataclass(frozen=True)
class PairResults(Made, SuccessSummary, Results):
    """Success on a protocol's pairs, with baselines on the same pairs."""

    protocol: Rule
    baselines: dict[str, SuccessSummary]
    decision_ms: DecisionTime
    episodes: list[EpisodeRecord]


@dataclass(frozen=True)
class SuiteResults(Made, Results):
    """Returns on the control suite's own tasks."""

    protocol: dict[str, Any]  # its name, and the control steps of an episode
    suite: dict[str, SuiteReturns]
    decision_ms: DecisionTime


@dataclass(frozen=True)
class PictureResults(Made, Results):
    """How near one episode came to a picture of the user's. Its state is unknown, so success is not decided."""

    goal_image: str
    budget: int
    latent_distance: dict[str, float]  # at the start, at its nearest, and in the end
    nearest_step: int


@dataclass(frozen=True)
class Success(SuccessSummary):
    """Success under a protocol, within a budget of environment steps."""

    budget: int


@dataclass(frozen=True)
class Point:
    """An agent at some time of its training."""

    facts: Facts
    protocols: dict[str, Success]
    suite: dict[str, ReturnSummary]


@dataclass(frozen=True)
class AgentRow(Made, Point):
    """An agent of one seed of learning, after its training."""

    decision_ms: float  # median
    decision_steps: int  # that a decision is for
    multiply_adds: float  # of a decision
    curve: list[Point]  # the agent along its training, on fewer pairs
    training_returns: list[tuple[int, float]] = field(default_factory=list)  # by step, on a training task of its own
    baseline_returns: dict[str, Any] = field(default_factory=dict)  # of agents that do not learn, on that task
