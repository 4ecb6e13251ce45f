"""Pairs of start and goal: held out, unsolved, the same for everyone."""

from dataclasses import replace

import numpy as np
import pytest
from line import LINE, Line, register

from jepa_mpc import envs
from jepa_mpc.agent.base import RandomAgent
from jepa_mpc.agent.collect import find_policy, run_episode
from jepa_mpc.errors import UserError
from jepa_mpc.eval import pairs as pairs_module
from jepa_mpc.eval.pairs import _load, held_out_pairs, sample_pair, suite_pairs
from jepa_mpc.eval.protocols import PROTOCOLS
from jepa_mpc.eval.trial import Trial
from jepa_mpc.seeds import episode_rng

SPEC = envs.get_task("reacher")


@pytest.fixture(scope="module")
def env():
    return envs.make("reacher")


@pytest.fixture(scope="module")
def pairs(env, tmp_path_factory):
    return held_out_pairs(env, SPEC, 11, 6, tmp_path_factory.mktemp("goals"))


class Watched:
    """The simulator, and all that happens in it: states and poses of every episode, from the reset on."""

    def __init__(self, env):
        self._env, self.episodes = env, []

    def __getattr__(self, name):
        return getattr(self._env, name)

    def reset(self, **options):
        seen = self._env.reset(**options)
        self.episodes.append([(self._env.get_state(), self._env.qpos)])
        return seen

    def advance(self, action):
        reward = self._env.advance(action)
        self.episodes[-1].append((self._env.get_state(), self._env.qpos))
        return reward

    def place_of(self, what, value):
        """The episode and the step of a state (0) or a pose (1), which happened once."""
        found = [
            (index, step)
            for index, episode in enumerate(self.episodes)
            for step, seen in enumerate(episode)
            if np.array_equal(seen[what], value)
        ]
        assert len(found) == 1
        return found[0]


def test_pairs_start_unsolved_and_show_their_goal(env, pairs):
    assert len(pairs) == 6
    for i in range(6):
        env.set_state(pairs.start_state[i])
        assert not SPEC.pose.success(env.qpos, pairs.goal_qpos[i])
        env.set_state(pairs.goal_state[i])
        np.testing.assert_array_equal(env.qpos, pairs.goal_qpos[i])
        np.testing.assert_array_equal(env.render(), pairs.goal_picture[i])


def test_fewer_pairs_are_the_first_of_more_and_are_stored_once(env, pairs, tmp_path, monkeypatch):
    three = held_out_pairs(env, SPEC, 11, 3, tmp_path)
    six = held_out_pairs(env, SPEC, 11, 6, tmp_path)
    for name in vars(pairs):
        np.testing.assert_array_equal(getattr(three, name), getattr(pairs, name)[:3])
        np.testing.assert_array_equal(getattr(six, name), getattr(pairs, name))
    monkeypatch.setattr("jepa_mpc.eval.pairs.sample_pair", None)  # would fail if anything were simulated again
    assert len(held_out_pairs(env, SPEC, 11, 5, tmp_path)) == 5


def test_stored_pairs_that_are_damaged_are_made_again(env, pairs, tmp_path):
    """Cut, empty, or with any one bit flipped: what is used is what was simulated."""
    held_out_pairs(env, SPEC, 11, 2, tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [whole[:1000], b"", whole + b"x", b"not pairs"]
    for position in rng.integers(0, len(whole), 40):
        damaged.append(whole[:position] + bytes([whole[position] ^ 1 << rng.integers(8)]) + whole[position + 1 :])
    for content in damaged:
        path.write_bytes(content)
        assert _load(path, env) == []
    again = held_out_pairs(env, SPEC, 11, 2, tmp_path)
    for name in vars(pairs):
        np.testing.assert_array_equal(getattr(again, name), getattr(pairs, name)[:2])
    assert path.read_bytes() == whole


def test_other_seeds_give_other_pairs(env, pairs):
    other = sample_pair(env, SPEC, 12, 0, far=False)
    assert not np.array_equal(other.start_state[0], pairs.start_state[0])


def test_goals_lie_ahead_in_the_episode_of_the_start(env):
    starts = []
    for index in range(12):
        watched = Watched(env)
        pair = sample_pair(watched, SPEC, 11, index, far=False)
        episode, start = watched.place_of(0, pair.start_state[0])
        assert watched.place_of(0, pair.goal_state[0]) == (episode, start + SPEC.goal_offset)
        assert len(watched.episodes[episode]) == SPEC.episode_len + 1
        starts.append(start)
    assert np.histogram(starts, 3, (0, SPEC.episode_len - SPEC.goal_offset))[0].min() > 0  # from all over the episode


def test_far_goals_are_poses_of_another_episode(env):
    starts, goals = [], []
    for index in range(6):
        watched = Watched(env)
        pair = sample_pair(watched, SPEC, 11, index, far=True)
        episode, start = watched.place_of(0, pair.start_state[0])
        other, goal = watched.place_of(1, pair.goal_qpos[0])
        assert episode != other
        starts.append(start)
        goals.append(goal)
    assert min(np.ptp(starts), np.ptp(goals)) > 50


@pytest.mark.parametrize("far", [False, True])
def test_solved_pairs_are_left_out(env, far):
    """Also where most are: of a tolerance so wide that few poses are far enough apart."""
    wide = replace(SPEC, pose=replace(SPEC.pose, tolerance=1.5))
    for index in range(8):
        pair = sample_pair(env, wide, 11, index, far)
        env.set_state(pair.start_state[0])
        assert not wide.pose.success(env.qpos, pair.goal_qpos[0])


@pytest.mark.parametrize(("far", "cure"), [(False, "raise --goal-offset, or lower"), (True, "; lower")])
def test_where_every_goal_is_reached_at_the_start_that_is_said(far, cure):
    line = replace(LINE, pose=replace(LINE.pose, tolerance=1e6))
    with pytest.raises(UserError, match=f"every goal is reached at the start.*{cure} its tolerance"):
        sample_pair(Line(), line, 0, 0, far)


def test_where_pairs_cannot_be_stored_none_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(pairs_module, "sample_pair", None)  # would fail
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"pairs under .*, which --home moves, cannot be written"):
        held_out_pairs(Line(), SPEC, 0, 1, tmp_path / "file" / "data")


def test_no_pair_is_of_an_episode_that_was_collected(env):
    """The same seeds and indices, but streams of random numbers of their own."""
    policy = find_policy(SPEC.data_policy, SPEC.name)

    def collected(seed, index):
        rng = episode_rng("collect", seed, index)
        return run_episode(env, policy(env, SPEC.action_block, rng), [None], rng).qpos[0]

    trained_on = {tuple(collected(seed, index)) for seed in (0, 11) for index in range(20)}
    watched, short = Watched(env), replace(SPEC, episode_len=30)
    for index in range(20):
        sample_pair(watched, short, 11, index, far=index % 2 == 1)
    for suite_task in SPEC.suite:
        suite_pairs(watched, suite_task, 11, 20)
    held_out = {tuple(episode[0][1]) for episode in watched.episodes}
    assert len(trained_on) == 40
    assert len(held_out) >= 70
    assert not trained_on & held_out


def test_pairs_are_of_the_tasks_own_data_policy():
    spec, env = envs.get_task("two_room"), envs.make("two_room")
    rng = episode_rng("goal", 11, 0)
    policy = find_policy(spec.data_policy, spec.name)(env, spec.action_block, rng)
    expected = run_episode(env, policy, [None] * (spec.episode_len // spec.action_block), rng, every_step=True).qpos
    watched = Watched(env)
    sample_pair(watched, spec, 11, 0, far=False)
    np.testing.assert_array_equal([pose for _, pose in watched.episodes[0]], expected)


def test_far_goals_are_at_rest(env, tmp_path):
    far = held_out_pairs(env, SPEC, 11, 6, tmp_path, far=True)
    for i in range(6):
        env.set_state(far.start_state[i])
        assert not SPEC.pose.success(env.qpos, far.goal_qpos[i])
        env.set_state(far.goal_state[i])
        np.testing.assert_array_equal(env.qpos, far.goal_qpos[i])
        assert not env.qvel.any()
        np.testing.assert_array_equal(env.render(), far.goal_picture[i])


@pytest.mark.parametrize("task", SPEC.suite, ids=lambda task: task.name)
def test_suite_goals_show_a_pose_that_earns_the_reward(task):
    env = task.make(64, True)
    pairs = suite_pairs(env, task, 3, 5)
    targets = []
    for i in range(5):
        env.set_state(pairs.goal_state[i])
        target, finger = env.position("target"), env.position("finger")
        np.testing.assert_allclose(finger, target, atol=1e-6)
        assert env.advance(np.zeros(2)) == SPEC.action_repeat  # 1 for every control step
        env.set_state(pairs.start_state[i])
        np.testing.assert_array_equal(env.position("target"), target)  # the start's target is the goal's
        targets.append(target)
    assert len(np.unique(targets, axis=0)) == 5


def test_rewards_are_the_suites_own():
    """The same actions through dm_control's own interface."""
    from dm_control import suite

    task = SPEC.suite[0]
    env, reference = task.make(64, True), suite.load("reacher", "easy", task_kwargs={"random": 5})
    reference.reset()
    pairs = suite_pairs(env, task, 0, 1)
    env.set_state(pairs.goal_state[0])
    with reference.physics.reset_context():
        reference.physics.data.qpos[:] = env.qpos
        reference.physics.named.model.geom_pos["target"] = env.position("target")
    rng, rewards = np.random.default_rng(0), []
    for action in rng.uniform(-1, 1, (60, 2)):
        ours = env.advance(action)
        theirs = sum(reference.step(action).reward for _ in range(SPEC.action_repeat))
        assert ours == theirs
        rewards.append(ours)
    assert len(set(rewards)) > 1


class Live(Line):
    """Hands out the very arrays that it goes on with."""

    def __init__(self, *args):
        super().__init__(*args)
        self._state = np.zeros(1)

    x = property(
        lambda self: float(self._state[0]), lambda self, x: self.__dict__.setdefault("_state", np.zeros(1)).fill(x)
    )
    get_state = lambda self: self._state  # noqa: E731
    qpos = property(get_state)


def test_pairs_and_trials_of_an_environment_that_hands_out_its_own_arrays_are_those_of_one_that_copies(
    tmp_path, monkeypatch
):
    register(monkeypatch)
    for far in (False, True):
        pairs, live = (held_out_pairs(kind(), LINE, 0, 4, tmp_path / kind.__name__, far) for kind in (Line, Live))
        for name, values in vars(pairs).items():
            np.testing.assert_array_equal(getattr(live, name), values)
    agent, rule = RandomAgent(Line().action_space, LINE.action_block), PROTOCOLS["far"]
    ours, theirs = (Trial(kind(), LINE, pairs, rule, seed=1, budget=6).run(agent) for kind in (Line, Live))
    assert ours[0] == theirs[0]
    for one, other in zip(ours[1], theirs[1], strict=True):
        np.testing.assert_array_equal(one.states, other.states)
