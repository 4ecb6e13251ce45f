"""Goals and limits by numbers, in a world whose numbers are known: z is the point itself."""

import math

import numpy as np
import pytest
import torch
from test_agent import BLOCK, SEARCH, SPACE, PointModel, picture_of

from jepa_mpc.agent.agent_config import AgentConfig
from jepa_mpc.agent.numbers import NumberOptions, Numbers, read_box, read_goal
from jepa_mpc.agent.planning_agent import PlanningAgent
from jepa_mpc.errors import UserError
from jepa_mpc.world_model.probe import Coordinate, Probe, ProbeInfo

X, Y = (Coordinate(name, False, False, 0, 14, 0.05, 0.1) for name in "xy")
ANGLE = Coordinate("turn", True, True, -3.1, 3.1, 0.05, 0.1)


class Plain(Probe):
    """Reads each number of the embedding as it is."""

    embed_dim = 2

    def __init__(self, *coordinates):
        self.info = ProbeInfo(coordinates, "", 10, 1.0, 0.01)

    def __call__(self, z):
        return z


def drive(goal, numbers, start=(4, 6), num_blocks=12, **settings):
    """Acts toward a goal; returns where each block ended (K, 2)."""
    agent = PlanningAgent(PointModel(), SPACE, BLOCK, AgentConfig(SEARCH, "latent", **settings), numbers=numbers)
    place = np.array(start, float)
    agent.reset(goal, [0])
    ends = []
    for _ in range(num_blocks):
        place = place + agent.act(picture_of(place)[None])[0].sum(0)
        ends.append(place)
    return np.array(ends)


def test_a_goal_by_numbers_is_reached_and_what_is_not_named_is_free():
    ends = drive({"x": 12.0}, Numbers(Plain(X, Y)))
    assert abs(ends[-1][0] - 12) < 0.2
    assert drive({"x": 12.0, "y": 3.0}, Numbers(Plain(X, Y)))[-1] == pytest.approx([12, 3], abs=0.3)


def test_a_goal_of_each_episode():
    agent = PlanningAgent(PointModel(), SPACE, BLOCK, AgentConfig(SEARCH, "latent"), numbers=Numbers(Plain(X, Y)))
    agent.reset({"x": [2.0, 8.0], "y": 6.0}, [0, 1])
    here = np.stack([picture_of((5, 6))] * 2)
    left, right = agent.act(here).sum(1)[:, 0]
    assert left < -1 < 1 < right


def test_distance_is_in_units_of_the_error_and_round_the_circle():
    numbers = Numbers(Plain(ANGLE, Y))
    z = torch.tensor([[[3.1, 5.3]]])
    goal = numbers.goal({"turn": -3.1, "y": 5.0}, 1)
    expected = math.hypot((2 * math.pi - 6.2) / 0.1, 0.3 / 0.1)
    assert float(numbers.distance(z, goal)) == pytest.approx(expected, rel=1e-4)
    assert float(numbers.distance(z, numbers.goal({"y": 5.0}, 1))) == pytest.approx(3, rel=1e-4)


def test_depth_in_a_range_in_a_box_and_across_the_turn():
    point = torch.tensor([5.0, 6.0])
    assert float(Numbers(Plain(X, Y), keep={"x": (4, 9)}).inside(point)) == pytest.approx(10)
    assert float(Numbers(Plain(X, Y), keep={"x": (5.5, math.inf)}).inside(point)) == pytest.approx(-5)
    assert float(Numbers(Plain(X, Y), avoid=[{"x": (4, 9), "y": (5.5, 8)}]).inside(point)) == pytest.approx(-5)
    assert float(Numbers(Plain(X, Y), avoid=[{"x": (4, 9), "y": (7, 8)}]).inside(point)) == pytest.approx(10)
    across = Numbers(Plain(ANGLE, Y), keep={"turn": (3, 4)})
    assert float(across.inside(torch.tensor([-3.0, 0.0]))) == pytest.approx(10 * (2 * math.pi - 3 - 3), rel=1e-4)
    assert float(across.inside(torch.tensor([2.9, 0.0]))) == pytest.approx(-1, rel=1e-3)


def test_the_toll_begins_two_errors_before_the_limit_and_is_that_of_the_worst_moment():
    numbers = Numbers(Plain(X, Y), keep={"x": (4, 9)})
    futures = torch.tensor([[[5.0, 0], [6.0, 0]], [[8.95, 0], [6.0, 0]], [[5.0, 0], [9.2, 0]]])[None]
    toll = numbers.toll(futures, torch.tensor([[6.0, 0]]))
    torch.testing.assert_close(toll, torch.tensor([[0.0, 1.5, 4.0]]), atol=1e-4, rtol=0)


def test_a_block_that_leaps_through_a_box_pays():
    box = Numbers(Plain(X, Y), avoid=[{"x": (6, 8), "y": (4, 8)}])
    leaps, passes = torch.tensor([[[9.0, 6]], [[9.0, 9]]])[None].unbind(1)
    now = torch.tensor([[4.0, 6]])
    assert float(box.toll(leaps[:, None], now)) == pytest.approx(2 + 10)  # at 7, a whole unit of x from either side
    assert float(box.toll(passes[:, None], torch.tensor([[4.0, 9]]))) == 0
    turn = Numbers(Plain(ANGLE, Y), avoid=[{"turn": (3.0, 3.3)}])
    assert float(turn.toll(torch.tensor([[[[-2.5, 0.0]]]]), torch.tensor([[2.5, 0.0]]))) > 2  # across the turn
    assert float(turn.toll(torch.tensor([[[[-1.5, 0.0]]]]), torch.tensor([[1.5, 0.0]]))) == 0  # the other way


def test_a_box_is_kept_out_of_that_would_be_gone_through():
    box = {"x": (6.0, 10.0), "y": (4.0, 8.0)}  # wider than a block is long, so that none leaps it

    def touched(numbers, goal):
        x, y = drive(goal, numbers, horizon=3).T
        return ((x > 6) & (x < 10) & (y > 4) & (y < 8)).any()

    beyond = np.array(picture_of((12, 6)))[None]
    for goal in ({"x": 12.0, "y": 6.0}, beyond):  # toward a picture as well
        assert touched(Numbers(Plain(X, Y)), goal)
        assert not touched(Numbers(Plain(X, Y), avoid=[box]), goal)


def test_a_range_is_kept_to_and_returned_to():
    keep = Numbers(Plain(X, Y), keep={"x": (3.0, 7.0)})
    away = np.array(picture_of((12, 6)))[None]
    x = drive(away, keep)[:, 0]
    assert 6 < x[-1] < 7
    assert (x < 7).all()
    assert drive({"y": 6.0}, keep, start=(12, 6))[-1][0] < 7


def test_without_weight_a_limit_only_is_known():
    free = Numbers(Plain(X, Y), keep={"x": (3.0, 7.0)}, weight=0.0)
    assert drive(np.array(picture_of((12, 6)))[None], free)[-1][0] > 11


def test_an_agent_says_what_it_reads():
    agent = PlanningAgent(PointModel(), SPACE, BLOCK, AgentConfig(SEARCH, "latent"), numbers=Numbers(Plain(X, Y)))
    read = agent.read(np.stack([picture_of((3, 4)), picture_of((5, 6))]))
    np.testing.assert_allclose(read["x"], [3, 5])
    np.testing.assert_allclose(read["y"], [4, 6])


@pytest.mark.parametrize(
    ("goal", "limits", "line"),
    [
        ({}, {}, "must name at least one"),
        ({"z": 1.0}, {}, "goal: the probe reads x, y, and no 'z'"),
        ({"x": math.nan}, {}, "goal x must be finite, not nan"),
        ({"x": "far"}, {}, "goal x must be a number, or one of each of 1 episodes, not 'far'"),
        ({"x": [1.0, 2.0]}, {}, "goal x must be a number, or one of each of 1 episodes"),
        ({"x": 8.0}, {"keep": {"x": (3, 7)}}, "goal x=8 lies where --keep or --avoid forbids to go"),
        ({"x": 5.0, "y": 5.0}, {"avoid": [{"x": (3, 7), "y": (4, 6)}]}, "goal x=5, y=5 lies where"),
    ],
)
def test_goals_that_cannot_be_are_named(goal, limits, line):
    numbers = Numbers(Plain(X, Y), **limits)
    agent = PlanningAgent(PointModel(), SPACE, BLOCK, AgentConfig(SEARCH, "latent"), numbers=numbers)
    with pytest.raises(UserError, match=line):
        agent.reset(goal, [0])


def test_a_goal_with_a_free_number_may_still_keep_out_of_a_box():
    Numbers(Plain(X, Y), avoid=[{"x": (3, 7), "y": (4, 6)}]).goal({"x": 5.0}, 1)


def test_a_goal_beyond_what_was_seen_is_warned_of():
    with pytest.warns(UserWarning, match="goal x=20 is outside what the probe was fitted on, 0 to 14"):
        Numbers(Plain(X, Y)).goal({"x": 20.0}, 1)


@pytest.mark.parametrize(
    ("limits", "line"),
    [
        ({"keep": {"x": (7, 3)}}, "keep x=7..3 holds nothing"),
        ({"keep": {"x": (math.nan, 3)}}, "holds nothing"),
        ({"keep": {"x": (-math.inf, math.inf)}}, "holds everything"),
        ({"keep": {"w": (1, 3)}}, "keep: the probe reads turn, x, and no 'w'"),
        ({"keep": {"x": 3}}, "keep x must be two numbers, least and most, not 3"),
        ({"keep": {"turn": (0, math.inf)}}, "goes all the way round"),
        ({"keep": {"turn": (-4, 4)}}, "goes all the way round"),
        ({"keep": {"turn": (30, 60)}}, "keep turn=30..60 is more than a turn; angles are in radians"),
        ({"keep": {"turn": (-math.inf, 90)}}, "keep turn=-inf..90 is more than a turn"),
        ({"avoid": [{}]}, "avoid must name at least one number"),
    ],
)
def test_limits_that_cannot_be_are_named(limits, line):
    with pytest.raises(UserError, match=line):
        Numbers(Plain(ANGLE, X), **limits)


def test_angles_of_goals_are_in_radians():
    with pytest.raises(UserError, match="goal turn=-90 is more than a turn; angles are in radians"):
        Numbers(Plain(ANGLE, X)).goal({"turn": [0.5, -90.0]}, 2)


def test_a_range_beyond_what_was_seen_is_warned_of():
    with pytest.warns(UserWarning, match=r"keep x=20\.\.30 holds nothing that the probe was fitted on, 0 to 14"):
        Numbers(Plain(X, Y), keep={"x": (20, 30)})


def test_a_range_narrower_than_the_error_is_warned_of():
    with pytest.warns(UserWarning, match="narrower than twice the probe's error"):
        Numbers(Plain(X, Y), keep={"x": (3, 3.1)})


def test_an_agent_without_a_probe_says_what_it_needs():
    agent = PlanningAgent(PointModel(), SPACE, BLOCK, AgentConfig(SEARCH, "latent"))
    with pytest.raises(UserError, match="a goal by numbers needs a probe"):
        agent.reset({"x": 1.0}, [0])
    with pytest.raises(UserError, match="to read numbers, an agent needs a probe"):
        agent.read(picture_of((3, 4)))


def test_a_probe_of_other_embeddings_is_refused():
    probe = Plain(X, Y)
    probe.embed_dim = 3
    with pytest.raises(UserError, match="this probe reads embeddings of 3 numbers, not this model's"):
        PlanningAgent(PointModel(), SPACE, BLOCK, AgentConfig(SEARCH, "latent"), numbers=Numbers(probe))


def test_a_failed_reset_leaves_the_agent_where_it_was():
    blocks = []
    for disturbed in (False, True):
        agent = PlanningAgent(PointModel(), SPACE, BLOCK, AgentConfig(SEARCH, "latent"), numbers=Numbers(Plain(X, Y)))
        agent.reset({"x": 9.0}, [0])
        agent.act(picture_of((4, 6))[None])
        if disturbed:
            with pytest.raises(UserError):
                agent.reset({"x": 3.0, "z": 1.0}, [0])
        blocks.append(agent.act(picture_of((5, 6))[None]))
    np.testing.assert_array_equal(*blocks)


def test_words_are_read():
    assert read_goal(("shoulder=0.3", "wrist=-1.2")) == {"shoulder": 0.3, "wrist": -1.2}
    assert read_goal(("shoulder", "wrist")) == {"shoulder": None, "wrist": None}
    assert read_box(("a=-1..1", "b=..2", "c=0.5.."), "--keep") == {
        "a": (-1, 1),
        "b": (-math.inf, 2),
        "c": (0.5, math.inf),
    }


@pytest.mark.parametrize(
    ("read", "line"),
    [
        (lambda: read_goal(("a=1", "a=2")), "--goal-state 'a=2' must name a number, and each but once"),
        (lambda: read_goal(("=1",)), "must name a number"),
        (lambda: read_goal(("a=inf",)), "'inf' is no finite number; write NAME=NUMBER"),
        (lambda: read_goal(("a=1", "b")), "give each name a number, or none"),
        (lambda: read_box(("a=1",), "--keep"), "--keep 'a=1' is no range; write NAME=LEAST..MOST"),
        (lambda: read_box(("a=x..1",), "--avoid"), "--avoid 'a=x..1': 'x' is no finite number"),
        (lambda: NumberOptions(keep=("a=1..2",)).numbers("reacher"), "--keep needs a probe that reads it"),
    ],
)
def test_words_that_cannot_be_read_are_named(read, line):
    with pytest.raises(UserError, match=line):
        read()
