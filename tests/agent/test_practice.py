"""Practice: which goals come next, and what they are taken from."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import CHECKPOINT, INFO, synthetic_episodes

from jepa_mpc import envs
from jepa_mpc.agent import practice
from jepa_mpc.agent.practice import CANDIDATES, EASE, LEAD, PATIENCE, STEP, Practice
from jepa_mpc.envs.blocks import run_block
from jepa_mpc.world_model.data.dataset import Dataset, write_dataset
from jepa_mpc.world_model.weights import read_tensors


class Walker:
    """An agent on a line that is told where to go, and says where it was sent."""

    def __init__(self):
        self.goals = []

    def reset(self, goals, seeds):
        assert goals.shape[0] == len(seeds) == 1
        self.goals.append(int(goals[0, 0, 0, 0]))

    def act(self, pictures):
        return np.zeros((1, 2, 1), np.float32)


def picture(x):
    return np.full((4, 4, 3), x, np.uint8)


@pytest.fixture
def pupil():
    """One whose embedding of a picture is its brightness; goals are 0, 1, … 49, a block is 1.5 long."""
    goals = np.stack([picture(x) for x in range(50)])
    model = SimpleNamespace(encode=lambda pixels: pixels[..., 0, 0, :1].float())
    school = SimpleNamespace(
        model=model, goals=goals, z_goals=torch.arange(50.0)[:, None], block_length=torch.tensor(1.5)
    )
    return practice._Pupil(SimpleNamespace(proprio=np.empty(0, np.float32)), Walker(), school, np.random.default_rng(0))


def test_the_datas_policy_leads_to_where_goals_begin(pupil):
    led, pupil._lead = [], lambda picture: led.append(int(picture[0, 0, 0])) or np.ones((2, 1), np.float32)
    pupil._lead_left = 3
    for x in range(3):
        np.testing.assert_array_equal(pupil(picture(x)), np.ones((2, 1)))
    assert (led, pupil._agent.goals) == ([0, 1, 2], [])
    np.testing.assert_array_equal(pupil(picture(3)), np.zeros((2, 1)))
    assert len(pupil._agent.goals) == 1
    lengths = []
    for _ in range(30):  # each goal is attained at once, and another lead begins
        begin = len(led)
        while len(pupil._agent.goals) == len(lengths) + 1:
            pupil(picture(pupil._agent.goals[-1]))
        lengths.append(len(led) - begin)
    assert min(lengths) <= 2
    assert LEAD - 2 <= max(lengths) <= LEAD


def test_goals_grow_harder_as_they_are_attained_and_easier_as_they_are_missed(pupil):
    sent, share = pupil._agent.goals, EASE
    pupil(picture(0))
    assert sent == [int(EASE * CANDIDATES)]  # from 0, the goal of number n is n away
    for _ in range(4):
        pupil(picture(sent[-1] + 1))  # within a block: attained
        share = min(1.0, share * STEP)
        by_distance = sorted(range(50), key=lambda goal: abs(goal - sent[-2] - 1))
        far = abs(by_distance[min(int(share * 50), 49)] - sent[-2] - 1)
        assert abs(sent[-1] - sent[-2] - 1) == far
    assert len(sent) == 5
    here = sent[-1] - 2 if sent[-1] > 2 else sent[-1] + 2  # two away: not attained
    for _ in range(PATIENCE - 1):
        pupil(picture(here))
    assert len(sent) == 5
    pupil(picture(here))
    assert len(sent) == 6
    far = sorted(abs(goal - here) for goal in range(50))[int(share / STEP * 50)]
    assert abs(sent[-1] - here) == far


def test_goals_are_pictures_of_training_in_the_scenes_own_looks_and_a_block_apart(tmp_path, monkeypatch):
    episodes = [replace(each, randomised=bool(index % 2)) for index, each in enumerate(synthetic_episodes(20, 4))]
    write_dataset(tmp_path / "d.h5", episodes, INFO)
    data = Dataset(tmp_path / "d.h5")
    made = Practice.prepare(CHECKPOINT, data, tmp_path / "goals.safetensors")
    pairs = read_tensors(tmp_path / "goals.safetensors")[0]["goals"].numpy()
    own = [each for each in episodes[:19] if not each.randomised]
    assert len(pairs) == 4 * len(own)  # the last picture of an episode has none after it
    wanted = np.concatenate([np.stack([each.pixels[:-1], each.pixels[1:]], axis=1) for each in own])
    np.testing.assert_array_equal(pairs, wanted)
    monkeypatch.setattr(practice, "NUM_GOALS", 5)
    again = Practice.prepare(CHECKPOINT, data, tmp_path / "few.safetensors")
    assert len(read_tensors(tmp_path / "few.safetensors")[0]["goals"]) == 5
    assert again.digest == made.digest
    other = tmp_path / "other.h5"
    write_dataset(other, synthetic_episodes(20, 4, seed=1), INFO)
    assert Practice.prepare(CHECKPOINT, Dataset(other), tmp_path / "others.safetensors").digest != made.digest


def test_the_bundled_arm_attains_goals_and_gets_harder_ones(tmp_path):
    """It is driven as it is in a data set: by blocks, from pictures alone."""
    env = envs.make("reacher")
    rng = np.random.default_rng(0)
    pictures = np.stack([np.array(env.reset(seed=seed)[0]) for seed in range(60)])
    after = []
    for seed in range(60):
        env.reset(seed=seed)
        run_block(env, rng.uniform(-1, 1, (5, 2)).astype(np.float32))
        after.append(np.array(env.render()))
    from safetensors.numpy import save_file

    save_file({"goals": np.stack([pictures, np.stack(after)], axis=1)}, tmp_path / "goals.safetensors")
    pupil = Practice(CHECKPOINT, tmp_path / "goals.safetensors", "x")(env, 5, np.random.default_rng(1))
    shares = []
    env.reset(seed=99)
    for _ in range(40):
        block = np.stack(list(pupil(np.array(env.render()))))
        assert block.shape == (5, 2)
        run_block(env, block)
        shares.append(pupil._share)
    assert max(shares) > 2 * EASE
