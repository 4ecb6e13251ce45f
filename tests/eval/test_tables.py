"""What the tables of agents, planners and speeds are made of: every figure by hand, or by another way to it."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from line import LINE, Line, register, x_of

from jepa_mpc.agent.agent_config import AGENT_PRESETS
from jepa_mpc.agent.base import DoNothingAgent, RandomAgent
from jepa_mpc.agent.rivals import NOTHING
from jepa_mpc.envs import SuiteTask
from jepa_mpc.eval.metrics import Rate, summarise
from jepa_mpc.eval.pairs import held_out_pairs
from jepa_mpc.eval.protocols import PROTOCOLS
from jepa_mpc.eval.results import AgentRow, DecisionTime, Success
from jepa_mpc.eval.tables import agent_plots, planners
from jepa_mpc.eval.tables.agents import multiply_adds, score
from jepa_mpc.eval.tables.planners import PlannerRow, PlannersConfig
from jepa_mpc.eval.trial import EpisodeRecord, Trial
from jepa_mpc.planners import PLANNERS


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # pairs are stored under the present folder
    monkeypatch.setenv("JEPA_MPC_HOME", str(tmp_path))


@pytest.fixture
def line(monkeypatch):
    suite = SuiteTask("line-right", Line, lambda env: np.array([5.0]))
    return register(monkeypatch, replace(LINE, suite=(suite,), action_repeat=2))


class Homing:
    """Goes to the goal that it is shown, and multiplies a matrix (3, 4) by one (4, 5) in every second decision."""

    action_block = 2

    def reset(self, goals, seeds):
        self.goals, self.decisions = goals, 0

    def act(self, pictures):
        self.decisions += 1
        if self.decisions % 2 == 1:
            _ = torch.ones(3, 4) @ torch.ones(4, 5)
        ahead = (x_of(self.goals) - x_of(pictures))[:, None]
        return np.clip(np.concatenate([ahead, ahead - np.clip(ahead, -1, 1)], 1), -1, 1)[..., None].astype(np.float32)


def test_an_agents_score_is_what_its_episodes_come_to(line, tmp_path):
    point = score(Homing(), NOTHING, "line", 3, 5, 4, "homing")
    protocols, suite = point.protocols, point.suite
    for name, far, budget in (("standard", False, 6), ("far", True, 8)):
        pairs = held_out_pairs(Line(), line, 3, 5, tmp_path / "others", far)
        records, _ = Trial(Line(), line, pairs, PROTOCOLS[name], seed=3, budget=budget).run(Homing())
        assert asdict(protocols[name]) == {"budget": budget, **asdict(summarise(records, budget))}
    assert protocols["standard"].success_rate == 1  # goals that 4 random steps reached
    (returns,) = suite.values()
    assert returns.num_episodes == 4
    # 500 decisions' worth of steps, from a start that is a whole number to 5, where every further step earns 5.
    starts = [5 - away for away in range(11)]
    possible = {2500 - sum(range(5 - start)) for start in starts}
    assert returns.minimum in possible
    assert returns.minimum <= returns.mean <= 2500
    still = score(DoNothingAgent(Line().action_space, 2), NOTHING, "line", 3, 5, 4, "still").suite
    assert still["line-right"].mean % 125 == 0  # whole numbers, 500 steps each, over four episodes
    assert still["line-right"].mean < returns.mean


def test_multiply_adds_are_a_mean_over_decisions_and_none_without_torch(line, tmp_path):
    pairs = held_out_pairs(Line(), line, 0, 1, tmp_path)
    trial = Trial(Line(), line, pairs, PROTOCOLS["standard"], seed=0, budget=6)
    assert multiply_adds(Homing(), trial) == 3 * (3 * 4 * 5) / 5  # three of five
    assert multiply_adds(RandomAgent(Line().action_space, 2), trial) == 0


def test_success_is_plotted_over_steps_and_over_minutes_of_learning(monkeypatch, tmp_path):
    drawn, nothing = [], {"commit": "", "command": "", "date": "", "machine": {}}
    monkeypatch.setattr(agent_plots, "save", lambda figure, path: drawn.append(figure))
    episodes = [EpisodeRecord(i, i < 3, 1 if i < 3 else None, None, None, None, 0.0, 0.0, 0.0) for i in range(4)]
    far = Success(**vars(summarise(episodes, 10)), budget=10)
    facts = replace(NOTHING, steps=5000, learning_seconds=720.0)
    row = AgentRow(facts, {"far": far}, {}, **nothing, decision_ms=1.0, decision_steps=5, multiply_adds=0.0, curve=[])
    agent_plots.plot_success(tmp_path / "success.png", {"her": [row]})
    (figure,) = drawn
    points = [axes.get_lines()[0].get_xydata().tolist() for axes in figure.axes]
    assert points == [[[5000, 75]], [[12, 75]]]
    assert "steps" in figure.axes[0].get_xlabel()
    assert "minutes" in figure.axes[1].get_xlabel()


def test_planners_are_measured_at_a_third_the_default_and_thrice_the_search():
    by_name = planners.settings()
    for planner, scaled in (("cem", "num_iterations"), ("mppi", "num_iterations"), ("gradient", "num_gradient_steps")):
        default = getattr(PLANNERS[planner](), scaled)
        sizes = [getattr(by_name[f"{planner}-latent-{size}"].planner, scaled) for size in ("small", "default", "large")]
        assert sizes == [round(default / 3), default, 3 * default]
    for name, config in by_name.items():
        assert name == "leworldmodel" or config.objective == name.split("-")[-2]
    assert by_name["leworldmodel"] == AGENT_PRESETS["lewm"]


def test_the_planners_table_is_in_the_order_of_holding():
    whole = summarise([EpisodeRecord(0, True, 1, 1, 1, 1, 0.0, 0.0, 0.0)], 10)

    def row(held, median):
        figures = {"first_hit": Rate(0.9, 0.8, 0.95), "held": Rate(held, 0.1, 0.7), "strict": Rate(0.25, 0, 1)}
        time = DecisionTime(median, 2 * median, 60)
        return PlannerRow(**{**vars(whole), **figures}, decision_ms=time, commit="", command="", date="", machine={})

    text = planners.table({"a": row(0.2, 5.0), "b": row(0.6, 9.0), "c": row(0.6, 3.0)}, PlannersConfig(num_episodes=50))
    assert "`jepa-mpc benchmark planners --task reacher` on 50 far pairs of seed 0" in text
    *_, first, second, third = text.splitlines()
    assert first == "| [c](c.json) | 90 [80, 95] | 60 [10, 70] | 25 | 3.0 (6.0) |"
    assert second.startswith("| [b](")
    assert third.startswith("| [a](")
