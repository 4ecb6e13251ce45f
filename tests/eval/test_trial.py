"""Episodes on a line, where every number is known by hand, and of an arm."""

from dataclasses import replace

import imageio.v3 as iio
import numpy as np
import pytest
from line import LINE, Line, register, x_of
from PIL import Image

from jepa_mpc import envs
from jepa_mpc.agent.base import DoNothingAgent, RandomAgent
from jepa_mpc.envs import Diverged
from jepa_mpc.errors import UserError
from jepa_mpc.eval import report, video
from jepa_mpc.eval.measure import Run, to_pictures
from jepa_mpc.eval.pairs import Pairs, held_out_pairs
from jepa_mpc.eval.protocols import PROTOCOLS
from jepa_mpc.eval.run_planning import RunConfig
from jepa_mpc.eval.trial import Trial

SPEC, STANDARD = envs.get_task("reacher"), PROTOCOLS["standard"]


class Script:
    """Gives each episode its row of actions, a block at a time, and remembers what it was asked."""

    action_block = LINE.action_block

    def __init__(self, rows):
        self.rows = np.asarray(rows, np.float32)
        self.resets, self.pictures, self.looks = [], [], []

    def reset(self, goals, seeds):
        first = sum(len(goals) for goals, _ in self.resets)
        self.now = self.rows[np.arange(first, first + len(goals)) % len(self.rows)]
        self.resets.append((goals, list(seeds)))
        self.step = 0

    def act(self, pictures):
        self.pictures.append(pictures)
        self.step += self.action_block
        return self.now[:, self.step - self.action_block : self.step, None]


class Seer(Script):
    """One that is shown the simulator's state."""

    def look(self, states, goal_states):
        self.looks.append((states[:, 0].tolist(), goal_states[:, 0].tolist()))


def pairs_of(starts, goals):
    starts, goals = (np.array(values, float)[:, None] for values in (starts, goals))
    env, pictures = Line(), []
    for goal in goals:
        env.set_pose(goal)
        pictures.append(env.render())
    return Pairs(starts, goals, goals, np.stack(pictures))


def go(agent, tasks, protocol="standard", **changes):
    protocol = PROTOCOLS[protocol] if isinstance(protocol, str) else protocol
    batch = {"batch_size": changes.pop("batch_size")} if "batch_size" in changes else {}
    settings = {"env": Line(), "spec": LINE, "seed": 0, "budget": LINE.budget, **changes}
    return Trial(pairs=tasks, protocol=protocol, **settings).run(agent, **batch)


class Cliff(Line):
    """A line on which the simulation diverges beyond 2."""

    def advance(self, action):
        return self.diverge(action) if self.qpos[0] + action[0] > 2 else super().advance(action)

    def diverge(self, action):
        self.x = 9.0  # what is left of it is no physics
        raise Diverged("beyond the cliff")


def test_a_diverging_episode_ends_alone_where_it_was_last_well(caplog):
    agent = Script([[1, 1, 1, 1, 1, 1], [0.5] * 6, [9] * 6])
    records, traces = go(agent, pairs_of([0, -2, 0], [2, 0, 2]), env=Cliff())
    assert [record.success for record in records] == [True, True, False]
    assert [record.final_error for record in records] == [0, 1, 2]
    assert [trace.states[:, 0].tolist()[-1] for trace in traces] == [2, 1, 0]
    assert len({len(trace.pictures) for trace in traces}) == 1
    assert x_of(np.stack([trace.pictures for trace in traces])).max() <= 2
    assert "the simulation of 2 of 3 episodes diverged" in caplog.text


def test_a_record_by_hand():
    agent = Script([[1, 1, 0.25, 1, 1, 9]])  # from 0 by way of 1, 2, 2.25, 3.25, 4.25, and clipped, 5.25
    (record,), (trace,) = go(agent, pairs_of([0], [2]))
    assert (record.success, record.steps, record.first_hit, record.held) == (True, 2, 2, None)
    assert record.best_error == 0
    assert record.final_error == 3.25
    assert record.reward == 1 + 2 + 2.25 + 3.25 + 4.25 + 5.25
    assert trace.states[:, 0].tolist() == [0, 1, 2, 2.25, 3.25, 4.25, 5.25]
    np.testing.assert_allclose(x_of(trace.pictures), [0, 2, 3.2, 5.2], atol=0.1)  # where blocks end
    (missed,), _ = go(Script([[0] * 6]), pairs_of([0], [0.5]))  # at the tolerance, not within it
    assert (missed.success, missed.steps, missed.first_hit) == (False, None, None)


def test_a_budget_that_blocks_do_not_fill_ends_within_one():
    agent = Script([[1] * 6])
    (record,), (trace,) = go(agent, pairs_of([0], [6]), budget=5)
    assert trace.states[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert (record.success, record.final_error) == (False, 1)
    assert len(agent.pictures) == 3
    (record,), _ = go(Script([[1] * 6]), pairs_of([0], [6]), budget=6)
    assert record.steps == 6


def test_agents_see_what_is_there_now():
    for kind in (Script, Seer):
        agent = kind([[1, 1, 1, 1, 1, 1], [-1, -1, 0, 0, 1, 1]])
        go(agent, pairs_of([0, 3], [5, 5]))
        np.testing.assert_allclose(x_of(agent.pictures), [[0, 3], [2, 1], [4, 1]])
        ((goals, _),) = agent.resets
        np.testing.assert_allclose(x_of(goals), [5, 5])
    assert agent.looks == [([0, 3], [5, 5]), ([2, 1], [5, 5]), ([4, 1], [5, 5])]


def test_episodes_are_numbered_and_seeded_by_their_pair_whatever_the_batch():
    tasks = pairs_of(range(5), [9] * 5)
    rows = np.arange(5)[:, None] / 10 * np.ones(6)
    found, seeds = [], []
    for settings in ({}, {"batch_size": 2}, {"batch_size": 1}, {"seed": 1}):
        agent = Script(rows)
        records, traces = go(agent, tasks, **settings)
        found.append(records)
        seeds.append([seed for _, batch in agent.resets for seed in batch])
        assert [record.pair for record in records] == list(range(5))
        np.testing.assert_allclose([trace.states[-1, 0] for trace in traces], np.arange(5) * 1.6, rtol=1e-6)
        assert max(len(goals) for goals, _ in agent.resets) == settings.get("batch_size", 5)
    assert found[0] == found[1] == found[2]
    assert seeds[0] == seeds[1] == seeds[2]
    assert len({*seeds[0], *seeds[3]}) == 10


def test_the_strict_rule_goes_by_the_effector_where_there_is_one():
    agent = [[1, 1, 0, 0, 0, 0]]  # at 2 from the second step on
    tasks = pairs_of([0], [2.3])
    for settings, expected in (
        ({"effector": None, "strict_steps": 3}, None),  # 0.3 away, where half of 0.5 is asked
        ({"effector": "point", "effector_tolerance": 0.04, "strict_steps": 3}, 4),  # 0.03 m away
        ({"effector": "point", "effector_tolerance": 0.02, "strict_steps": 3}, None),
        ({"effector": None, "strict_pose": replace(LINE.pose, tolerance=0.4), "strict_steps": 2}, 3),
    ):
        spec = replace(LINE, **settings)
        (record,), _ = go(Script(agent), tasks, spec=spec)
        assert (record.strict, record.steps, record.held) == (expected, 2, 6)
        (record,), _ = go(Script(agent), tasks, "strict", spec=spec)
        assert (record.steps, record.success) == (expected, expected is not None)


def test_decisions_are_timed_from_picture_to_actions_and_the_first_is_left_out(clock):
    class Slow(Seer):
        def reset(self, goals, seeds):
            super().reset(goals, seeds)
            clock.seconds += 100  # is not part of a decision

        def look(self, states, goal_states):
            super().look(states, goal_states)
            clock.seconds += 100

        def act(self, pictures):
            clock.seconds += 1e-3 * (len(self.pictures) + 1)
            return super().act(pictures)

    agent, tasks = Slow([[1] * 6, [-1] * 6]), pairs_of([0, 5], [3, 2])
    milliseconds = Trial(Line(), LINE, tasks, PROTOCOLS["far"], seed=4, budget=8).time_decisions(agent, 7)
    np.testing.assert_allclose(milliseconds, [2, 3, 4, 5, 6, 7, 8])
    # Three decisions to an episode of 6 steps, the pairs in turn.
    np.testing.assert_allclose(x_of(agent.pictures)[:, 0], [0, 2, 4, 5, 3, 1, 0, 2])
    assert agent.looks[3] == ([5], [2])
    np.testing.assert_allclose([x_of(goals)[0] for goals, _ in agent.resets], [3, 2, 3])
    watched = Script([[1] * 6])
    go(watched, tasks, seed=4)
    (_, seeds), *_ = watched.resets
    assert [batch for _, batch in agent.resets] == [[seeds[0]], [seeds[1]], [seeds[0]]]  # as where success is judged


def test_stored_pairs_serve_only_what_they_were_drawn_for(tmp_path, monkeypatch):
    register(monkeypatch)
    finer = replace(LINE, image_size=32)
    kinds = [(LINE, 1, False), (LINE, 2, False), (LINE, 1, True), (replace(LINE, goal_offset=2), 1, False)]
    kinds.append((finer, 1, False))
    expected = []
    for number, (spec, seed, far) in enumerate(kinds):
        expected.append(held_out_pairs(Line(spec.image_size), spec, seed, 4, tmp_path / str(number), far))
    for _ in range(2):  # drawn, then read, in one folder
        for (spec, seed, far), alone in zip(kinds, expected, strict=True):
            found = held_out_pairs(Line(spec.image_size), spec, seed, 4, tmp_path / "shared", far)
            for name, value in vars(alone).items():
                np.testing.assert_array_equal(getattr(found, name), value)
    assert expected[-1].goal_picture.shape[1:3] == (32, 32)
    assert len({pairs.start_state.tobytes() for pairs in expected[:4]}) == 4
    monkeypatch.setattr("jepa_mpc.eval.pairs.simulator_version", lambda: "mujoco 9")  # whose pictures are others
    monkeypatch.setattr(Line, "render", lambda self: np.full((64, 64, 3), 9, np.uint8))
    assert (held_out_pairs(Line(), LINE, 1, 4, tmp_path / "shared").goal_picture == 9).all()
    monkeypatch.setattr(Line, "get_state", lambda self: np.array([self.x, 0.0]))  # a simulator whose state has grown
    assert held_out_pairs(Line(), LINE, 1, 4, tmp_path / "shared").start_state.shape == (4, 2)


def test_pairs_whose_simulation_diverges_are_drawn_anew_which_is_said_once(tmp_path, monkeypatch, caplog):
    spec = register(monkeypatch, replace(LINE, name="line-with-a-cliff"))
    pairs = held_out_pairs(Cliff(), spec, 1, 30, tmp_path)
    assert len(pairs) == 30
    assert max(pairs.start_state.max(), pairs.goal_state.max()) <= 5  # where episodes begin
    assert [record.getMessage() for record in caplog.records] == [
        "simulations of line-with-a-cliff diverge at times; their pairs are drawn anew"
    ]
    monkeypatch.setattr(Cliff, "advance", Cliff.diverge)
    with pytest.raises(Diverged, match="beyond the cliff"):
        held_out_pairs(Cliff(), spec, 2, 1, tmp_path)


class Measured(Script):
    """Knows how far the pictures are apart."""

    def latent_distance(self, pictures, goal):
        return np.abs(x_of(pictures) - x_of(goal))


def test_a_run_to_a_picture_says_how_near_it_came_and_when(tmp_path):
    env, agent = Line(), Measured([[1, 1, 1, 1, -1, -1, -1, -1, -1, -1]])
    env.reset(seed=3)
    start = env.x
    env.set_pose([start + 4])
    goal = env.render()
    run = Run(RunConfig(seed=3, budget=9, goal_image=(tmp_path / "mine.png",)), LINE, env, agent, tmp_path)
    found = to_pictures(run, goal[None]).keywords
    assert found["latent_distance"] == {"start": 4, "nearest": 0, "final": 5}
    assert found["nearest_step"] == 4
    assert "success_rate" not in found
    ((goals, seeds),) = agent.resets
    np.testing.assert_array_equal(goals, goal[None, None])
    assert seeds == [3]
    np.testing.assert_allclose(x_of(agent.pictures)[:, 0] - start, [0, 2, 4, 2, 0])
    panels = np.split(iio.imread(tmp_path / "goal_and_final.png").astype(int), 3, axis=1)
    shown = [panel[panel.shape[0] // 2, panel.shape[1] // 2, 0] for panel in panels]
    assert shown == [round(100 + 10 * x) for x in (start + 4, start + 4, start - 1)]
    run = replace(run, config=replace(run.config, budget=None))
    assert to_pictures(run, goal[None]).keywords["budget"] == LINE.far_budget


def test_videos_turn_green_when_the_goal_is_met(tmp_path):
    tasks = pairs_of([0, 0], [3, 3])
    records, traces = go(Script([[1] * 6, [0] * 6]), tasks)
    video.write_videos(tmp_path, Line(), tasks, traces, records)
    frames = iio.imread(tmp_path / "episodes.mp4").astype(int)
    height, width = frames.shape[1] // 2, frames.shape[2] // 2
    assert len(frames) >= 7
    for column, met in ((0, 3), (1, None)):
        for row, live in ((0, False), (1, True)):
            edges = frames[:7, row * height + height // 2, column * width + 5]
            green = edges[:, 1] > edges[:, 0] + 40
            assert green.tolist() == [bool(live and met is not None and step >= met) for step in range(7)]
    middle = frames[:, height // 2 :: height, width // 2 :: width, 0]
    np.testing.assert_allclose(middle[0], [[130, 130], [100, 100]], atol=3)  # goals above, what happens below
    np.testing.assert_allclose(middle[6], [[130, 130], [160, 100]], atol=3)
    np.testing.assert_array_equal(frames[6:-1], frames[7:])  # time to look at the end


def test_a_gif_is_in_real_time(tmp_path, monkeypatch):
    monkeypatch.setattr(Line, "step_seconds", 0.04)  # of which two pass in a frame
    tasks = pairs_of([0], [3])
    records, traces = go(Script([[1] * 6]), tasks)
    video.write_videos(tmp_path, Line(), tasks, traces, records)
    with Image.open(tmp_path / "episodes.gif") as gif:
        shown_ms = [gif.seek(frame) or gif.info["duration"] for frame in range(gif.n_frames)]
    assert sum(shown_ms) == 4 * 80 + 1500  # steps 0, 2, 4 and 6, and time to look at the end


def test_distances_are_plotted_over_environment_steps(monkeypatch, tmp_path):
    figures = []
    monkeypatch.setattr("jepa_mpc.eval.figures.save", lambda figure, path: figures.append(figure))
    records, _ = go(Script([[1] * 6, [0] * 6]), pairs_of([0, 0], [3, 9]))
    report.write_latent_distance(tmp_path / "x.png", np.array([[3.0, 1, 1, 3], [9, 9, 9, 9]]), records, LINE)
    (axes,) = figures[0].axes
    assert [line.get_xydata().tolist() for line in axes.lines[:3]] == [
        [[0, 3], [2, 1], [4, 1], [6, 3]],  # blocks are of two steps
        [[3, 1]],  # where the goal was met
        [[0, 9], [2, 9], [4, 9], [6, 9]],
    ]


@pytest.mark.parametrize("protocol", ["standard", "far"])
def test_random_episodes_repeat_by_their_seed(protocol):
    tasks, space = pairs_of([0, 0, 0], [2, 2, 2]), Line().action_space
    run = {"tasks": tasks, "protocol": protocol}
    first, again, other = (go(RandomAgent(space, 2), **run, seed=seed)[0] for seed in (1, 1, 2))
    assert first == again
    assert not {record.reward for record in first} & {record.reward for record in other}
    assert len({record.reward for record in first}) == 3


@pytest.fixture(scope="module")
def env():
    return envs.make("reacher")


@pytest.fixture(scope="module")
def pairs(env, tmp_path_factory):
    return held_out_pairs(env, SPEC, 11, 6, tmp_path_factory.mktemp("goals"))


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
    pairs = Pairs(*(np.stack(x) for x in (starts, goals, poses, pictures)))
    trial = Trial(env, SPEC, pairs, STANDARD, seed=0, budget=20)
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


def test_an_episode_does_not_depend_on_the_others(env, pairs):
    trial = Trial(env, SPEC, pairs, STANDARD, seed=0, budget=20)
    agent = RandomAgent(env.action_space, SPEC.action_block)
    together, _ = trial.run(agent)
    assert trial.run(agent, batch_size=2)[0] == together


def test_doing_nothing_stays_where_it_is_and_random_actions_do_not(env, pairs):
    poses, starts = pairs.goal_qpos[::-1], []
    for pose in poses:
        env.set_pose(pose)
        starts.append(env.get_state())
    at_rest = replace(pairs, start_state=np.stack(starts))
    trial = Trial(env, SPEC, at_rest, STANDARD, seed=0, budget=20)
    records, traces = trial.run(DoNothingAgent(env.action_space, SPEC.action_block))
    assert [record.pair for record in records] == list(range(6))
    for record, trace, pose, goal in zip(records, traces, poses, pairs.goal_qpos, strict=True):
        assert len(trace.states) == 21
        env.set_state(trace.states[-1])
        np.testing.assert_allclose(env.qpos, pose, atol=1e-9)
        assert record.best_error == pytest.approx(SPEC.pose.error(pose, goal))
        assert record.final_error == pytest.approx(SPEC.pose.error(pose, goal))
        assert record.distance == pytest.approx(SPEC.pose.error(pose, goal))
    for trace, pose in zip(trial.run(RandomAgent(env.action_space, 5))[1], poses, strict=True):
        env.set_state(trace.states[-1])
        assert np.abs(env.qpos - pose).max() > 0.01


def test_decisions_are_timed_one_by_one(env, pairs):
    agent = DoNothingAgent(env.action_space, SPEC.action_block)
    assert len(Trial(env, SPEC, pairs, STANDARD, seed=0, budget=50).time_decisions(agent, 15)) == 15
    assert len(Trial(env, SPEC, pairs, STANDARD, seed=0, budget=3).time_decisions(agent, 15)) == 15


def test_a_trial_without_pairs_or_steps_is_refused(env, pairs):
    for some, budget in ((pairs[:0], 50), (pairs, 0)):
        with pytest.raises(UserError, match="a trial needs at least one pair and one step"):
            Trial(env, SPEC, some, STANDARD, seed=0, budget=budget)


def test_protocols_judge_the_same_trajectory_by_their_own_rules(env):
    """An arm that rests at its goal from the start, then is driven away."""
    env.set_pose([0.5, 0.5])
    start, picture = env.get_state(), env.render()
    env.set_pose([0.5, 0.54])  # within 0.05 rad, and 0.12 m × 0.04 = 0.005 m of the fingertip
    pairs = Pairs(start[None], env.get_state()[None], env.qpos[None], picture[None])
    still = np.zeros((1, 1, 5, 2), np.float32)
    away = np.ones((1, 3, 5, 2), np.float32)
    steps = {}
    for name, protocol in PROTOCOLS.items():
        trial = Trial(env, SPEC, pairs, protocol, seed=0, budget=20)
        (record,), _ = trial.run(Replay(np.concatenate([still, away], axis=1)))
        steps[name] = record.steps
        assert (record.first_hit, record.held, record.strict) == (1, 5, 2)
        assert record.final_error > 0.05 > record.best_error
    assert steps == {"standard": 1, "far": 1, "hold": 5, "strict": 2}
    away[0, 0, :3] = 0  # three steps are too few to hold
    (record,), _ = Trial(env, SPEC, pairs, PROTOCOLS["hold"], seed=0, budget=15).run(Replay(away))
    assert (record.success, record.steps, record.first_hit) == (False, None, 1)
