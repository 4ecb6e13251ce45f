"""Policies on embeddings: what they learn, that files are safe, that a killed training goes on."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import INFO, ROOT, synthetic_episodes
from test_loop import by_hand

from jepa_mpc.errors import UserError
from jepa_mpc.world_model.checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint, weights_digest
from jepa_mpc.world_model.data.dataset import Dataset, write_dataset
from jepa_mpc.world_model.latent_policy import train as train_latent_policy
from jepa_mpc.world_model.latent_policy.policy import Regression
from jepa_mpc.world_model.latent_policy.retrieval import Retrieval, RetrievalConfig
from jepa_mpc.world_model.latent_policy.stored import LatentPolicyInfo, load_latent_policy, save_latent_policy
from jepa_mpc.world_model.latent_policy.train import LatentPolicyConfig, policy_phase
from jepa_mpc.world_model.model.encoder import EncoderConfig
from jepa_mpc.world_model.model.jepa import JEPA, JEPAConfig
from jepa_mpc.world_model.model.predictor import PredictorConfig
from jepa_mpc.world_model.training import loop as optimise
from jepa_mpc.world_model.training.diagnostics import encode_rows
from jepa_mpc.world_model.training.loop import LoopConfig, run_phases
from jepa_mpc.world_model.weights import CheckpointError

REST = {"weight_decay": 0.0, "warmup_steps": 10, "grad_clip": 1.0, "log_every": 100, "report_every": 10**6}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("policy") / "square.h5"
    write_dataset(path, synthetic_episodes(num_episodes=200, num_blocks=12), INFO)
    return Dataset(path)


def learned(data, folder, kind, num_steps=600):
    config = LatentPolicyConfig(output=folder, kind=kind, reach=1, num_steps=num_steps, batch_size=128, hidden=64)
    torch.manual_seed(0)
    policy = Regression(2, 2, config.hidden)
    z = torch.from_numpy(data.qpos).float()  # embeddings whose meaning is known
    loop = LoopConfig(seed=0, save_every=10**6, **REST)
    run_phases([policy_phase(config, policy, data, z)], policy, folder, loop)
    return policy.eval()


def test_the_inverse_model_finds_the_action_between_two_embeddings(data, tmp_path):
    policy = learned(data, tmp_path, "inverse")
    rng = np.random.default_rng(1)
    z = torch.from_numpy(rng.uniform(-0.5, 0.5, (200, 2))).float()
    action = torch.from_numpy(rng.uniform(-0.9, 0.9, (200, 2))).float()
    with torch.no_grad():
        found = policy(z, z, z + 0.3 * action)  # an action moves the square by 0.3 of itself
    assert (found - action).abs().mean() < 0.1


@pytest.mark.parametrize("kind", ["inverse", "gcbc"])
def test_goals_lie_ahead_in_the_same_episode(data, kind, tmp_path):
    config = LatentPolicyConfig(output=tmp_path, kind=kind, reach=3, batch_size=2000)
    _, rows, goals = policy_phase(config, Regression(2, 2), data, torch.empty(0)).load(np.random.default_rng(0))
    ahead = goals - rows
    left = data.blocks_left(rows)
    assert (ahead >= 1).all()
    assert (ahead <= left).all()
    assert ahead.max() == (3 if kind == "inverse" else 11)


def test_goals_lie_whole_blocks_ahead_where_a_block_takes_several_rows(dataset_path, tmp_path):
    data, config = Dataset(dataset_path, frameskip=2), LatentPolicyConfig(output=tmp_path, reach=3, batch_size=500)
    _, rows, goals = policy_phase(config, Regression(2, 4), data, torch.empty(0)).load(np.random.default_rng(0))
    ahead = goals - rows
    assert {*ahead.tolist()} == {2, 4, 6}
    assert (ahead // 2 <= data.blocks_left(rows)).all()


def test_a_step_of_the_policy_by_hand(data, tmp_path):
    config = LatentPolicyConfig(output=tmp_path, batch_size=30, learning_rate=0.2, num_steps=7)
    drawn = {}

    class Recording:
        action, sample_future = data.action, data.sample_future

        def sample_rows(self, *args):
            drawn["rows"] = data.sample_rows(*args)
            return drawn["rows"]

    torch.manual_seed(0)
    policy, z = Regression(3, 2, 8), torch.randn(len(data.action), 3)
    policy.action_mean.copy_(torch.tensor([0.5, -1.0])), policy.action_std.copy_(torch.tensor([2.0, 0.25]))
    phase = policy_phase(config, policy, Recording(), z)
    assert (phase.num_steps, phase.learning_rate, phase.trained) == (7, 0.2, policy)
    batch = phase.load(np.random.default_rng(4))
    loss, terms = phase.begin()(0, batch)
    before, now, _ = drawn["rows"].T
    again = np.random.default_rng(4)
    data.sample_rows(30, 3, again)
    goal = data.sample_future(now, again, 1, config.reach)
    said = policy.layers(torch.cat([z[now] - z[before], z[now], z[goal]], dim=1))
    wanted = (torch.from_numpy(data.action[now]) - torch.tensor([0.5, -1.0])) / torch.tensor([2.0, 0.25])
    torch.testing.assert_close(loss, (said - wanted).square().mean())
    torch.testing.assert_close(terms["policy"], loss)
    torch.testing.assert_close(policy(z[before], z[now], z[goal]), said * policy.action_std + policy.action_mean)


def test_a_policy_comes_back_from_its_file_and_a_damaged_one_is_one_line(tmp_path):
    policy = Regression(4, 6, 8)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    info = LatentPolicyInfo("inverse", "reacher", 4, 6, 8, 0, 1, 2.0, weights_digest(tmp_path), "def")
    path = tmp_path / "inverse.safetensors"
    save_latent_policy(path, policy, info)
    again, stored = load_latent_policy(path, tmp_path)
    assert stored == info
    assert not again.training
    assert not any(parameter.requires_grad for parameter in again.parameters())
    z = torch.randn(3, 5, 4)
    torch.testing.assert_close(again(*z), policy(*z), atol=2e-3, rtol=2e-3)
    (tmp_path / "model.safetensors").write_bytes(b"others")
    with pytest.raises(CheckpointError, match="another encoder"):
        load_latent_policy(path, tmp_path)
    save_latent_policy(path, policy, replace(info, encoder=weights_digest(tmp_path), format_version=9))
    with pytest.raises(CheckpointError, match="has format 9, this version reads 1"):
        load_latent_policy(path, tmp_path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(CheckpointError, match="damaged"):
        load_latent_policy(path, tmp_path)
    checkpoint, _ = small_world(tmp_path)
    with pytest.raises(CheckpointError, match=f"--task square --kind gcbc --checkpoint {checkpoint} --output"):
        load_latent_policy(checkpoint / "gcbc.safetensors", checkpoint)


ASKED = RetrievalConfig(num_near=30, reach=3, num_plans=5, megabytes=1.0)


def remembered(data, z, **settings):
    return Retrieval.of(data, z, replace(ASKED, **settings)).eval()


@pytest.mark.parametrize("frameskip", [1, 2])
def test_what_is_retrieved_is_what_was_done_where_things_were_alike_and_came_near_the_goal(dataset_path, frameskip):
    """Held against a search of every training episode, one by one."""
    data = Dataset(dataset_path, frameskip=frameskip)
    z = torch.from_numpy(np.random.default_rng(0).normal(size=(len(data.action), 3))).float()
    policy, rng = remembered(data, z), np.random.default_rng(1)
    assert policy.is_whole()
    for _ in range(20):
        now, goal = (torch.from_numpy(rng.normal(size=(2, 3))).float() for _ in range(2))
        found = policy.plans(now, now, goal, 4, lambda blocks: pytest.fail("it foresees nothing"))
        for plans, here, wanted in zip(found, now, goal, strict=True):
            frames = []
            for episode in data.train_episodes:
                rows = np.arange(data.ep_offset[episode], data.ep_offset[episode] + data.ep_len[episode], frameskip)
                for begin in range(len(rows) - 1):
                    done = data.action[rows[np.minimum(begin + np.arange(4), len(rows) - 2)]]
                    missed = float((z[rows[begin + 1 : begin + 4]] - wanted).norm(dim=1).min())
                    frames.append((float((z[rows[begin]] - here).norm()), missed, done))
            near = sorted(frames, key=lambda each: each[0])[:30]
            best = sorted(missed for _, missed, _ in near)[:5]  # one frame may be the best of several beginnings
            for plan, least in zip(plans.numpy(), best, strict=True):
                assert any(missed == least and (done == plan).all() for _, missed, done in near)


def test_episodes_are_left_out_evenly_until_the_file_is_small_enough(dataset_path, tmp_path):
    data = Dataset(dataset_path)
    z = torch.from_numpy(data.qpos).float()
    whole, half = (remembered(data, z, megabytes=size) for size in (1.0, 0.0026))
    assert len(whole.left) == 13 * len(data.train_episodes)
    assert len(half.left) == 13 * 10  # of 20 bytes
    first, last = (data.ep_offset[data.train_episodes[index]] for index in (0, -1))
    torch.testing.assert_close(half.z[[0, -13]], z[[first, last]])
    one = remembered(data, z, megabytes=1e-9, num_near=400, num_plans=64)
    assert one.plans(z[:1], z[:1], z[:1], 2, None).shape == (1, 13, 2, 2)


def test_retrieval_comes_back_from_its_file_and_a_damaged_one_is_one_line(dataset_path, tmp_path):
    data = Dataset(dataset_path)
    policy = remembered(data, torch.from_numpy(data.qpos).float())
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    sizes = {"embed_dim": 2, "action_dim": 2, "hidden": 8, "seed": 0, "num_steps": 1, "learning_seconds": 0.0}
    sizes |= {"num_frames": len(policy.left), "retrieval": ASKED}
    info = LatentPolicyInfo("retrieval", "square", encoder=weights_digest(tmp_path), commit="abc", **sizes)
    path = tmp_path / "retrieval.safetensors"
    save_latent_policy(path, policy, info)
    again, stored = load_latent_policy(path, tmp_path)
    assert stored == info
    for name, value in policy.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=1e-3, atol=1e-3)
    for where, wrong in ((-13, -1), (-13, 13), (0, 11), (-1, 2**63 - 1), (slice(None), 0)):
        damaged = remembered(data, torch.from_numpy(data.qpos).float())
        damaged.left[where] = wrong
        assert not damaged.is_whole()
        save_latent_policy(path, damaged, info)
        with pytest.raises(CheckpointError, match="its frames are not those of whole episodes"):
            load_latent_policy(path, tmp_path)
    far = replace(ASKED, num_near=10**5, reach=1000, num_plans=10**4)
    save_latent_policy(path, policy, replace(info, retrieval=far))
    z = policy.z[:2]
    assert load_latent_policy(path, tmp_path)[0].plans(z, z, z, 2, None).shape == (2, len(policy.left), 2, 2)
    save_latent_policy(path, policy, replace(info, retrieval=replace(ASKED, reach=10**12)))
    with pytest.raises(UserError, match="reach"):
        load_latent_policy(path, tmp_path)
    save_latent_policy(path, policy, info)
    (tmp_path / "gcbc.safetensors").write_bytes(path.read_bytes())
    with pytest.raises(CheckpointError, match=r"is of kind retrieval; call it retrieval\.safetensors"):
        load_latent_policy(tmp_path / "gcbc.safetensors", tmp_path)
    save_latent_policy(path, policy, replace(info, num_frames=10**12))
    with pytest.raises(CheckpointError, match="damaged"):
        load_latent_policy(path, tmp_path)


def test_retrieval_is_made_by_the_same_command(dataset_path, tmp_path):
    checkpoint, world = small_world(tmp_path)
    settings = RetrievalConfig(num_plans=3)
    config = LatentPolicyConfig(
        tmp_path / "out", "retrieval", "square", checkpoint, (dataset_path,), retrieval=settings
    )
    path = train_latent_policy.train(config)
    policy, info = load_latent_policy(path, checkpoint)
    data = Dataset(dataset_path)
    z = encode_rows(world, data, data.rows_of(data.train_episodes))
    torch.testing.assert_close(policy.z.data, z, rtol=1e-3, atol=1e-3)
    assert (info.retrieval.num_plans, info.num_frames) == (3, len(z))
    assert train_latent_policy.train(config) == path  # and left alone
    assert train_latent_policy.train(replace(config, seed=1)) == path  # it draws nothing
    with pytest.raises(UserError, match="--hidden is nothing to --kind retrieval; leave it out"):
        train_latent_policy.train(replace(config, hidden=4))
    with pytest.raises(UserError, match="--retrieval is nothing to --kind gcbc"):
        train_latent_policy.train(replace(config, kind="gcbc"))
    with pytest.raises(UserError, match="num_plans"):
        train_latent_policy.train(replace(config, retrieval=RetrievalConfig(num_plans=4)))


def small_world(folder):
    torch.manual_seed(0)
    encoder = EncoderConfig(image_size=32, channels=(4, 4, 4, 4))
    world = JEPA(JEPAConfig(2, 6, 8, encoder, PredictorConfig(width=16, depth=1, num_heads=2)))
    world.action_mean.copy_(torch.tensor([0.5, -1.0])), world.action_std.copy_(torch.tensor([2.0, 0.25]))
    info = CheckpointInfo("square", world.config, {}, {}, "abc", 0.0, {})
    save_checkpoint(folder / "world", world, info, "# square\n")
    return folder / "world", load_checkpoint(folder / "world")[0]


def test_a_killed_training_goes_on_to_the_same_policy(dataset_path, tmp_path, monkeypatch):
    checkpoint, world = small_world(tmp_path)
    config = LatentPolicyConfig(
        output=tmp_path / "whole",
        task="square",
        checkpoint=checkpoint,
        data=(dataset_path,),
        num_steps=30,
        learning_rate=0.1,  # at which a decay of the weights shows
        batch_size=16,
        hidden=8,
        save_every=10,
    )
    whole = load_latent_policy(train_latent_policy.train(config), checkpoint)[0]
    torch.testing.assert_close(whole.action_mean, world.action_mean)
    torch.testing.assert_close(whole.action_std, world.action_std)
    other = replace(config, output=tmp_path / "other", seed=1)
    other = load_latent_policy(train_latent_policy.train(other), checkpoint)[0]
    data = Dataset(dataset_path)
    z = encode_rows(load_checkpoint(checkpoint)[0], data, np.arange(len(data.pixels)))
    for seed, trained in ((0, whole), (1, other)):  # the steps by hand
        torch.manual_seed(seed)
        expected = Regression(6, 2, 8)
        expected.action_mean.copy_(world.action_mean), expected.action_std.copy_(world.action_std)
        by_hand(policy_phase(config, expected, data, z), [seed, 0], 1e-3, 100, 1.0)
        for name, value in expected.state_dict().items():
            torch.testing.assert_close(trained.state_dict()[name], value, rtol=2e-3, atol=1e-4, msg=name)  # of halves

    save = optimise.save_state

    def killed(*args):
        save(*args)
        raise KeyboardInterrupt

    again = replace(config, output=tmp_path / "killed")
    monkeypatch.setattr(optimise, "save_state", killed)
    with pytest.raises(KeyboardInterrupt):
        train_latent_policy.train(again)
    monkeypatch.setattr(optimise, "save_state", save)
    moved = replace(again, data=(dataset_path.resolve(),), save_every=7)  # which change nothing that is learned
    resumed = load_latent_policy(train_latent_policy.train(moved), checkpoint)[0]
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=0, atol=0)
    with pytest.raises(UserError, match="work with other settings: seed is 0 there and 1 now"):
        train_latent_policy.train(replace(again, seed=1))
    write_dataset(tmp_path / "short.h5", synthetic_episodes(3, 1), INFO)
    with pytest.raises(UserError, match="3 frames"):
        train_latent_policy.train(replace(config, output=tmp_path / "none", data=(tmp_path / "short.h5",)))
    assert not (tmp_path / "none").exists()


def test_data_of_other_blocks_than_the_checkpoints_are_refused(dataset_path, tmp_path):
    config = LatentPolicyConfig(output=tmp_path / "out", task="square", checkpoint=ROOT / "checkpoints/reacher")
    with pytest.raises(UserError, match="trained on task 'reacher', not 'square'"):
        train_latent_policy.train(replace(config, data=(dataset_path,)))
    assert not (tmp_path / "out").exists()
