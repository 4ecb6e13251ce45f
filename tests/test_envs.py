import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import envs

TASKS = envs.task_names()


@pytest.fixture(params=TASKS)
def task(request):
    return request.param


def trajectory(env, seed, num_steps=30):
    rng = np.random.default_rng(seed)
    picture, _ = env.reset(seed=seed)
    pictures, poses = [picture], [env.qpos]
    for _ in range(num_steps):
        picture, reward, terminated, truncated, _ = env.step(
            rng.uniform(env.action_space.low, env.action_space.high).astype(np.float32)
        )
        assert (type(reward), terminated, truncated) == (float, False, False)
        pictures.append(picture)
        poses.append(env.qpos)
    return np.stack(pictures), np.stack(poses)


@pytest.mark.filterwarnings("ignore:.*not having a spec.*")
def test_passes_gymnasiums_check(task):
    check_env(envs.make(task))


def test_same_seed_same_trajectory_bit_for_bit(task):
    first, second = trajectory(envs.make(task), seed=3), trajectory(envs.make(task), seed=3)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert not np.array_equal(first[1], trajectory(envs.make(task), seed=4)[1])


def test_restored_state_gives_the_same_picture_and_the_same_future(task):
    env, rng = envs.make(task), np.random.default_rng(0)
    trajectory(env, seed=1)
    state, picture = env.get_state(), env.render()
    actions = rng.uniform(env.action_space.low, env.action_space.high, (40, *env.action_space.shape))
    future = [(env.advance(action), env.qpos)[1] for action in actions]
    trajectory(env, seed=2)
    env.set_state(state)
    np.testing.assert_array_equal(env.render(), picture)
    np.testing.assert_array_equal([(env.advance(action), env.qpos)[1] for action in actions], future)


def test_a_second_environment_does_not_change_the_first_ones_pictures(task):
    alone, _ = trajectory(envs.make(task), seed=5)
    env, other = envs.make(task), envs.make(task, image_size=96)
    other.reset(seed=9)
    together, _ = trajectory(env, seed=5)
    other.close()
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(trajectory(env, seed=5)[0], alone)


def test_step_is_advance_with_a_picture(task):
    stepped, advanced = envs.make(task), envs.make(task)
    stepped.reset(seed=0), advanced.reset(seed=0)
    action = stepped.action_space.high
    picture, *_ = stepped.step(action)
    advanced.advance(action)
    np.testing.assert_array_equal(picture, advanced.render())


def test_actions_beyond_the_bounds_are_clipped(task):
    bounded, beyond = envs.make(task), envs.make(task)
    bounded.reset(seed=0), beyond.reset(seed=0)
    bounded.advance(bounded.action_space.high)
    beyond.advance(bounded.action_space.high * 7)
    np.testing.assert_array_equal(bounded.qpos, beyond.qpos)


def test_set_pose_puts_the_simulation_at_rest(task):
    env = envs.make(task)
    env.reset(seed=0)
    pose = env.qpos
    env.advance(env.action_space.high)
    env.set_pose(pose)
    np.testing.assert_array_equal(env.qpos, pose)
    assert not env.qvel.any()


def test_fast_pictures_are_within_half_a_level_of_the_defaults(task):
    fast, default = envs.make(task), envs.make(task, fast_rendering=False)
    differences = []
    for seed in range(20):
        pictures = [env.reset(seed=seed)[0].astype(float) for env in (fast, default)]
        differences.append(np.abs(pictures[0] - pictures[1]).mean())
    assert np.mean(differences) < 0.5


def test_reacher_hides_its_target():
    # Under one pose, the suite draws a new target at every reset; only a visible one would change the picture.
    env = envs.make("reacher")
    pictures = []
    for seed in range(3):
        env.reset(seed=seed)
        env.set_pose([0.5, 1.0])
        pictures.append(env.render())
    np.testing.assert_array_equal(pictures[0], pictures[1])
    np.testing.assert_array_equal(pictures[0], pictures[2])
    assert pictures[0].std() > 5


@pytest.mark.parametrize(
    ("pose", "goal", "error"),
    [
        ([0.0, 0.0], [0.02, -0.03], 0.03),
        ([2 * np.pi + 0.01, 0.0], [0.0, 0.0], 0.01),  # the shoulder turns without limit
        ([np.pi - 0.01, 0.0], [-np.pi + 0.01, 0.0], 0.02),
        ([0.0, 2 * np.pi], [0.0, 0.0], 2 * np.pi),  # the wrist does not
    ],
)
def test_reacher_error_wraps_the_shoulder_alone(pose, goal, error):
    spec = envs.get_task("reacher")
    assert spec.error(np.array(pose), np.array(goal)) == pytest.approx(error, abs=1e-12)
    assert spec.success(np.array(pose), np.array(goal)) == (error < 0.05)


def test_unknown_task_lists_the_known_ones():
    with pytest.raises(envs.EnvError, match=r"unknown task 'recher'; known tasks: .*reacher"):
        envs.make("recher")
