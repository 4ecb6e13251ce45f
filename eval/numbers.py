"""What a probe's numbers are in truth: goals of pairs told by numbers, and how near and how obedient an agent was.

The truth is the simulator's, and never reaches the agent, but for the numbers of the goals that it is asked for.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from jepa_mpc.agent.numbers import Numbers
from jepa_mpc.agent.planning_agent import PlanningAgent
from jepa_mpc.envs import PixelEnv
from jepa_mpc.eval.metrics import rate
from jepa_mpc.eval.pairs import Pairs
from jepa_mpc.eval.results import LimitFacts, NumberFacts
from jepa_mpc.eval.trial import Camera, EpisodeTrace
from jepa_mpc.world_model.probe import Probe

Labels = Callable[[NDArray[np.float64]], dict[str, NDArray[np.float64]]]  # of poses (..., Q)


class Truth:
    """The probe's numbers as the simulator has them; NaN where it does not know one.

    Args:
        env: the simulator.
        probe: whose numbers.
        labels: what makes other numbers of poses.
    """

    def __init__(self, env: PixelEnv, probe: Probe, labels: Labels | None = None):
        self._env, self.coordinates, self._labels = env, probe.coordinates, labels

    def of_poses(self, qpos: NDArray[np.floating]) -> NDArray[np.float64]:
        """Returns the numbers (..., P) of poses (..., Q)."""
        columns = np.moveaxis(np.asarray(qpos, float), -1, 0)
        known = {f"qpos{index}": column for index, column in enumerate(columns)}
        known |= dict(zip(self._env.names, columns, strict=False))
        known |= self._labels(np.asarray(qpos, float)) if self._labels else {}
        return np.stack([known.get(each.name, np.full(columns.shape[1:], np.nan)) for each in self.coordinates], -1)

    def of_states(self, states: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the numbers (T, P) of simulator states (T, S)."""
        poses = []
        for state in states:
            self._env.set_state(state)
            poses.append(np.array(self._env.qpos))
        return self.of_poses(np.stack(poses))

    def goals(self, pairs: Pairs, names: Sequence[str] = ()) -> NDArray[np.float64]:
        """Returns the numbers (N, P) of pairs' goals; of those names alone, if there are any, and NaN for others."""
        numbers = self.of_poses(pairs.goal_qpos)
        free = [bool(names) and each.name not in names for each in self.coordinates]
        return np.where(free, np.nan, numbers)


class NumberGoals(Camera):
    """Tells the goals of pairs by numbers, and not by pictures."""

    def __init__(self, truth: Truth, names: Sequence[str]):
        self._truth, self._names = truth, names

    def goals(self, env, pairs, first):
        told = self._truth.goals(pairs, self._names).T
        return {each.name: told[i] for i, each in enumerate(self._truth.coordinates) if each.name in self._names}


def allowed(numbers: Numbers, truth: Truth, pairs: Pairs) -> NDArray[np.int64]:
    """Returns which of the pairs (N,) begin and end where the agent may be, as far as that is known."""
    ends = truth.of_states(pairs.start_state), truth.of_poses(pairs.goal_qpos)
    forbidden = [_inside(numbers, each) < 0 for each in ends]
    return np.flatnonzero(~(forbidden[0] | forbidden[1]))


def number_facts(
    agent: PlanningAgent, truth: Truth, goal: NDArray[np.float64], traces: Sequence[EpisodeTrace]
) -> list[NumberFacts]:
    """Returns how each number ended (E,) beside the goals (E, P), NaN where free."""
    felt = np.stack([trace.proprio[-1] for trace in traces]) if agent.num_proprio else None
    read = agent.read(np.stack([trace.pictures[-1] for trace in traces]), felt)
    true = truth.of_states(np.stack([trace.states[-1] for trace in traces]))
    return [
        NumberFacts(
            each.name,
            each.unit.strip(),
            each.wraps,
            each.median,
            each.p90,
            *(_known(values) for values in (goal[:, index], read[each.name], true[:, index])),
        )
        for index, each in enumerate(truth.coordinates)
    ]


def limit_facts(numbers: Numbers, truth: Truth, traces: Sequence[EpisodeTrace]) -> LimitFacts | None:
    """Returns how often the agent went where it must not, once it was where it may (from the start, if it never was);
    None if that is not known.
    """
    beyond = []
    for trace in traces:
        inside = _inside(numbers, truth.of_states(trace.states))
        if np.isnan(inside).any():
            return None
        entered = np.maximum.accumulate(inside >= 0) | (inside < 0).all()
        beyond.append(np.where(entered, np.maximum(-inside, 0), 0))
    steps = np.concatenate(beyond)
    return LimitFacts(
        float((steps > 0).mean()), rate(sum(bool(each.any()) for each in beyond), len(beyond)), float(steps.max())
    )


def _inside(numbers: Numbers, values: NDArray[np.float64]) -> NDArray[np.float64]:
    return numbers.inside(torch.from_numpy(values)).numpy()


def _known(values: NDArray[np.floating]) -> list[float | None]:
    return [None if np.isnan(value) else round(float(value), 5) for value in values]
