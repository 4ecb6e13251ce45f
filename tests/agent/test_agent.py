import contextlib
import dataclasses
import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import CHECKPOINT, ROOT

from jepa_mpc import envs
from jepa_mpc.agent.agent_config import AGENT_PRESETS, AgentConfig, planning_of
from jepa_mpc.agent.base import DoNothingAgent, RandomAgent
from jepa_mpc.agent.planning_agent import PlanningAgent
from jepa_mpc.errors import UserError
from jepa_mpc.eval import run_planning
from jepa_mpc.planners import PLANNERS, CEMConfig, ICEMConfig, MPPIConfig
from jepa_mpc.settings import read, to_json
from jepa_mpc.world_model.latent_policy.policy import Regression
from jepa_mpc.world_model.latent_policy.retrieval import Retrieval, RetrievalConfig
from jepa_mpc.world_model.model.encoder import EncoderConfig
from jepa_mpc.world_model.model.jepa import JEPA, JEPAConfig
from jepa_mpc.world_model.model.predictor import PredictorConfig
from jepa_mpc.world_model.model.surprise import UsualMiss

SPACE = gym.spaces.Box(np.array([-1, -2], np.float32), np.array([1, 0.5], np.float32))
BLOCK = 3
SEARCH = ICEMConfig(num_samples=40, num_elites=8, warm_std=0.5)


class PointModel(JEPA):
    """A world whose answer is known: z is a point in the plane, drawn as the first two pixels of the picture,
    and a block moves it by the sum of its actions; what the model says of that is wrong by so much."""

    wrong = torch.zeros(2)

    def __init__(self):
        super().__init__(
            JEPAConfig(BLOCK * 2, 2, 4, EncoderConfig(image_size=16), PredictorConfig(width=8, num_heads=1))
        )
        self.seen, self.histories = [], []

    def encode(self, pixels):
        self.seen.append(len(pixels))
        return pixels[..., 0, :2, 0].float() / 10

    def predict(self, z, actions):
        return z + actions.unflatten(-1, (BLOCK, 2)).sum(-2) + self.wrong

    def rollout(self, z_history, past_actions, actions, offset=None):
        self.histories.append((z_history, past_actions))
        moves = self.predict(torch.zeros(2), actions) + (0 if offset is None else offset[:, None, None])
        return z_history[:, None, None, -1] + moves.cumsum(2)


def picture_of(point):
    picture = np.zeros((16, 16, 3), np.uint8)
    picture[0, :2, 0] = np.asarray(point) * 10
    return picture


class Answering(Regression):
    """A policy whose block is a function's answer."""

    def __init__(self, function):
        torch.nn.Module.__init__(self)
        self.embed_dim, self.action_dim = 2, 2 * BLOCK
        self.forward = function


def agent_with(proposer=None, **config):
    model = PointModel().eval().requires_grad_(False)
    settings = {"objective": "latent", "effort_weight": 0.0, "planner": SEARCH, **config}
    return PlanningAgent(model, SPACE, BLOCK, AgentConfig(**settings), proposer and Answering(proposer)), model


@pytest.mark.parametrize("planner", PLANNERS)
def test_reaches_the_pictured_point(planner):
    settings = AgentConfig(planner=SEARCH, horizon=3).searched_by(PLANNERS[planner])
    agent, _ = agent_with(planner=settings.planner, horizon=3)
    points = np.array([[10.0, 10.0], [5.0, 20.0]])
    goals = np.array([[14.0, 8.0], [3.0, 12.0]])
    agent.reset(np.stack([picture_of(goal) for goal in goals]), seeds=[0, 1])
    for _ in range(8):
        block = agent.act(np.stack([picture_of(point) for point in points]))
        assert block.shape == (2, BLOCK, 2)
        assert (block >= SPACE.low - 1e-6).all()
        assert (block <= SPACE.high + 1e-6).all()
        points += block.sum(1)
    np.testing.assert_allclose(points, goals, atol=1)  # from up to 8 away


def test_goal_is_encoded_once_and_the_picture_once_a_block():
    agent, model = agent_with(horizon=2)
    agent.reset(np.stack([picture_of((1, 1))] * 4), seeds=range(4))
    for _ in range(3):
        agent.act(np.stack([picture_of((2, 2))] * 4))
    assert model.seen == [4, 4, 4, 4]


def test_history_holds_the_last_real_frames_and_the_blocks_between_them():
    agent, model = agent_with(horizon=2, history_len=3)
    agent.reset(picture_of((1, 1))[None], seeds=[0])
    blocks = [agent.act(picture_of((i, i))[None]) for i in range(5)]
    first, last = model.histories[0], model.histories[-1]
    assert first[0].shape == (1, 1, 2)
    assert first[1] is None
    torch.testing.assert_close(last[0], torch.tensor([[[2.0, 2], [3, 3], [4, 4]]]))
    np.testing.assert_allclose(last[1].unflatten(-1, (BLOCK, 2))[0], np.concatenate(blocks[2:4]))


def test_plans_anew_only_after_the_receding_horizon():
    agent, model = agent_with(horizon=4, receding_horizon=3)
    agent.reset(picture_of((9, 9))[None], seeds=[0])
    decisions = []
    for _ in range(7):
        agent.act(picture_of((1, 1))[None])
        decisions.append(len(model.histories) // SEARCH.num_iterations)
    assert decisions == [1, 1, 1, 2, 2, 2, 3]


def test_an_episode_goes_the_same_alone_as_among_others():
    goals = np.stack([picture_of((i + 3, i)) for i in range(3)])
    agent, _ = agent_with(horizon=3)
    agent.reset(goals, seeds=[7, 8, 9])
    together = [agent.act(np.stack([picture_of((5, 5))] * 3)) for _ in range(2)]
    agent.reset(goals[1:2], seeds=[8])
    alone = [agent.act(picture_of((5, 5))[None]) for _ in range(2)]
    for several, single in zip(together, alone, strict=True):
        np.testing.assert_allclose(several[1], single[0], atol=1e-5)


def test_reset_forgets_the_episode_before():
    agent, _ = agent_with(horizon=3)
    runs = []
    for _ in range(2):
        agent.reset(picture_of((4, 4))[None], seeds=[1])
        runs.append([agent.act(picture_of((i, 9))[None]) for i in range(4)])
    np.testing.assert_array_equal(runs[0], runs[1])


def test_the_seed_decides_the_search():
    agent, _ = agent_with()
    blocks = []
    for seeds in ([0, 1], [1, 0]):
        agent.reset(np.stack([picture_of((4, 4))] * 2), seeds)
        blocks.append(agent.act(np.stack([picture_of((9, 9))] * 2)))
    np.testing.assert_allclose(blocks[0], blocks[1][::-1], atol=1e-6)
    assert np.abs(blocks[0][0] - blocks[0][1]).max() > 0.01


@pytest.mark.parametrize("receding_horizon", [1, 2])
def test_the_next_search_begins_with_what_is_left_of_the_plan(receding_horizon):
    """Around the plan before it hardly looks, so that what it does is that plan, block by block."""
    search = CEMConfig(num_samples=8, num_elites=2, num_iterations=1, init_std=0.5, warm_std=1e-6, min_std=1e-9)
    done = []
    for blocks_at_once in (4, receding_horizon):
        agent, _ = agent_with(planner=search, horizon=4, receding_horizon=blocks_at_once)
        agent.reset(picture_of((5, 5))[None], seeds=[3])
        done.append([agent.act(picture_of((5, 5))[None]) for _ in range(4)])
    np.testing.assert_allclose(done[0], done[1], atol=1e-4)
    assert np.abs(np.diff(done[0], axis=0)).max() > 0.1


@pytest.mark.parametrize(
    ("reduction", "first_block", "second_block", "expected"),
    [
        ("mean", lambda m: 3 * abs(m - 1), lambda m: abs(m + 1) + 1, 1),
        ("terminal", lambda m: 3 * abs(m - 1), lambda m: abs(m + 1) + 1, -1),
        ("mean", lambda m: abs(m - 1), lambda m: 3 * abs(m + 1) + 0.5, -1),
        ("minimum", lambda m: abs(m - 1), lambda m: 3 * abs(m + 1) + 0.5, 1),
    ],
)
def test_the_distance_counts_as_it_is_said_to(reduction, first_block, second_block, expected):
    """Where the first block ends (m) decides what is seen at the end of both."""
    model = PointModel().eval().requires_grad_(False)

    def metric(z, z_before, z_goal):
        m = z[:, :, 0, 0]
        return torch.stack([first_block(m), second_block(m)], dim=-1)

    model.reachability = metric
    search = CEMConfig(num_samples=200, num_elites=20, num_iterations=6)
    config = AgentConfig(planner=search, reduction=reduction, effort_weight=0.0)
    agent = PlanningAgent(model, SPACE, BLOCK, config)
    agent.reset(picture_of((9, 9))[None], seeds=[0])
    assert agent.act(picture_of((0, 0))[None])[0, :, 0].sum() == pytest.approx(expected, abs=0.3)


@pytest.mark.parametrize(("precision", "kept"), [("auto", "float32"), ("float32", "float32"), ("bfloat16", "bfloat16")])
def test_a_narrow_predictor_is_rounded_only_if_asked(precision, kept):
    agent, _ = agent_with(precision=precision)
    assert str(agent.model.predictor.position.dtype) == f"torch.{kept}"


def test_a_checkpoint_brings_its_own_way_to_plan():
    pictures = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), np.uint8)
    for task, policy in (("reacher", None), ("gym/Pusher-v5", "gcbc")):
        agent = PlanningAgent.load(ROOT / "checkpoints" / task)
        space = envs.make(task).action_space
        assert agent.config == planning_of(task)
        assert (agent.config.warm_start == policy) == (policy is not None)
        agent.reset(pictures[:1], [0])
        block = agent.act(pictures[1:])
        assert block.shape == (1, 5, *space.shape)
        assert all(space.contains(action) for action in block[0])
    mine = AgentConfig(horizon=3)
    assert PlanningAgent.load(CHECKPOINT, mine).config == mine


def test_the_papers_search_is_the_papers():
    paper = AGENT_PRESETS["lewm"]
    assert (type(paper.planner), paper.objective, paper.reduction) == (CEMConfig, "latent", "terminal")
    assert (paper.horizon, paper.receding_horizon, paper.effort_weight) == (5, 5, 0)
    search = paper.planner
    assert (search.num_samples, search.num_elites, search.num_iterations, search.init_std) == (300, 30, 30, 1)
    assert search.min_std < 1e-6  # it has no floor
    assert paper.settings()["num_samples"] == 300


def test_effort_makes_the_agent_hold_still_at_its_goal():
    sizes = {}
    for weight in (0.0, 3.0):
        agent, _ = agent_with(effort_weight=weight)
        agent.reset(picture_of((5, 5))[None], seeds=[0])
        sizes[weight] = np.mean([np.square(agent.act(picture_of((5, 5))[None])).mean() for _ in range(5)])
    assert sizes[3.0] < 0.5 * sizes[0.0]


def test_the_reachability_metric_is_what_is_minimised():
    """A metric that sees the first coordinate alone leaves the second where it is."""
    model = PointModel().eval().requires_grad_(False)
    model.reachability = lambda z, z_before, z_goal: (z - z_goal)[..., 0].abs()
    settings = AgentConfig(objective="reachability", effort_weight=0.1, horizon=3, planner=SEARCH)
    agent = PlanningAgent(model, SPACE, BLOCK, settings)
    point = np.array([[10.0, 10.0]])
    agent.reset(picture_of((14, 3))[None], seeds=[0])
    for _ in range(8):
        point += agent.act(picture_of(point[0])[None]).sum(1)
    assert abs(point[0, 0] - 14) < 1
    assert abs(point[0, 1] - 3) > 2  # where latent distance would have brought it within 1


def test_the_metric_is_shown_each_prediction_and_the_one_before_it():
    model, seen = PointModel().eval().requires_grad_(False), []

    def metric(z, z_before, z_goal):
        seen.append((z, z_before))
        return (z - z_goal).norm(dim=-1)

    model.reachability = metric
    agent = PlanningAgent(model, SPACE, BLOCK, AgentConfig(horizon=3, planner=SEARCH))
    picture = picture_of((4, 6))[None]
    agent.reset(picture_of((14, 3))[None], seeds=[0])
    agent.act(picture_of((2, 9))[None])
    seen.clear()
    agent.act(picture)
    now = model.encode(torch.from_numpy(picture))
    for z, z_before in seen:
        torch.testing.assert_close(z_before[:, :, 1:], z[:, :, :-1])
        torch.testing.assert_close(z_before[:, :, 0], now[:, None].expand_as(z_before[:, :, 0]))


def straight(z_before, z, z_goal):
    """Proposes to go straight to the goal, as fast as the bounds let it."""
    return ((z_goal - z) / BLOCK).repeat(1, BLOCK)


def test_without_a_search_the_proposal_is_the_plan():
    agent, _ = agent_with(straight, warm_start="gcbc", planner=ICEMConfig(num_iterations=0))
    agent.reset(picture_of((9, 4))[None], seeds=[0])
    for point, move in (((8, 4), 1 / 3), ((4, 4), 1.0), ((7, 4), 2 / 3)):
        np.testing.assert_allclose(agent.act(picture_of(point)[None])[0], [[move, 0]] * BLOCK, atol=1e-6)


def test_a_policy_alone_is_asked_with_before_now_and_goal_and_kept_within_bounds():
    asked = []

    def policy(z_before, z, z_goal):
        asked.append([point.tolist() for point in (z_before, z, z_goal)])
        return torch.tensor([[3.0, -3.0, 0.25, 0.0, 0.0, 0.0]])

    agent, model = agent_with(policy, warm_start="inverse", planner=ICEMConfig(num_iterations=0))
    agent.reset(picture_of((3, 0))[None], seeds=[0])
    np.testing.assert_allclose(agent.act(picture_of((1, 0))[None])[0], [[1, -2], [0.25, 0], [0, 0]])
    agent.act(picture_of((2, 0))[None])
    agent.act(picture_of((4, 0))[None])
    assert asked == [[[[before, 0]], [[now, 0]], [[3, 0]]] for before, now in ((1, 1), (1, 2), (2, 4))]
    assert not model.histories  # one pass of the policy: the world model foresees nothing


def test_a_proposal_goes_on_from_where_it_has_led():
    asked = []

    def policy(z_before, z, z_goal):
        asked.append((z_before[0].tolist(), z[0].tolist()))
        return torch.tensor([[1.0, 0.0, 1.0, 0.0, 1.0, 0.5 * len(asked)]])  # right by 3, and down

    agent, _ = agent_with(policy, warm_start="inverse", horizon=3)
    agent.reset(picture_of((20, 0))[None], seeds=[0])
    agent.act(picture_of((1, 0))[None])
    assert asked == [([1, 0], [1, 0]), ([1, 0], [4, 0.5]), ([4, 0.5], [7, 1])]  # down by 0.5 at most


def test_what_a_policy_proposes_competes_in_the_search():
    small = ICEMConfig(num_samples=2, num_elites=1, num_iterations=1)
    left = {}
    for name, proposer in (("inverse", straight), ("none", None)):
        agent, _ = agent_with(proposer, warm_start=name, horizon=3, reduction="mean", planner=small)
        points = np.array([[10.0, 10.0], [12.0, 9.0]])
        goals = np.array([[14.0, 6.0], [9.0, 10.0]])
        agent.reset(np.stack([picture_of(goal) for goal in goals]), seeds=[0, 1])
        for _ in range(3):
            points += agent.act(np.stack([picture_of(point) for point in points])).sum(1)
        left[name] = np.linalg.norm(points - goals, axis=1)
    assert (left["inverse"] < 0.3).all()
    assert (left["none"] > 1).all()


BLOCKS = torch.tensor([[1.0, -1.0, -1.0, 0.5, 0.0, 0.0], [0.5, 0.5, 0.5, -2.0, 1.0, 0.0]])
MOVES = BLOCKS.unflatten(-1, (BLOCK, 2)).sum(1)


def memory_of_four(num_near):
    """Four episodes, of which one begins at (10, 10) and does the two blocks, which no search would draw."""
    other = Retrieval(12, 2, 2 * BLOCK, RetrievalConfig(num_near, reach=2, num_plans=4))
    for episode in range(4):
        begin = torch.tensor([10.0, 10.0]) + 5 * (episode != 2)
        rows = slice(3 * episode, 3 * episode + 3)
        other.z[rows] = torch.stack([begin, begin + MOVES[0], begin + MOVES.sum(0)])
        other.action[rows] = torch.stack([*BLOCKS, BLOCKS[1]]) if episode == 2 else torch.zeros(3, 6)
        other.left[rows] = torch.tensor([2, 1, 0])
    return other.eval()


def agent_of_memory(planner, num_near=6, **settings):
    settings = {"objective": "latent", "reduction": "terminal", "effort_weight": 0.0, "horizon": 2, **settings}
    config = AgentConfig(planner=planner, warm_start="retrieval", **settings)
    return PlanningAgent(PointModel().eval(), SPACE, BLOCK, config, memory_of_four(num_near))


def test_what_was_done_before_is_a_plan_alone():
    agent = agent_of_memory(ICEMConfig(num_iterations=0), num_near=1, receding_horizon=2)
    agent.reset(picture_of(10 + MOVES.sum(0))[None], seeds=[0])
    for block in BLOCKS:
        np.testing.assert_allclose(agent.act(picture_of((10, 10))[None])[0].ravel(), block, atol=1e-6)


def test_what_was_done_before_competes_in_every_search():
    """At the second decision the warm start is of a search toward elsewhere; only the memory holds what leads there."""
    agent = agent_of_memory(ICEMConfig(num_samples=2, num_elites=1, num_iterations=1))
    agent.reset(picture_of((5, 5))[None], seeds=[0])
    agent.act(picture_of((20, 5))[None])
    agent._memory = dataclasses.replace(agent._memory, z_goal=(10 + MOVES.sum(0)).view(1, 1, 1, 1, 2))
    block = agent.act(picture_of((10, 10))[None])[0].ravel()
    np.testing.assert_allclose(block, BLOCKS[0], atol=1e-6)


def test_proposals_do_not_pile_up_where_no_round_is_done(clock):
    agent = agent_of_memory(ICEMConfig(num_samples=8, num_elites=2), deadline_ms=1e-6)
    agent.reset(picture_of((10, 10))[None], seeds=[0])
    counts = []
    for _ in range(4):
        clock.tick = 1.0
        agent.act(picture_of((10, 10))[None])
        counts.append(agent._memory.plan.elites.shape[1])
    assert len(set(counts[1:])) == 1


def test_what_was_done_before_says_nothing_of_a_picture_that_is_no_number():
    agent = agent_of_memory(ICEMConfig(num_iterations=0))
    agent.model.encode = lambda pictures, *_: torch.full((*pictures.shape[:-3], 2), torch.nan)
    agent.reset(picture_of((10, 10))[None], seeds=[0])
    with pytest.warns(UserWarning, match="no finite cost"):
        block = agent.act(picture_of((10, 10))[None])[0]
    np.testing.assert_allclose(block, np.broadcast_to((SPACE.low + SPACE.high) / 2, block.shape))


def test_a_policy_of_other_sizes_is_refused():
    other = Retrieval(12, 3, 2 * BLOCK, RetrievalConfig())
    with pytest.raises(UserError, match="embeddings and blocks of"):
        PlanningAgent(PointModel().eval(), SPACE, BLOCK, AgentConfig(objective="latent", warm_start="retrieval"), other)


def test_a_deadline_leaves_rounds_out_and_says_so(clock):
    def rounds_within(milliseconds):
        agent, _ = agent_with(deadline_ms=milliseconds)
        agent.reset(picture_of((5, 5))[None], seeds=[0])
        for _ in range(3):
            agent.act(picture_of((1, 1))[None])
        return agent.rounds_done

    clock.tick = 1e-3  # what a look at the clock takes, and nothing else does
    assert rounds_within(0.001) == [1, 0, 0]
    assert rounds_within(10_000) == [SEARCH.num_iterations] * 3


def test_latent_distance():
    agent, _ = agent_with()
    pictures, goals = np.stack([picture_of((0, 0)), picture_of((3, 4))]), np.stack([picture_of((3, 4))] * 2)
    np.testing.assert_allclose(agent.latent_distance(pictures, goals), [5, 0], atol=1e-5)


class GuessingModel(PointModel):
    """The same world, of which a random predictor is asked."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        for parameter in self.predictor.parameters():
            torch.nn.init.normal_(parameter, std=0.5)

    predict = JEPA.predict
    rollout = JEPA.rollout


USUAL = UsualMiss(2.0, (0.5, 1.0, 4.0))


def surprised(usual=USUAL, planner=SEARCH, gradients=False, **config):
    model = GuessingModel().eval().requires_grad_(gradients)
    model.usual_miss = usual
    settings = AgentConfig(**{"objective": "latent", "effort_weight": 0.0, "planner": planner, **config})
    return PlanningAgent(model, SPACE, BLOCK, settings), model


@pytest.mark.parametrize("history_len", [1, 2, 3])
def test_surprise_pairs_the_last_frames_with_the_blocks_done_there(history_len):
    """Two episodes of seven blocks, at every one of which it is what the predictor says of all that was remembered."""
    agent, model = surprised(history_len=history_len, receding_horizon=2)
    agent.reset(np.stack([picture_of((9, 4)), picture_of((3, 3))]), seeds=[0, 1])
    rng, seen, done = np.random.default_rng(0), [], []
    for step in range(7):
        pictures = np.stack([picture_of(point) for point in rng.integers(0, 20, (2, 2))])
        block = agent.act(pictures)
        if step == 0:
            assert np.isnan(agent.surprise()).all()
        else:
            last = min(history_len, step)
            z, actions = torch.stack(seen[-last:], dim=1), torch.stack(done[-last:], dim=1)
            with torch.no_grad():
                foreseen = model.predict(z, actions)[:, -1]
                miss = (foreseen - model.encode(torch.from_numpy(pictures))).norm(dim=1)
            share = miss / (2 + (foreseen - seen[-1]).norm(dim=1))
            np.testing.assert_allclose(agent.surprise(), share / (0.5, 1.0, 4.0)[last - 1], rtol=1e-4)
        assert agent.surprise().shape == (2,)
        assert agent.surprise().dtype == np.float32
        seen.append(model.encode(torch.from_numpy(pictures)))
        done.append(torch.from_numpy(block.reshape(2, -1).copy()))


def test_to_ask_for_surprise_changes_nothing():
    runs = []
    for asks in (False, True):
        agent, _ = surprised(history_len=2)
        agent.reset(picture_of((9, 4))[None], seeds=[0])
        blocks = []
        for step in range(4):
            blocks.append(agent.act(picture_of((step, 2 * step))[None]))
            if asks:
                _ = agent.surprise()
        runs.append(blocks)
    np.testing.assert_array_equal(*runs)


def test_surprise_of_a_world_that_does_as_foreseen_is_nothing():
    """What moves does so as the model says; then it is pushed by 5 more."""
    agent, model = agent_with(history_len=1)
    model.usual_miss = UsualMiss(2.0, (0.5,))
    agent.reset(picture_of((9, 4))[None], seeds=[0])
    point, moved = np.array([3.0, 4.0]), np.zeros(2)
    for push, expected in ((0, np.nan), (0, 0), (0, 0), (5, 5), (0, 0)):
        point = point + moved + (0, push)
        block = agent.act((picture_of(point.round(1)))[None])[0]
        found = agent.surprise() * (2 + np.linalg.norm(moved)) * 0.5
        np.testing.assert_allclose(found, [expected], atol=0.2)  # pictures round to tenths
        moved = block.sum(0)


@pytest.mark.parametrize("planner", PLANNERS)
def test_what_a_model_always_gets_wrong_does_not_keep_it_from_the_goal(planner):
    """It thinks that all drifts to the left, where nothing does; so it holds against that, to the right of the goal."""
    settings = AgentConfig(planner=SEARCH).searched_by(PLANNERS[planner])
    missed = {}
    for rate in (0.0, 0.3):
        agent, model = agent_with(planner=settings.planner, horizon=1, offset_rate=rate)
        model.wrong = torch.tensor([-0.9, 0.0])
        point, places = np.array([5.0, 10.0]), []
        agent.reset(picture_of((9, 9))[None], seeds=[0])
        for _ in range(30):
            point = point + agent.act(picture_of(point.round(1))[None])[0].sum(0)
            places.append(point[0])
        missed[rate] = np.mean(places[10:]) - 9
    assert missed[0.0] > 0.3
    assert abs(missed[0.3]) < 0.2 * missed[0.0]


def test_a_prediction_that_is_no_number_spoils_none_of_the_later_ones():
    agent, model = agent_with(offset_rate=0.5)
    agent.reset(np.stack([picture_of((5, 5))] * 2), seeds=[0, 1])
    for step, wrong in enumerate(([0.5, 0.0], [0.5, 0.0], [float("nan"), 0.0], [0.5, 0.0])):
        model.wrong = torch.tensor(wrong)
        before = agent._memory.offset.clone()
        with (
            contextlib.nullcontext() if np.isfinite(wrong).all() else pytest.warns(UserWarning, match="no finite cost")
        ):
            agent.act(np.stack([picture_of((4 + step, 6))] * 2))
        if not np.isfinite(wrong).all():
            torch.testing.assert_close(agent._memory.offset, before)
    assert agent._memory.offset.isfinite().all()
    assert agent._memory.offset.abs().max() > 0


def test_the_offset_follows_the_misses_of_each_episode_and_begins_anew():
    agent, model = agent_with(offset_rate=0.25)
    model.wrong = torch.tensor([-0.5, 0.25])
    for _ in range(2):
        agent.reset(np.stack([picture_of((5, 5))] * 2), seeds=[0, 1])
        expected, before = np.zeros((2, 2)), None
        for step in range(5):
            points = np.array([[4.0, 6.0], [8.0, 2 + step]])
            block = agent.act(np.stack([picture_of(point) for point in points]))
            if before is not None:
                expected += 0.25 * (points - before - model.wrong.numpy() - expected)
            np.testing.assert_allclose(agent._memory.offset, expected, atol=1e-5)
            before = points + block.sum(1)


def test_nobody_is_surprised_before_there_was_a_picture_nor_by_an_episodes_first():
    agent, _ = surprised()
    with pytest.raises(UserError, match=r"call act\(pictures\) before asking for surprise"):
        _ = agent.surprise()
    for _ in range(2):
        agent.reset(picture_of((9, 4))[None], seeds=[0])
        with pytest.raises(UserError, match=r"call act\(pictures\) before asking for surprise"):
            _ = agent.surprise()
        agent.act(picture_of((1, 1))[None])
        assert np.isnan(agent.surprise()).all()
        agent.act(picture_of((1, 1))[None])
        assert agent.surprise()[0] > 0


def test_a_checkpoint_that_does_not_know_what_is_usual_says_so_by_nan():
    agent, _ = surprised(usual=None)
    agent.reset(picture_of((9, 4))[None], seeds=[0])
    for _ in range(3):
        agent.act(picture_of((1, 1))[None])
        assert np.isnan(agent.surprise()).all()


@pytest.mark.parametrize("planner", PLANNERS)
def test_every_planner_leaves_surprise_to_be_asked_for(planner):
    """Of a model whose weights could be trained, too."""
    found = []
    for gradients in (False, True):
        search = AgentConfig(planner=SEARCH).searched_by(PLANNERS[planner]).planner
        agent, _ = surprised(planner=search, gradients=gradients)
        agent.reset(picture_of((9, 4))[None], seeds=[0])
        for point in ((1, 1), (2, 5)):
            agent.act(picture_of(point)[None])
        found.append(agent.surprise())
    np.testing.assert_allclose(*found, rtol=1e-3)


def test_a_rounded_predictor_is_surprised_by_nearly_as_much():
    found = []
    for precision in ("float32", "bfloat16"):
        search = ICEMConfig(num_samples=2, num_elites=1, num_iterations=1, init_std=1e-3, warm_std=1e-3)
        agent, _ = surprised(planner=search, precision=precision)  # which hardly acts, so that both do the same
        agent.reset(picture_of((9, 4))[None], seeds=[0])
        for point in ((1, 1), (2, 15)):
            agent.act(picture_of(point)[None])
        found.append(agent.surprise())
    np.testing.assert_allclose(*found, rtol=0.05)


@pytest.mark.parametrize("kind", ["inverse", "gcbc", "retrieval"])
def test_a_warm_start_is_the_checkpoints_file_of_its_name(kind):
    with pytest.raises(UserError, match=rf"reacher/{kind}\.safetensors"):
        PlanningAgent.load(CHECKPOINT, AgentConfig(warm_start=kind))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"horizon": 0}, "--horizon must be at least 1"),
        ({"history_len": 0}, "--history-len must be at least 1"),
        ({"horizon": 3, "receding_horizon": 4}, "receding_horizon must lie in 1–3"),
        ({"objective": "reachability"}, "no reachability metric; use --objective latent or train it again"),
        ({"effort_weight": -1}, "--effort-weight must be at least 0"),
        ({"deadline_ms": 0}, "--deadline-ms must be above 0"),
        ({"warm_start": "inverse"}, "warm_start names the policy that proposes"),
        ({"planner": ICEMConfig(num_iterations=0)}, "without a search"),
        ({"horizon": 7, "history_len": 3}, "history_len \\+ horizon - 1 is 9; this model's predictor sees at most 8"),
    ],
)
def test_impossible_settings_are_refused(config, message):
    with pytest.raises(UserError, match=message):
        agent_with(**config)


def test_baselines_act_within_bounds_and_by_their_seed():
    pictures = np.stack([picture_of((0, 0))] * 2)
    random, nothing = RandomAgent(SPACE, BLOCK), DoNothingAgent(SPACE, BLOCK)
    draws = []
    for seeds in ([1, 2], [2, 1]):
        random.reset(pictures, seeds)
        draws.append(random.act(pictures))
    np.testing.assert_array_equal(draws[0], draws[1][::-1])
    assert all(SPACE.contains(action) for action in draws[0].reshape(-1, 2))
    assert (np.diff(draws[0], axis=1) != 0).all()  # anew at every step
    many = np.concatenate([random.act(pictures) for _ in range(300)]).reshape(-1, 2)
    np.testing.assert_allclose(many.min(0), SPACE.low, atol=0.05)  # all over the space
    np.testing.assert_allclose(many.max(0), SPACE.high, atol=0.05)
    np.testing.assert_allclose(many.mean(0), (SPACE.low + SPACE.high) / 2, atol=0.1)
    assert not nothing.act(pictures).any()


def test_a_task_is_planned_its_own_way_unless_told_otherwise():
    assert planning_of("two_room") == AgentConfig()
    assert planning_of("reacher") == AgentConfig(offset_rate=0.2)
    assert run_planning.RunConfig(task="cube").agent == planning_of("cube")  # from Python too
    own, config = planning_of("cube"), run_planning.parse_config(["--task", "cube", "--horizon", "3"])
    assert config.task == "cube"
    assert config.agent == dataclasses.replace(own, horizon=3)
    assert config.agent.planner.num_samples > AgentConfig().planner.num_samples


def test_a_planner_and_a_preset_are_chosen_by_name_and_their_options_follow():
    config = run_planning.parse_config(["--task", "cube", "--planner", "mppi", "--num-samples=4", "--temperature", "2"])
    own = planning_of("cube")
    assert config.agent.planner == MPPIConfig(num_samples=4, num_iterations=own.planner.num_iterations, temperature=2)
    assert dataclasses.replace(config.agent, planner=own.planner) == own
    lewm = run_planning.parse_config(["--preset", "lewm"]).agent
    assert lewm == AGENT_PRESETS["lewm"]
    fewer = run_planning.parse_config(["--preset", "lewm", "--num-iterations", "10"]).agent
    assert fewer == dataclasses.replace(lewm, planner=dataclasses.replace(lewm.planner, num_iterations=10))


@pytest.mark.parametrize("planner", PLANNERS)
def test_settings_survive_json_and_lie_flat_in_results(planner):
    config = AgentConfig(planner=PLANNERS[planner](num_samples=12), deadline_ms=3, objective="latent")
    stored = json.loads(json.dumps(to_json(config)))
    assert read(AgentConfig, stored, "here") == config
    flat = config.settings()
    assert (flat["planner"], flat["num_samples"], flat["objective"]) == (planner, 12, "latent")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--planner", "mpi"], "unknown planner 'mpi'; did you mean mppi"),
        (["--planner", "math:pi"], "math:pi is no planner: it must be a subclass of PlannerConfig, not 3.14"),
        (["--num-samples", "1000000000"], "--num-samples must be 1 to 100000, not 1000000000"),
        (["--preset", "lwm"], "unknown planning preset 'lwm'; did you mean lewm"),
    ],
)
def test_a_wrong_choice_is_one_line(options, message):
    with pytest.raises(UserError, match=message):
        run_planning.parse_config(options)


def drive_late(agent, point, goal, blocks=12, late=1, missing=()):
    """Acts on a point in a world that is so many blocks behind the decisions; returns where it was."""
    agent.reset(picture_of(goal)[None], seeds=[0])
    middle = (SPACE.low + SPACE.high) / 2
    waiting = [np.tile(middle, (BLOCK, 1))] * late
    places = [np.array(point)]
    for number in range(blocks):
        picture = None if number in missing else picture_of(places[-1])[None]
        waiting.append(agent.act(picture)[0])
        places.append(places[-1] + waiting.pop(0).sum(0))
    return np.array(places)


@pytest.mark.parametrize("late", [1, 2])
def test_blocks_on_their_way_are_foreseen(late):
    """The history that a search begins with ends where the point will be when its answer is carried out."""
    agent, model = agent_with(blocks_ahead=late, horizon=3)
    places = drive_late(agent, [10.0, 10.0], [14.0, 6.0], late=late)
    of_decisions = model.histories[:: SEARCH.num_iterations]
    began_at = np.array([history[0][0, -1].numpy() for history in of_decisions])
    np.testing.assert_allclose(began_at[: 1 - late or None], places[late:], atol=0.11)  # a picture is of tenths
    past = [None if history[1] is None else len(history[1][0]) for history in model.histories]
    assert past[-1] == agent.config.history_len - 1
    assert np.abs(places[-4:] - [14.0, 6.0]).max() < 1  # and it stays there


def test_a_delay_that_is_not_foreseen_overshoots():
    kept = [
        np.abs(drive_late(agent_with(blocks_ahead=ahead, horizon=3)[0], [10.0, 10.0], [14.0, 6.0])[5:] - [14, 6]).max()
        for ahead in (1, 0)
    ]
    assert kept[0] < 1 < 1.5 < kept[1]


def test_where_no_picture_comes_what_was_foreseen_takes_its_place():
    agent, model = agent_with(horizon=3)
    places = drive_late(agent, [10.0, 10.0], [14.0, 6.0], late=0, missing=(2, 3, 6))
    np.testing.assert_allclose(places[-1], [14, 6], atol=0.7)
    assert len(model.seen) == 1 + 12 - 3  # the goal, and the pictures that came
    with pytest.raises(UserError, match="needs a picture to begin with"):
        drive_late(agent, [10.0, 10.0], [14.0, 6.0], missing=(0,))


def test_nobody_is_surprised_by_a_picture_that_did_not_come():
    agent, model = agent_with()
    model.usual_miss = UsualMiss(1.0, (1.0,))
    agent.reset(picture_of([1.0, 1.0])[None], seeds=[0])
    for picture, known in ((picture_of([1, 1])[None], False), (picture_of([1, 1])[None], True), (None, False)):
        agent.act(picture)
        assert np.isfinite(agent.surprise()).all() == known


def test_an_agent_whose_decision_fails_is_where_it_was(monkeypatch):
    """Ctrl-C in a notebook, or an objective of one's own that raises, leaves no half of a decision behind."""
    agent, model = agent_with(offset_rate=0.5)
    agent.reset(picture_of([14.0, 8.0])[None], seeds=[0])
    points = [picture_of([10.0 + step, 10.0])[None] for step in range(4)]
    rollout = model.rollout

    def interrupted(*args):
        monkeypatch.setattr(model, "rollout", rollout)
        raise KeyboardInterrupt

    for picture in points:
        monkeypatch.setattr(model, "rollout", interrupted)
        before = dict(vars(agent))
        with pytest.raises(KeyboardInterrupt):
            agent.act(picture)
        assert vars(agent) == before
        agent.act(picture)
    assert len(agent._memory.z_history) == len(agent._memory.past_actions) == 3


def settled(goals, start, **config):
    agent, _ = agent_with(horizon=3, effort_weight=0.01, **config)
    agent.reset(np.stack([picture_of(goal) for goal in goals])[None], seeds=[0])
    place = np.array(start)
    for _ in range(15):
        place = place + agent.act(picture_of(place)[None])[0].sum(0)
    return place


def test_of_several_goals_the_nearest_is_reached_or_the_place_that_is_near_all():
    far = [[10.0, 10.0], [16.0, 4.0]]
    np.testing.assert_allclose(settled(far, [15.0, 6.0]), [16, 4], atol=0.7)
    np.testing.assert_allclose(settled(far, [11.0, 10.5]), [10, 10], atol=0.7)
    corners = [[8.0, 8.0], [12.0, 8.0], [10.0, 4.0]]
    middle = settled(corners, [11.0, 10.0], several_goals="mean")  # Fermat's point, from which sides look 120° wide
    np.testing.assert_allclose(middle, [10, 8 - 2 / np.sqrt(3)], atol=0.8)


def test_one_goal_of_several_is_that_goal():
    goals = [[14.0, 8.0]]
    agent, _ = agent_with()
    blocks = []
    for pictures in (picture_of(goals[0])[None], picture_of(goals[0])[None, None]):
        agent.reset(pictures, seeds=[3])
        blocks.append(agent.act(picture_of([10.0, 10.0])[None]))
    np.testing.assert_array_equal(*blocks)
    with pytest.raises(UserError, match="goals must be at least one picture an episode"):
        agent.reset(np.zeros((1, 0, 16, 16, 3), np.uint8), seeds=[3])
