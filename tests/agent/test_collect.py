from concurrent.futures import Executor, Future

import numpy as np
import pytest

from jepa_mpc import envs
from jepa_mpc.agent import collect as collect_module
from jepa_mpc.agent.collect import CollectConfig, collect, episode_rng, find_policy, run_episode
from jepa_mpc.provenance import simulator_version
from jepa_mpc.world_model.data.dataset import Dataset


def contents(path):
    data = Dataset(path, task="reacher")
    return data.pixels, data.action, data.qpos, data.ep_len


def config(output, **changes):
    return CollectConfig(**{"task": "reacher", "num_episodes": 5, "output": output, "num_processes": 1, **changes})


@pytest.fixture(scope="module", autouse=True)
def short_episodes():
    spec = envs.get_task("reacher")
    patch = pytest.MonkeyPatch()
    patch.setattr(collect_module, "EPISODES_PER_CHUNK", 2)
    object.__setattr__(spec, "episode_len", 20)
    yield
    object.__setattr__(spec, "episode_len", 200)
    patch.undo()


class InProcess(Executor):
    """Runs the work at once in this process, so that a test can interrupt it."""

    def __init__(self, num_processes, mp_context, initializer):
        pass

    def submit(self, function, *args):
        future = Future()
        future.set_result(function(*args))
        return future


@pytest.fixture
def in_process(monkeypatch):
    monkeypatch.setattr(collect_module, "ProcessPoolExecutor", InProcess)


@pytest.fixture(scope="module")
def env_of_reacher():
    return envs.make("reacher")


def test_data_are_what_the_simulator_does(tmp_path, in_process):
    data = Dataset(collect(config(tmp_path / "d.h5")), task="reacher")
    assert data.ep_len.tolist() == [5] * 5
    assert data.action.shape == (25, 10)
    env = envs.make("reacher")
    env.reset(seed=int(episode_rng("collect", 0, 3).integers(2**31)))
    for row in range(15, 19):  # the fourth episode, replayed
        np.testing.assert_array_equal(data.pixels[row], env.render())
        np.testing.assert_array_equal(data.qpos[row], env.qpos)
        for action in data.action[row].reshape(5, 2):
            env.advance(action)
    np.testing.assert_array_equal(data.qpos[19], env.qpos)


def test_a_collection_says_how_it_was_made_and_its_seed_decides_every_episode(tmp_path, in_process):
    first = Dataset(collect(config(tmp_path / "a.h5")), task="reacher")
    other = Dataset(collect(config(tmp_path / "b.h5", seed=1, policy="held")), task="reacher")
    assert (first.info.task, first.info.seed, first.info.data_policy) == ("reacher", 0, "uniform")
    assert (other.info.seed, other.info.data_policy) == (1, "held")
    assert (first.info.action_block, first.info.action_repeat, first.info.angles) == (5, 2, (True, True))
    assert first.info.simulator == simulator_version()
    starts = np.concatenate([data.qpos[::5] for data in (first, other)])
    assert len(np.unique(starts, axis=0)) == 10


def test_velocities_are_those_of_the_moment(env_of_reacher):
    rng = np.random.default_rng(0)
    policy = find_policy("uniform", "reacher")(env_of_reacher, 5, rng)
    episode = run_episode(env_of_reacher, policy, 3, np.random.default_rng(1))
    env_of_reacher.reset(seed=int(np.random.default_rng(1).integers(2**31)))
    np.testing.assert_array_equal(episode.qvel[0], env_of_reacher.qvel)
    for block, qpos, qvel in zip(episode.action, episode.qpos[1:], episode.qvel[1:], strict=True):
        for action in block.reshape(5, 2):
            env_of_reacher.advance(action)
        np.testing.assert_array_equal(qpos, env_of_reacher.qpos)
        np.testing.assert_array_equal(qvel, env_of_reacher.qvel)
    assert np.abs(episode.qvel[1:]).min() > 0


def test_a_row_a_step_holds_the_same_episodes_and_so_do_compressed_pictures(tmp_path, in_process):
    blocks = Dataset(collect(config(tmp_path / "blocks.h5")), task="reacher")
    steps = collect(config(tmp_path / "steps.h5", every_step=True, compression="gzip"))
    assert Dataset(steps).ep_len.tolist() == [21] * 5
    assert steps.stat().st_size < (tmp_path / "blocks.h5").stat().st_size
    in_blocks = Dataset(steps, frameskip=5)
    assert in_blocks.info == blocks.info
    rows = np.concatenate([21 * episode + np.arange(0, 21, 5) for episode in range(5)])
    np.testing.assert_array_equal(in_blocks.pixels[rows], blocks.pixels)
    np.testing.assert_array_equal(in_blocks.action[rows], blocks.action)


def test_an_interruption_changes_nothing_and_loses_nothing(tmp_path, in_process, monkeypatch):
    whole = contents(collect(config(tmp_path / "whole.h5")))
    run, made = collect_module.run_episode, []

    def interrupted(*args):
        made.append(1)
        if len(made) == 4:
            raise KeyboardInterrupt
        return run(*args)

    monkeypatch.setattr(collect_module, "run_episode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        collect(config(tmp_path / "cut.h5"))
    assert not (tmp_path / "cut.h5").exists()
    monkeypatch.setattr(collect_module, "run_episode", lambda *args: (made.append(1), run(*args))[1])
    made.clear()
    resumed = contents(collect(config(tmp_path / "cut.h5")))
    assert len(made) == 3  # the first chunk of two was kept
    for ours, theirs in zip(resumed, whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert [path.name for path in tmp_path.iterdir() if "cut" in path.name] == ["cut.h5"]


def test_other_settings_do_not_mix_into_an_unfinished_collection(tmp_path, in_process, monkeypatch):
    monkeypatch.setattr(collect_module, "write_dataset", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        collect(config(tmp_path / "d.h5"))
    with pytest.raises(envs.EnvError, match="unfinished collection with other settings"):
        collect(config(tmp_path / "d.h5", seed=1))


def test_existing_data_are_never_overwritten(tmp_path):
    (tmp_path / "d.h5").write_bytes(b"precious")
    with pytest.raises(envs.EnvError, match="exists already"):
        collect(config(tmp_path / "d.h5"))
    assert (tmp_path / "d.h5").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("option", "value", "least"), [("num_episodes", 0, 1), ("num_processes", 0, 1), ("seed", -1, 0)]
)
def test_impossible_options_are_refused(tmp_path, option, value, least):
    with pytest.raises(envs.EnvError, match=f"--{option.replace('_', '-')} must be at least {least}, not {value}"):
        collect(config(tmp_path / "d.h5", **{option: value}))


def test_purposes_and_episodes_draw_from_streams_of_their_own():
    draws = [
        episode_rng(purpose, seed, index).integers(2**63)
        for purpose in ("collect", "goal")
        for seed in range(20)
        for index in range(20)
    ]
    assert len(set(draws)) == len(draws)
    assert episode_rng("goal", 3, 5).integers(2**63) == episode_rng("goal", 3, 5).integers(2**63)


@pytest.mark.slow
def test_the_number_of_processes_changes_nothing(tmp_path):
    one, two = (contents(collect(config(tmp_path / f"{n}.h5", num_processes=n))) for n in (1, 2))
    for ours, theirs in zip(one, two, strict=True):
        np.testing.assert_array_equal(ours, theirs)
