import itertools
import json
import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save, save_file

from jepa_mpc import envs
from jepa_mpc.agent import collect as collect_module
from jepa_mpc.agent.collect import CollectConfig, collect
from jepa_mpc.agent.data_policies import find_policy
from jepa_mpc.agent.data_policies import sac as sac_module
from jepa_mpc.agent.data_policies import train_sac as train_module
from jepa_mpc.agent.data_policies.sac import load_actor, normalise, read_state, sac, save_actor
from jepa_mpc.agent.data_policies.train_sac import SACConfig, StateEnv, build_sac, export_actor, train
from jepa_mpc.envs.registry import TASKS
from jepa_mpc.errors import UserError
from jepa_mpc.world_model.data.dataset import Dataset

pytest.importorskip("stable_baselines3")


class Slider(envs.PixelEnv):
    """A point on a line that actions push by up to 0.2; the reward is −|x − 0.5|. A turning angle stands beside it."""

    has_reward = True
    frames = 0

    def __init__(self, size: int = 16, fast_rendering: bool = True):
        self.action_space = gym.spaces.Box(-2, 1, (1,), np.float32)
        self.observation_space = gym.spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.state = np.zeros(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = self.np_random.uniform([-1, -10], [1, 10])
        return self.render(), {}

    def advance(self, action):
        self.state = np.array(
            [np.clip(self.state[0] + 0.2 * float(np.clip(action, -2, 1)[0]), -1, 1), self.state[1] + 1]
        )
        return -abs(self.state[0] - 0.5)

    def render(self):
        Slider.frames += 1
        return np.full(self.observation_space.shape, 100 * (self.state[0] + 1), np.uint8)

    def get_state(self):
        return self.state.copy()

    def set_state(self, state):
        self.state = state.copy()

    set_pose = set_state

    @property
    def qpos(self):
        return self.state.copy()

    @property
    def qvel(self):
        return np.zeros(1)

    def position(self, geom):
        return np.zeros(3)

    @property
    def step_seconds(self):
        return 0.1


@pytest.fixture(scope="module", autouse=True)
def slider():
    pose = envs.PoseTest((envs.Part((0,)),), tolerance=0.1, unit="m")
    spec = envs.TaskSpec("slider", Slider, pose, (False, True), 1, "pink", image_size=16, episode_len=20)
    envs.register(spec)
    yield spec
    del TASKS._values["slider"]


def debug_config(output, **changes):
    settings = {"num_steps": 400, "random_steps": 100, "save_every": 100, "hidden_sizes": (32, 32), "batch_size": 32}
    return SACConfig(**{"task": "slider", "output": output, **settings, **changes})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train(debug_config(tmp_path_factory.mktemp("policy") / "whole"))


def test_training_learns_what_the_reward_asks_for(tmp_path, slider):
    config = debug_config(tmp_path / "run", num_steps=900, updates_per_step=1, learning_rate=3e-3)
    Slider.frames = 0
    _, info = load_actor(train(config), "slider")
    num_episodes = 5 + 46 + 2 * config.report_episodes  # of measuring, of training with the last reset, of the report
    assert Slider.frames == num_episodes  # nothing is rendered but where an episode begins
    # From a start that is uniform over the line, at 0.4 a step to the left and 0.2 to the right, nothing does better.
    best = -np.mean(
        [np.maximum(0, abs(x - 0.5) - (0.2 if x < 0.5 else 0.4) * np.arange(1, 21)).sum() for x in np.linspace(-1, 1)]
    )
    assert info.random_return.high < -10
    assert info.greedy_return.low > best - 0.2 * (best - info.random_return.mean)
    assert info.greedy_return.n == info.random_return.n == 20
    assert (info.num_steps, info.task, info.angles) == (900, "slider", slider.angles)
    assert (info.training["num_steps"], info.training["learning_rate"]) == (900, 3e-3)


class Killed(BaseException):
    """Ends a training as a kill would: nothing gets to clean up."""


@pytest.mark.parametrize(("killed_at", "goes_on_from"), [(3, 0), (14, 10)])
def test_a_killed_training_goes_on_to_the_same_weights(trained, tmp_path, monkeypatch, killed_at, goes_on_from):
    config = debug_config(tmp_path / "killed")
    seconds = itertools.count()  # one at the beginning, and one at each of four saved states
    monkeypatch.setattr(train_module, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    reset, begun = StateEnv.reset, []

    def reset_until_killed(self, **options):
        if self.stream == "policy":  # and not of the report
            begun.append(self.episode)
        if len(begun) == killed_at + 1:
            raise Killed
        return reset(self, **options)

    monkeypatch.setattr(StateEnv, "reset", reset_until_killed)
    with pytest.raises(Killed):
        train(config)
    assert not (config.output / "config.json").exists()
    assert_nothing_is_pickled(config.output)
    killed_at = -1
    begun.clear()
    for unpickles in ("pickle.load", "pickle.loads", "pickle.Unpickler", "torch.load"):
        monkeypatch.setattr(unpickles, None)
    train(config)
    assert begun == list(range(goes_on_from, 21))  # the last is never played
    whole, resumed = (load_file(folder / "actor.safetensors") for folder in (trained, config.output))
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        np.testing.assert_array_equal(resumed[name], value, err_msg=name)
    assert load_actor(config.output, "slider")[1].learning_seconds == 4
    assert load_actor(config.output, "slider")[1].greedy_return == load_actor(trained, "slider")[1].greedy_return


def assert_nothing_is_pickled(folder):
    for path in folder.glob("[!.]*"):  # each file is whole in a format that holds no pickles
        assert path.suffix in (".json", ".safetensors")
        json.loads(path.read_text()) if path.suffix == ".json" else load_file(path)


def test_what_is_left_is_a_small_policy(trained):
    assert_nothing_is_pickled(trained)
    assert {path.name for path in trained.glob("[!.]*")} == {"actor.safetensors", "config.json", "settings.json"}


def test_the_greedy_return_is_of_the_most_likely_actions(trained, slider):
    actor, info = load_actor(trained, "slider")
    env = StateEnv(Slider(), slider, seed=0, random_steps=100)

    def act(seen):
        return actor.act(read_state(env._env, slider.angles))

    assert info.greedy_return.mean == pytest.approx(train_module.measure_return(env, debug_config(None), act).mean)


def test_a_policy_says_last_that_it_is_finished(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(sac_module, "write_whole", lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        save_actor(tmp_path, *load_actor(trained, "slider"))
    assert not list(tmp_path.iterdir())


def test_what_is_far_off_is_limited(trained):
    np.testing.assert_array_equal(normalise(np.array([1e3, 5, -1e3]), np.ones(3), np.full(3, 2.0)), [10, 2, -10])
    actor, _ = load_actor(trained, "slider")
    for bias, log_std in ((50, 2), (-50, -20)):
        sure = replace(actor, weights=actor.weights | {"log_std.bias": np.full(1, bias, np.float32)})
        np.testing.assert_allclose(sure.distribution(np.zeros(4))[1], np.exp(log_std))


def test_collection_finds_what_training_left(tmp_path, monkeypatch):
    monkeypatch.setenv("JEPA_MPC_HOME", str(tmp_path))
    train(debug_config(None, num_steps=20, random_steps=20))
    assert callable(find_policy("sac", "slider"))


def test_a_finished_training_is_left_alone(trained):
    before = {path.name: path.stat().st_mtime_ns for path in trained.glob("[!.]*")}
    train(debug_config(trained))
    assert {path.name: path.stat().st_mtime_ns for path in trained.glob("[!.]*")} == before


def test_another_configuration_does_not_touch_a_training(trained):
    with pytest.raises(UserError, match="other settings: seed is 0 there and 1 now; choose another --output"):
        train(debug_config(trained, seed=1))


def test_a_damaged_state_is_named(tmp_path, monkeypatch):
    config = debug_config(tmp_path / "run", num_steps=20)
    monkeypatch.setattr(train_module, "export_actor", lambda *args: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        train(config)
    (config.output / "state.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(UserError, match=r"state\.safetensors is damaged; delete it to start afresh"):
        train(config)


def test_the_file_says_what_stable_baselines_says(trained, slider, tmp_path):
    info = load_actor(trained, "slider")[1]
    env = StateEnv(Slider(), slider, seed=0, random_steps=100)
    learner = build_sac(debug_config(tmp_path), env)
    with torch.no_grad():
        for parameter in learner.actor.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    train_module.save_actor(tmp_path, export_actor(learner, env.mean, env.std), info)
    actor, _ = load_actor(tmp_path, "slider")
    rng, drawn = np.random.default_rng(0), []
    for _ in range(50):
        env._env.set_state(rng.normal(size=2))
        theirs = learner.predict(env._observe(), deterministic=True)[0]
        ours = actor.act(read_state(env._env, slider.angles))
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
        drawn.append(ours)
    assert np.std(drawn) > 0.1
    state = read_state(env._env, slider.angles)
    torch.manual_seed(0)
    theirs = [learner.predict(env._observe())[0] for _ in range(2000)]
    ours = [actor.act(state, rng) for _ in range(2000)]
    assert np.mean(ours) == pytest.approx(np.mean(theirs), abs=0.1)
    assert np.std(ours) == pytest.approx(np.std(theirs), rel=0.1)


def test_the_learner_is_given_the_settings(slider, tmp_path):
    asked = {"num_steps": 410, "updates_per_step": 0.3, "batch_size": 48, "learning_rate": 5e-4, "discount": 0.8}
    config = debug_config(tmp_path, **asked)
    learner = build_sac(config, StateEnv(Slider(), slider, seed=0, random_steps=100))
    assert (learner.gamma, learner.batch_size, learner.learning_rate) == (0.8, 48, 5e-4)
    assert learner.learning_starts == config.random_steps
    assert learner.gradient_steps == 6  # 0.3 for each of 20 steps
    assert learner.buffer_size == 420  # whole episodes, of which none is lost
    other = build_sac(replace(config, seed=1), StateEnv(Slider(), slider, seed=0, random_steps=100))
    assert not torch.equal(learner.actor.mu.weight, other.actor.mu.weight)
    assert [layer.out_features for layer in learner.actor.latent_pi if hasattr(layer, "out_features")] == [32, 32]


def test_an_episode_is_cut_at_the_tasks_length_and_rewarded_by_the_simulator(slider):
    env, alone = StateEnv(Slider(), slider, seed=0, random_steps=100), Slider()
    seen, _ = env.reset()
    np.testing.assert_allclose(seen, (read_state(env._env, slider.angles) - env.mean) / env.std, rtol=1e-5)
    alone.set_state(env._env.get_state())
    for step in range(slider.episode_len):
        action = env.action_space.sample()
        _, reward, terminated, truncated, _ = env.step(action)
        assert reward == alone.advance(action)
        assert (terminated, truncated) == (False, step == slider.episode_len - 1)


def test_states_are_scaled_by_what_random_actions_show(slider):
    simulator, seeds = Slider(), []
    reset = simulator.reset
    simulator.reset = lambda *, seed: (seeds.append(seed), reset(seed=seed))[1]
    env = StateEnv(simulator, slider, seed=0, random_steps=1000)
    assert len(set(seeds)) == 50  # episodes
    cosine, sine, x, still = zip(env.mean, env.std, strict=True)
    for mean, std in (cosine, sine):  # the angle turns by one radian a step, from anywhere
        assert abs(mean) < 0.1
        assert std == pytest.approx(0.5**0.5, abs=0.05)
    assert x[0] < -0.5  # actions are from −2 to 1, so that it drifts to the left
    assert still == (0, pytest.approx(0.1))  # what never moves is not blown up


def test_ways_to_act_are_compared_from_the_same_starts_which_training_never_saw(slider, tmp_path):
    config, starts = debug_config(tmp_path, report_episodes=4), {"low": [], "high": []}
    for name, action in (("low", -1.0), ("high", 1.0)):
        simulator = Slider()

        def act(seen, simulator=simulator, name=name, action=action):
            starts[name].append(simulator.get_state())
            return np.array([action])

        env = StateEnv(simulator, slider, seed=0, random_steps=100)
        found = train_module.measure_return(env, config, act)
        assert found.n == 4
        assert found.low < found.mean < found.high
        starts[name] = np.array(starts[name][:: slider.episode_len])
        returns = []
        for start in starts[name]:
            simulator.set_state(start)
            returns.append(sum(simulator.advance([action]) for _ in range(slider.episode_len)))
        margin = 3.182446 * np.std(returns, ddof=1) / 2  # Student's t at 97.5 %, of 3 degrees of freedom
        wanted = np.mean(returns) + margin * np.array([0, -1, 1])
        np.testing.assert_allclose([found.mean, found.low, found.high], wanted, rtol=1e-6)
    np.testing.assert_array_equal(starts["low"], starts["high"])
    assert len(np.unique(starts["low"], axis=0)) == 4
    env, trained_from = StateEnv(Slider(), slider, seed=0, random_steps=100), set()
    for _ in range(20):
        env.reset()
        trained_from.add(tuple(env._env.get_state()))
    assert len(trained_from) == 20
    assert not trained_from & set(map(tuple, starts["low"]))


def test_the_state_shows_angles_as_cosine_and_sine():
    env = Slider()
    env.set_state(np.array([0.3, 2.0]))
    np.testing.assert_allclose(read_state(env, (False, True)), [np.cos(2), np.sin(2), 0.3, 0])


def blocks(trained, seed, num_blocks=10):
    """Actions of an episode, and what the actor would have done most likely."""
    actor, info = load_actor(trained, "slider")
    env, rng = Slider(), np.random.default_rng(seed)
    env.reset(seed=seed)
    policy = sac(actor, info.angles, env, 5, rng)
    actions, greedy = [], []
    for _ in range(num_blocks):
        for action in policy(None):
            greedy.append(actor.act(read_state(env, info.angles)))
            env.advance(action)
            actions.append(action)
    return np.stack(actions), np.stack(greedy)


def test_data_run_from_nearly_greedy_to_all_noise(tmp_path):
    # A learner whose actor hardly varies, so that all noise is the policy's.
    folder = train(debug_config(tmp_path / "run", num_steps=100, random_steps=10))
    weights = load_file(folder / "actor.safetensors")
    save_file(weights | {"log_std.bias": np.full(1, -9, np.float32)}, folder / "actor.safetensors")
    actions, greedy = zip(*(blocks(folder, seed) for seed in range(60)), strict=True)
    away = [np.median(np.abs(a - g)) for a, g in zip(actions, greedy, strict=True)]
    assert min(away) < 0.02
    assert max(away) > 0.4
    held = np.diff(np.concatenate(actions), axis=0)[:, 0] == 0
    assert 0.01 < held.mean() < 0.2
    assert np.concatenate(actions).min() >= -2
    assert np.concatenate(actions).max() <= 1
    np.testing.assert_array_equal(actions[3], blocks(folder, 3)[0])


def test_an_actor_that_varies_is_sampled(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "wide")
    weights = load_file(folder / "actor.safetensors")
    wide = {"log_std.weight": np.zeros_like(weights["log_std.weight"]), "log_std.bias": np.full(1, 2, np.float32)}
    save_file(weights | wide, folder / "actor.safetensors")
    away = [np.abs(np.subtract(*blocks(folder, seed))).mean() for seed in range(20)]
    assert min(away) > 0.4


def test_collection_uses_it(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(collect_module, "run_parallel", lambda function, calls, *_: (function(*call) for call in calls))
    output = tmp_path / "d.h5"
    collect(CollectConfig("slider", "sac", trained, num_episodes=3, output=output, num_processes=1))
    data = Dataset(output, task="slider")
    assert data.info.data_policy == "sac"
    assert data.ep_len.tolist() == [5] * 3
    collect(CollectConfig("slider", "held", num_episodes=2, output=tmp_path / "held.h5", num_processes=1))
    assert Dataset(tmp_path / "held.h5").info.data_policy == "held"


@pytest.mark.parametrize(
    ("name", "path", "message"),
    [
        ("sack", None, "unknown data policy 'sack'; did you mean sac"),
        ("zzz", None, "unknown data policy 'zzz'; there are: uniform, pink"),
        ("pink", "folder", "--policy-path is for a policy that was trained, such as sac, not pink"),
    ],
)
def test_other_names_are_refused(name, path, message):
    with pytest.raises(UserError, match=message):
        find_policy(name, "slider", path)


def test_a_policy_that_cannot_be_used_says_why(trained, tmp_path):
    with pytest.raises(UserError, match=r"config\.json; train a policy with `jepa-mpc train-sac --task slider`"):
        load_actor(tmp_path, "slider")
    with pytest.raises(UserError, match="trained on task 'slider', not 'reacher'"):
        load_actor(trained, "reacher")
    config = json.loads((trained / "config.json").read_text())
    weights = (trained / "actor.safetensors").read_bytes()
    not_a_number = save(load_file(trained / "actor.safetensors") | {"mean.bias": np.full(1, np.nan, np.float32)})
    for changes, content, message in [
        ({"format_version": 9}, weights, "has format 9, not 1; train it again"),
        (
            {"hidden_sizes": [17, 32]},
            weights,
            r"hidden\.0\.weight is \(32, 4\), expected \(17, 4\)",
        ),
        ({"surprise": 1}, weights, "is damaged"),
        ({}, weights[:100], "is damaged"),
        ({}, b"\x80\x04pickle", "is damaged"),
        ({}, not_a_number, "mean.bias must be finite float32 numbers"),
    ]:
        (tmp_path / "config.json").write_text(json.dumps(config | changes))
        (tmp_path / "actor.safetensors").write_bytes(content)
        with pytest.raises(UserError, match=message):
            load_actor(tmp_path, "slider")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_steps": 0}, "--num-steps must be at least 1, not 0"),
        ({"updates_per_step": 0.0}, r"--updates-per-step must be above 0, not 0\.0"),
        ({"discount": 1.0}, r"--discount must lie between 0 and 1, not 1\.0"),
        ({"hidden_sizes": ()}, "--hidden-sizes must be one or more layers"),
        ({"task": "two_room"}, "two_room has no reward to learn from; collect with --policy two_room_walker"),
    ],
)
def test_impossible_settings_are_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        train(debug_config(tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_only_training_needs_stable_baselines(trained, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    with pytest.raises(UserError, match=r"stable-baselines3 is missing; `pip install 'jepa-mpc\[rl\]'`"):
        train(debug_config(tmp_path / "run"))
    assert blocks(trained, 0, num_blocks=1)[0].shape == (5, 1)


def test_collection_without_a_policy_names_the_command_that_trains_one(tmp_path):
    with pytest.raises(UserError, match=r"there is no nowhere/config.json; train a policy with `jepa-mpc train-sac"):
        collect_module.main(["--policy", "sac", "--policy-path", "nowhere", "--output", str(tmp_path / "d.h5")])
