"""What a run comes to: dataclasses that are written as `results.json` and read back as what they were."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.agent.rivals import Facts
from jepa_mpc.eval.metrics import Rate, ReturnSummary, SuccessSummary
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
    declared: str = ""  # what the model is told beside one camera's pictures


@dataclass(frozen=True)
class SuiteReturns(ReturnSummary):
    """Returns on one task of the suite, and those of baselines on the same episodes."""

    baselines: dict[str, ReturnSummary]
    returns: list[float]


@dataclass(frozen=True)
class NumberFacts:
    """A number at the end of each episode (E,): what was asked for, what the probe reads, and what is true; None where
    it was free, or is not known.
    """

    name: str
    unit: str
    wraps: bool  # it is an angle that leads all the way round
    median: float  # the probe's error in labels that it was not fitted on
    p90: float  # what nine in ten of those are within
    goal: list[float | None]
    read: list[float | None]
    true: list[float | None]

    @property
    def off(self) -> NDArray[np.float64]:
        """How far episodes ended from their goals, in truth; those of which that is known."""
        return self._apart(self.true, self.goal)

    @property
    def misread(self) -> NDArray[np.float64]:
        """How far the probe's readings were from the truth; those of which that is known."""
        return self._apart(self.true, self.read)

    def _apart(self, one: list[float | None], other: list[float | None]) -> NDArray[np.float64]:
        known = [a - b for a, b in zip(one, other, strict=True) if a is not None and b is not None]
        difference = np.array(known)
        return np.abs((difference + np.pi) % (2 * np.pi) - np.pi if self.wraps else difference)


@dataclass(frozen=True)
class LimitFacts:
    """How often an agent went where it must not, in truth, once it was where it may."""

    steps: float  # share of all environment steps
    episodes: Rate
    farthest: float  # beyond a limit, in units of the probe's error


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
    numbers: list[NumberFacts] = field(default_factory=list)  # where a probe reads them
    limits: LimitFacts | None = None  # where there are some


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
    numbers: list[NumberFacts] = field(default_factory=list)  # where a probe reads them
    limits: LimitFacts | None = None  # where there are some


@dataclass(frozen=True)
class NumberResults(Made, Results):
    """How one episode toward numbers ended."""

    budget: int
    numbers: list[NumberFacts]
    limits: LimitFacts | None = None  # where there are some


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
