import numpy as np

from jepa_mpc import envs
from jepa_mpc.envs.blocks import as_actions, block_bounds, run_block


def test_a_blocks_actions_stand_side_by_side_in_the_order_of_their_steps():
    actions = np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]], np.float32)
    env, alone = envs.make("two_room"), envs.make("two_room")
    env.reset(seed=0), alone.reset(seed=0)
    vector = run_block(env, actions)
    np.testing.assert_array_equal(vector, np.float32([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]))
    np.testing.assert_array_equal(as_actions(vector, 3), actions)
    np.testing.assert_array_equal(as_actions(np.stack([[vector]] * 4), 3)[2, 0], actions)
    for action in actions:
        alone.advance(action)
    np.testing.assert_array_equal(env.qpos, alone.qpos)


def test_an_action_is_drawn_once_the_one_before_is_applied():
    env = envs.make("two_room")
    env.reset(seed=0)
    env.set_pose([60.0, 112.0])
    seen = []

    def right():
        for _ in range(3):
            seen.append(env.qpos[0])
            yield np.float32([1, 0])

    run_block(env, right())
    assert seen == [60, 65, 70]


def test_a_blocks_bounds_repeat_those_of_an_action():
    low, high = block_bounds(np.float32([-1, 0]), np.float32([2, 3]), 2)
    np.testing.assert_array_equal(low, np.float32([-1, 0, -1, 0]))
    np.testing.assert_array_equal(high, np.float32([2, 3, 2, 3]))
    assert low.dtype == high.dtype == np.float32
