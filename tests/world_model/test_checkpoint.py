"""What a checkpoint holds, and what is refused before it can do harm."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import CHECKPOINT, ROOT
from safetensors.torch import load_file, save_file

from jepa_mpc import envs
from jepa_mpc.errors import UserError
from jepa_mpc.pictures import PictureStats
from jepa_mpc.settings import to_json
from jepa_mpc.world_model.checkpoint import (
    load_checkpoint,
    load_info,
    load_picture_stats,
    save_checkpoint,
)
from jepa_mpc.world_model.model.surprise import UsualMiss

BUNDLED = sorted(path.parent for path in (ROOT / "checkpoints").rglob("config.json"))


@pytest.mark.parametrize("folder", BUNDLED, ids=lambda folder: folder.name)
def test_bundled_checkpoints_say_what_simulator_and_task_say(folder):
    info = load_info(folder)
    spec, env = envs.get_task(info.task), envs.make(info.task)
    bounds = info.interface.bounds()
    for ours, theirs in zip(bounds, (env.action_space.low, env.action_space.high), strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == np.float32
    assert info.interface.step_seconds == pytest.approx(env.step_seconds)
    assert (info.interface.action_block, info.interface.image_size) == (spec.action_block, spec.image_size)
    assert info.model.action_dim == spec.action_block * env.action_space.shape[0]
    assert info.planning == to_json(spec.planning)
    assert info.format_version == 2
    env.close()


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(CHECKPOINT, tmp_path / "copy")


def change(folder, **changes):
    """Changes config.json: `model__encoder__depth=3`."""
    stored = json.loads((folder / "config.json").read_text())
    for path, value in changes.items():
        *parents, name = path.split("__")
        place = stored
        for parent in parents:
            place = place[parent]
        place[name] = value
    (folder / "config.json").write_text(json.dumps(stored))


def change_weights(folder, edit):
    weights = load_file(folder / "model.safetensors")
    weights = edit(weights) or weights
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / "model.safetensors")


def refused(folder, line):
    with pytest.raises(UserError, match=line) as caught:
        load_checkpoint(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_a_bundled_one_is_found_by_its_name_and_a_missing_one_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, info = load_checkpoint("reacher")
    assert info == load_info(CHECKPOINT)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(UserError, match="no checkpoint at nowhere; train one with `jepa-mpc train`"):
        load_checkpoint("nowhere")


def test_a_checkpoint_that_was_not_written_whole_is_none(tmp_path):
    model, info = load_checkpoint("reacher")
    (tmp_path / "half/card.md").mkdir(parents=True)  # where no file can be written
    with pytest.raises(OSError, match=r"card\.md"):
        save_checkpoint(tmp_path / "half", model, info, "")
    assert not (tmp_path / "half/config.json").exists()


def test_format_one_is_still_read(copy):
    stored = json.loads((copy / "config.json").read_text())
    del stored["interface"], stored["planning"]
    for name in ("kind", "window"):  # which came later
        del stored["model"]["predictor"][name]
    (copy / "config.json").write_text(json.dumps({**stored, "format_version": 1}))
    model, info = load_checkpoint(copy)
    assert info.interface is None
    assert info.planning == {}
    for name, value in load_checkpoint(CHECKPOINT)[0].state_dict().items():
        assert torch.equal(model.state_dict()[name], value)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"model__predictor__depth": 100_000}, r"model\.predictor\.depth must be 1 to 256, not 100000"),
        ({"model__embed_dim": 10**7}, r"model\.embed_dim must be 1 to 65536"),
        ({"model__encoder__channels": [16] * 10**5}, r"100000 encoder\.channels do not fit pictures of side 64"),
        ({"model__encoder__channels": []}, r"encoder\.channels"),
        ({"model__encoder__image_size": 8, "interface__image_size": 8}, r"encoder\.channels"),
        ({"model__predictor__num_heads": 5}, r"predictor\.width 128 must be a multiple of predictor\.num_heads 5"),
        ({"model__encoder__kind": "vit", "model__encoder__num_heads": 7}, r"encoder\.width 192 must be a multiple"),
        ({"model__encoder__kind": "vit", "model__encoder__patch_size": 65}, r"encoder\.patch_size 65 exceeds"),
        ({"model__predictor__kind": "lewm"}, "as wide as its embeddings"),
        ({"model__surprise": 1}, r"model\.surprise is unknown"),
        ({"interface": {"action_low": [0]}}, "interface.* is missing"),
        ({"interface__image_size": 96}, r"interface\.picture_size is \(96, 96\), and that of the model \(64, 64\)"),
        ({"interface__action_low": [1, 2]}, r"interface\.action_low \(1.0, 2.0\) and action_high .* are no bounds"),
        ({"interface__action_low": [-1]}, r"interface\.action_low \(-1.0,\) and action_high .* are no bounds"),
        ({"interface__action_low": [float("nan"), -1]}, r"interface\.action_low must be a finite number"),
        ({"learning_seconds": float("nan")}, "learning_seconds must be a finite number"),
        ({"usual_miss": {"median": 1, "share": [0.5, -0.5]}}, r"usual_miss\.share must be at least 0, not -0\.5"),
        ({"usual_miss": {"median": float("nan"), "share": [1]}}, r"usual_miss\.median must be a finite number"),
        ({"usual_miss": {"median": 1.0, "share": []}}, r"usual_miss\.share is empty"),
    ],
)
def test_impossible_settings_are_named(copy, changes, line):
    change(copy, **changes)
    refused(copy, line)


def test_sizes_that_the_weights_have_not_are_never_allocated(copy):
    change(copy, model__embed_dim=65_536, model__predictor__depth=256, model__predictor__width=65_536)
    code = f"""
import resource
from jepa_mpc.world_model.checkpoint import load_checkpoint
room = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    load_checkpoint({str(copy)!r})
except Exception as error:
    print(repr(error)[-200:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - room < 200_000)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "True", done.stderr


def test_the_first_differing_tensor_is_named_with_both_shapes(copy):
    change(copy, model__embed_dim=32)
    refused(copy, r"projector\.3\.weight is \(64, 512\), and \(32, 512\) by its settings")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["predictor.input.weight", "action_mean", "encoder.layers.0.1.running_var"])
def test_weights_that_are_not_numbers_are_refused(copy, name, value):
    def spoil(weights):
        weights[name].view(-1)[-1] = value

    change_weights(copy, spoil)
    refused(copy, f"{name} has numbers that no training leaves")


def test_a_std_of_zero_and_other_types_are_refused(copy):
    change_weights(copy, lambda weights: {**weights, "action_std": 0 * weights["action_std"]})
    refused(copy, "action_std has numbers that no training leaves")
    change_weights(copy, lambda weights: {**weights, "action_std": weights["action_std"].int() + 1})
    refused(copy, "action_std is of type torch.int32")


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "model.", "model._orig_mod.", "module.model."])
def test_prefixes_that_others_write_are_passed_over(copy, prefix):
    change_weights(copy, lambda weights: {prefix + name: value for name, value in weights.items()})
    model, _ = load_checkpoint(copy)
    for name, value in load_checkpoint(CHECKPOINT)[0].state_dict().items():
        assert torch.equal(model.state_dict()[name], value)


def test_missing_and_surplus_tensors_are_named(copy):
    change_weights(copy, lambda weights: {**weights, "decoder.weight": torch.zeros(2)})
    refused(copy, r"decoder\.weight is no part of the model")
    change_weights(
        copy, lambda weights: {n: v for n, v in weights.items() if n not in ("decoder.weight", "action_std")}
    )
    refused(copy, "action_std is missing")


def test_what_is_usual_is_the_models_and_an_older_checkpoint_does_not_know(copy):
    config = json.loads((copy / "config.json").read_text())
    config.pop("usual_miss", None)
    (copy / "config.json").write_text(json.dumps(config))
    model, info = load_checkpoint(copy)
    assert info.usual_miss is model.usual_miss is None
    change(copy, usual_miss={"median": 0.25, "share": [1.5, 0.5]})
    model, info = load_checkpoint(copy)
    assert info.usual_miss == model.usual_miss == UsualMiss(0.25, (1.5, 0.5))
    save_checkpoint(copy, model, info, "")
    assert load_checkpoint(copy)[0].usual_miss == UsualMiss(0.25, (1.5, 0.5))


@pytest.fixture
def pictured(copy):
    """A checkpoint with its pictures' statistics, and these."""
    mean, std = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    model, info = load_checkpoint(copy)
    save_checkpoint(copy, model, info, "", PictureStats(mean, std))
    return copy, PictureStats(mean, std)


def test_what_trainings_pictures_were_like_is_kept_to_the_byte(pictured):
    folder, stats = pictured
    found = load_picture_stats(folder)
    for name, value in stats._asdict().items():
        np.testing.assert_array_equal(getattr(found, name), value)
        assert getattr(found, name).dtype == np.uint8
    weights = load_file(folder / "model.safetensors")
    assert set(weights) == set(load_file(CHECKPOINT / "model.safetensors"))


def no_stats(folder, line):
    with pytest.raises(UserError, match=line) as caught:
        load_picture_stats(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_a_checkpoint_of_an_older_version_has_no_such_statistics(pictured):
    folder, _ = pictured
    (folder / "pictures.safetensors").unlink()
    no_stats(folder, r"is of an older version, which kept no pictures\.safetensors; train it again")
    load_checkpoint(folder)  # which needs none
    shutil.rmtree(folder)
    no_stats(folder, "no checkpoint at")


@pytest.mark.parametrize("keep", [0, 7, 1000, -1])
def test_statistics_that_were_cut_are_refused(pictured, keep):
    folder, _ = pictured
    path = folder / "pictures.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    no_stats(folder, r"pictures\.safetensors is damaged \(.*train it again")


@pytest.mark.parametrize(
    "edit",
    [
        lambda stats: {**stats, "mean": stats["mean"][:32]},
        lambda stats: {name: value[::2, ::2].contiguous() for name, value in stats.items()},
        lambda stats: {**stats, "std": stats["std"].float()},
        lambda stats: {**stats, "std": stats["std"].permute(2, 0, 1).contiguous()},
        lambda stats: {"mean": stats["mean"]},
        lambda stats: {**stats, "median": stats["mean"].clone()},
    ],
    ids=["cut", "small", "floats", "channels first", "one", "three"],
)
def test_statistics_of_another_kind_are_refused(pictured, edit):
    folder, _ = pictured
    save_file(edit(load_file(folder / "pictures.safetensors")), folder / "pictures.safetensors")
    no_stats(folder, r"pictures\.safetensors is damaged \(it must hold mean and std, 64×64×3 uint8\); train it again")


def test_loading_needs_torch_numpy_and_safetensors_alone():
    """What is imported for training, data and options stays away."""
    heavy = ("gymnasium", "mujoco", "h5py", "tyro", "dacite", "tensorboard", "filelock", "platformdirs", "rich")
    code = f"""
import sys
from jepa_mpc.world_model.checkpoint import load_checkpoint
load_checkpoint("reacher")
print({{name for name in {heavy} if name in sys.modules}})
print([name for name in sys.modules if name.startswith("jepa_mpc.world_model.training")])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split("\n")[:2] == ["set()", "[]"], done.stderr
