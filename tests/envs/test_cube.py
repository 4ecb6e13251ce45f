import sys

import numpy as np
import pytest

from jepa_mpc import envs
from jepa_mpc.agent.data_policies import cube
from jepa_mpc.agent.data_policies.cube import MAX_NOISE, _placed, cube_oracle, demonstrate
from jepa_mpc.envs import rendering
from jepa_mpc.envs.suites.ogbench_cube import VIEW, OGBenchCubeEnv, mujoco

NOTHING = np.zeros(5, np.float32)
CUBE = (14, 15, 16)  # coordinates of qpos: where the cube's middle is, in metres
LIFTED = 0.06  # metres, of the cube's middle


@pytest.fixture(scope="module")
def env():
    return OGBenchCubeEnv()


def cube_of(env):
    return env.qpos[list(CUBE)]


def act_until(env, act, condition, max_steps=400):
    for _ in range(max_steps):
        if condition():
            return
        env.advance(act())
    raise AssertionError(f"not within {max_steps} steps")


def oracle_of(env, rng):
    """A function that returns the demonstrator's next action."""
    return demonstrate(env, 5, rng.uniform(0, MAX_NOISE), rng).__next__


def grasped(env, seed):
    """Runs the oracle until it has lifted the cube; its next action."""
    env.reset(seed=seed)
    act = oracle_of(env, np.random.default_rng(seed))
    act_until(env, act, lambda: cube_of(env)[2] > LIFTED)
    return act


def future(env, actions):
    return [np.concatenate([[env.advance(action)], env.qpos, env.qvel]) for action in actions]


def test_a_state_saved_in_mid_grasp_gives_the_same_picture_and_future(env):
    grasped(env, seed=1)
    state, picture = env.get_state(), env.render()
    actions = np.random.default_rng(0).uniform(-1, 1, (40, 5))
    expected = future(env, actions)
    assert np.ptp([step[1 + CUBE[0]] for step in expected]) > 0.01  # metres that the hand has carried it
    env.reset(seed=2)
    future(env, actions[:10])
    env.set_state(state)
    np.testing.assert_array_equal(env.render(), picture)
    np.testing.assert_array_equal(future(env, actions), expected)
    other = OGBenchCubeEnv()  # nothing of it was kept outside the state
    other.reset(seed=5)
    other.set_state(state)
    np.testing.assert_array_equal(future(other, actions), expected)


def test_a_closed_hand_carries_the_cube_and_an_open_one_drops_it(env):
    grasped(env, seed=1)
    state = env.get_state()
    for _ in range(20):
        env.advance(np.array([0, 0, 1, 0, 1.0]))
    assert cube_of(env)[2] > 0.15
    env.set_state(state)
    for _ in range(20):
        env.advance(np.array([0, 0, 1, 0, -1.0]))
    assert cube_of(env)[2] == pytest.approx(0.02, abs=0.002)


def test_the_reward_is_for_the_cube_on_its_target(env):
    env.reset(seed=0)
    assert env.advance(NOTHING) == 0
    env.data.qpos[list(CUBE)] = env.data.mocap_pos[env.ogbench._cube_target_mocap_ids[0]]
    assert env.advance(NOTHING) == 1


def test_thinner_meshes_leave_physics_as_they_are_and_the_picture_almost(env):
    default = OGBenchCubeEnv(fast_rendering=False)
    assert env.model.mesh_facenum.sum() * 5 < default.model.mesh_facenum.sum()
    pictures, trajectories = [], []
    for each in (env, default):
        act = grasped(each, seed=3)
        pictures.append(each.render().astype(float))
        trajectories.append(future(each, [act() for _ in range(5)]))
    np.testing.assert_array_equal(trajectories[0], trajectories[1])
    assert 0 < np.abs(pictures[0] - pictures[1]).mean() < 1.5


def balls(*orders: int, sensor: str = "") -> mujoco.MjModel:
    """Returns a model with a round mesh for each order that its vertices come in: 1 forwards, -1 backwards."""
    side = 30
    u, v = np.meshgrid(np.linspace(0, 2 * np.pi, side, endpoint=False), np.linspace(0.05, np.pi - 0.05, side))
    points = np.stack([np.cos(u) * np.sin(v), np.sin(u) * np.sin(v), np.cos(v)], axis=-1).reshape(-1, 3)
    meshes, geoms = "", ""
    for index, order in enumerate(orders):
        vertices = " ".join(f"{x:.4f}" for x in points[::order].ravel())
        meshes += f'<mesh name="ball{index}" vertex="{vertices}"/>'
        geoms += f'<geom type="mesh" mesh="ball{index}"/>'
    xml = f"<asset>{meshes}</asset><worldbody>{geoms}<site name='eye'/></worldbody><sensor>{sensor}</sensor>"
    return mujoco.MjModel.from_xml_string(f"<mujoco>{xml}</mujoco>")


def test_decimation_keeps_a_mesh_that_the_grid_cannot_see_and_closes_no_hole():
    model = balls(1)
    faces, corners = model.mesh_face.copy(), model.mesh_vert.copy()
    rendering.decimate_meshes(model, 1e-9)
    np.testing.assert_array_equal(model.mesh_face, faces)
    rendering.decimate_meshes(model, 0.2)
    num = int(model.mesh_facenum[0])
    assert 50 < num < len(faces) / 2
    np.testing.assert_array_equal(model.mesh_vert, corners)
    # Each edge of a closed surface is walked once in each direction.
    kept = model.mesh_face[:num]
    edges = [tuple(edge) for face in kept for edge in zip(face, np.roll(face, -1), strict=True)]
    assert {(b, a) for a, b in edges} == set(edges)


def test_thinned_faces_keep_the_normals_of_their_own_mesh():
    model = balls(1, -1)
    rendering.decimate_meshes(model, 0.2)
    for mesh in range(2):
        faces = slice(model.mesh_faceadr[mesh], model.mesh_faceadr[mesh] + model.mesh_facenum[mesh])
        places = model.mesh_vert[model.mesh_vertadr[mesh] + model.mesh_face[faces]]
        normals = model.mesh_normal[model.mesh_normaladr[mesh] + model.mesh_facenormal[faces]]
        assert (places * normals).sum(-1).min() > 0.9  # a ball's normals point away from its middle


@pytest.mark.parametrize(("sensor", "thinned"), [("", True), ('<rangefinder site="eye"/>', False)])
def test_meshes_that_sensors_see_keep_their_faces(monkeypatch, sensor, thinned):
    monkeypatch.setattr(rendering, "MANY_FACES", 1000)
    monkeypatch.setattr(rendering, "CELLS_PER_EXTENT", 5)
    model = balls(1, sensor=sensor)
    num = int(model.mesh_facenum[0])
    rendering.apply_fast_quality(model, 64)
    assert (model.mesh_facenum[0] < num) == thinned


def test_the_oracle_moves_the_cube_in_most_of_the_time():
    env, moved = OGBenchCubeEnv(), []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        env.reset(seed=seed)
        act, places = oracle_of(env, rng), []
        for _ in range(200):
            places.append(cube_of(env))
            env.advance(act())
        travelled = np.linalg.norm(np.array(places[25:]) - places[:-25], axis=1)
        moved.append((travelled > 0.04).mean())
    assert np.mean(moved) > 0.6


def test_a_cube_is_placed_once_it_lies_there_and_the_hand_has_risen():
    target = {"privileged/target_block_pos": np.array([0.4, 0.1, 0.02])}
    for x, height, placed in ((0.41, 0.1, True), (0.43, 0.1, False), (0.41, 0.05, False)):
        seen = {"privileged/block_0_pos": np.array([x, 0.1, 0.02]), "proprio/effector_pos": np.array([x, 0.1, height])}
        assert _placed(seen, target) == placed


def test_an_attempt_has_its_own_speed_and_grips_firmly_and_an_episode_its_own_noise(env, monkeypatch):
    oracle = "ogbench.manipspace.oracles.markov.cube_markov.CubeMarkovOracle.select_action"
    monkeypatch.setattr(oracle, lambda *_: np.ones(5))
    monkeypatch.setattr(cube, "RANDOM_SHARE", 0)
    *speeds, grips = np.array([next(demonstrate(env, 5, 0.0, np.random.default_rng(seed))) for seed in range(40)]).T
    assert (grips == 1).all()
    assert all((speed == speeds[0]).all() for speed in speeds)
    assert (0.5 < speeds[0].min() < 0.6) & (0.9 < speeds[0].max() < 1)
    amounts = []
    monkeypatch.setattr(cube, "demonstrate", lambda env, block, noise, rng: amounts.append(noise))
    for seed in range(40):
        cube_oracle(env, 5, np.random.default_rng(seed))
    assert min(amounts) < 0.05
    assert 0.45 < max(amounts) < 0.5


def test_a_tenth_of_the_steps_or_so_are_random(env, monkeypatch):
    """At (RANDOM_SHARE / block) a step outside a stretch, whose length is a block: 0.1 / 1.1."""
    oracle = "ogbench.manipspace.oracles.markov.cube_markov.CubeMarkovOracle.select_action"
    monkeypatch.setattr(oracle, lambda *_: np.ones(5))
    env.reset(seed=0)
    act = demonstrate(env, 5, 0.0, np.random.default_rng(0)).__next__
    assert 0.05 < np.mean([act()[4] != 1 for _ in range(1000)]) < 0.14


def test_the_policy_is_decided_by_its_generator(env):
    episodes = []
    for _ in range(2):
        env.reset(seed=0)
        np.random.seed(len(episodes))  # which decides nothing
        policy, actions = cube_oracle(env, 5, np.random.default_rng(0)), []
        for _ in range(3):
            for action in policy(None):
                env.advance(action)
                actions.append(action)
        episodes.append(actions)
    np.testing.assert_array_equal(episodes[0], episodes[1])
    assert np.shape(episodes[0]) == (15, 5)
    assert np.abs(episodes[0]).max() <= 1


def test_targets_do_not_show(env):
    env.reset(seed=0)
    pose, pictures = env.qpos, []
    for seed in range(3):
        env.reset(seed=seed)
        targets = env.ogbench.data.mocap_pos.copy()
        env.set_pose(pose)
        env.ogbench.data.mocap_pos[:] = targets  # `set_pose` puts it back where the model has it
        mujoco.mj_forward(env.model, env.ogbench.data)
        pictures.append(env.render())
        for _ in range(2):
            env.advance(NOTHING)  # a step of OGBench colours cubes and targets
    np.testing.assert_array_equal(pictures[0], pictures[1])
    np.testing.assert_array_equal(pictures[0], pictures[2])


def test_a_camera_of_ones_own_is_used(env):
    other = OGBenchCubeEnv(camera=VIEW._replace(distance=2.0))
    env.reset(seed=0)
    assert not np.array_equal(other.picture_of(env.get_state()), env.render())
    other.close()


def test_the_cube_is_seen_wherever_it_lies(env):
    env.reset(seed=0)
    pose = env.qpos
    for x in (0.3, 0.55):
        for y in (-0.3, 0.3):
            pose[list(CUBE)] = x, y, 0.02
            env.set_pose(pose)
            red, green, blue = env.render().astype(int).transpose(2, 0, 1)
            assert ((red > 1.5 * green) & (red > 1.5 * blue) & (red > 60)).sum() >= 12


def test_without_ogbench_one_line_names_the_fix(monkeypatch):
    monkeypatch.setitem(sys.modules, "ogbench.manipspace.envs.cube_env", None)
    with pytest.raises(envs.EnvError, match=r"pip install 'jepa-mpc\[cube\]'") as caught:
        OGBenchCubeEnv()
    assert "\n" not in str(caught.value)
