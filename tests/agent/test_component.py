"""The agent in somebody else's program: what it returns is theirs and safe, what it is given wrongly it names."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import CHECKPOINT, ROOT
from test_agent import BLOCK, SEARCH, SPACE, PointModel, agent_with, picture_of

from jepa_mpc import envs
from jepa_mpc.agent import planning_agent
from jepa_mpc.agent.agent_config import AgentConfig, planning_of
from jepa_mpc.agent.bounds import checked_bounds
from jepa_mpc.agent.objectives import OBJECTIVES
from jepa_mpc.agent.planning_agent import PlanningAgent
from jepa_mpc.envs.registry import TASKS
from jepa_mpc.errors import UserError
from jepa_mpc.planners import PLANNERS, REDUCTIONS, ICEMConfig, MPPIConfig, Plan, PlannerConfig
from jepa_mpc.world_model.checkpoint import load_checkpoint

HERE, THERE = picture_of((4, 4))[None], picture_of((6, 6))[None]


def agent_in(bounds, planner=None, model=None, search=SEARCH, **settings):
    """A planner's agent in a world of points, within bounds."""
    config = AgentConfig(search, "latent", **settings)
    config = config.searched_by(PLANNERS[planner]) if planner else config
    return PlanningAgent(model or PointModel(), bounds, BLOCK, config)


@pytest.fixture
def registered(monkeypatch):
    """Registers a value for one test."""

    def register(registry, name, value):
        monkeypatch.setattr(registry, "_values", {**registry._values})
        registry.register(name, value)

    return register


def test_what_it_returns_is_the_callers_own():
    agent, model = agent_with(horizon=3, receding_horizon=2)
    agent.reset(THERE, [0])
    blocks = [agent.act(HERE) for _ in range(2)]
    sent = np.concatenate(blocks)
    for block in blocks:
        block *= 0.5
    agent.act(HERE)
    np.testing.assert_array_equal(model.histories[-1][1][0].reshape(-1, BLOCK, 2), sent)


def test_the_model_is_told_what_was_sent_the_safe_action_too():
    model = Broken()
    model.broken = slice(0)
    agent = agent_in(SPACE, model=model, horizon=3, receding_horizon=2)
    agent.reset(THERE, [0])
    sent = [agent.act(HERE)[0] for _ in range(2)]
    model.broken = slice(1)
    for _ in range(2):
        with pytest.warns(UserWarning, match="the middle of the bounds"):
            sent.append(agent.act(HERE)[0])
    model.broken = slice(0)
    agent.act(HERE)
    told = model.histories[-1][1][0].reshape(-1, BLOCK, 2)  # of a history of three frames
    np.testing.assert_array_equal(told, sent[-2:])
    first_searches = [past for _, past in model.histories if past is not None]
    np.testing.assert_array_equal(first_searches[0][0].reshape(-1, BLOCK, 2), sent[:2])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda agent: agent.act(HERE), r"call reset\(goals, seeds\) before act"),
        (lambda agent: agent.reset(THERE / 255, [0]), "goals must be uint8, 0 to 255, not float64"),
        (lambda agent: agent.reset(THERE > 0, [0]), "goals must be uint8, 0 to 255, not bool"),
        (lambda agent: agent.reset(THERE[0], [0]), r"goals must be \(B, 16, 16, 3\), not \(16, 16, 3\)"),
        (lambda agent: agent.reset(THERE[:, :8], [0]), r"goals must be \(..., 16, 16, 3\), not \(1, 8, 16, 3\)"),
        (lambda agent: agent.reset(THERE, [0, 1]), "1 goals need a seed each, not 2 seeds"),
        (lambda agent: agent.reset(THERE[:0], []), "at least one is needed"),
        (lambda agent: agent.reset(THERE, [0.5]), r"seeds must be whole numbers, one a goal, not \[0.5\]"),
        (lambda agent: agent.reset(THERE, 3), "seeds must be whole numbers, one a goal, not 3"),
        (lambda agent: agent.reset(THERE, None), "seeds must be whole numbers, one a goal, not None"),
        (lambda agent: agent.reset(THERE, [2**70]), "seeds must be numbers of 64 bits"),
        (lambda agent: agent.reset([THERE[0], THERE[0, :8]], [0, 1]), r"goals must be an array \(..., 16, 16, 3\)"),
        (lambda agent: agent.reset(None, [0]), "goals must be uint8"),
        (
            lambda agent: (agent.reset(THERE, [0]), agent.act(np.repeat(HERE, 3, 0))),
            "1 goals were given and 3 pictures",
        ),
        (lambda agent: (agent.reset(THERE, [0]), agent.act(HERE.astype(np.float32))), "pictures must be uint8"),
        (lambda agent: agent.latent_distance(HERE / 255, THERE), "pictures must be uint8"),
    ],
)
def test_misuse_is_named(call, message):
    with pytest.raises(UserError, match=message):
        call(agent_with()[0])


@pytest.mark.parametrize(("goals", "seeds"), [(HERE, [2**70]), (HERE, None), (HERE[:, :8], [0])])
def test_an_agent_whose_reset_has_failed_goes_on_as_it_was(goals, seeds):
    blocks = []
    for disturbed in (False, True):
        agent, _ = agent_with()
        agent.reset(THERE, [0])
        agent.act(HERE)
        if disturbed:
            with pytest.raises(UserError):
                agent.reset(goals, seeds)
        blocks.append(agent.act(HERE))
    np.testing.assert_array_equal(*blocks)


@pytest.mark.parametrize(
    ("checkpoint", "config", "line"),
    [
        (None, None, "a checkpoint is a folder or a bundled one's name, not None"),
        (CHECKPOINT, {"horizon": 3}, r"settings must be a dataclass such as AgentConfig\(horizon=3\), not {'horizon'"),
        (CHECKPOINT, AgentConfig, "settings must be a dataclass"),
    ],
)
def test_what_is_no_checkpoint_or_no_settings_is_named(checkpoint, config, line):
    with pytest.raises(UserError, match=line):
        PlanningAgent.load(checkpoint, config)


@pytest.mark.parametrize("bounds", [(-1, 1), gym.spaces.Discrete(3), SimpleNamespace(low=["a"], high=["b"])])
def test_bounds_of_another_kind_are_named(bounds):
    with pytest.raises(UserError, match=r"bounds must be two vectors \(A,\), low and high, as a Box's, not those of "):
        agent_in(bounds)


def test_seeds_may_be_numpys_and_pictures_lists_of_arrays():
    blocks = []
    for seeds, goals in (([3, 4], np.repeat(THERE, 2, 0)), (np.array([3, 4]), [THERE[0], THERE[0]])):
        agent, _ = agent_with()
        agent.reset(goals, seeds)
        blocks.append(agent.act(np.repeat(HERE, 2, 0)))
    np.testing.assert_array_equal(*blocks)


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        ([-1, -np.inf], [1, np.inf], "action 1 of the agent has no bounds"),
        ([-1, -1e10], [1, 1e10], "action 1 of the agent has no bounds"),
        ([np.nan, -1], [1, 1], "action 0 of the agent has no bounds"),
        ([-1, 1], [1, -1], r"action 1 of the agent has its bounds reversed \(1 to -1\)"),
        ([0.5, 0.5], [0.5, 0.5], "no action of the agent can vary"),
        ([[-1, -1]], [[1, 1]], "must be two vectors"),
        ([], [], "must be two vectors"),
        ([-1], [1], "blocks are 6 numbers, the task's 3"),
    ],
)
def test_bounds_that_cannot_serve_are_refused(low, high, message):
    with pytest.raises(UserError, match=message):
        agent_in(SimpleNamespace(low=np.array(low), high=np.array(high)))


def test_bounds_are_rounded_inward_and_stay_in_order():
    low, high = np.array([0.1, -0.7, 0.1]), np.array([0.7, 0.1, 0.1])  # the last is fixed
    least, most = checked_bounds(SimpleNamespace(low=low, high=high), "the agent")
    assert least.dtype == most.dtype == np.float32
    assert (least[:2] >= low[:2]).all()
    assert (most <= high).all()
    assert least[2] == most[2]
    np.testing.assert_allclose([least, most], [low, high], atol=1e-7)


@pytest.mark.parametrize("planner", PLANNERS)
def test_a_fixed_joint_stays_and_the_others_do_the_work(planner):
    bounds = SimpleNamespace(low=np.array([-1.0, 0.25]), high=np.array([1.0, 0.25]))
    agent, x = agent_in(bounds, planner, effort_weight=0.01), 12.0
    agent.reset(picture_of((8, 9))[None], [0])
    for step in range(4):
        (block,) = agent.act(picture_of((x, step))[None])
        assert (block[:, 1] == 0.25).all()
        x += block[:, 0].sum()
    assert abs(x - 8) < 1


@pytest.mark.parametrize("planner", PLANNERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_action_is_within_the_bounds_to_the_last_digit(planner, dtype):
    space = gym.spaces.Box(np.array([-0.4, 0.1], dtype), np.array([0.4, 0.7], dtype), dtype=dtype)
    agent = agent_in(space, planner, search=replace(SEARCH, init_std=20.0))
    agent.reset(np.repeat(picture_of((24, 24))[None], 40, 0), range(40))
    for _ in range(3):
        actions = agent.act(np.repeat(HERE, 40, 0)).reshape(-1, 2)
        assert ((actions >= space.low) & (actions <= space.high)).all()


@dataclass(frozen=True)
class WildConfig(PlannerConfig):
    """A stranger's search, which heeds no bounds and is not always a number."""

    def make(self, low, high, steps_per_block=1):
        planner = ICEMConfig().make(low, high, steps_per_block)
        wild = torch.tensor([[[100.0, -100.0] * BLOCK], [[0.5, torch.nan] * BLOCK]])
        planner.plan = lambda *args: Plan(wild, torch.zeros(2), wild[:, None], 1)
        return planner


def test_whatever_a_strangers_planner_says_an_action_is_safe():
    agent = agent_in(SPACE, search=WildConfig())
    agent.reset(np.repeat(THERE, 2, 0), [0, 1])
    with pytest.warns(UserWarning, match="no finite cost in 1 of 2"):
        blocks = agent.act(np.repeat(HERE, 2, 0))
    np.testing.assert_array_equal(blocks, [[[1, -2]] * BLOCK, [[0, -0.75]] * BLOCK])


class Broken(PointModel):
    """Its futures are no numbers, for the episodes that are told."""

    broken = slice(1)
    value = float("nan")

    def rollout(self, z_history, past_actions, actions, offset=None):
        future = super().rollout(z_history, past_actions, actions, offset).clone()
        future[self.broken] = self.value
        return future


@pytest.mark.parametrize("planner", PLANNERS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_where_no_cost_is_a_number_the_middle_is_sent_and_that_is_said(planner, value):
    model = Broken()
    model.value = value
    agent = agent_in(SPACE, planner, model)
    agent.reset(np.repeat(THERE, 2, 0), [0, 1])
    for _ in range(2):
        with pytest.warns(UserWarning, match="no finite cost in 1 of 2 episodes; the middle of the bounds is sent"):
            broken, well = agent.act(np.repeat(HERE, 2, 0))
        np.testing.assert_array_equal(broken, [[0, -0.75]] * BLOCK)
        assert np.abs(well - [0, -0.75]).max() > 0.1
        assert np.isfinite(well).all()


def test_a_policy_that_proposes_no_numbers_is_not_obeyed():
    agent, _ = agent_with(
        lambda *z: torch.full((1, 6), float("nan")), warm_start="gcbc", planner=ICEMConfig(num_iterations=0)
    )
    agent.reset(THERE, [0])
    with pytest.warns(UserWarning, match="the middle of the bounds is sent"):
        np.testing.assert_array_equal(agent.act(HERE)[0], [[0, -0.75]] * BLOCK)


def test_costs_near_the_largest_number_rank_as_small_ones_do():
    low, high = torch.tensor([-1.0]), torch.tensor([1.0])
    plans = []
    for scale in (1.0, 2.0**120):  # 1.3e36
        plan = (
            MPPIConfig(num_samples=200)
            .make(low, high)
            .plan(
                lambda actions, scale=scale: scale * (10 + (actions - 0.6).square().sum((-1, -2))),
                1,
                [torch.Generator().manual_seed(0)],
            )
        )
        plans.append(plan.actions)
    torch.testing.assert_close(*plans, atol=1e-5, rtol=0)
    assert plans[0].item() == pytest.approx(0.6, abs=0.1)


def test_one_agents_precision_does_not_change_anothers_model():
    model, _ = load_checkpoint(CHECKPOINT)
    bounds = gym.spaces.Box(-1, 1, (2,), np.float32)
    exact = PlanningAgent(model, bounds, 5, AgentConfig())
    picture = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    blocks = []
    for config in (AgentConfig(), AgentConfig(precision="bfloat16")):
        rounded = PlanningAgent(model, bounds, 5, config)
        exact.reset(picture, [0])
        blocks.append(exact.act(picture[:, ::-1]))
    np.testing.assert_array_equal(*blocks)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert rounded.model.predictor.position.dtype == torch.bfloat16


@pytest.mark.parametrize("planner", PLANNERS)
def test_alone_and_among_others_it_does_the_same_but_for_rounding(planner):
    agent = PlanningAgent.load(CHECKPOINT, AgentConfig().searched_by(PLANNERS[planner]))
    pictures = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)
    agent.reset(pictures[::-1], range(5))
    together = agent.act(pictures)[2]
    agent.reset(pictures[::-1][2:3], [2])
    np.testing.assert_allclose(agent.act(pictures[2:3])[0], together, atol=1e-3)


def test_what_is_kept_of_past_searches_is_bounded(monkeypatch):
    monkeypatch.setattr(planning_agent, "_SEARCHES_KEPT", 5)
    agent, _ = agent_with()
    agent.reset(THERE, [0])
    for _ in range(8):
        agent.act(HERE)
    assert agent.rounds_done == [SEARCH.num_iterations] * 5


def to_the_left(model, future, z_now, z_goal):
    """An objective of a stranger's: x, whatever the goal."""
    return future[..., 0]


def test_an_objective_may_be_a_strangers():
    agent, _ = agent_with(objective="test_component:to_the_left")
    agent.reset(THERE, [0])
    assert agent.act(HERE)[0, :, 0].sum() < -2
    with pytest.raises(UserError, match="unknown objective 'latnt'; did you mean latent"):
        agent_with(objective="latnt")
    with pytest.raises(UserError, match=r"unknown reduction 'maen'; did you mean mean.* terminal, minimum, mean"):
        agent_with(reduction="maen")


@pytest.mark.parametrize(
    ("returned", "found"),
    [
        (lambda future: future, r"float32 \(1, 40, 2, 2\)"),
        (lambda future: future[..., 0].long(), r"int64 \(1, 40, 2\)"),
        (lambda future: future[..., 0].numpy(), "ndarray"),
        (lambda future: None, "NoneType"),
    ],
)
def test_what_an_objective_returns_is_held_against_what_it_should(registered, returned, found):
    registered(OBJECTIVES, "strange", lambda model, future, z_now, z_goal: returned(future))
    agent, _ = agent_with(objective="strange")
    agent.reset(THERE, [0])
    expected = r"objective strange must return distances \(B, S, H\): a float tensor \(1, 40, 2\), not "
    with pytest.raises(UserError, match=expected + found):
        agent.act(HERE)


def test_what_a_reduction_returns_is_held_against_what_it_should(registered):
    registered(REDUCTIONS, "none", lambda distance: distance)
    agent, _ = agent_with(reduction="none")
    agent.reset(THERE, [0])
    with pytest.raises(UserError, match=r"reduction none must return costs \(B, S\): a float tensor \(1, 40\), not"):
        agent.act(HERE)


@dataclass(frozen=True)
class MakesNothing(PlannerConfig):
    pass


@dataclass(frozen=True)
class MakesNoPlanner(PlannerConfig):
    def make(self, low, high, steps_per_block=1):
        return 7


@pytest.mark.parametrize(
    ("search", "line"),
    [
        (MakesNothing(), "MakesNothing makes no planner; give it make"),
        (MakesNoPlanner(), "must return a Planner, not 7"),
    ],
)
def test_settings_that_make_no_planner_are_named(search, line):
    with pytest.raises(UserError, match=line):
        agent_in(SPACE, search=search)


@pytest.fixture
def strangers(tmp_path, monkeypatch):
    """A function that says in a copy of a checkpoint how to plan, beside a module of the stranger's who made it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    shutil.copytree(CHECKPOINT, "copy")
    Path("helpers.py").write_text(
        "from jepa_mpc import OBJECTIVES, PLANNERS\n"
        "from jepa_mpc.planners import CEMConfig\n"
        "class Search(CEMConfig):\n    pass\n"
        "def far(model, future, z_now, z_goal):\n    return -model.latent_distance(future, z_goal)\n"
        "OBJECTIVES.register('far', far)\nPLANNERS.register('search', Search)\n"
    )
    for registry in (OBJECTIVES, PLANNERS):
        for kept in ("_values", "_found", "_origins"):
            monkeypatch.setattr(registry, kept, {**getattr(registry, kept)})

    def plan(**planning):
        config = json.loads(Path("copy/config.json").read_text())
        Path("copy/config.json").write_text(json.dumps({**config, "planning": planning}))
        return "copy"

    yield plan
    sys.modules.pop("helpers", None)


@pytest.mark.parametrize(
    ("planning", "line"),
    [
        ({"objective": "helpers:far"}, "objective 'helpers:far' is code that is not loaded; import helpers first, or"),
        ({"objective": "os:system"}, "or say --objective os:system"),
        ({"reduction": "os:system"}, "or say --reduction os:system"),
        ({"planner": {"name": "helpers:search"}}, "planner 'helpers:search' is code that is not loaded"),
        ({"planner": {"name": "antigravity:x"}}, "import antigravity first, or say --planner antigravity:x"),
        ({"planner": {"num_samples": 10**9, "name": "cem"}}, "num_samples must be 1 to 100000"),
        ({"objective": "latnt"}, "unknown objective 'latnt'; did you mean latent"),
    ],
)
def test_a_checkpoint_chooses_no_code(strangers, planning, line):
    with pytest.raises(UserError, match=f"^the planning of copy/?.*: .*{line}"):
        PlanningAgent.load(strangers(**planning))
    assert not {"helpers", "antigravity"} & {*sys.modules}


def test_a_checkpoint_may_name_what_the_program_has_imported(strangers):
    helpers = importlib.import_module("helpers")
    checkpoint = strangers(objective="helpers:far", planner={"name": "helpers:search", "num_samples": 30})
    agent = PlanningAgent.load(checkpoint)
    assert (agent.config.objective, agent.config.planner) == ("helpers:far", helpers.Search(num_samples=30))


def test_a_task_is_code_and_may_name_more(strangers, monkeypatch):
    planning = {"objective": "helpers:far", "planner": {"name": "helpers:search", "num_samples": 30}}
    monkeypatch.setitem(TASKS._values, "mine", replace(envs.get_task("reacher"), planning=planning))
    config = planning_of("mine")
    assert type(config.planner) is sys.modules["helpers"].Search
    assert PlanningAgent.load(CHECKPOINT, config).config == PlanningAgent.load(strangers(**planning)).config == config


WITHOUT = """
import sys
from importlib.machinery import PathFinder

missing = set({missing!r})
find = PathFinder.find_spec
hide = lambda cls, name, *rest: None if name.partition(".")[0] in missing else find(name, *rest)
PathFinder.find_spec = classmethod(hide)

import numpy as np
from jepa_mpc import PlanningAgent

agent = PlanningAgent.load("reacher")
pictures = np.zeros((1, 64, 64, 3), np.uint8)
agent.reset(pictures, [0])
block = agent.act(pictures)
assert block.shape == (1, 5, 2) and np.isfinite(block).all()
print("torch._dynamo" in sys.modules)
"""
MISSING = (
    "mujoco dm_control gymnasium h5py tyro tqdm scipy matplotlib dacite platformdirs imageio rich filelock PIL "
    "stable_baselines3 tensorboard pymunk pygame ogbench minari hdf5plugin sheeprl"
)


def test_it_needs_no_simulator_and_little_else(tmp_path):
    """From another folder, with nothing installed but NumPy, PyTorch, safetensors and what they need themselves."""
    program = WITHOUT.format(missing=MISSING.split())
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "False\n"  # PyTorch's compiler takes seconds to import, and is not used


def test_a_checkpoint_that_does_not_say_what_actions_it_takes_needs_bounds(tmp_path):
    shutil.copytree(CHECKPOINT, tmp_path / "old")
    config = json.loads((tmp_path / "old/config.json").read_text())
    for name in ("interface", "planning"):
        del config[name]
    (tmp_path / "old/config.json").write_text(json.dumps({**config, "format_version": 1}))
    with pytest.raises(UserError, match="old does not say what actions it takes; pass bounds"):
        PlanningAgent.load(tmp_path / "old")
    pictures = np.zeros((1, 64, 64, 3), np.uint8)
    with pytest.raises(UserError, match="bounds must be two vectors"):
        PlanningAgent.load(tmp_path / "old", bounds=(-1, 1))
    blocks = []
    for agent in (
        PlanningAgent.load(tmp_path / "old", bounds=gym.spaces.Box(-1, 1, (2,), np.float32)),
        PlanningAgent.load(CHECKPOINT),
    ):
        agent.reset(pictures, [0])
        blocks.append(agent.act(pictures))
    np.testing.assert_array_equal(*blocks)


def test_bounds_and_block_are_the_checkpoints(tmp_path):
    shutil.copytree(CHECKPOINT, tmp_path / "other")
    config = json.loads((tmp_path / "other/config.json").read_text())
    config["interface"] |= {"action_block": 10, "action_low": [0.25], "action_high": [0.5]}
    (tmp_path / "other/config.json").write_text(json.dumps(config))
    agent, pictures = PlanningAgent.load(tmp_path / "other"), np.zeros((1, 64, 64, 3), np.uint8)
    agent.reset(pictures, [0])
    block = agent.act(pictures)
    assert (agent.action_block, block.shape) == (10, (1, 10, 1))
    assert ((block >= 0.25) & (block <= 0.5)).all()
    narrower = gym.spaces.Box(0.3, 0.4, (1,), np.float32)
    agent = PlanningAgent.load(tmp_path / "other", bounds=narrower)
    agent.reset(pictures, [0])
    assert all(narrower.contains(action) for action in agent.act(pictures)[0])
