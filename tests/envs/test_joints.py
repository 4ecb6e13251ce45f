"""What a robot feels of itself: the joints that its actuators move, and no others."""

import numpy as np
import pytest

from jepa_mpc import envs
from jepa_mpc.envs.joints import joints, numbered


def test_an_endless_turn_is_told_by_cosine_and_sine_and_a_limited_one_by_its_angle():
    env = envs.make("reacher")
    env.reset(seed=0)
    shoulder, wrist = env.qpos
    assert env.proprio_names == ("cos shoulder", "sin shoulder", "wrist", "shoulder velocity", "wrist velocity")
    for _ in range(3):
        env.advance(np.array([0.5, -0.5]))
        shoulder, wrist = env.qpos
        expected = [np.cos(shoulder), np.sin(shoulder), wrist, *env.qvel]
        np.testing.assert_allclose(env.proprio, expected, rtol=1e-6)
        assert env.proprio.dtype == np.float32


@pytest.mark.parametrize(
    ("task", "felt"),
    [
        ("ball_in_cup", ("cup_x", "cup_z", "cup_x velocity", "cup_z velocity")),  # by tendons; the ball hangs free
        ("cartpole", ("slider", "slider velocity")),
        ("two_room", ()),
        ("push_t", ()),
    ],
)
def test_what_no_actuator_moves_is_not_felt(task, felt):
    env = envs.make(task)
    env.reset(seed=1)
    assert env.proprio_names == felt
    assert env.proprio.shape == (len(felt),)


def test_what_is_felt_follows_the_state():
    env = envs.make("ball_in_cup")
    env.reset(seed=0)
    env.advance(np.array([0.3, 0.2]))
    state, felt = env.get_state(), env.proprio
    np.testing.assert_allclose(felt, [*env.qpos[:2], *env.qvel[:2]], rtol=1e-6)
    env.reset(seed=1)
    env.set_state(state)
    np.testing.assert_array_equal(env.proprio, felt)


def test_joints_of_several_numbers_are_numbered():
    env = envs.make("gym/Ant-v5")
    root, hip, *_ = joints(env.model)
    assert (root.positions, root.velocities, root.endless) == (slice(0, 7), slice(0, 6), False)
    assert (hip.positions, hip.velocities) == (slice(7, 8), slice(6, 7))
    assert numbered("root", root.positions) == [f"root {index}" for index in range(7)]
    assert not any(name.startswith("root") for name in env.proprio_names)
    assert len(env.proprio_names) == 2 * env.model.nu


def test_pictures_of_several_cameras_lie_side_by_side():
    both = envs.make("ball_in_cup@cam0+cam1")
    assert both.cameras == ("cam0", "cam1")
    assert both.observation_space.shape == (64, 128, 3)
    seen, _ = both.reset(seed=3)
    for index, camera in enumerate(both.cameras):
        alone = envs.make(f"ball_in_cup@{camera}")
        np.testing.assert_array_equal(alone.reset(seed=3)[0], seen[:, 64 * index :][:, :64])
        assert alone.cameras == (camera,)
    envs.get_task("ball_in_cup@cam0+cam1").check(both)


def test_another_camera_holds_of_a_tasks_suite_too():
    spec = envs.get_task("reacher@hand+fixed")
    assert spec.name == "reacher@hand+fixed"
    for task in spec.suite:
        env = task.make(32, True)
        assert env.cameras == ("hand", "fixed")
        assert env.render().shape == (32, 64, 3)
    assert envs.get_task("cube@0").name == "cube@0"
