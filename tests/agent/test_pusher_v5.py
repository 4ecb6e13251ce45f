import numpy as np
import pytest

from jepa_mpc.agent.data_policies.pusher_v5 import CENTRE, SHOULDER, arm_pusher, leads_inward, read_hand, read_object
from jepa_mpc.envs import registry

NUM_EPISODES = 40
NUM_STEPS = 200


@pytest.fixture(scope="module")
def env():
    return registry.make("gym/Pusher-v5")


def act_out(env, reset_seed, policy_seed, num_steps=NUM_STEPS):
    """Actions (N, 7), and places of the object (N + 1, 2) and of the hand (N + 1, 3)."""
    env.reset(seed=reset_seed)
    policy = arm_pusher(env, 5, np.random.default_rng(policy_seed))
    actions, objects, hands = [], [read_object(env)], [read_hand(env.data)[0]]
    for _ in range(num_steps // 5):
        for action in policy(None):
            env.advance(action)
            actions.append(action)
            objects.append(read_object(env))
            hands.append(read_hand(env.data)[0])
    return np.stack(actions), np.stack(objects), np.stack(hands)


@pytest.fixture(scope="module")
def episodes(env):
    return [act_out(env, seed, seed) for seed in range(NUM_EPISODES)]


@pytest.fixture(scope="module")
def objects(episodes):
    return np.stack([places for _, places, _ in episodes])


def test_it_knows_where_object_and_hand_are(env):
    for seed in range(3):
        env.reset(seed=seed)
        np.testing.assert_allclose(read_object(env), env.data.body("object").xpos[:2])
        env.set_pose(np.concatenate([[0.7, 0, 0, 0, 0, 0, 0], env.qpos[7:]]))
        hand, turn = read_hand(env.data)
        np.testing.assert_allclose(turn, [[np.cos(0.7), -np.sin(0.7)], [np.sin(0.7), np.cos(0.7)]], atol=1e-9)
        np.testing.assert_allclose(hand[:2] - SHOULDER, 0.821 * turn[:, 0], atol=1e-3)  # the arm is straight
        np.testing.assert_allclose(env.position("tip_arml")[:2] - hand[:2], turn @ [0.1, -0.1], atol=1e-9)


def test_it_is_decided_by_its_generator_and_keeps_to_the_bounds(env, episodes):
    again, *_ = act_out(env, 1, 1)
    other, *_ = act_out(env, 1, 2)
    np.testing.assert_array_equal(again, episodes[1][0])
    assert not np.array_equal(again, other)
    assert again.dtype == np.float32
    actions = np.concatenate([actions for actions, *_ in episodes])
    assert (np.abs(actions) <= 2).all()
    assert (actions.std(axis=0) > 0.3).all()


def test_planning_leaves_the_simulation_as_it_was(env):
    env.reset(seed=3)
    before = env.get_state()
    for seed in range(5):
        next(iter(arm_pusher(env, 1, np.random.default_rng(seed))(None)))
        np.testing.assert_array_equal(env.get_state(), before)


def test_it_moves_the_object_often_and_in_most_episodes(objects):
    moved = np.linalg.norm(objects[:, 25:] - objects[:, :-25], axis=-1) > 0.05
    assert moved.mean() > 0.35
    assert (moved.mean(axis=1) > 0.1).mean() > 0.8


def test_it_moves_the_object_every_way(objects):
    change = (objects[:, 25:] - objects[:, :-25]).reshape(-1, 2)
    change = change[np.linalg.norm(change, axis=1) > 0.05]
    quarters = np.histogram(np.arctan2(change[:, 1], change[:, 0]), 4, (-np.pi, np.pi))[0] / len(change)
    assert quarters.min() > 0.05
    assert quarters.max() < 0.6


def test_it_keeps_the_object_in_reach(objects):
    distance = np.linalg.norm(objects - SHOULDER, axis=-1)
    assert distance.max() < 0.85  # a few begin there
    assert distance.min() > 0.33
    assert (distance[:, -1] < 0.8).mean() > 0.9
    assert (np.linalg.norm(objects[:, -1] - CENTRE, axis=-1) < 0.25).mean() > 0.8


def test_it_holds_its_hand_beside_the_object_while_that_moves(episodes):
    for _, places, hands in episodes[:10]:
        moving = np.linalg.norm(np.diff(places, axis=0), axis=1) > 0.002
        assert ((hands[1:, 2] < -0.2) | ~moving).mean() > 0.95


def test_far_out_only_ways_back_are_good():
    assert leads_inward(np.array([1.0, 0.0]), CENTRE)
    far_right = CENTRE + np.array([0.3, 0.0])
    assert leads_inward(np.array([-1.0, 0.0]), far_right)
    assert not leads_inward(np.array([1.0, 0.0]), far_right)
    assert not leads_inward(np.array([0.0, 1.0]), far_right)
