import sys

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

pusht = pytest.importorskip("gym_pusht.envs.pusht")

from jepa_mpc import envs
from jepa_mpc.agent.collect import run_episode
from jepa_mpc.agent.data_policies.push_t import push_t_pusher
from jepa_mpc.envs import EnvError
from jepa_mpc.envs.suites import push_t
from jepa_mpc.envs.suites.push_t import PushTEnv
from jepa_mpc.seeds import episode_rng

NUM_EPISODES = 40


@pytest.fixture(scope="module")
def env():
    return PushTEnv()


@pytest.fixture(scope="module")
def episodes():
    """What a collection would store, first to last (N, 25, …)."""
    env, kept = PushTEnv(), []
    for index in range(NUM_EPISODES):
        rng = episode_rng("test", 0, index)
        kept.append(run_episode(env, push_t_pusher(env, 5, rng), [None] * 24, rng))
    return kept


def toward_block(env, size=0.9):
    """The action that pushes hardest at the block's centre of mass."""
    agent, block, angle = env.qpos[:2], env.qpos[2:4], env.qpos[4]
    way = push_t.to_world(push_t.CENTRE_OF_MASS, block, angle) - agent
    return size * way / np.linalg.norm(way)


def into_contact(env, seed):
    env.reset(seed=seed)
    while not env.qvel[2:].any():
        env.advance(toward_block(env))


def library_scene(qpos):
    """gym-pusht's own environment in that pose, at rest."""
    library = pusht.PushTEnv()
    library._setup()
    library.goal_pose = np.array([-1000.0, -1000.0, 0.0])  # out of the picture
    library.agent.position = tuple(qpos[:2])
    library.block.angle = qpos[4]
    library.block.position = tuple(qpos[2:4])
    library.space.reindex_shapes_for_body(library.agent)
    library.space.reindex_shapes_for_body(library.block)
    return library


def library_qpos(library):
    return np.array([*library.agent.position, *library.block.position, library.block.angle])


@pytest.mark.filterwarnings("ignore:.*not having a spec.*")
def test_passes_gymnasiums_check():
    check_env(PushTEnv())


@pytest.mark.parametrize("seed", range(5))
def test_a_state_restored_in_mid_push_has_the_same_picture_and_future_bit_for_bit(env, seed):
    into_contact(env, seed)
    state, picture, rng = env.get_state(), env.render(), np.random.default_rng(seed)
    actions, future, last = [], [], None
    for _ in range(30):
        actions.append(toward_block(env) + rng.normal(0, 0.3, 2))
        env.advance(actions[-1])
        future.append(env.get_state())
        last = env.render()
    assert np.linalg.norm(future[-1][2:4] - state[2:4]) > 20
    for other in (env, PushTEnv()):
        other.set_state(state)
        np.testing.assert_array_equal(other.render(), picture)
        for action, expected in zip(actions, future, strict=True):
            other.advance(action)
            np.testing.assert_array_equal(other.get_state(), expected)
        np.testing.assert_array_equal(other.render(), last)


def test_restoring_midway_through_the_future_changes_nothing(env):
    into_contact(env, 0)
    state = env.get_state()
    for _ in range(6):
        env.advance([0.5, 0.2])
    straight = env.get_state()
    env.set_state(state)
    for _ in range(6):
        saved = env.get_state()
        env.reset(seed=3)
        env.set_state(saved)
        env.advance([0.5, 0.2])
    np.testing.assert_array_equal(env.get_state(), straight)


def test_poses_read_back_and_are_at_rest(env):
    rng = np.random.default_rng(0)
    for _ in range(20):
        pose = np.array([*rng.uniform(20, 120, 2), *rng.uniform(280, 350, 2), rng.uniform(-9, 9)])
        env.advance([1.0, -1.0])
        env.set_pose(pose)
        np.testing.assert_array_equal(env.qpos, pose)
        assert not env.qvel.any()
        env.advance([0.0, 0.0])
        np.testing.assert_allclose(env.qpos, pose, atol=1e-9)  # and stays there
        np.testing.assert_array_equal(env.position("agent"), [*env.qpos[:2], 0])
        np.testing.assert_array_equal(env.position("block"), [*env.qpos[2:4], 0])


def test_a_saved_state_is_not_changed_by_what_follows(env):
    env.reset(seed=0)
    state, pose = env.get_state(), env.qpos
    kept = state.copy()
    env.set_state(state)
    env.advance([1.0, 1.0])
    np.testing.assert_array_equal(state, kept)
    np.testing.assert_array_equal(pose, kept[:5])


def test_resets_begin_at_every_angle_within_the_walls_and_apart(env):
    angles = []
    for seed in range(200):
        env.reset(seed=seed)
        agent, block, angle = env.qpos[:2], env.qpos[2:4], env.qpos[4]
        corners = push_t.to_world(push_t.CORNERS, block, angle)
        assert corners.min() > push_t.WALLS[0]
        assert corners.max() < push_t.WALLS[1]
        assert push_t.distance_to_block(push_t.to_block(agent, block, angle)) > push_t.RADIUS
        angles.append(angle)
    assert np.histogram(angles, 4, (-np.pi, np.pi))[0].min() > 30


def test_an_action_moves_the_agent_that_way_and_no_further_than_its_target(env):
    for action in ([1.0, 0.0], [0.0, -1.0], [-0.5, 0.5]):
        env.set_pose([256.0, 256.0, 100.0, 350.0, 0.0])
        env.advance(action)
        moved = env.qpos[:2] - 256
        assert moved @ np.array(action) / np.linalg.norm(action) == pytest.approx(np.linalg.norm(moved))
        assert 0.2 < np.linalg.norm(moved) / (push_t.REACH * np.linalg.norm(action)) < 0.4
        at_rest = push_t.REACH * np.array(action)
        for _ in range(20):  # the action that keeps the first target where it was
            env.advance((256 + at_rest - env.qpos[:2]) / push_t.REACH)
        np.testing.assert_allclose(env.qpos[:2], 256 + at_rest, atol=0.1)


def test_the_agent_is_held_on_the_table(env):
    env.reset(seed=0)
    env.set_pose([60.0, 60.0, 300.0, 300.0, 0.0])
    for _ in range(30):
        env.advance([-1.0, -1.0])
    assert (np.abs(env.qpos[:2]) < 1).all()


def test_physics_are_gym_pushts_own(env):
    errors = []
    for seed in range(10):
        env.reset(seed=seed)
        start = env.qpos
        library = library_scene(start)
        for _ in range(12):
            action = toward_block(env, 0.6)
            library.step(np.clip(np.array(library.agent.position) + push_t.REACH * action, 0, push_t.SIDE))
            env.advance(action)
            error = np.abs(library_qpos(library) - env.qpos)
            if np.abs(env.qpos - start)[2:].max() < 1e-9:  # not touched yet
                np.testing.assert_allclose(error, 0, atol=1e-9)
        errors.append(error)
    # Without warm starts a push ends a little elsewhere; the agent, which nothing pushes, does not.
    assert np.max(errors, 0)[:2] == pytest.approx([0, 0], abs=1e-9)
    assert np.median(errors, 0)[2:4].max() < 0.2
    assert np.max(errors, 0)[2:4].max() < 5


@pytest.mark.parametrize("size", [64, 96])
def test_pictures_are_gym_pushts_own_without_its_goal(size):
    import cv2

    env = PushTEnv(size)
    for seed in range(5):
        picture, _ = env.reset(seed=seed)
        screen = pusht.pygame.surfarray.array3d(library_scene(env.qpos)._draw()).transpose(1, 0, 2)
        expected = cv2.resize(screen, (size, size), interpolation=cv2.INTER_AREA).astype(float)
        assert picture.shape == (size, size, 3)
        assert np.abs(picture - expected).mean() < 0.05


def test_pictures_show_the_agent_and_which_way_the_block_points(env):
    pose, pictures = np.array([100.0, 400.0, 256.0, 200.0, 0.0]), []
    for turn in np.deg2rad([0, 10, 90, 180]):
        env.set_pose(pose + np.array([0, 0, 0, 0, turn]))
        pictures.append(env.render().astype(float))
    for picture in pictures[1:]:
        assert np.abs(picture - pictures[0]).mean() > 0.5
    assert pictures[0][50, 12] == pytest.approx([78, 126, 255], abs=30)  # y 400, x 100: blue
    assert pictures[0][34, 32] == pytest.approx([143, 163, 185], abs=30)  # y 275: the stem points down
    assert (pictures[0][20, 32] == 255).all()
    env.set_pose(pose + np.array([0, 0, 0, 0, 2 * np.pi]))
    np.testing.assert_array_equal(env.render(), pictures[0])


def test_the_block_frame_is_the_simulators():
    library = library_scene([50.0, 50.0, 300.0, 200.0, 0.7])
    corners = [library.block.local_to_world(v) for shape in library._block_shapes for v in shape.get_vertices()]
    ours = push_t.to_world(push_t.CORNERS, np.array([300.0, 200.0]), 0.7)
    np.testing.assert_allclose(ours.reshape(8, 2), corners)
    np.testing.assert_allclose(push_t.to_block(ours, np.array([300.0, 200.0]), 0.7), push_t.CORNERS, atol=1e-9)
    np.testing.assert_allclose(library.block.center_of_gravity, push_t.CENTRE_OF_MASS)
    outside = np.array([[0.0, -10.0], [75.0, 15.0], [30.0, 60.0], [0.0, 60.0]])
    np.testing.assert_allclose(push_t.distance_to_block(outside), [10, 15, 15, 0])


def test_without_gym_pusht_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gym_pusht.envs", None)
    monkeypatch.delitem(sys.modules, push_t.__name__)
    with pytest.raises(EnvError, match=r"pip install 'jepa-mpc\[push-t\]'") as caught:
        envs.make("push_t")
    assert "\n" not in str(caught.value)


def test_the_pusher_is_decided_by_its_generator(env):
    episodes = []
    for seed in (0, 0, 1):
        env.reset(seed=0)
        actions = []
        for action in push_t_pusher(env, 15, np.random.default_rng(seed))(None):
            env.advance(action)
            actions.append(action)
        episodes.append(np.stack(actions))
    assert episodes[0].dtype == np.float32
    assert (np.abs(episodes[0]) <= 1).all()
    np.testing.assert_array_equal(episodes[0], episodes[1])
    assert not np.array_equal(episodes[0], episodes[2])


def test_the_pusher_moves_and_turns_the_block(episodes):
    qpos = np.stack([episode.qpos for episode in episodes])
    change = qpos[:, 5:] - qpos[:, :-5]  # over 25 steps
    moved = np.linalg.norm(change[..., 2:4], axis=-1) > 10
    turned = np.abs(change[..., 4]) > np.deg2rad(10)
    assert (moved | turned).mean() > 0.5
    assert turned.mean() > 0.35
    both_ways = np.sign(change[..., 4])[turned]
    assert abs(both_ways.mean()) < 0.3


def test_the_pusher_is_as_fast_as_the_papers_demonstrators(episodes):
    # 75 and 74 px/s, and targets 20 px away: std of each axis in https://github.com/gaoyuezhou/dino_wm.
    velocity = np.stack([episode.qvel[:, :2] for episode in episodes])
    assert (np.abs(velocity.std((0, 1)) - 75) < 8).all()
    assert abs(push_t.REACH * np.stack([episode.action for episode in episodes]).std() - 20) < 3


def test_the_pusher_keeps_the_block_on_the_table_and_shows_it_at_every_angle_and_place(episodes):
    qpos = np.concatenate([episode.qpos for episode in episodes])
    corners = np.stack([push_t.to_world(push_t.CORNERS, pose[2:4], pose[4]) for pose in qpos])
    on_table = (corners > push_t.WALLS[0] - 5) & (corners < push_t.WALLS[1] + 5)
    assert on_table.all((1, 2, 3)).mean() > 0.98
    centres = np.stack([push_t.to_world(push_t.CENTRE_OF_MASS, pose[2:4], pose[4]) for pose in qpos])
    assert (np.histogram2d(*centres.T, bins=3, range=[[80, 430]] * 2)[0] > 0.02 * len(qpos)).all()
    angles = np.histogram(qpos[:, 4] % (2 * np.pi), 8)[0] / len(qpos)
    assert angles.min() > 0.5 / 8
    assert angles.max() < 1.8 / 8
