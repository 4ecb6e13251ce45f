from dataclasses import replace

import numpy as np
import pytest

from jepa_mpc import envs
from jepa_mpc.agent.base import DoNothingAgent, RandomAgent
from jepa_mpc.agent.collect import find_policy, run_episode
from jepa_mpc.errors import UserError
from jepa_mpc.eval.metrics import summarise, summarise_returns
from jepa_mpc.eval.pairs import Pairs, _load, held_out_pairs, sample_pair, suite_pairs
from jepa_mpc.eval.protocols import PROTOCOLS, first_kept
from jepa_mpc.eval.trial import EpisodeRecord, Trial
from jepa_mpc.seeds import episode_rng

SPEC, STANDARD = envs.get_task("reacher"), PROTOCOLS["standard"]


@pytest.fixture(scope="module")
def env():
    return envs.make("reacher")


@pytest.fixture(scope="module")
def tasks(env, tmp_path_factory):
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


def test_pairs_start_unsolved_and_show_their_goal(env, tasks):
    assert len(tasks) == 6
    for i in range(6):
        env.set_state(tasks.start_state[i])
        assert not SPEC.pose.success(env.qpos, tasks.goal_qpos[i])
        env.set_state(tasks.goal_state[i])
        np.testing.assert_array_equal(env.qpos, tasks.goal_qpos[i])
        np.testing.assert_array_equal(env.render(), tasks.goal_picture[i])


def test_fewer_pairs_are_the_first_of_more_and_are_stored_once(env, tasks, tmp_path, monkeypatch):
    three = held_out_pairs(env, SPEC, 11, 3, tmp_path)
    six = held_out_pairs(env, SPEC, 11, 6, tmp_path)
    for name in vars(tasks):
        np.testing.assert_array_equal(getattr(three, name), getattr(tasks, name)[:3])
        np.testing.assert_array_equal(getattr(six, name), getattr(tasks, name))
    monkeypatch.setattr("jepa_mpc.eval.pairs.sample_pair", None)  # would fail if anything were simulated again
    assert len(held_out_pairs(env, SPEC, 11, 5, tmp_path)) == 5


def test_stored_pairs_that_are_damaged_are_made_again(env, tasks, tmp_path):
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
    pairs = held_out_pairs(env, SPEC, 11, 2, tmp_path)
    for name in vars(tasks):
        np.testing.assert_array_equal(getattr(pairs, name), getattr(tasks, name)[:2])
    assert path.read_bytes() == whole


def test_other_seeds_give_other_pairs(env, tasks):
    other = sample_pair(env, SPEC, 12, 0, far=False)
    assert not np.array_equal(other.start_state[0], tasks.start_state[0])


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


def test_no_pair_is_of_an_episode_that_was_collected(env):
    """The same seeds and indices, but streams of random numbers of their own."""
    policy = find_policy(SPEC.data_policy, SPEC.name)

    def collected(seed, index):
        rng = episode_rng("collect", seed, index)
        return run_episode(env, policy(env, SPEC.action_block, rng), 1, rng).qpos[0]

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
    expected = run_episode(env, policy, spec.episode_len // spec.action_block, rng, every_step=True).qpos
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
    tasks = suite_pairs(env, task, 3, 5)
    targets = []
    for i in range(5):
        env.set_state(tasks.goal_state[i])
        target, finger = env.position("target"), env.position("finger")
        np.testing.assert_allclose(finger, target, atol=1e-6)
        assert env.advance(np.zeros(2)) == SPEC.action_repeat  # 1 for every control step
        env.set_state(tasks.start_state[i])
        np.testing.assert_array_equal(env.position("target"), target)  # the start's target is the goal's
        targets.append(target)
    assert len(np.unique(targets, axis=0)) == 5


def test_rewards_are_the_suites_own():
    """The same actions through dm_control's own interface."""
    from dm_control import suite

    task = SPEC.suite[0]
    env, reference = task.make(64, True), suite.load("reacher", "easy", task_kwargs={"random": 5})
    reference.reset()
    tasks = suite_pairs(env, task, 0, 1)
    env.set_state(tasks.goal_state[0])
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


@pytest.mark.parametrize(
    ("within", "steps", "expected"),
    [
        ([0, 1, 0, 1, 1, 1], 1, 2),
        ([0, 1, 0, 1, 1, 1], 2, 5),
        ([0, 1, 0, 1, 1, 1], 3, 6),
        ([1, 1, 0, 1, 1, 0], 3, None),
        ([1], 1, 1),
        ([0, 0], 1, None),
    ],
)
def test_the_first_run_of_steps_within_tolerance(within, steps, expected):
    assert first_kept(np.array(within, bool), steps) == expected


class Replay:
    """Repeats given blocks, whatever it sees."""

    action_block = SPEC.action_block

    def __init__(self, blocks):
        self.blocks = blocks

    def reset(self, goals, seeds):
        self.step = 0

    def act(self, pictures):
        self.step += 1
        return self.blocks[:, self.step - 1]


def test_success_is_the_first_step_within_tolerance(env):
    """Goals made by known actions: replaying them must succeed just when the trajectory first comes near."""
    rng = np.random.default_rng(0)
    blocks = rng.uniform(-1, 1, (3, 4, SPEC.action_block, 2)).astype(np.float32)
    starts, goals, pictures, poses, expected = [], [], [], [], []
    for episode in blocks:
        env.reset(seed=int(rng.integers(1000)))
        starts.append(env.get_state())
        path = [(env.advance(action), env.qpos)[1] for action in episode.reshape(-1, 2)]
        errors = [SPEC.pose.error(pose, path[-1]) for pose in path]
        expected.append((next(i for i, e in enumerate(errors, 1) if e < SPEC.pose.tolerance), min(errors), errors[-1]))
        goals.append(env.get_state()), pictures.append(env.render()), poses.append(path[-1])
    tasks = Pairs(*(np.stack(x) for x in (starts, goals, poses, pictures)))
    trial = Trial(env, SPEC, tasks, STANDARD, seed=0, budget=20)
    records, traces = trial.run(Replay(blocks))
    assert [record.success for record in records] == [True] * 3
    assert [(r.steps, r.best_error, r.final_error) for r in records] == expected
    assert traces[0].states.shape[0] == 21
    assert traces[0].pictures.shape == (5, 64, 64, 3)
    np.testing.assert_array_equal(traces[0].states[-1], goals[0])
    # One step short of the budget that the goal needs, it does not count.
    short = min(steps for steps, *_ in expected) - 1
    records, _ = replace(trial, budget=short).run(Replay(blocks))
    assert not any(record.success for record in records)


def test_an_episode_does_not_depend_on_the_others(env, tasks):
    trial = Trial(env, SPEC, tasks, STANDARD, seed=0, budget=20)
    agent = RandomAgent(env.action_space, SPEC.action_block)
    together, _ = trial.run(agent)
    assert trial.run(agent, batch_size=2)[0] == together


def test_doing_nothing_stays_where_it_is_and_random_actions_do_not(env, tasks):
    poses, starts = tasks.goal_qpos[::-1], []
    for pose in poses:
        env.set_pose(pose)
        starts.append(env.get_state())
    at_rest = replace(tasks, start_state=np.stack(starts))
    trial = Trial(env, SPEC, at_rest, STANDARD, seed=0, budget=20)
    records, traces = trial.run(DoNothingAgent(env.action_space, SPEC.action_block))
    assert [record.pair for record in records] == list(range(6))
    for record, trace, pose, goal in zip(records, traces, poses, tasks.goal_qpos, strict=True):
        assert len(trace.states) == 21
        env.set_state(trace.states[-1])
        np.testing.assert_allclose(env.qpos, pose, atol=1e-9)
        assert record.best_error == pytest.approx(SPEC.pose.error(pose, goal))
        assert record.final_error == pytest.approx(SPEC.pose.error(pose, goal))
        assert record.distance == pytest.approx(SPEC.pose.error(pose, goal))
    for trace, pose in zip(trial.run(RandomAgent(env.action_space, 5))[1], poses, strict=True):
        env.set_state(trace.states[-1])
        assert np.abs(env.qpos - pose).max() > 0.01


def test_decisions_are_timed_one_by_one(env, tasks):
    agent = DoNothingAgent(env.action_space, SPEC.action_block)
    assert len(Trial(env, SPEC, tasks, STANDARD, seed=0, budget=50).time_decisions(agent, 15)) == 15
    assert len(Trial(env, SPEC, tasks, STANDARD, seed=0, budget=3).time_decisions(agent, 15)) == 15


def test_a_trial_without_pairs_or_steps_is_refused(env, tasks):
    for pairs, budget in ((tasks[:0], 50), (tasks, 0)):
        with pytest.raises(UserError, match="a trial needs at least one pair and one step"):
            Trial(env, SPEC, pairs, STANDARD, seed=0, budget=budget)


def test_protocols_judge_the_same_trajectory_by_their_own_rules(env):
    """An arm that rests at its goal from the start, then is driven away."""
    env.set_pose([0.5, 0.5])
    start, picture = env.get_state(), env.render()
    env.set_pose([0.5, 0.54])  # within 0.05 rad, and 0.12 m × 0.04 = 0.005 m of the fingertip
    tasks = Pairs(start[None], env.get_state()[None], env.qpos[None], picture[None])
    still = np.zeros((1, 1, 5, 2), np.float32)
    away = np.ones((1, 3, 5, 2), np.float32)
    steps = {}
    for name, protocol in PROTOCOLS.items():
        trial = Trial(env, SPEC, tasks, protocol, seed=0, budget=20)
        (record,), _ = trial.run(Replay(np.concatenate([still, away], axis=1)))
        steps[name] = record.steps
        assert (record.first_hit, record.held, record.strict) == (1, 5, 2)
        assert record.final_error > 0.05 > record.best_error
    assert steps == {"standard": 1, "far": 1, "hold": 5, "strict": 2}
    away[0, 0, :3] = 0  # three steps are too few to hold
    (record,), _ = Trial(env, SPEC, tasks, PROTOCOLS["hold"], seed=0, budget=15).run(Replay(away))
    assert (record.success, record.steps, record.first_hit) == (False, None, 1)


def record(pair, steps, reward=0.0):
    return EpisodeRecord(
        pair, steps is not None, steps, steps, None, None, final_error=0.1, best_error=0.1, reward=reward
    )


def test_summary_by_hand():
    summary = summarise([record(0, 5), record(1, None), record(2, 9), record(3, 6)], budget=12)
    assert (summary.num_episodes, summary.success_rate, summary.median_steps) == (4, 0.75, 6)
    # Wilson: (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n)
    n, p, z = 4, 0.75, 1.959964
    centre, spread = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    expected = [(centre + sign * spread) / (1 + z * z / n) for sign in (-1, 1)]
    np.testing.assert_allclose(summary.success_interval, expected, rtol=1e-5)
    assert (summary.first_hit.rate, summary.held.rate, summary.within_half_budget.rate) == (0.75, 0, 0.5)
    assert summarise([record(0, None)], budget=12).median_steps is None


def test_returns_by_hand():
    summary = summarise_returns([record(i, None, reward) for i, reward in enumerate((1.0, 2.0, 6.0))])
    assert (summary.num_episodes, summary.mean, summary.minimum, summary.median) == (3, 3.0, 1.0, 2.0)
    half = 4.302653 * np.sqrt(7) / np.sqrt(3)  # Student's t at 97.5 % with 2 degrees of freedom
    np.testing.assert_allclose(summary.interval, [3 - half, 3 + half], rtol=1e-5)
    assert summarise_returns([record(0, None, 5.0)]).interval == (5.0, 5.0)
