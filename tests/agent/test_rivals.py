"""The agents that planning is compared with: each is given what it says it is given, and no more."""

import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import CHECKPOINT, ROOT
from hypothesis import given
from hypothesis import strategies as st
from line import LINE, Line, register
from safetensors.torch import load_file
from torch.utils.tensorboard import SummaryWriter

from jepa_mpc import envs
from jepa_mpc.agent.agent_config import AgentConfig
from jepa_mpc.agent.base import DoNothingAgent, PrivilegedAgent, RandomAgent
from jepa_mpc.agent.data_policies.sac import Actor, load_actor, normalise, read_state
from jepa_mpc.agent.data_policies.train_sac import StateEnv, build_sac
from jepa_mpc.agent.rivals import RIVALS, Rival, draw_pose, dreamer, dreamer_env, her, train_dreamer, train_her
from jepa_mpc.agent.rivals.dreamer_env import GoalEnv
from jepa_mpc.agent.rivals.oracle import OracleAgent
from jepa_mpc.agent.rivals.train_her import GoalStateEnv, HerConfig
from jepa_mpc.cli import COMMANDS
from jepa_mpc.errors import UserError
from jepa_mpc.eval.pairs import held_out_pairs, sample_pair
from jepa_mpc.eval.protocols import PROTOCOLS
from jepa_mpc.eval.trial import Trial
from jepa_mpc.planners import CEMConfig, ICEMConfig
from jepa_mpc.world_model.checkpoint import load_checkpoint, load_info

SPEC = envs.get_task("reacher")
ANGLES = (True, False, True)


@pytest.fixture(scope="module")
def env():
    return envs.make("reacher")


@pytest.fixture
def line(monkeypatch):
    register(monkeypatch)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder, in which all that is bundled, trained or stored lies."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JEPA_MPC_HOME", str(tmp_path))


@pytest.fixture(scope="module")
def far(env, tmp_path_factory):
    return held_out_pairs(env, SPEC, 5, 3, tmp_path_factory.mktemp("goals"), far=True)


def test_the_oracle_tries_plans_in_the_simulator(env, far):
    agent = OracleAgent("reacher", AgentConfig(horizon=2))
    agent.reset(far.goal_picture[:2], [0, 1])
    agent.look(far.start_state[:2], far.goal_state[:2])
    actions = np.random.default_rng(0).uniform(-1, 1, (2, 3, 2, 10)).astype(np.float32)
    errors = agent._distances(actions).numpy()
    for i, plans in enumerate(actions):
        for j, plan in enumerate(plans):
            env.set_state(far.start_state[i])
            for h, block in enumerate(plan.reshape(2, 5, 2)):
                for action in block:
                    env.advance(action)
                wanted = SPEC.pose.error(env.qpos, far.goal_qpos[i]) / SPEC.pose.tolerance
                assert errors[i, j, h] == pytest.approx(wanted, rel=1e-5)


def test_the_oracles_next_search_begins_with_what_is_left_of_the_plan(line):
    """Around the plan before it hardly looks, so that it comes to the plan's end, beyond which there is nothing."""
    search = CEMConfig(num_samples=8, num_elites=2, num_iterations=1, init_std=0.5, warm_std=1e-6, min_std=1e-9)
    agent, blocks = OracleAgent("line", AgentConfig(planner=search, horizon=3)), []
    agent.reset(np.zeros((2, 8, 8, 3), np.uint8), [3, 4])
    for _ in range(4):
        agent.look(np.zeros((2, 1)), np.array([[4.0], [-4.0]]))
        blocks.append(agent.act(np.zeros((2, 8, 8, 3), np.uint8)))
    assert all(np.abs(block).max() > 0.1 for block in blocks[:3])
    np.testing.assert_allclose(blocks[3], 0, atol=1e-4)


def test_the_oracle_weighs_effort_and_reduces_the_distance_as_the_planner_does(line):
    def first_block(goal, seed=0, **settings):
        search = CEMConfig(num_samples=200, num_elites=20, num_iterations=6)
        config = {"planner": search, "effort_weight": 0.0, **settings}
        agent = OracleAgent("line", AgentConfig(**config))
        agent.reset(np.zeros((1, 8, 8, 3), np.uint8), [seed])
        agent.look(np.zeros((1, 1)), np.array([[goal]]))
        return agent.act(np.zeros((1, 8, 8, 3), np.uint8))[0, :, 0].sum()

    assert first_block(1.0, reduction="mean") == pytest.approx(1, abs=0.1)  # at once, though there are two blocks
    assert first_block(-4.0, reduction="terminal") == pytest.approx(-2, abs=0.1)
    assert abs(first_block(1.0, effort_weight=100.0)) < 0.2
    loose = [first_block(1.0, seed, reduction="terminal") for seed in range(4)]  # in the end, however it is got to
    assert np.ptp(loose) > 0.1


def first_block(agent, goal):
    pictures = np.zeros((1, 8, 8, 3), np.uint8)
    agent.reset(pictures, [0])
    agent.look(np.zeros((1, 1)), np.array([[goal]]))
    return agent.act(pictures)


def test_reset_forgets_goal_and_plan_of_the_trial_before(line):
    used, fresh = (OracleAgent("line", AgentConfig()) for _ in range(2))
    first_block(used, -4.0)
    np.testing.assert_array_equal(first_block(used, 4.0), first_block(fresh, 4.0))
    # An actor that goes where the goal is: of x, the goal, x and the velocity it reads the second.
    zeros, layer = np.zeros(1, np.float32), np.array([[0, 1, 0, 0]], np.float32)
    weights = {"state_mean": np.zeros(4), "state_std": np.ones(4), "mean.weight": layer, "mean.bias": zeros}
    weights |= {"log_std.weight": 0 * layer, "log_std.bias": zeros}
    agent = her.HerAgent("line", Actor(weights, np.array([-2.0]), np.array([1.0])))
    for goal in (0.5, -0.25):
        np.testing.assert_allclose(first_block(agent, goal), [[[1.5 * np.tanh(goal) - 0.5]]], rtol=1e-6)


def test_the_oracle_reaches_far_goals(env, far):
    search = ICEMConfig(num_samples=24, num_iterations=2, num_elites=4)
    agent = OracleAgent("reacher", AgentConfig(horizon=2, planner=search))
    trial = Trial(env, SPEC, far, PROTOCOLS["far"], seed=0, budget=100)
    records, _ = trial.run(agent)
    assert all(record.success for record in records)


def features_of(qpos, angles=ANGLES):
    return read_state(SimpleNamespace(qpos=qpos, qvel=np.zeros(0)), angles)


@given(st.lists(st.floats(-20, 20), min_size=3, max_size=3))
def test_a_pose_survives_its_features(qpos):
    back = train_her.pose_of(features_of(np.array(qpos)), ANGLES)
    difference = back - np.array(qpos)
    wrapped = np.where(ANGLES, (difference + np.pi) % (2 * np.pi) - np.pi, difference)
    np.testing.assert_allclose(wrapped, 0, atol=1e-5)


def test_hindsight_rewards_what_the_task_calls_success(env):
    state_env = GoalStateEnv(env, SPEC, 0, 200)
    mean, std = state_env.mean[:4], state_env.std[:4]
    rng = np.random.default_rng(0)
    goals = rng.uniform(-2, 2, (200, 2))
    poses = goals + rng.uniform(-0.08, 0.08, (200, 2)) + 2 * np.pi * rng.integers(-1, 2, (200, 1)) * [1, 0]
    rewards = state_env.compute_reward(
        *(np.stack([(features_of(pose, SPEC.angles) - mean) / std for pose in each]) for each in (poses, goals)),
        None,
    )
    wanted = [SPEC.pose.success(pose, goal) - 1.0 for pose, goal in zip(poses, goals, strict=True)]
    assert 20 < sum(reward == 0 for reward in wanted) < 180
    np.testing.assert_array_equal(rewards, wanted)


def test_the_exported_actor_acts_as_stable_baselines3_would(env, far, tmp_path, monkeypatch):
    monkeypatch.setenv("JEPA_MPC_HOME", str(tmp_path))
    place = tmp_path / "runs/benchmark/reacher/her-seed0"
    sac = pytest.importorskip("stable_baselines3").SAC
    learners = []
    learn = sac.learn
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sac, "learn", lambda self, *args, **kw: (learners.append(self), learn(self, *args, **kw))[1])
        folder = train_her.train(HerConfig(output=place, num_steps=130, random_steps=110, hidden_sizes=(16, 16)))
    actor, info = load_actor(folder, "reacher")
    agent = her.HerAgent("reacher", actor)
    assert isinstance(agent, PrivilegedAgent)
    agent.reset(far.goal_picture, [0, 1, 2])
    agent.look(far.start_state, far.goal_state)
    actions = agent.act(far.goal_picture)
    assert actions.shape == (3, 1, 2)
    state_env = learners[0].get_env().envs[0].unwrapped
    for i in range(3):
        state_env._env.set_state(far.start_state[i])
        goal = features_of(far.goal_qpos[i], SPEC.angles)
        state_env._goal = normalise(goal, state_env.mean[:4], state_env.std[:4])
        wanted, _ = learners[0].predict(state_env._observe(), deterministic=True)
        np.testing.assert_allclose(actions[i, 0], wanted, atol=1e-5)
    assert info.num_steps == 200  # whole episodes
    facts = RIVALS["her"].make("reacher", 0)[1]  # 14 numbers go in: twice a pose of 4, and it again with velocities
    assert (facts.steps, facts.parameters) == (200, (14 + 1) * 16 + (16 + 1) * 16 + 2 * (16 + 1) * 2)


def test_hindsight_learns_by_the_settings(env, far, tmp_path):
    pytest.importorskip("stable_baselines3")
    config = HerConfig(output=tmp_path, num_steps=300, random_steps=20, num_hindsight=3, discount=0.9)
    learner = build_sac(config, GoalStateEnv(env, SPEC, 0, 20), config.num_hindsight)
    assert (learner.gamma, learner.batch_size, learner.learning_rate) == (0.9, 256, 1e-3)
    assert (learner.learning_starts, learner.buffer_size) == (20, 300)
    assert learner.replay_buffer.her_ratio == pytest.approx(3 / 4)  # three put in, for each that was asked for


def test_a_killed_training_with_hindsight_goes_on_to_the_same_weights(line, tmp_path, monkeypatch):
    pytest.importorskip("stable_baselines3")
    small = {"task": "line", "num_steps": 4 * LINE.far_budget, "random_steps": LINE.far_budget, "hidden_sizes": (8,)}
    whole = train_her.train(HerConfig(**small, output=tmp_path / "whole", save_every=1))
    begin, begun = GoalStateEnv._begin, []

    def begin_until_killed(self):
        begun.append(self.episode)
        if begun[-1] == 4:
            raise KeyboardInterrupt
        begin(self)

    killed = HerConfig(**small, output=tmp_path / "killed", save_every=1)
    with monkeypatch.context() as patch:
        patch.setattr(GoalStateEnv, "_begin", begin_until_killed)
        with pytest.raises(KeyboardInterrupt):
            train_her.train(killed)
    assert begun == [1, 2, 3, 4]
    assert (tmp_path / "killed/state.safetensors").exists()
    train_her.train(killed)
    expected, found = (load_file(folder / "actor.safetensors") for folder in (whole, tmp_path / "killed"))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_hindsight_needs_an_episode_before_it_learns(tmp_path):
    with pytest.raises(UserError, match="--random-steps must be at least 100, an episode's length, not 99"):
        train_her.train(HerConfig(output=tmp_path / "run", random_steps=99))
    assert not (tmp_path / "run").exists()


def test_hindsights_task_lasts_as_long_as_far_goals_do_and_asks_for_another_each_time(line):
    env, again, other = (GoalStateEnv(Line(), LINE, seed, 50) for seed in (0, 0, 1))
    goals = []
    for _ in range(10):
        seen = env.reset()[0]
        np.testing.assert_equal(seen, again.reset()[0])
        goals.append((float(seen["desired_goal"][0]), float(other.reset()[0]["desired_goal"][0])))
        env._env.set_pose(seen["desired_goal"] * env.std[:1] + env.mean[:1])
        for step in range(LINE.far_budget):
            seen, reward, terminated, truncated, _ = env.step(np.array([0.4 if step == 0 else 0.2]))
            assert reward == (0 if step == 0 else -1)  # 0.4 and 0.6 away, or farther
            assert (terminated, truncated) == (False, step == LINE.far_budget - 1)
        np.testing.assert_allclose((seen["achieved_goal"] - seen["desired_goal"]) * env.std[:1], 1.8, rtol=1e-5)
    assert len({goal for pair in goals for goal in pair}) > 10


def test_goals_to_learn_from_are_poses_at_any_time_of_the_data_policys_episodes():
    rng, env = np.random.default_rng(0), Line()
    poses = np.array([draw_pose(env, LINE, rng)[0] for _ in range(400)])
    assert (poses == np.round(poses)).mean() == pytest.approx(1 / 5, abs=0.06)  # after 0 to 4 blocks
    assert poses.std() > 3  # starts are from −5 to 5
    assert np.abs(poses).max() > 5


def test_no_rival_learns_from_a_held_out_episode(line, monkeypatch, tmp_path):
    """The same seeds, but streams of their own; what begins an episode tells which it is."""
    began, reset = [], gym.Env.reset

    def watched(self, *, seed=None, options=None):
        began.append(seed)
        return reset(self, seed=seed, options=options)

    monkeypatch.setattr(gym.Env, "reset", watched)
    for index in range(20):
        sample_pair(Line(), LINE, 0, index, far=index % 2 == 1)
    held_out = set(began)
    assert len(held_out) >= 30
    began.clear()
    for learner in (GoalEnv("line", "dense", 0), GoalStateEnv(Line(), LINE, 0, 50), StateEnv(Line(), LINE, 0, 50)):
        for _ in range(20):
            learner.reset()
    assert len(set(began)) > 100
    assert not held_out & set(began)


@pytest.mark.parametrize("reward", ["sparse", "dense"])
def test_dreamers_task_shows_the_goal_and_pays_for_being_there(reward):
    first, second = GoalEnv("reacher", reward, seed=3), GoalEnv("reacher", reward, seed=3)
    for _ in range(2):
        seen, again = first.reset()[0], second.reset()[0]
        np.testing.assert_array_equal(seen["goal"], again["goal"])
        np.testing.assert_array_equal(seen["rgb"], again["rgb"])
    first._env.set_pose(first._goal_qpos)
    np.testing.assert_array_equal(first._env.render(), seen["goal"])
    _, there, _, _, _ = first.step(np.zeros(2))
    first._env.set_pose(first._goal_qpos + np.array([1.0, 0.0]))
    _, away, _, _, _ = first.step(np.zeros(2))
    assert there == 1
    if reward == "sparse":
        assert away == 0
    else:  # linear in the error of the one joint that is off, by one radian and what a step moves it
        fall = (1 - SPEC.pose.tolerance) / first._margins[0]
        assert away == pytest.approx(1 - fall / 2, abs=0.02)
    steps = 2
    while not first.step(first.action_space.sample())[3]:
        steps += 1
    assert steps + 1 == SPEC.budget


@pytest.mark.parametrize("reward", ["sparse", "dense"])
def test_dreamers_action_is_held_and_its_rewards_are_summed(reward):
    once, held = GoalEnv("reacher", reward, seed=3), GoalEnv("reacher", reward, seed=3, action_repeat=4)
    once.reset()
    held.reset()
    for action in np.random.default_rng(0).uniform(-1, 1, (12, 2)):
        single = [once.step(action) for _ in range(4)]
        seen, reward_sum, _, _, _ = held.step(action)
        assert reward_sum == pytest.approx(sum(step[1] for step in single))
        np.testing.assert_array_equal(seen["rgb"], single[-1][0]["rgb"])
    # Twelve times four are 48 of 50 steps: the last action is held for two.
    last = [once.step(action) for _ in range(2)]
    _, reward_sum, _, over, _ = held.step(action)
    assert over
    assert last[-1][3]
    assert reward_sum == pytest.approx(sum(step[1] for step in last))


def test_dreamers_own_reward_is_the_simulators():
    env = GoalEnv("dmc/cartpole-balance", "own", seed=0)
    assert list(env.reset()[0]) == ["rgb"]
    state, action = env._env.get_state(), env.action_space.sample()
    _, reward, _, _, _ = env.step(action)
    env._env.set_state(state)
    assert reward == env._env.advance(action)
    with pytest.raises(envs.EnvError, match="has no reward of its own"):
        GoalEnv("two_room", "own", seed=0)


def test_dreamers_episodes_of_its_own_reward_are_the_tasks(line):
    env = GoalEnv("line", "own", seed=0)
    env.reset()
    assert [env.step(np.ones(1))[3] for _ in range(LINE.episode_len)] == [False] * 9 + [True]


def test_a_part_of_the_pose_that_never_moves_is_paid_within_the_tolerance(monkeypatch):
    pose = np.array([0.5, 1.0])
    monkeypatch.setattr(dreamer_env, "draw_pose", lambda env, spec, rng: pose)
    env = GoalEnv("reacher", "dense", seed=0)
    env.reset()
    for off, paid in ((0.0, 1.0), (0.9 * SPEC.pose.tolerance, 1.0), (1.1 * SPEC.pose.tolerance, 0.5)):
        env._env.set_pose(pose + np.array([off, 0.0]))
        assert env._closeness() == paid


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_steps": 19}, "--num-steps must give each"),
        ({"cnn_channels": 3}, "--cnn-channels must be even"),
        ({"discount": 1.0}, "--discount must lie between"),
        ({"action_repeat": 0}, "--action-repeat must be at least 1"),
        ({"entropy": float("nan")}, "--entropy must be a finite number"),
    ],
)
def test_dreamers_impossible_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        train_dreamer.train(train_dreamer.DreamerConfig(**settings))


def test_sheeprl_is_told_decisions_where_we_count_steps(tmp_path):
    config = train_dreamer.DreamerConfig(
        num_steps=1000, action_repeat=4, updates_per_step=0.1, random_steps=200, save_every=100, seed=2
    )
    said = dict(each.split("=", 1) for each in train_dreamer.overrides(config, tmp_path, None))
    assert int(said["algo.total_steps"]) == 250
    assert int(said["algo.learning_starts"]) == 50
    assert int(said["checkpoint.every"]) == 25
    assert float(said["algo.replay_ratio"]) * 250 == pytest.approx(0.1 * 1000)
    assert int(said["seed"]) == 2000  # far from other seeds', on from which simulators are counted
    assert float(said["algo.gamma"]) == config.discount


def test_what_dreamer_keeps_is_by_steps_and_beside_baselines(tmp_path, monkeypatch):
    pytest.importorskip("yaml")
    monkeypatch.setattr(train_dreamer, "BASELINE_EPISODES", 3)
    for number, decisions in enumerate((25, 50)):  # the second goes on from the first
        version = tmp_path / f"sheeprl/version_{number}"
        (version / "checkpoint").mkdir(parents=True)
        (version / "config.yaml").write_text(f"number: {number}")
        layer = torch.full((2, 3, 5, 5), float(decisions)).to(memory_format=torch.channels_last)
        state = {part: {"layer": layer.clone()} for part in train_dreamer.PARTS}
        torch.save(state, version / f"checkpoint/ckpt_{decisions}_0.ckpt")
        for path, when in (("config.yaml", 1000), (f"checkpoint/ckpt_{decisions}_0.ckpt", 1060 + 30 * number)):
            os.utime(version / path, (when, when))
        with SummaryWriter(str(version)) as writer:
            writer.add_scalar("Rewards/rew_avg", 0.5 * decisions, decisions)
    train_dreamer.export(tmp_path, {"task": "reacher", "reward": "dense", "action_repeat": 4})
    kept = json.loads((tmp_path / "actors/config.json").read_text())
    assert kept["training_returns"] == [[100, 12.5], [200, 25.0]]
    assert {name: len(returns) for name, returns in kept["baseline_returns"].items()} == {"random": 3, "do_nothing": 3}
    assert all(0 < earned < SPEC.budget for returns in kept["baseline_returns"].values() for earned in returns)
    assert kept["learning_seconds"] == {"100": 60, "200": 60 + 90}
    assert kept["sheeprl"] == {"number": 1}
    for steps, decisions in ((100, 25), (200, 50)):
        stored = load_file(tmp_path / f"actors/{steps}.safetensors")
        assert stored.keys() == {"world_model/layer", "actor/layer"}
        assert (stored["actor/layer"] == decisions).all()


def test_dreamer_without_sheeprl_names_the_fix(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sheeprl", None)
    with pytest.raises(UserError, match="`make dreamer` builds"):
        train_dreamer.main(["--output", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


def test_agents_that_see_state_say_so():
    blind = gym.spaces.Box(-1, 1, (2,))
    for agent in (DoNothingAgent(blind, 5), RandomAgent(blind, 5)):
        assert not isinstance(agent, PrivilegedAgent)
    assert isinstance(OracleAgent("reacher", AgentConfig()), PrivilegedAgent)


def test_rivals_go_by_name_in_the_tables_order_and_train_by_our_own_commands(tmp_path, monkeypatch):
    monkeypatch.setenv("JEPA_MPC_HOME", str(tmp_path))
    assert list(RIVALS) == ["jepa", "jepa_short", "dreamer", "her", "inverse", "gcbc", "random", "do_nothing", "oracle"]
    assert all(isinstance(RIVALS[name], Rival) for name in RIVALS)
    assert all(RIVALS[name].label for name in RIVALS)
    assert RIVALS["dreamer"].venv.is_absolute()  # so that it is found from any folder
    commands = [command for name in RIVALS for command in RIVALS[name].train("reacher", 1)]
    assert all(command[:3] == [sys.executable, "-m", "jepa_mpc"] for command in commands)
    assert {command[3] for command in commands} == COMMANDS.keys() & {
        *("collect", "train", "train-latent-policy", "train-her", "train-dreamer")
    }
    (tmp_path / "my_rivals.py").write_text(
        "from jepa_mpc.agent.rivals import Rival\nSTATUE = Rival('nothing', lambda task, seed: None, seeds=(7,))\n"
    )
    monkeypatch.chdir(tmp_path)
    assert RIVALS["my_rivals:STATUE"].seeds == (7,)


def options_of(command):
    words = [word for word in command[4:] if word != "--no-augment"]
    return dict(zip(words[::2], words[1::2], strict=True))


def test_what_an_agent_cost_is_read_off_its_checkpoint(here):
    shutil.copytree(ROOT / "checkpoints/two_room", "checkpoints/two_room")
    agent, facts = RIVALS["jepa"].make("two_room", 0)
    model, info = load_checkpoint(ROOT / "checkpoints/two_room")
    episodes = info.data["num_episodes"]
    assert facts.steps == 200 * episodes
    assert facts.pictures == 41 * episodes  # one to begin with, and one a block of five
    assert not facts.rewards
    assert facts.parameters == sum(p.numel() for p in model.parameters())
    assert facts.learning_seconds == info.learning_seconds
    assert agent.action_block == 5
    for name in ("random", "do_nothing", "oracle"):
        _, nothing = RIVALS[name].make("two_room", 0)
        assert not any(asdict(nothing).values())


@pytest.mark.parametrize("name", ["jepa", "jepa_short", "inverse", "gcbc", "her", "dreamer"])
def test_what_is_not_trained_is_trained_by_its_seed_into_a_folder_of_its_own(here, name):
    shutil.copytree(CHECKPOINT, "checkpoints/reacher")
    outputs = []
    for seed in (1, 2):
        *collect, train = map(options_of, RIVALS[name].train("reacher", seed))
        assert (train["--seed"], train["--task"]) == (str(seed), "reacher")
        outputs.append(train["--output"])
        assert len(collect) == (name not in ("her", "dreamer"))  # those two act as they learn
        if name == "jepa_short":  # a quarter of Dreamer's steps, of its own
            assert int(collect[0]["--num-episodes"]) * 200 == 30_000
            assert (collect[0]["--seed"], collect[0]["--output"]) == (str(seed), train["--data"])
        elif collect:  # the bundled checkpoint's data
            data = load_checkpoint(CHECKPOINT)[1].data
            assert collect[0]["--num-episodes"] == str(data["num_episodes"])
            assert collect[0]["--seed"] == str(data["seed"])
            assert collect[0]["--randomise"] == (",".join(data.get("randomise", ())) or "none")
    assert len(set(outputs)) == 2
    last = {"dreamer": "actors/config.json", "inverse": "inverse.safetensors", "gcbc": "gcbc.safetensors"}
    finished = Path(outputs[0]) / last.get(name, "config.json")
    finished.parent.mkdir(parents=True)
    finished.touch()
    assert RIVALS[name].train("reacher", 1) == []  # nor are its data collected again
    assert RIVALS["jepa"].train("reacher", 0) == []  # that one is bundled


def test_an_agent_without_a_search_has_none_and_has_cost_its_encoder_too(tmp_path, monkeypatch):
    monkeypatch.setenv("JEPA_MPC_HOME", str(tmp_path))
    task, bundled = "gym/Pusher-v5", ROOT / "checkpoints/gym/Pusher-v5"
    place = tmp_path / "runs/benchmark" / task / "gcbc-seed1"
    place.mkdir(parents=True)
    shutil.copy(bundled / "gcbc.safetensors", place)
    agent, facts = RIVALS["gcbc"].make(task, 1)
    assert agent.config.planner.num_iterations == 0
    assert facts.learning_seconds > load_info(task).learning_seconds
    assert (facts.steps, facts.rewards) == (6400 * envs.get_task(task).episode_len, False)


def test_dreamer_is_the_youngest_actor_and_its_stages_the_older_ones(tmp_path, monkeypatch):
    monkeypatch.setenv("JEPA_MPC_HOME", str(tmp_path))
    monkeypatch.setattr(dreamer, "DreamerAgent", lambda path: SimpleNamespace(action_block=5, num_parameters=7))
    rival, actors = RIVALS["dreamer"], tmp_path / "runs/benchmark/reacher/dreamer-seed0/actors"
    assert rival.train("reacher", 0)
    actors.mkdir(parents=True)
    for steps in (20_000, 90_000, 110_000):
        (actors / f"{steps}.safetensors").touch()
    (actors / "config.json").write_text(json.dumps({"learning_seconds": {"20000": 2, "90000": 9, "110000": 11}}))
    assert not rival.train("reacher", 0)
    _, facts = rival.make("reacher", 0)
    assert (facts.steps, facts.pictures, facts.learning_seconds, facts.parameters) == (110_000, 22_000, 11, 7)
    assert [facts.steps for _, facts in rival.stages("reacher", 0)] == [20_000, 90_000, 110_000]
