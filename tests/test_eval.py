import numpy as np
import pytest

import envs
from agent.baselines import DoNothingAgent, RandomAgent
from eval.goal_tasks import GoalTasks, goal_tasks, sample_pair
from eval.metrics import summarise
from eval.rollout import EpisodeRecord, run_episodes, time_decisions

SPEC = envs.get_task("reacher")


@pytest.fixture(scope="module")
def env():
    return envs.make("reacher")


@pytest.fixture(scope="module")
def tasks(env, tmp_path_factory):
    return goal_tasks(env, SPEC, 11, 6, tmp_path_factory.mktemp("goals"))


def test_pairs_start_unsolved_and_show_their_goal(env, tasks):
    assert len(tasks) == 6
    for i in range(6):
        env.set_state(tasks.start_state[i])
        assert not SPEC.success(env.qpos, tasks.goal_qpos[i])
        env.set_state(tasks.goal_state[i])
        np.testing.assert_array_equal(env.qpos, tasks.goal_qpos[i])
        np.testing.assert_array_equal(env.render(), tasks.goal_picture[i])


def test_fewer_pairs_are_the_first_of_more_and_are_stored_once(env, tasks, tmp_path, monkeypatch):
    three = goal_tasks(env, SPEC, 11, 3, tmp_path)
    six = goal_tasks(env, SPEC, 11, 6, tmp_path)
    for name in vars(tasks):
        np.testing.assert_array_equal(getattr(three, name), getattr(tasks, name)[:3])
        np.testing.assert_array_equal(getattr(six, name), getattr(tasks, name))
    monkeypatch.setattr("eval.goal_tasks.sample_pair", None)  # would fail if anything were simulated again
    assert len(goal_tasks(env, SPEC, 11, 5, tmp_path)) == 5


def test_stored_pairs_that_cannot_be_read_are_made_again(env, tasks, tmp_path):
    goal_tasks(env, SPEC, 11, 2, tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:1000])
    np.testing.assert_array_equal(goal_tasks(env, SPEC, 11, 2, tmp_path).start_state, tasks.start_state[:2])


def test_other_seeds_give_other_pairs(env, tasks):
    other = sample_pair(env, SPEC, 12, 0)
    assert not np.array_equal(other.start_state[0], tasks.start_state[0])


class Replay:
    """Repeats given blocks, whatever it sees."""

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
        errors = [SPEC.error(pose, path[-1]) for pose in path]
        expected.append((next(i for i, e in enumerate(errors, 1) if e < SPEC.tolerance), min(errors), errors[-1]))
        goals.append(env.get_state()), pictures.append(env.render()), poses.append(path[-1])
    tasks = GoalTasks(*(np.stack(x) for x in (starts, goals, poses, pictures)))
    run = {"env": env, "spec": SPEC, "tasks": tasks, "seed": 0, "budget": 20, "description": ""}
    records, traces = run_episodes(Replay(blocks), **run)
    assert [record.success for record in records] == [True] * 3
    assert [(r.steps, r.best_error, r.final_error) for r in records] == expected
    assert traces[0].states.shape[0] == 21
    assert traces[0].pictures.shape == (5, 64, 64, 3)
    np.testing.assert_array_equal(traces[0].states[-1], goals[0])
    # One step short of the budget that the goal needs, it does not count.
    short = min(steps for steps, *_ in expected) - 1
    records, _ = run_episodes(Replay(blocks), **{**run, "budget": short})
    assert not any(record.success for record in records)


def test_an_episode_does_not_depend_on_the_others(env, tasks, monkeypatch):
    run = {"env": env, "spec": SPEC, "tasks": tasks, "seed": 0, "budget": 20, "description": ""}
    agent = RandomAgent(env.action_space, SPEC.action_block)
    together, _ = run_episodes(agent, **run)
    monkeypatch.setattr("eval.rollout.BATCH_SIZE", 2)
    assert run_episodes(agent, **run)[0] == together


def test_doing_nothing_stays_about_where_it_is(env, tasks):
    records, _ = run_episodes(
        DoNothingAgent(env.action_space, SPEC.action_block),
        env=env, spec=SPEC, tasks=tasks, seed=0, budget=20, description="",
    )  # fmt: skip
    assert [record.pair for record in records] == list(range(6))
    assert all(record.best_error <= record.final_error for record in records)


def test_decisions_are_timed_one_by_one(env, tasks):
    agent = DoNothingAgent(env.action_space, SPEC.action_block)
    assert len(time_decisions(agent, env, SPEC, tasks, seed=0, num_decisions=15)) == 15


def record(pair, steps):
    return EpisodeRecord(pair, steps is not None, steps, 0.1, 0.1)


def test_summary_by_hand():
    summary = summarise([record(0, 5), record(1, None), record(2, 9), record(3, 6)])
    assert (summary.num_episodes, summary.success_rate, summary.median_steps) == (4, 0.75, 6)
    # Wilson: (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n)
    n, p, z = 4, 0.75, 1.959964
    centre, spread = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    expected = [(centre + sign * spread) / (1 + z * z / n) for sign in (-1, 1)]
    np.testing.assert_allclose(summary.success_interval, expected, rtol=1e-5)
    assert summarise([record(0, None)]).median_steps is None
