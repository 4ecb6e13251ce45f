import functools
import itertools
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT

from jepa_mpc import envs
from jepa_mpc.agent import collect as collect_module
from jepa_mpc.agent.collect import CollectConfig, collect, run_episode
from jepa_mpc.agent.data_policies import DATA_POLICIES, find_policy
from jepa_mpc.cli import parse
from jepa_mpc.envs import PixelEnv
from jepa_mpc.envs.looks import LOOKS, Looks
from jepa_mpc.envs.registry import TASKS
from jepa_mpc.errors import UserError
from jepa_mpc.provenance import simulator_version
from jepa_mpc.seeds import episode_rng
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


@pytest.fixture
def in_process(monkeypatch):
    """Runs the work in this process, so that a test can interrupt it."""
    monkeypatch.setattr(collect_module, "run_parallel", lambda function, calls, *_: (function(*call) for call in calls))


@pytest.fixture(scope="module")
def env_of_reacher():
    return envs.make("reacher")


def test_data_are_what_the_simulator_does(tmp_path, in_process):
    data = Dataset(collect(config(tmp_path / "d.h5")), task="reacher")
    assert data.ep_len.tolist() == [5] * 5
    assert data.action.shape == (25, 10)
    assert data.info.names == ("shoulder", "wrist")
    env = envs.make("reacher")
    env.reset(seed=int(episode_rng("collect", 0, 3).integers(2**31)))
    for row in range(15, 19):  # the fourth episode, replayed
        np.testing.assert_array_equal(data.pixels[row], env.render())
        np.testing.assert_array_equal(data.qpos[row], env.qpos)
        for action in data.action[row].reshape(5, 2):
            env.advance(action)
    np.testing.assert_array_equal(data.qpos[19], env.qpos)


def test_a_collection_says_how_it_was_made_and_its_seed_decides_every_episode(tmp_path, in_process, monkeypatch):
    planning = {"horizon": 3, "planner": {"name": "icem"}}
    monkeypatch.setitem(TASKS._values, "reacher", replace(envs.get_task("reacher"), planning=planning))
    first = Dataset(collect(config(tmp_path / "a.h5")), task="reacher")
    other = Dataset(collect(config(tmp_path / "b.h5", seed=1, policy="held")), task="reacher")
    assert (first.info.task, first.info.seed, first.info.data_policy) == ("reacher", 0, "uniform")
    assert (other.info.seed, other.info.data_policy) == (1, "held")
    assert (first.info.action_block, first.info.action_repeat, first.info.angles) == (5, 2, (True, True))
    assert first.info.simulator == simulator_version()
    assert (first.info.action_low, first.info.action_high) == ((-1, -1), (1, 1))
    assert json.loads(first.info.planning) == planning
    starts = np.concatenate([data.qpos[::5] for data in (first, other)])
    assert len(np.unique(starts, axis=0)) == 10


def test_velocities_are_those_of_the_moment(env_of_reacher):
    rng = np.random.default_rng(0)
    policy = find_policy("uniform", "reacher")(env_of_reacher, 5, rng)
    episode = run_episode(env_of_reacher, policy, [None] * 3, np.random.default_rng(1))
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


class Killed(Exception):
    pass


def test_other_settings_do_not_mix_into_an_unfinished_collection(tmp_path, in_process, monkeypatch):
    monkeypatch.setattr(collect_module, "write_dataset", lambda *args: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        collect(config(tmp_path / "d.h5"))
    with pytest.raises(UserError, match="holds work with other settings: seed is 0 there and 1 now"):
        collect(config(tmp_path / "d.h5", seed=1))
    monkeypatch.setitem(TASKS._values, "reacher", replace(envs.get_task("reacher"), episode_len=10))
    with pytest.raises(UserError, match="holds work with other settings: episode_len is 20 there and 10 now"):
        collect(config(tmp_path / "d.h5"))


def hold_still(action, env, block, rng):
    return lambda picture: np.full((block, 2), action, np.float32)


def test_what_a_policy_has_learned_since_does_not_mix_into_an_unfinished_collection(tmp_path, in_process, monkeypatch):
    monkeypatch.setattr(collect_module, "write_dataset", lambda *args: (_ for _ in ()).throw(Killed))
    for action, error, message in ((0.1, Killed, "^$"), (0.2, UserError, "settings: policy_digest is")):
        monkeypatch.setitem(DATA_POLICIES._values, "learned", functools.partial(hold_still, action))
        with pytest.raises(error, match=message):
            collect(config(tmp_path / "d.h5", policy="learned"))


def test_an_unfinished_collection_goes_on_to_more_episodes(tmp_path, in_process, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(collect_module, "write_dataset", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            collect(config(tmp_path / "more.h5"))
    whole, more = (contents(collect(config(tmp_path / f"{name}.h5", num_episodes=6))) for name in ("whole", "more"))
    for ours, theirs in zip(more, whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_existing_data_are_never_overwritten(tmp_path):
    (tmp_path / "d.h5").write_bytes(b"precious")
    with pytest.raises(UserError, match="exists already"):
        collect(config(tmp_path / "d.h5"))
    assert (tmp_path / "d.h5").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("option", "value", "least"), [("num_episodes", 0, 1), ("num_processes", 0, 1), ("seed", -1, 0)]
)
def test_impossible_options_are_refused(tmp_path, option, value, least):
    with pytest.raises(UserError, match=f"--{option.replace('_', '-')} must be at least {least}, not {value}"):
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


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped"])
def test_a_damaged_chunk_is_collected_again(tmp_path, in_process, monkeypatch, damage):
    whole = contents(collect(config(tmp_path / "whole.h5")))
    with monkeypatch.context() as patch:
        patch.setattr(collect_module, "write_dataset", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            collect(config(tmp_path / "d.h5"))
    chunk = tmp_path / "d.h5.parts/00000002-00000004.chunk"
    content = bytearray(chunk.read_bytes())
    content[5000] ^= 1
    chunk.write_bytes({"empty": b"", "cut": chunk.read_bytes()[:-9], "flipped": bytes(content)}[damage])
    made, run = [], collect_module.run_episode
    monkeypatch.setattr(collect_module, "run_episode", lambda *args: (made.append(1), run(*args))[1])
    again = contents(collect(config(tmp_path / "d.h5")))
    assert len(made) == 2
    for ours, theirs in zip(again, whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_what_others_put_beside_the_output_is_untouched(tmp_path, in_process):
    for name in ("thesis.parts/chapter.txt", "thesis.h5.parts/chapter.txt"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=r"thesis\.h5\.parts holds files that are none of ours"):
        collect(config(tmp_path / "thesis.h5"))
    collect(config(tmp_path / "thesis.hdf5"))
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"thesis.hdf5", "thesis.parts/chapter.txt", "thesis.h5.parts/chapter.txt"}
    assert all((tmp_path / name).read_text() == "mine" for name in found - {"thesis.hdf5"})


def test_a_folder_that_cannot_be_written_to_is_found_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(collect_module, "run_parallel", None)
    (tmp_path / "file").write_text("mine")
    for output in (tmp_path / "file/d.h5", tmp_path):
        with pytest.raises(UserError, match="--output"):
            collect(config(output))


@pytest.mark.parametrize("policy", ["push_t_pusher", "two_room_walker", "arm_pusher"])
def test_a_policy_that_does_not_fit_the_task_is_one_line_that_names_those_that_do(tmp_path, policy):
    with pytest.raises(
        UserError, match=f"--policy {policy} does not fit: .*; these do: uniform, pink, held$"
    ) as caught:
        collect(config(tmp_path / "d.h5", policy=policy))
    assert "\n" not in str(caught.value)
    assert not any(tmp_path.iterdir())


class Fragile(PixelEnv):
    """A counter that blows up after as many steps as its seed is given; its bounds are given too."""

    step_seconds = 0.1

    def __init__(self, lifetime=lambda seed: 10**6, low=-1.0, high=1.0):
        self.action_space = SimpleNamespace(low=np.array([low]), high=np.array([high]), shape=(1,))
        self._lifetime, self._steps = lifetime, 0

    def reset(self, *, seed=None, options=None):
        self._steps, self._left = 0, self._lifetime(seed)
        return self.render(), {}

    def advance(self, action):
        self._steps += 1
        if self._steps > self._left:
            raise envs.Diverged("it blew up")
        return 0.0

    def render(self):
        return np.full((16, 16, 3), self._steps, np.uint8)

    def get_state(self):
        return np.array([self._steps], float)

    def set_state(self, state):
        self._steps = int(state[0])

    set_pose = set_state
    qpos = qvel = property(get_state)
    position = None


def make_fragile(settings, image_size, fast_rendering):
    return Fragile(**settings)


@pytest.fixture
def fragile(monkeypatch, in_process):
    """Registers a task of such an environment, made by the arguments."""

    def register(**settings):
        make, pose = functools.partial(make_fragile, settings), envs.PoseTest((envs.Part((0,)),), 0.1, "m")
        spec = envs.TaskSpec("fragile", make, pose, (False,), 1, "uniform", image_size=16, episode_len=20)
        monkeypatch.setitem(TASKS._values, "fragile", spec)
        monkeypatch.setattr(collect_module, "_SIMULATORS", {})

    return register


def lives_13_and_2(seed):
    seeds = [int(episode_rng("collect", 0, index).integers(2**31)) for index in range(5)]
    return {seeds[1]: 13, seeds[3]: 2}.get(seed, 20)


def lives_3(seed):
    return 3


def test_an_episode_is_cut_where_the_simulation_diverges_and_that_is_said(tmp_path, fragile, caplog):
    fragile(lifetime=lives_13_and_2)
    data = Dataset(collect(config(tmp_path / "d.h5", task="fragile")), task="fragile")
    assert data.ep_len.tolist() == [5, 3, 5, 1, 5]  # whole blocks of 5 only
    assert data.pixels[:, 0, 0, 0].tolist() == [0, 5, 10, 15, 20, 0, 5, 10, 0, 5, 10, 15, 20, 0, 0, 5, 10, 15, 20]
    assert "2 of 5 episodes are shorter" in caplog.text
    caplog.clear()
    collect(config(tmp_path / "steps.h5", task="fragile", every_step=True))
    assert "2 of 5 episodes are shorter" in caplog.text


def test_a_run_of_which_most_is_cut_stops_with_one_line_every_time(tmp_path, fragile, monkeypatch):
    fragile(lifetime=lives_3)
    run, made = collect_module.run_episode, []
    monkeypatch.setattr(collect_module, "run_episode", lambda *args: (made.append(1), run(*args))[1])
    for _ in range(2):
        with pytest.raises(UserError, match="2 of 2 episodes were cut short: the simulation of fragile diverges under"):
            collect(config(tmp_path / "d.h5", task="fragile"))
    assert len(made) == 2


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (-np.inf, np.inf, "has no bounds"),
        (-1e10, 1e10, "has no bounds"),
        (np.nan, 1.0, "has no bounds"),
        (1.0, -1.0, "has its bounds reversed"),
        (0.0, 0.0, "can vary"),
    ],
)
def test_bounds_that_nothing_can_be_drawn_in_are_one_line(tmp_path, fragile, low, high, message):
    fragile(low=low, high=high)
    with pytest.raises(UserError, match=f"action.* of task fragile {message}.*; give task fragile bounds of its own"):
        collect(config(tmp_path / "d.h5", task="fragile"))
    assert not any(tmp_path.iterdir())


STRANGER = """
from dataclasses import replace
import numpy as np
from jepa_mpc import envs
from jepa_mpc.agent.collect import CollectConfig, collect, main, run_episode
from jepa_mpc.agent.data_policies import DATA_POLICIES, find_policy

def still(env, block, rng):
    return lambda picture: np.full((block, 2), 0.25, np.float32)

arm = replace(envs.get_task("two_room"), name="arm", episode_len=10)
if __name__ != "stranger":
    envs.register(arm)
    DATA_POLICIES.register("still", still)
if __name__ == "__main__":
    for task, policy in (("arm", "still"), ("stranger:arm", "stranger:still")):
        collect(CollectConfig(task, policy, num_episodes=3, num_processes=2))
"""


def test_tasks_and_policies_of_a_strangers_file_and_of_the_running_script_reach_the_workers(tmp_path):
    (tmp_path / "stranger.py").write_text(STRANGER)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JEPA_MPC_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "stranger.py"], cwd=tmp_path, check=True, env=environment)
    for path, task in (("arm.h5", "arm"), ("stranger/arm.h5", "stranger:arm")):
        data = Dataset(tmp_path / "data" / path, task=task)
        assert (data.action[~np.isnan(data.action)] == 0.25).all()
        assert data.ep_len.tolist() == [3] * 3
        assert data.info.action_low == (-1, -1)
        assert data.info.step_seconds == envs.make("two_room").step_seconds


def test_what_workers_cannot_be_given_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(DATA_POLICIES._values, "local", lambda env, block, rng: lambda picture: np.zeros((5, 2)))
    with pytest.raises(UserError, match="its policy local cannot be handed to other processes"):
        collect(config(tmp_path / "d.h5", policy="local"))
    monkeypatch.setitem(DATA_POLICIES._values, "number", 7)
    with pytest.raises(UserError, match="data policy number must be a function of 3 arguments: 7 is not"):
        collect(config(tmp_path / "d.h5", policy="number"))


@pytest.mark.slow
@pytest.mark.parametrize("randomise", [(), LOOKS], ids=["own", "varied"])
def test_the_number_of_processes_changes_nothing(tmp_path, randomise):
    one, two = (contents(collect(config(tmp_path / f"{n}.h5", num_processes=n, randomise=randomise))) for n in (1, 2))
    for ours, theirs in zip(one, two, strict=True):
        np.testing.assert_array_equal(ours, theirs)


# Looks drawn at random.


@pytest.fixture(scope="module")
def own_and_varied(tmp_path_factory):
    """The same 12 episodes in the scene's own looks, and half of them in others."""
    folder, patch = tmp_path_factory.mktemp("looks"), pytest.MonkeyPatch()
    patch.setattr(collect_module, "run_parallel", lambda function, calls, *_: (function(*call) for call in calls))
    options = {"num_episodes": 12, "seed": 4}
    paths = [
        collect(config(folder / "own.h5", randomise=(), **options)),
        collect(config(folder / "varied.h5", **options)),  # which the task asks for
    ]
    patch.undo()
    return [Dataset(path, task="reacher") for path in paths]


def looks_by_hand(seed, index, num_blocks, kinds=LOOKS):
    """The looks of an episode's pictures, one after another, or None if it is in the scene's own."""
    rng = episode_rng("looks", seed, index)
    if rng.random() < 0.15:
        return None
    looks = [None]  # of the first, which reset draws
    for _ in range(num_blocks):
        looks.append(Looks.for_data(rng, kinds) if rng.random() < 0.25 else looks[-1])
    return looks


def test_looks_change_pictures_and_no_motion(own_and_varied):
    own, varied = own_and_varied
    for column in ("action", "qpos", "ep_len"):
        np.testing.assert_array_equal(getattr(varied, column), getattr(own, column))
    assert (own.info.randomise, varied.info.randomise) == ((), LOOKS)
    assert replace(varied.info, randomise=()) == own.info
    assert not own.ep_randomised.any()
    as_they_are, others = (varied.rows_of(np.flatnonzero(varied.ep_randomised == which)) for which in (0, 1))
    np.testing.assert_array_equal(varied.pixels[as_they_are], own.pixels[as_they_are])
    differs = (varied.pixels[others] != own.pixels[others]).any((1, 2, 3))
    assert 0.1 < differs.mean() < 1


def test_pictures_are_the_simulators_in_the_looks_that_were_drawn(own_and_varied):
    _, varied = own_and_varied
    env, drawn = envs.make("reacher"), [looks_by_hand(4, index, 4) for index in range(12)]
    assert varied.ep_randomised.tolist() == [int(any(each or ())) for each in drawn]
    assert 0 < varied.ep_randomised.sum() < 12
    for index, looks in enumerate(drawn):
        env.reset(seed=int(episode_rng("collect", 4, index).integers(2**31)))
        for row in range(5):
            env.set_looks(looks and looks[row])
            np.testing.assert_array_equal(varied.pixels[5 * index + row], env.render())
            for action in np.nan_to_num(varied.action[5 * index + row]).reshape(5, 2):
                env.advance(action)


def test_most_episodes_are_varied_and_every_few_blocks_anew():
    seen = [Looks.draw_episode(episode_rng("looks", 0, index), ["camera"], 20) for index in range(2000)]
    some = [looks for looks in seen if any(looks)]
    assert len(some) == pytest.approx(1695, abs=60)  # of 1,700 that change, a few to the scene's own alone
    changed = np.array([[a is not b for a, b in zip([None, *looks], looks, strict=False)] for looks in some])
    own = 0.25 + 0.75 ** np.arange(1, 21)  # a draw in four are the scene's own looks, with which each begins
    np.testing.assert_allclose(changed.mean(0), 0.25 * (1 - 0.25 * own), atol=0.04)
    for looks in filter(None, itertools.chain(*seen)):
        assert any(looks.moved)
        assert (looks.turned, looks.colour) == ((0, 0, 0), 0)


def test_nothing_is_drawn_where_nothing_is_to_be(in_process):
    rng, untouched = np.random.default_rng(0), np.random.default_rng(0)
    assert Looks.draw_episode(rng, (), 3) == [None] * 3
    assert rng.random() == untouched.random()


def test_a_row_a_step_is_seen_in_its_blocks_looks(own_and_varied, tmp_path, in_process):
    _, blocks = own_and_varied
    options = {"num_episodes": 12, "seed": 4, "randomise": LOOKS, "every_step": True}
    steps = Dataset(collect(config(tmp_path / "steps.h5", **options)), frameskip=5)
    assert steps.info == blocks.info
    np.testing.assert_array_equal(steps.ep_randomised, blocks.ep_randomised)
    rows = np.concatenate([21 * episode + np.arange(0, 21, 5) for episode in range(12)])
    np.testing.assert_array_equal(steps.pixels[rows], blocks.pixels)


def test_an_interruption_amid_an_episode_leaves_no_looks_behind(own_and_varied, tmp_path, in_process, monkeypatch):
    _, whole = own_and_varied
    options = {"num_episodes": 12, "seed": 4, "randomise": LOOKS}
    changed = next(index for index in range(12) if any(looks_by_hand(4, index, 3) or ()))
    run, blocks = collect_module.run_block, []

    def interrupted(*args):
        blocks.append(1)
        if len(blocks) == 4 * changed + 4:
            raise KeyboardInterrupt
        return run(*args)

    with monkeypatch.context() as patch:
        patch.setattr(collect_module, "run_block", interrupted)
        with pytest.raises(KeyboardInterrupt):
            collect(config(tmp_path / "d.h5", **options))
    resumed = Dataset(collect(config(tmp_path / "d.h5", **options)))
    np.testing.assert_array_equal(resumed.pixels, whole.pixels)
    np.testing.assert_array_equal(resumed.ep_randomised, whole.ep_randomised)


def test_other_looks_do_not_mix_into_an_unfinished_collection(tmp_path, in_process, monkeypatch):
    monkeypatch.setattr(collect_module, "write_dataset", lambda *args: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        collect(config(tmp_path / "d.h5", randomise=("camera",)))
    with pytest.raises(UserError, match=r"holds work with other settings: randomise is .*camera.* there and .*light"):
        collect(config(tmp_path / "d.h5", randomise=("light",)))


@pytest.mark.parametrize(
    ("task", "kinds", "line"),
    [
        ("reacher", "camera,colr", "--randomise.* must be .*camera.*light.*colour.*, not .*colr"),
        ("two_room", "camera,light", "simulator of two_room cannot change camera or light; use --randomise none"),
    ],
)
def test_what_a_simulator_cannot_change_is_one_line(tmp_path, run_command, task, kinds, line):
    output = tmp_path / "d.h5"
    code, _, err = run_command("collect", "--task", task, "--num-episodes", 2, "--output", output, "--randomise", kinds)
    assert code == 1
    assert re.fullmatch(f"(error: )?.*{line}.*\n", err), err
    assert not any(tmp_path.iterdir())


def test_kinds_are_one_word_with_commas():
    words = [[], ["--randomise", "none"], ["--randomise", "camera"], ["--randomise=light,colour"]]
    asked = [parse(CollectConfig, ["--task", "reacher", *each]).randomise for each in words]
    assert asked == [None, (), ("camera",), ("light", "colour")]
