"""Beside le-wm and stable-worldmodel: their data sets and releases are read as they read them."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import gymnasium as gym
import h5py
import numpy as np
import pytest
import torch
from conftest import INFO, ROOT, synthetic_episodes
from golden.lewm import GOLDEN, KEPT, SIZES, S, our_futures, random_weight, release_config
from test_train import debug_config

from jepa_mpc.agent.agent_config import AGENT_PRESETS
from jepa_mpc.agent.planning_agent import PlanningAgent
from jepa_mpc.errors import UserError
from jepa_mpc.world_model.checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint
from jepa_mpc.world_model.convert.lewm_release import (
    Export,
    Import,
    export_release,
    from_release,
    import_release,
    read_weights,
    to_release,
)
from jepa_mpc.world_model.data.dataset import Dataset, DatasetError, write_dataset
from jepa_mpc.world_model.model.jepa import JEPA, JEPAConfig
from jepa_mpc.world_model.train import train
from jepa_mpc.world_model.training import phases
from jepa_mpc.world_model.training.build import build
from jepa_mpc.world_model.training.config import TRAIN_PRESETS, TrainConfig
from jepa_mpc.world_model.training.guard import CollapseGuard

LENGTHS = [30, 17, 41, 26, 33]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """A file as stable-worldmodel 0.1.1 writes it: a row a step, chunks of one row, ep_len int32."""
    path, rng = tmp_path_factory.mktemp("lewm") / "pusht.h5", np.random.default_rng(0)
    N = sum(LENGTHS)
    with h5py.File(path, "w", libver="latest") as file:
        for name, values in {
            "pixels": rng.integers(0, 256, (N, 32, 32, 3), np.uint8),
            "action": rng.standard_normal((N, 2), np.float32),
            "proprio": rng.standard_normal((N, 3), np.float32),
            "state": rng.standard_normal((N, 4), np.float32),
        }.items():
            file.create_dataset(name, data=values, chunks=(1, *values.shape[1:]), maxshape=(None, *values.shape[1:]))
        ends = np.cumsum(LENGTHS)
        file["ep_len"], file["ep_offset"] = np.array(LENGTHS, np.int32), (ends - LENGTHS).astype(np.int64)
    return path


@pytest.mark.parametrize("frameskip", [1, 3, None])
def test_windows_of_their_files_take_every_nth_picture_and_all_actions_between(theirs, frameskip):
    data, skip = Dataset(theirs, task="push_t", held_out_fraction=0.2, frameskip=frameskip), frameskip or 5
    assert (data.info.task, data.info.action_block, data.stride) == ("push_t", skip, skip)
    rows = data.sample_rows(500, 4, np.random.default_rng(1))
    (pixels, _), actions = data.windows(rows)
    with h5py.File(theirs) as file:
        stored, action = file["pixels"][:], file["action"][:]
    ends, starts = np.cumsum(LENGTHS), set()
    for window, taken, (first, *_, last) in zip(pixels.numpy(), actions.numpy(), rows, strict=True):
        episode = np.searchsorted(ends, first, side="right")
        assert episode == np.searchsorted(ends, last, side="right") < 4  # the last one is held out
        np.testing.assert_array_equal(window, stored[first : last + 1 : skip])
        np.testing.assert_array_equal(taken.reshape(-1, 2), action[first:last])
        starts.add(int(first))
    possible = [n - 3 * skip for n in LENGTHS[:4]]
    assert len(starts) > 0.9 * sum(possible)
    left = data.blocks_left(rows[:, -1])
    np.testing.assert_array_equal(left, (ends[np.searchsorted(ends, rows[:, -1], "right")] - 1 - rows[:, -1]) // skip)
    future = data.sample_future(rows[:, 0], np.random.default_rng(2))
    assert ((future - rows[:, 0]) % skip == 0).all()
    assert ((future - rows[:, 0]) // skip <= data.blocks_left(rows[:, 0])).all()


def test_no_block_runs_over_an_episodes_end(theirs):
    data = Dataset(theirs)
    inside = np.isfinite(data.action).all(axis=1)
    expected = np.concatenate([np.arange(n) < n - 5 for n in LENGTHS])
    np.testing.assert_array_equal(inside, expected)
    mean, std = data.action_stats()
    assert np.isfinite(mean).all()
    assert (std > 0).all()


def test_a_model_is_trained_on_their_files(theirs, tmp_path):
    config = debug_config(tmp_path / "run", theirs, num_frames=3, predictor_num_frames=3)
    model, info = load_checkpoint(train(config))
    assert model.config.action_dim == 10
    assert info.data["action_block"] == 5
    again = replace(
        config, output=tmp_path / "other", frameskip=4, num_steps=1, predictor_steps=0, reachability_steps=0
    )
    assert load_checkpoint(train(again))[0].config.action_dim == 8
    assert set(info.metrics["embedding"]["probe_r2"]) == {f"qpos{i}" for i in range(4)}


def test_files_whose_episodes_do_not_add_up_are_refused(theirs, tmp_path):
    path = tmp_path / "cut.h5"
    path.write_bytes(theirs.read_bytes())
    with h5py.File(path, "a") as file:
        file["pixels"].resize(100, axis=0)
    with pytest.raises(
        DatasetError,
        match="its episodes do not lie one after another: column 'ep_len' names 147 rows, 'pixels' has 100",
    ):
        Dataset(path)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("pixels", np.zeros((147, 3, 32, 32), np.uint8), r"column 'pixels' must be \(N, H, W, 3\) uint8"),
        (
            "pixels",
            np.zeros((147, 32, 32, 3), np.float32),
            r"column 'pixels' must be \(N, H, W, 3\) uint8, not .* float32",
        ),
        ("pixels", np.zeros((147, 32, 32, 3), np.uint16), r"column 'pixels' must be .* uint8, not .* uint16"),
        ("action", np.zeros(147, np.float32), r"column 'action' must be \(147, A\) float, not \(147,\)"),
        ("action", np.zeros((140, 2), np.float32), r"column 'action' must be \(147, A\)"),
    ],
)
def test_columns_of_another_kind_are_refused(theirs, tmp_path, column, values, message):
    path = tmp_path / "other.h5"
    path.write_bytes(theirs.read_bytes())
    with h5py.File(path, "a") as file:
        del file[column]
        file.create_dataset(column, data=values, chunks=(1, *values.shape[1:]))
    with pytest.raises(DatasetError, match=message):
        Dataset(path)


def test_our_own_files_can_be_read_in_longer_blocks(tmp_path):
    write_dataset(tmp_path / "threes.h5", synthetic_episodes(4, 12), replace(INFO, action_block=3))
    assert Dataset(tmp_path / "threes.h5", frameskip=2).info.action_block == 6
    write_dataset(tmp_path / "d.h5", synthetic_episodes(4, 12), INFO)
    one, two = Dataset(tmp_path / "d.h5"), Dataset(tmp_path / "d.h5", frameskip=2)
    assert (one.info.action_block, two.info.action_block) == (1, 2)
    np.testing.assert_array_equal(two.action[:11], np.hstack([one.action[:11], one.action[1:12]]))


SIZE = SIZES["small"]


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """A release of their small model with weights that anyone can make again."""
    folder, shapes = tmp_path_factory.mktemp("release"), json.loads(GOLDEN.read_text())["shapes"]
    torch.save({name: random_weight(name, shape) for name, shape in shapes.items()}, folder / "weights.pt")
    (folder / "config.json").write_text(json.dumps(release_config(SIZE)))
    return folder


def load(folder):
    weights = torch.load(folder / "weights.pt", weights_only=True)
    return json.loads((folder / "config.json").read_text()), weights


def test_a_release_foresees_what_their_own_modules_do(release):
    futures = our_futures(from_release(*load(release)), SIZE)
    expected = torch.tensor(json.loads(GOLDEN.read_text())["futures"]).view(2, S, 8, KEPT)
    assert expected.std() > 0.1
    torch.testing.assert_close(futures[..., :KEPT], expected, atol=1e-5, rtol=0)


def test_windows_slide_however_a_rollout_is_cut(release):
    """Three frames decide: older ones change nothing, and one step at a time gives what many do."""
    model = from_release(*load(release))
    z, actions = torch.randn(2, 6, 48), torch.randn(2, 6, 6)
    whole = model.predict(z, actions)
    for t in range(6):
        seen = slice(max(0, t - 2), t + 1)
        torch.testing.assert_close(whole[:, t], model.predict(z[:, seen], actions[:, seen])[:, -1])
    blind = torch.cat([torch.randn(2, 3, 48), z[:, 3:]], dim=1)
    torch.testing.assert_close(model.predict(blind, actions)[:, 5], whole[:, 5])
    future = model.rollout(z, actions[:, :5], actions[:, None, 5:])
    torch.testing.assert_close(future[:, 0, 0], whole[:, 5])


def test_positions_count_from_the_windows_first_frame(release):
    model, z, actions = from_release(*load(release)), torch.randn(2, 2, 48), torch.randn(2, 2, 6)
    before = model.predict(z, actions)
    model.predictor.position[2] += 1
    torch.testing.assert_close(model.predict(z, actions), before)
    model.predictor.position[1] += torch.randn(48)
    torch.testing.assert_close(model.predict(z, actions)[:, 0], before[:, 0])
    assert (model.predict(z, actions)[:, 1] - before[:, 1]).abs().max() > 0.1


def test_a_release_comes_back_as_it_was(release):
    _, weights = load(release)
    model = from_release(*load(release))
    for value in to_release(model)[1].values():
        value.zero_()  # what is handed out is the caller's own
    config, again = to_release(model)
    assert set(again) == set(weights)
    assert config["predictor"]["heads"] == 4
    biased = {"projector.net.0.bias", "projector.net.1.running_mean"}  # of which only the difference counts
    for name in set(weights) - biased:
        torch.testing.assert_close(again[name], weights[name], atol=1e-6, rtol=1e-5, msg=name)
    futures = our_futures(from_release(*load(release)), SIZE)
    torch.testing.assert_close(our_futures(from_release(release_config(SIZE), again), SIZE), futures)


def run(*options):
    command = [sys.executable, "-m", "jepa_mpc", "convert", "lewm", *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_release_becomes_a_checkpoint_that_plans(release, theirs, tmp_path):
    shapes = json.loads(GOLDEN.read_text())["shapes"]
    with h5py.File(tmp_path / "three.h5", "w") as file:  # actions of two numbers, so a block of three
        file["action"] = np.random.default_rng(0).normal([1.0, -2.0], [0.5, 3.0], (500, 2)).astype(np.float32)
        file["action"][::2] = np.nan  # where nothing was done
    options = ["--task", "push_t", "--data", tmp_path / "three.h5", "--output", tmp_path / "made", "--frameskip", 3]
    done = run("import", "--release", release, *options)
    assert done.returncode == 0, done.stderr
    model, info = load_checkpoint(tmp_path / "made", task="push_t")
    assert info.model.predictor.kind == "lewm"
    assert info.data["action_block"] == 3
    for name, value in from_release(*load(release)).predictor.state_dict().items():  # in full precision
        torch.testing.assert_close(model.predictor.state_dict()[name], value, rtol=0, atol=0)
    with pytest.raises(UserError, match=r"config\.json exists already"):
        import_release(Import(release, "push_t", tmp_path / "three.h5", tmp_path / "made", 3))
    torch.testing.assert_close(model.action_mean.view(3, 2), torch.tensor([[1.0, -2.0]] * 3), atol=0.5, rtol=0)
    normalised = model.normalise_actions(torch.tensor([[1.5, 1.0] * 3]))
    assert ((normalised - 1).abs() < 0.3).all()
    assert set(shapes) == set(to_release(model)[1])

    with pytest.raises(UserError, match="this model's blocks are 6 numbers, the task's 10"):
        PlanningAgent(model, gym.spaces.Box(-1, 1, (2,), np.float32), 5, AGENT_PRESETS["lewm"])
    agent = PlanningAgent(model, gym.spaces.Box(-1, 1, (2,), np.float32), 3, AGENT_PRESETS["lewm"])
    pictures = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 3), np.uint8)
    agent.reset(pictures, [0, 1])
    assert agent.act(pictures[::-1].copy()).shape == (2, 3, 2)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "it needs config.json and one .pt file"),
        (lambda folder: (folder / "weights.pt").write_bytes(b"nothing"), "is no release of LeWM"),
        (lambda folder: torch.save({"weight": torch.zeros(2)}, folder / "weights.pt"), "is no release of LeWM"),
        (lambda folder: flatten_positions(folder / "weights.pt"), "is no release of LeWM"),
        (lambda folder: torch.save(Exploit(), folder / "weights.pt"), "is no release of LeWM"),
    ],
    ids=["missing", "damaged", "another model", "another shape", "pickle"],
)
def test_bad_releases_are_refused_in_one_line(release, theirs, tmp_path, spoil, message):
    folder = tmp_path / "release"
    folder.mkdir()
    for path in release.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    spoil(folder)
    done = run("import", "--release", folder, "--task", "push_t", "--data", theirs, "--output", tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("prefix", ["model.", "module.", "_orig_mod.", "lightning"])
def test_what_wrappers_put_around_weights_is_passed_over(release, prefix):
    config, weights = load(release)
    expected = from_release(config, weights).state_dict()
    path = release.parent / "wrapped.pt"
    wrapped = {f"model.{name}" if prefix == "lightning" else prefix + name: value for name, value in weights.items()}
    torch.save({"state_dict": wrapped, "epoch": 3} if prefix == "lightning" else wrapped, path)
    for name, value in from_release(config, read_weights(path)).state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)


def changed(name, value):
    return lambda folder: torch.save(
        {**torch.load(folder / "weights.pt", weights_only=True), name: value}, folder / "weights.pt"
    )


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (
            lambda folder: torch.save(Exploit(), folder / "weights.pt"),
            "is damaged, or holds more than tensors, which is not executed",
        ),
        (changed("pred_proj.net.3.bias", torch.zeros(7)), r"pred_proj\.net\.3\.bias is \(7,\), and \(48,\) by its set"),
        (changed("pred_proj.net.3.bias", torch.full((48,), torch.nan)), "has numbers that no training leaves"),
        (changed("decoder.bias", torch.zeros(7)), r"decoder\.bias is no part of the model"),
        (changed("projector.net.3.bias", torch.zeros(10**6)), "embed_dim must be 1 to 65536"),
        (changed("pred_proj.net.3.bias", torch.zeros(1).expand(48)), r"weights\.pt holds no tensors by name"),
        (changed("pred_proj.net.3.bias", "text"), r"weights\.pt holds no tensors by name"),
        (lambda folder: (folder / "config.json").write_text("[" * 9000), r"config\.json is damaged"),
        (lambda folder: (folder / "config.json").write_text("{}"), r"its sizes: encoder\.num_heads must be int"),
        (
            lambda folder: ((folder / "weights.pt").unlink(), os.mkfifo(folder / "weights.pt")),
            "is no release: it needs",
        ),
    ],
    ids=["pickle", "shape", "nan", "more", "huge", "expanded", "text", "deep", "empty", "pipe"],
)
def test_what_is_wrong_with_a_release_is_said_in_our_words(release, theirs, tmp_path, spoil, line):
    folder = shutil.copytree(release, tmp_path / "release")
    spoil(folder)
    with pytest.raises(UserError, match=line) as caught:
        import_release(Import(folder, "push_t", theirs, tmp_path / "out", 3))
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_actions_that_do_not_make_the_releases_blocks_are_counted(release, theirs, tmp_path):
    with pytest.raises(UserError, match=r"takes blocks of 6 numbers, and 5 actions of .* have 10; name"):
        import_release(Import(release, "push_t", theirs, tmp_path / "out"))


@pytest.mark.parametrize(("depth", "fits"), [(6, False), (12, True)])
def test_a_vit_that_no_release_can_name_is_not_exported(tmp_path, depth, fits):
    preset = TRAIN_PRESETS["paper"]
    small = replace(preset["predictor"], depth=1, mlp_width=8, num_heads=2, head_dim=4, projector_hidden=8)
    encoder = replace(preset["encoder"], depth=depth, image_size=28)
    config = JEPAConfig(10, 192, 16, encoder, small, projector_activation="gelu")
    info = CheckpointInfo("push_t", config, {}, {}, "abc", 0.0, {})
    save_checkpoint(tmp_path / "checkpoint", JEPA(config), info, "")
    export = Export(tmp_path / "checkpoint", tmp_path / "out")
    if fits:
        export_release(export)
        assert json.loads((tmp_path / "out/config.json").read_text())["encoder"]["size"] == "tiny"
        for left in ("weights.pt", "config.json"):  # by either of them
            with pytest.raises(UserError, match=rf"{left} exists already"):
                export_release(export)
            (tmp_path / "out" / left).unlink()
    else:
        with pytest.raises(UserError, match="no release can name a ViT of width 192, depth 6, 3 heads"):
            export_release(export)
        assert not (tmp_path / "out").exists()


def flatten_positions(path):
    weights = torch.load(path, weights_only=True)
    weights["encoder.embeddings.position_embeddings"] = weights["encoder.embeddings.position_embeddings"].flatten()
    torch.save(weights, path)


class Exploit:
    """What a pickle could do if it were loaded as one."""

    def __reduce__(self):
        return (print, ("executed",))


def test_only_models_of_the_papers_parts_are_exported(tmp_path):
    done = run("export", "--checkpoint", ROOT / "checkpoints/reacher", "--output", tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr == "error: only models as `--preset paper` trains them have a release's parts\n"


def test_the_papers_preset_has_the_released_size():
    preset = TRAIN_PRESETS["paper"]
    names = ("embed_dim", "projector_hidden", "encoder", "predictor", "projector_activation")
    model = JEPA(JEPAConfig(10, **{name: preset[name] for name in names}))

    def millions(module):
        return sum(p.numel() for p in module.parameters()) / 1e6

    assert millions(model) == pytest.approx(18.03, abs=0.01)
    assert millions(model.encoder) == pytest.approx(5.5, abs=0.05)
    assert millions(model.predictor.blocks) == pytest.approx(10.8, abs=0.05)


def test_the_papers_preset_takes_a_step(tmp_path, monkeypatch):
    monkeypatch.setattr(phases, "CALIBRATION_BATCH", 4)
    recorded = synthetic_episodes(3, 6)
    large = [replace(each, pixels=each.pixels.repeat(7, axis=1).repeat(7, axis=2)) for each in recorded]
    write_dataset(tmp_path / "d.h5", large, INFO)
    data = Dataset(tmp_path / "d.h5")
    config = TrainConfig(output=tmp_path, task="square", device="cpu", **{**TRAIN_PRESETS["paper"], "batch_size": 3})
    model, regularizer = build(config, data, torch.device("cpu"))
    phase = phases.joint_phase(config, model, regularizer, CollapseGuard(), data)
    assert phase.num_steps == 180_000
    step_loss, batch = phase.begin(), phase.load(np.random.default_rng(0))
    assert batch[1].pixels.shape == (3, 4, 224, 224, 3)
    optimizer = torch.optim.AdamW(phase.trained.parameters(), config.learning_rate)
    before, terms = step_loss(0, batch)
    assert set(terms) == {"prediction", "rollout", "sigreg"}
    torch.testing.assert_close(before, terms["prediction"] + 0.09 * terms["sigreg"])  # the rollout has no weight
    assert isinstance(model.projector[2], torch.nn.GELU)
    for _ in range(3):
        loss, _ = step_loss(1, batch)
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in phase.trained.parameters())
        optimizer.step()
    assert step_loss(1, batch)[0] < before
    assert model.encode(batch[1]).shape == (3, 4, 192)
