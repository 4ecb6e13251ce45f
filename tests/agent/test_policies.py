from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
from line import register

from jepa_mpc import envs
from jepa_mpc.agent.collect import CollectConfig, collect
from jepa_mpc.agent.data_policies import DATA_POLICIES, one_by_one
from jepa_mpc.agent.data_policies.noise import coloured_noise
from jepa_mpc.envs.suites import two_room
from jepa_mpc.errors import UserError


def actions_of(name, env, num_blocks=60, block=5, seed=0):
    policy, actions = DATA_POLICIES[name](env, block, np.random.default_rng(seed)), []
    for _ in range(num_blocks):
        for action in policy(None):
            env.advance(action)
            actions.append(action)
    return np.stack(actions)


@pytest.mark.parametrize("name", ["uniform", "pink", "held"])
def test_noise_is_within_bounds_and_decided_by_its_generator(name):
    env = envs.make("reacher")
    actions = actions_of(name, env)
    assert actions.shape == (300, 2)
    assert actions.dtype == np.float32
    assert (np.abs(actions) <= 1).all()
    np.testing.assert_array_equal(actions, actions_of(name, env))
    assert not np.array_equal(actions, actions_of(name, env, seed=1))


def test_noise_is_centred_and_scaled_by_the_action_space():
    space = gym.spaces.Box(np.array([-1, 2], np.float32), np.array([1, 6], np.float32))

    def drawn(name, block=5):
        policy = DATA_POLICIES[name](SimpleNamespace(action_space=space), block, np.random.default_rng(0))
        return np.concatenate([list(policy(None)) for _ in range(4000)])

    uniform, pink, held = drawn("uniform"), drawn("pink"), drawn("held")
    for actions in (uniform, held):
        np.testing.assert_allclose(actions.mean(0), [0, 4], atol=0.1)
        np.testing.assert_allclose(actions.std(0), np.array([2, 4]) / np.sqrt(12), rtol=0.05)
    np.testing.assert_allclose(np.median(pink, axis=0), [0, 4], atol=0.1)
    inside = (np.abs(pink - [0, 4]) < np.array([0.5, 1])).mean(0)  # one std, which is half the half-range
    np.testing.assert_allclose(inside, 0.68, atol=0.03)
    for actions, lowest, highest in ((uniform, -0.05, 0.05), (pink, 0.5, 1.0), (held, 0.5, 1.0)):
        x = actions[:, 0] - actions[:, 0].mean()
        assert lowest < (x[1:] * x[:-1]).mean() / x.var() < highest  # pink and held noise go on as they were


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_coloured_noise_has_its_spectrum(exponent):
    rng = np.random.default_rng(0)
    power = np.mean([np.abs(np.fft.rfft(coloured_noise(1024, (3,), exponent, rng), axis=0)) ** 2 for _ in range(40)], 0)
    frequencies = np.fft.rfftfreq(1024)[4:400]
    slope = np.polyfit(np.log(frequencies), np.log(power.mean(1)[4:400]), 1)[0]
    assert slope == pytest.approx(-exponent, abs=0.1)
    noise = coloured_noise(1024, (3,), exponent, rng)
    np.testing.assert_allclose([noise.mean(0), noise.std(0)], [[0] * 3, [1] * 3], atol=1e-9)


def test_held_actions_last_up_to_two_blocks():
    actions = actions_of("held", envs.make("reacher"), num_blocks=2000)
    changes = np.flatnonzero((np.diff(actions, axis=0) != 0).any(1))
    lengths = np.diff(changes)
    assert (lengths.min(), lengths.max()) == (1, 10)
    assert lengths.mean() == pytest.approx(5.5, abs=0.4)


def test_scripted_policies_see_each_action_done_before_they_choose_the_next():
    env, seen = envs.make("two_room"), []

    def actions():
        while True:
            seen.append(env.qpos)
            yield np.array([3.0, 0.0])  # beyond the bounds

    env.reset(seed=0)
    env.set_pose([30.0, 150.0])
    for action in one_by_one(env, 3, actions())(None):
        env.advance(action)
        assert action.tolist() == [1, 0]
    np.testing.assert_array_equal(np.array(seen)[:, 0], [30, 35, 40])


def test_the_walkers_noise_is_twice_the_largest_action():
    env = envs.make("two_room")
    env.reset(seed=0)
    at_the_bounds = (np.abs(actions_of("two_room_walker", env, num_blocks=200)) == 1).mean()
    assert 0.55 < at_the_bounds < 0.75  # of a normal number of std 2, 0.62 to 0.66 lie beyond 1 from up to 1 off


def test_the_walker_uses_the_door_and_sees_all_of_both_rooms():
    env, seen, crossings = envs.make("two_room"), [], 0
    for episode in range(20):
        env.reset(seed=episode)
        policy = DATA_POLICIES["two_room_walker"](env, 5, np.random.default_rng(episode))
        path = []
        for _ in range(40):
            for action in policy(None):
                env.advance(action)
                path.append(env.qpos)
        crossings += int((np.diff(np.sign(np.array(path)[:, 0] - two_room.WALL)) != 0).sum())
        seen += path
    assert crossings >= 35  # straight at its targets it would be 15
    cells = np.histogram2d(*np.array(seen).T, bins=4, range=[[21, 203]] * 2)[0]
    assert (cells > 0).all()


POLICIES = {
    "nan": (lambda block: np.full((block, 1), np.nan), r"not \[nan\]"),
    "too large": (lambda block: np.full((block, 1), 5.0), r"not \[5.0\]"),
    "wide": (lambda block: np.zeros((block, 2)), r"not one of shape \(2,\)"),
    "short": (lambda block: np.zeros((block - 1, 1)), "not 1 of them"),
    "long": (lambda block: np.zeros((block + 1, 1)), "not 3 of them"),
    "none": (lambda block: None, "not None"),
}


@pytest.mark.parametrize("name", POLICIES)
def test_a_data_policy_whose_block_is_wrong_is_refused_at_the_first(tmp_path, monkeypatch, name):
    register(monkeypatch)
    block_of, message = POLICIES[name]
    monkeypatch.setitem(DATA_POLICIES._values, name, lambda env, block, rng: lambda picture: block_of(block))
    must = rf"data policy {name} must give 2 actions of shape \(1,\), within \[-1.0\] to \[1.0\], {message}"
    with pytest.raises(UserError, match=must):
        collect(CollectConfig("line", name, num_episodes=2, output=tmp_path / "d.h5", num_processes=1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda env, block: None, "data policy odd must be a function of 3 arguments: too many positional arguments"),
        (lambda env, block, rng: None, "what data policy odd makes must be a function of 1 arguments: None is not"),
        (lambda env, block, rng: lambda: [], "what data policy odd makes must be a function of 1 arguments: too many"),
    ],
)
def test_what_makes_no_data_policy_is_refused(tmp_path, monkeypatch, make, message):
    register(monkeypatch)
    monkeypatch.setitem(DATA_POLICIES._values, "odd", make)
    with pytest.raises(UserError, match=message):
        collect(CollectConfig("line", "odd", num_episodes=2, output=tmp_path / "d.h5", num_processes=1))
