import copy
import dataclasses
import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from conftest import CHECKPOINT, INFO, ROOT, synthetic_episodes
from safetensors.torch import load_file
from test_loop import by_hand

from jepa_mpc.devices import choose_device
from jepa_mpc.errors import UserError
from jepa_mpc.files import claimed
from jepa_mpc.settings import to_json
from jepa_mpc.world_model.checkpoint import Earlier, load_checkpoint, load_info, load_picture_stats
from jepa_mpc.world_model.data.augment import AugmentConfig, augment
from jepa_mpc.world_model.data.dataset import Dataset, DatasetError, spread, write_dataset
from jepa_mpc.world_model.interface import Interface
from jepa_mpc.world_model.model.encoder import EncoderConfig
from jepa_mpc.world_model.model.jepa import JEPA, JEPAConfig
from jepa_mpc.world_model.model.predictor import PredictorConfig
from jepa_mpc.world_model.model.reachability import ReachabilityConfig
from jepa_mpc.world_model.regularizers import REGULARIZERS
from jepa_mpc.world_model.regularizers.alternatives import EMAConfig, KLConfig, SimCLRConfig
from jepa_mpc.world_model.regularizers.sigreg import SIGRegConfig
from jepa_mpc.world_model.train import main, parse_config, train
from jepa_mpc.world_model.training import loop as optimise
from jepa_mpc.world_model.training.build import build, require_fit, require_shares
from jepa_mpc.world_model.training.card import card, train_options
from jepa_mpc.world_model.training.config import TRAIN_PRESETS, TrainConfig
from jepa_mpc.world_model.training.diagnostics import (
    effective_rank,
    encode_rows,
    linear_probe_r2,
    report_embedding,
    usual_miss,
)
from jepa_mpc.world_model.training.guard import CollapseGuard
from jepa_mpc.world_model.training.phases import (
    encode_all,
    joint_phase,
    predictor_phase,
    reachability_phase,
    recalibrate_batchnorm,
)
from jepa_mpc.world_model.training.state import TrainError


def debug_config(output, dataset_path, **changes):
    settings = {**TRAIN_PRESETS["debug"], "task": "square", "data": (dataset_path,), "preset": "debug", **changes}
    return TrainConfig(output=output, precision="float32", device="cpu", **settings)


@pytest.fixture(scope="module")
def trained(dataset_path, tmp_path_factory):
    return train(debug_config(tmp_path_factory.mktemp("run") / "whole", dataset_path))


def weights(folder):
    return load_checkpoint(folder)[0].state_dict()


def test_training_learns_to_predict(tmp_path):
    path = tmp_path / "square.h5"
    write_dataset(path, synthetic_episodes(num_episodes=100, num_blocks=12), INFO)
    model, info = load_checkpoint(
        train(debug_config(tmp_path / "run", path, num_steps=300, predictor_steps=200, learning_rate=3e-3))
    )
    data = Dataset(path)
    rows = data.rows_of(data.held_out_episodes)
    z = encode_rows(model, data, rows).view(len(data.held_out_episodes), 13, -1)[:, :8]
    actions = torch.from_numpy(data.action[rows]).view(len(z), 13, -1)[:, :7]
    error = (model.predict(z[:, :-1], actions) - z[:, 1:]).square().mean()
    standing_still = (z[:, :-1] - z[:, 1:]).square().mean()
    assert error < 0.5 * standing_still
    assert {phase: set(terms) for phase, terms in info.metrics["loss"].items()} == {
        "joint": {"prediction", "rollout", "sigreg"},
        "predictor": {"prediction", "rollout"},
        "reachability": {"reachability"},
    }
    assert info.metrics["embedding"]["std"] > 0.3


def test_a_training_is_its_phases_one_after_another(trained, dataset_path):
    """Written out: what resumed, shared and read-ahead trainings are compared with is itself what it should be."""
    config, data = debug_config(None, dataset_path), Dataset(dataset_path)
    model, regularizer = build(config, data, torch.device("cpu"))
    target, frozen = copy.deepcopy(model.reachability), functools.cache(lambda: encode_all(model, data))
    phases = [
        joint_phase(config, model, regularizer, CollapseGuard(), data),
        predictor_phase(config, model, data, frozen),
        reachability_phase(config, model, target, data, frozen),
    ]
    assert [phase.num_steps for phase in phases] == [30, 20, 20]
    for index, phase in enumerate(phases):
        by_hand(phase, [0, index], config.weight_decay, 5, config.grad_clip)
    state = load_file(trained / "state.safetensors")
    for prefix, module in (("weights/model.", model), ("weights/target.", target)):
        for name, value in module.state_dict().items():
            torch.testing.assert_close(state[prefix + name], value, rtol=1e-5, atol=1e-7, msg=prefix + name)


def test_a_second_encoder_sees_varied_pictures_as_the_first_sees_plain_ones(tmp_path):
    path = tmp_path / "square.h5"
    write_dataset(path, synthetic_episodes(num_episodes=60, num_blocks=12), INFO)
    learned = {"num_steps": 150, "predictor_steps": 0, "reachability_steps": 0, "learning_rate": 3e-3}
    plain = train(debug_config(tmp_path / "plain", path, **learned))
    varied = {"augment": True, "augmentation": AugmentConfig(shift=0, angle=0, zoom=0), "num_steps": 0}
    robust = train(
        debug_config(tmp_path / "two", path, **{**learned, **varied, "init": str(plain), "distil_steps": 200})
    )
    data = Dataset(path)
    pixels = torch.from_numpy(data.pixels[spread(data.rows_of(data.held_out_episodes), 200)])[:, None]
    dark = augment(pixels, AugmentConfig(clean=0, shift=0, angle=0, zoom=0), torch.Generator().manual_seed(0))
    with torch.no_grad():
        z, z_dark = (load_checkpoint(plain)[0].encode(each) for each in (pixels, dark))
        now, now_dark = (load_checkpoint(robust)[0].encode(each) for each in (pixels, dark))
    before, after = ((each - z).square().mean() for each in (z_dark, now_dark))
    assert after < 0.3 * before
    assert (now == z).all(-1).float().mean() > 0.9  # as precise as it was
    first, second = weights(plain), weights(robust)
    for name, value in first.items():
        assert torch.equal(second[name], value), name


def test_a_second_encoder_does_not_outlive_the_first(dataset_path, tmp_path):
    robust = {"augment": True, "distil_steps": 2, "predictor_steps": 0, "reachability_steps": 0}
    first = train(debug_config(tmp_path / "two", dataset_path, **robust))
    again = {"init": str(first), "predictor_steps": 1, "reachability_steps": 0}
    with pytest.raises(TrainError, match="has a second encoder, which must learn again; say --distil-steps"):
        train(debug_config(tmp_path / "on", dataset_path, **again))
    dimmer = [dataclasses.replace(each, pixels=each.pixels // 3) for each in synthetic_episodes(20, 12, seed=1)]
    write_dataset(tmp_path / "other.h5", dimmer, INFO)
    other = debug_config(tmp_path / "kept", tmp_path / "other.h5", num_steps=0, augment=True, **again)
    kept = weights(train(other))
    for name, value in weights(first).items():
        if name.startswith(("encoder", "projector", "robust", "usual_disagreement")):
            assert torch.equal(kept[name], value), name
    assert any(name.startswith("robust.") for name in kept)


def test_what_is_usual_and_how_it_was_learned_outlives_a_second_encoder(dataset_path, trained, tmp_path):
    """The windows of such a training are of two frames, which tell nothing of lag."""
    config = debug_config(tmp_path / "two", dataset_path, init=str(trained), num_steps=0, augment=True, distil_steps=2)
    steps = {"predictor_steps": 0, "reachability_steps": 0, "num_frames": 2}
    first, second = load_info(trained), load_info(train(dataclasses.replace(config, **steps)))
    assert second.usual_miss == first.usual_miss
    assert len(second.usual_miss.share) > 1
    assert second.earlier == (Earlier(first.training, first.commit),)
    assert second.learning_seconds > first.learning_seconds
    assert second.metrics["loss"] == first.metrics["loss"] | {"distil": second.metrics["loss"]["distil"]}
    commands = re.findall(r"(?m)^jepa-mpc train .*$", card(second))
    assert [re.findall(r"--(?:output|init) (\S+)", each) for each in commands] == [
        ["FOLDER-1"],
        ["FOLDER", "FOLDER-1"],
    ]
    assert "--distil-steps 2" in commands[1]


def test_a_second_encoder_is_of_one_camera(tmp_path):
    felt = dataclasses.replace(INFO, proprio_names=("x",))
    episodes = [
        dataclasses.replace(each, proprio=np.ones((len(each.pixels), 1), np.float32))
        for each in synthetic_episodes(4, 9)
    ]
    write_dataset(tmp_path / "felt.h5", episodes, felt)
    config = debug_config(tmp_path / "two", tmp_path / "felt.h5", proprio=True, augment=True, distil_steps=2)
    with pytest.raises(TrainError, match="--distil-steps teaches an encoder of one camera's pictures alone"):
        train(config)


def test_without_steps_an_encoder_is_as_it_was(dataset_path, trained, tmp_path):
    steps = {"num_steps": 0, "predictor_steps": 0, "reachability_steps": 0}
    same = weights(train(debug_config(tmp_path / "same", dataset_path, init=str(trained), **steps)))
    for name, value in weights(trained).items():
        if name.startswith(("encoder", "projector")):
            assert torch.equal(same[name], value), name


class Killed(BaseException):
    """Ends a training as a kill would: nothing gets to clean up."""


def killed_at_draw(config, number, monkeypatch):
    """A training that ends as it would draw windows once more than that many times."""
    draw, calls = Dataset.sample_rows, []

    def draw_until_killed(self, *args):
        calls.append(1)
        if len(calls) == number + 1:
            raise Killed
        return draw(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Dataset, "sample_rows", draw_until_killed)
        with pytest.raises(Killed):
            train(config)


# Draws: 3 that try the windows, 4 batches that calibrate BatchNorm, 30 joint steps, 50 batches that recalibrate it,
# 20 predictor steps, 20 reachability steps; states are saved every 10 steps.
@pytest.mark.parametrize("killed_at", [24, 37, 100, 125], ids=["joint", "between", "predictor", "reachability"])
def test_a_killed_training_goes_on_to_the_same_weights(trained, dataset_path, tmp_path, monkeypatch, killed_at):
    config = debug_config(tmp_path / "killed", dataset_path)
    killed_at_draw(config, killed_at, monkeypatch)
    assert not (config.output / "config.json").exists()
    resumed, whole = weights(train(config)), weights(trained)
    assert load_checkpoint(config.output)[1].metrics == load_checkpoint(trained)[1].metrics
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, atol=0, rtol=0, msg=name)


@pytest.mark.parametrize("killed_at", [34, 45, 54, 70], ids=["joint", "distilling", "later", "at the end"])
def test_a_killed_training_keeps_both_encoders(dataset_path, tmp_path, monkeypatch, killed_at):
    distils = {"augment": True, "distil_steps": 20, "predictor_steps": 0, "reachability_steps": 0}
    config = debug_config(tmp_path / "killed", dataset_path, **distils)
    killed_at_draw(config, killed_at, monkeypatch)
    assert not (config.output / "config.json").exists()
    whole = weights(train(debug_config(tmp_path / "whole", dataset_path, **distils)))
    resumed = weights(train(config))
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, atol=0, rtol=0, msg=name)


def killed_at_step(config, step, monkeypatch):
    """A training that ends as it has saved its state of that step of the joint phase."""
    save = optimise.save_state

    def save_and_end(*args):
        save(*args)
        if args[3].step == step:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(optimise, "save_state", save_and_end)
        with pytest.raises(Killed):
            train(config)


def test_a_training_moves(trained, dataset_path, tmp_path, monkeypatch):
    """The data lie elsewhere, and what does not change what is learned is another: it goes on to the same weights."""
    config = debug_config(tmp_path / "run", dataset_path)
    killed_at_step(config, 20, monkeypatch)
    elsewhere = shutil.copy(dataset_path, tmp_path / "moved.h5")
    pace = {"log_every": 7, "save_every": 11, "report_every": 13, "report_frames": 50, "preset": "default"}
    moved = dataclasses.replace(config, data=(elsewhere,), num_workers=0, in_memory="no", device="auto", **pace)
    for name, value in weights(train(moved)).items():
        torch.testing.assert_close(weights(trained)[name], value, atol=0, rtol=0, msg=name)


def test_other_data_and_settings_are_named_with_both_values(trained, dataset_path, tmp_path):
    write_dataset(tmp_path / "other.h5", synthetic_episodes(20, 12, seed=1), INFO)
    line = (
        "episodes is 20 episodes of 'uniform', seed 0, actions .* there and 20 episodes of 'uniform', seed 0, actions"
    )
    with pytest.raises(UserError, match=line):
        train(debug_config(trained, tmp_path / "other.h5"))
    with pytest.raises(UserError, match=r"learning_rate is 0\.001 there and 0\.1 now \(and 1 more\)"):
        train(debug_config(trained, dataset_path, learning_rate=0.1, grad_clip=2.0))


def test_a_finished_training_needs_its_data_no_more(trained, tmp_path, dataset_path):
    folder = shutil.copytree(trained, tmp_path / "copy")
    assert train(debug_config(folder, tmp_path / "gone.h5")) == folder
    assert train(debug_config(folder, dataset_path)) == folder
    with pytest.raises(UserError, match="seed is 0 there and 1 now"):
        train(debug_config(folder, tmp_path / "gone.h5", seed=1))


def test_a_folder_at_which_another_process_works_is_left_to_it(dataset_path, tmp_path):
    with claimed(tmp_path, {}), pytest.raises(UserError, match=f"process {os.getpid()} is at work in {tmp_path}"):
        train(debug_config(tmp_path, dataset_path))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"num_frames": 12}, "--num-frames 12 is more than the predictor sees; raise --predictor.max-len"),
        ({"num_frames": 2, "predictor_num_frames": 14}, "--predictor-num-frames 14 is more than"),
        ({"encoder": EncoderConfig(channels=(4,) * 7)}, r"7 encoder\.channels do not fit pictures of side 32"),
        ({"predictor": PredictorConfig(width=16, num_heads=3)}, "must be a multiple of"),
        ({"num_frames": 30, "predictor": PredictorConfig(width=16, max_len=40)}, "has the 30 frames that a window"),
    ],
)
def test_what_does_not_fit_is_said_before_a_folder_is_claimed(dataset_path, tmp_path, changes, line):
    with pytest.raises(UserError, match=line):
        train(debug_config(tmp_path / "run", dataset_path, **changes))
    assert not (tmp_path / "run").exists()


def test_windows_may_be_as_long_as_the_predictor_sees(dataset_path, tmp_path):
    longest = {"num_frames": 9, "predictor_num_frames": 9, "predictor": PredictorConfig(width=16, max_len=8)}
    require_fit(debug_config(tmp_path, dataset_path, **longest), Dataset(dataset_path))


def test_what_a_later_phase_needs_is_asked_for_at_the_start(tmp_path):
    write_dataset(tmp_path / "d.h5", synthetic_episodes(4, num_blocks=1), INFO)
    pairs = debug_config(tmp_path, tmp_path / "d.h5", num_frames=2, predictor_num_frames=2, reachability_steps=0)
    require_fit(pairs, data := Dataset(tmp_path / "d.h5"))
    with pytest.raises(DatasetError, match="no training episode has the 3 frames"):
        require_fit(dataclasses.replace(pairs, reachability_steps=1), data)


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(tmp_path):
    """The disk is one that takes no file beyond 40 kB, which settings are and states are not."""
    data, options = tmp_path / "data.h5", ["--preset", "debug", "--task", "two_room", "--precision", "float32"]
    write_dataset(data, synthetic_episodes(20, 12), dataclasses.replace(INFO, task="two_room"))
    command = [sys.executable, "-m", "jepa_mpc", "train", *options, "--device", "cpu", "--data", data, "--output"]
    folder = tmp_path / "run"
    small = ["bash", "-c", 'ulimit -f 40; exec "$@"', "bash", *map(str, command), str(folder)]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}  # or modules compiled now are cut for good
    full = subprocess.run(small, capture_output=True, text=True, env=environment)
    assert full.returncode == 1
    assert full.stderr.splitlines()[-1].startswith("error: File too large")
    assert "Traceback" not in full.stderr
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "settings.json", "tensorboard"]
    assert subprocess.run([*map(str, command), str(folder)]).returncode == 0
    (tmp_path / "plain").touch()
    assert {path.stat().st_mode for path in folder.glob("*.*")} - {(tmp_path / "plain").stat().st_mode} == set()


@pytest.mark.parametrize("content", [b"", b'{"seed": 0', b"[]", bytes(100)])
def test_damaged_settings_do_not_end_a_training(dataset_path, tmp_path, monkeypatch, content, trained):
    config = debug_config(tmp_path / "run", dataset_path)
    killed_at_step(config, 20, monkeypatch)
    (config.output / "settings.json").write_bytes(content)
    resumed = weights(train(config))
    assert torch.equal(resumed["predictor.position"], weights(trained)["predictor.position"])


def test_a_state_that_is_not_what_was_written_is_not_trusted(trained, dataset_path, tmp_path, monkeypatch, caplog):
    config = debug_config(tmp_path / "run", dataset_path)
    killed_at_step(config, 20, monkeypatch)
    state = bytearray((config.output / "state.safetensors").read_bytes())
    state[-100] ^= 1  # a bit of a moment, which is as good a number as it was
    (config.output / "state.safetensors").write_bytes(bytes(state))
    for name, value in weights(train(config)).items():
        torch.testing.assert_close(weights(trained)[name], value, atol=0, rtol=0, msg=name)
    assert "is damaged; the state before it must do" in caplog.text


@pytest.mark.parametrize(("count", "counts"), [(3, "1 or 2 or 4"), (16, "1 or 2 or 4")])
def test_counts_of_processes_that_do_are_named_at_once(monkeypatch, count, counts):
    monkeypatch.setattr("jepa_mpc.world_model.training.build.num_ranks", lambda: count)
    config = TrainConfig(output=None, batch_size=64, predictor_batch_size=36, reachability_batch_size=512)
    with pytest.raises(
        TrainError, match=rf"{count} processes cannot share --.* evenly; change that, or start {counts}$"
    ):
        require_shares(config)
    require_shares(dataclasses.replace(config, batch_size=48, predictor_batch_size=144, reachability_steps=0))


def test_a_damaged_state_falls_back_on_the_one_before_it(trained, dataset_path, tmp_path, monkeypatch, caplog):
    config, save, saved = debug_config(tmp_path / "run", dataset_path), optimise.save_state, []

    def save_until_killed(*args):
        save(*args)
        saved.append(args[3].step)
        if len(saved) == 4:  # three states of the joint phase, one of the predictor's
            raise Killed

    monkeypatch.setattr(optimise, "save_state", save_until_killed)
    with pytest.raises(Killed):
        train(config)
    monkeypatch.setattr(optimise, "save_state", save)
    newest = config.output / "state.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1000])
    resumed, whole = weights(train(config)), weights(trained)
    assert "state.safetensors is damaged; the state before it must do" in caplog.text
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, atol=0, rtol=0, msg=name)


@pytest.mark.slow
def test_twenty_kills_at_random_moments_change_nothing(tmp_path):
    data = tmp_path / "data.h5"
    write_dataset(data, synthetic_episodes(20, 12), dataclasses.replace(INFO, task="two_room"))
    steps = {"--num-steps": 400, "--predictor-steps": 300, "--reachability-steps": 6000, "--save-every": 20}
    options = ["--preset", "debug", "--task", "two_room", "--data", data, "--precision", "float32"]
    command = [sys.executable, ROOT / "world_model/train.py", *options, *(x for pair in steps.items() for x in pair)]
    command, rng = [*map(str, command), "--device", "cpu", "--output"], np.random.default_rng()
    killed, state = 0, tmp_path / "killed/state.safetensors"

    def saved():
        return state.stat().st_mtime_ns if state.exists() else 0

    while killed < 20:
        process = subprocess.Popen([*command, str(tmp_path / "killed")], stderr=subprocess.DEVNULL)
        for _ in range(rng.integers(1, 5)):  # states later, so that no speed of the machine decides where
            before = saved()
            while process.poll() is None and saved() == before:
                time.sleep(0.001)
                if killed % 5 == 0 and rng.random() < 1e-4:  # some before they have done anything
                    break
        time.sleep(rng.uniform(0, 0.02))
        assert process.poll() is None, "finished before it was killed twenty times"
        process.kill()
        process.wait()
        killed += 1
    for name in ("killed", "whole"):
        assert subprocess.run([*command, str(tmp_path / name)]).returncode == 0
    losses, whole = (load_checkpoint(tmp_path / name)[1].metrics["loss"] for name in ("killed", "whole"))
    for phase, terms in whole.items():
        assert losses[phase] == pytest.approx(terms, rel=1e-6), phase


@pytest.mark.parametrize("means", [{}, {"num_workers": 0, "in_memory": "no"}])
def test_a_finished_training_is_left_alone_however_it_would_be_done(trained, dataset_path, means):
    before = (trained / "model.safetensors").read_bytes()
    train(debug_config(trained, dataset_path, **means))
    assert (trained / "model.safetensors").read_bytes() == before


def test_a_training_ends_in_a_table(trained, dataset_path, capsys):
    where = ["--task", "square", "--data", str(dataset_path), "--output", str(trained)]
    main([*where, "--preset", "debug", "--precision", "float32", "--device", "cpu"])
    said = capsys.readouterr().out
    for fact in ("loss, joint", "loss, predictor", "loss, reachability", "effective rank", "none noticed", "wrote "):
        assert fact in said


def test_a_training_of_an_older_version_goes_on(trained, dataset_path, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "older")
    settings = json.loads((folder / "settings.json").read_text())
    older = {**settings, "output": "elsewhere", "num_workers": 7}  # which were told apart once
    (folder / "settings.json").write_text(json.dumps(older))
    assert train(debug_config(folder, dataset_path)) == folder


def test_another_configuration_does_not_touch_a_training(trained, dataset_path):
    with pytest.raises(UserError, match="other settings: seed is 0 there and 1 now; choose another --output"):
        train(debug_config(trained, dataset_path, seed=1))
    others = {"batch_size": 9, "weight_decay": 0.0, "max_context": 1, "discount": 0.5, "num_steps": 31}
    others |= {"regularizer": EMAConfig(), "encoder": EncoderConfig(), "reachability": ReachabilityConfig(hidden=9)}
    for name, value in others.items():
        with pytest.raises(UserError, match=f"other settings: {name}"):
            train(debug_config(trained, dataset_path, **{name: value}))


def test_another_tasks_data_are_refused(dataset_path, tmp_path):
    with pytest.raises(DatasetError, match="'square', not 'reacher'"):
        train(debug_config(tmp_path, dataset_path, task="reacher"))


def test_a_loss_that_is_not_finite_stops_training(dataset_path, tmp_path):
    with pytest.raises(TrainError, match="not finite at step"):
        train(debug_config(tmp_path, dataset_path, regularizer=SIGRegConfig(weight=1e38)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_steps": -1}, "--num-steps must be at least 0, not -1"),
        ({"batch_size": 1}, "--batch-size must be at least 2, not 1"),
        ({"seed": -1}, "--seed must be at least 0, not -1"),
        ({"regularizer": EMAConfig(rate=1.5)}, r"--regularizer\.rate must lie between 0 and 1, not 1\.5"),
        ({"regularizer": SimCLRConfig(temperature=0)}, r"--regularizer\.temperature must be above 0, not 0"),
        ({"num_frames": 1}, r"--num-frames must be at least 2, not 1"),
    ],
)
def test_impossible_settings_are_refused(dataset_path, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        train(debug_config(tmp_path / "run", dataset_path, **changes))
    assert not (tmp_path / "run").exists()


def test_a_damaged_state_is_said_in_one_line(dataset_path, tmp_path):
    (tmp_path / "state.safetensors").write_bytes(b"rubbish")
    with pytest.raises(TrainError, match=r"state\.safetensors is damaged; delete it to start afresh"):
        train(debug_config(tmp_path, dataset_path))


def test_batchnorm_statistics_are_the_data_sets(dataset_path, trained):
    data, (model, _) = Dataset(dataset_path), load_checkpoint(trained)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.fill_(5), module.running_var.fill_(50)
    far_off = model.encode(torch.from_numpy(data.pixels[:32]))
    recalibrate_batchnorm(model, data)
    recalibrated = model.encode(torch.from_numpy(data.pixels[:32]))
    saved = load_checkpoint(trained)[0].encode(torch.from_numpy(data.pixels[:32]))
    torch.testing.assert_close(recalibrated, saved, atol=5e-3, rtol=0)  # the saved weights are halves
    assert (far_off - saved).abs().max() > 0.1
    # The first layer's statistics against the plain average over the training pictures.
    rows = data.rows_of(data.train_episodes)
    images = torch.from_numpy(data.pixels[rows]).permute(0, 3, 1, 2).float() / 127.5 - 1
    first = model.encoder.layers[0]
    activations = first[0](images).mean((0, 2, 3))
    torch.testing.assert_close(first[1].running_mean, activations, atol=0.01, rtol=0.02)
    recalibrate_batchnorm(model, data, num_batches=2)  # plain averages, so few batches are enough
    torch.testing.assert_close(first[1].running_mean, activations, atol=0.03, rtol=0.05)
    assert not model.training


def test_recalibration_leaves_the_predictors_own_batchnorm(dataset_path):
    data, encoder = Dataset(dataset_path), EncoderConfig(image_size=32, channels=(4, 4))
    width = {"width": 16, "depth": 1, "num_heads": 2}
    model = JEPA(JEPAConfig(data.action.shape[1], 16, 16, encoder, PredictorConfig("lewm", **width))).train()
    model.predict(torch.randn(8, 3, 16), torch.randn(8, 3, data.action.shape[1]))
    before = copy.deepcopy(model.predictor.output.state_dict())
    recalibrate_batchnorm(model, data, num_batches=2)
    assert before["1.running_mean"].abs().max() > 1e-3
    torch.testing.assert_close(model.predictor.output.state_dict(), before, rtol=0, atol=0)


def test_half_precision_weights_encode_as_the_trained_ones(trained, dataset_path):
    pixels, (model, _) = torch.from_numpy(Dataset(dataset_path).pixels[::5]), load_checkpoint(trained)
    prefix, state = "weights/model.", load_file(trained / "state.safetensors")
    full = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    stored, parameters = load_file(trained / "model.safetensors"), dict(model.named_parameters())
    assert set(stored) == set(full) == set(model.state_dict())
    for name, value in full.items():
        expected = value.half() if name in parameters else value  # variances can overflow half precision
        torch.testing.assert_close(stored[name], expected, atol=0, rtol=0, msg=name)
        torch.testing.assert_close(model.state_dict()[name], expected.to(value.dtype), atol=0, rtol=0, msg=name)
    as_trained = JEPA(model.config).eval()
    as_trained.load_state_dict(full)
    with torch.no_grad():
        z, exact = model.encode(pixels), as_trained.encode(pixels)
    assert exact.std(0).mean() > 0.05
    assert (z - exact).abs().max() < 0.02 * exact.std(0).mean()


def test_actions_are_standardised_by_the_training_episodes_own(trained, dataset_path):
    model, _ = load_checkpoint(trained)
    with h5py.File(dataset_path) as file:
        actions = file["action"][: 19 * 13]  # the last episode is held out
    actions = actions[~np.isnan(actions).any(axis=1)].astype(np.float64)
    np.testing.assert_allclose(model.action_mean, actions.mean(0), atol=1e-5)
    np.testing.assert_allclose(model.action_std, actions.std(0), rtol=1e-4)
    assert (model.action_std - 1).abs().min() > 0.1  # other than what it would be if it had never been set


def test_the_checkpoint_reports_on_held_out_episodes(trained, dataset_path):
    model, info = load_checkpoint(trained)
    data = Dataset(dataset_path)
    z = encode_rows(model, data, data.rows_of(data.held_out_episodes))
    assert info.metrics["embedding"]["std"] == pytest.approx(z.std(0).mean().item(), rel=2e-2)
    assert info.metrics["embedding"]["effective_rank"] == pytest.approx(effective_rank(z), rel=2e-2)
    seen = encode_rows(model, data, data.rows_of(data.train_episodes))
    assert z.std(0).mean().item() != pytest.approx(seen.std(0).mean().item(), rel=5e-2)


def test_a_seed_decides_the_first_weights_and_the_end_is_recalibrated(dataset_path, tmp_path):
    data, short = Dataset(dataset_path), {"num_steps": 1, "predictor_steps": 0, "reachability_steps": 0}
    made = [
        load_checkpoint(train(debug_config(tmp_path / str(seed), dataset_path, seed=seed, learning_rate=1e-9, **short)))
        for seed in (0, 1)
    ]
    for seed, (model, info) in enumerate(made):
        first, _ = build(debug_config(None, dataset_path, seed=seed, **short), data, torch.device("cpu"))
        assert first.projector[1].num_batches_tracked == 4  # so that a report before the first step is true
        assert info.model.reachability is None  # for it would never be trained
        torch.manual_seed(seed)
        torch.testing.assert_close(first.encoder.layers[0][0].weight, JEPA(info.model).encoder.layers[0][0].weight)
        torch.testing.assert_close(model.projector[0].weight, first.projector[0].weight, atol=1e-3, rtol=0)
        statistics = model.projector[1].running_var.clone()
        assert model.projector[1].num_batches_tracked == 50
        recalibrate_batchnorm(model, data)
        torch.testing.assert_close(model.projector[1].running_var, statistics, rtol=1e-2, atol=0)


def test_encoding_rows_leaves_the_mode_alone(trained, dataset_path):
    data, (model, _) = Dataset(dataset_path), load_checkpoint(trained)
    model.train()
    statistics = model.encoder.layers[0][1].running_mean.clone()
    encode_rows(model, data, np.arange(20))
    assert model.training
    torch.testing.assert_close(model.encoder.layers[0][1].running_mean, statistics)
    encode_rows(model.eval(), data, np.arange(20))
    assert not model.training


def test_effective_rank_of_known_spectra():
    g = torch.Generator().manual_seed(0)
    isotropic = torch.linalg.qr(torch.randn(100, 8, generator=g))[0]
    isotropic = isotropic - isotropic.mean(0)
    assert effective_rank(isotropic * 7) == pytest.approx(8, rel=0.02)
    assert effective_rank(isotropic + 100 * torch.arange(8)) == pytest.approx(8, rel=0.02)  # wherever they lie
    assert effective_rank(torch.randn(100, 1, generator=g) @ torch.ones(1, 8)) == pytest.approx(1, abs=1e-3)
    spectrum = torch.tensor([3.0, 1.0])
    p = spectrum / spectrum.sum()
    two = torch.linalg.qr(torch.randn(100, 3, generator=g) - 0)[0]
    two = torch.linalg.qr(two - two.mean(0))[0][:, :2] * spectrum
    assert effective_rank(two) == pytest.approx(float(torch.exp(-(p * p.log()).sum())), rel=0.02)


def test_linear_probe_r2():
    g = torch.Generator().manual_seed(0)
    z, mixing = torch.randn(500, 6, generator=g), torch.randn(6, 2, generator=g)
    y = (z @ mixing + 3).double()
    noise = torch.randn(500, 1, generator=g).double()
    targets = torch.cat([y, y[:, :1] + y[:, :1].std() * noise, noise], dim=1)
    r2 = linear_probe_r2(z[:400], targets[:400], z[400:], targets[400:])
    unknown = torch.full((50, targets.shape[1]), torch.nan)
    with_some_unknown = torch.cat([z[:50], z]), torch.cat([unknown, targets])
    parts = [each[:450] for each in with_some_unknown] + [each[450:] for each in with_some_unknown]
    torch.testing.assert_close(linear_probe_r2(*parts), r2, equal_nan=True)
    assert r2[0] > 0.999
    assert r2[1] > 0.999
    assert r2[2] == pytest.approx(0.5, abs=0.15)  # half its variance is noise
    assert r2[3] < 0.1


def test_report_reads_a_state_that_the_embedding_holds(dataset_path, trained):
    report = report_embedding(load_checkpoint(trained)[0], Dataset(dataset_path, held_out_fraction=0.25), 5)
    assert set(report.probe_r2) == {"qpos0", "cos_qpos1", "sin_qpos1"}
    assert 1 <= report.effective_rank <= 16


def damage(folder, name, change):
    stored = json.loads((folder / "config.json").read_text())
    change(stored)
    (folder / "config.json").write_text(json.dumps(stored))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: shutil.rmtree(f), "no checkpoint at"),
        (lambda f: (f / "model.safetensors").unlink(), "no checkpoint at"),
        (lambda f: (f / "model.safetensors").write_bytes(b"rubbish"), "is damaged"),
        (lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-50]), "is damaged"),
        (lambda f: (f / "config.json").write_text("{"), "is damaged"),
        (lambda f: (f / "config.json").write_text("[]"), "is damaged"),
        (lambda f: damage(f, "config", lambda c: c.update(format_version=99)), "has format 99, this version reads 1"),
        (lambda f: damage(f, "config", lambda c: c.update(surprise=1)), "is damaged"),
        (lambda f: damage(f, "config", lambda c: c["model"].update(embed_dim=17)), "is damaged"),
        (lambda f: damage(f, "config", lambda c: c["model"].update(embed_dim="x")), "is damaged"),
        (lambda f: damage(f, "config", lambda c: c["model"]["encoder"].update(image_size=8)), "is damaged"),
        (lambda f: damage(f, "config", lambda c: c["model"]["encoder"].update(kind="vit", num_heads=0)), "is damaged"),
        (lambda f: damage(f, "config", lambda c: c["model"]["encoder"].update(kind="vit", patch_size=0)), "is damaged"),
        (
            lambda f: damage(f, "config", lambda c: c.update(task="walker")),
            "was trained on task 'walker', not 'square'",
        ),
    ],
)
def test_bad_checkpoints_are_refused_in_one_line(trained, tmp_path, spoil, message):
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    spoil(folder)
    with pytest.raises(UserError, match=message) as caught:
        load_checkpoint(folder, task="square")
    assert "\n" not in str(caught.value)


def test_a_checkpoint_says_where_it_came_from(trained):
    _, info = load_checkpoint(trained)
    assert info.simulator == "none"
    assert info.data["num_episodes"] == 20
    assert info.training["num_steps"] == 30
    assert info.learning_seconds > 0
    card = (trained / "card.md").read_text()
    assert card.startswith("# square\n")
    assert "| data | 20 episodes under the policy 'uniform', seed 0, none; blocks of 1 steps |" in card
    assert "steps: 30 of encoder and predictor, 20 of the predictor alone, 20 of the reachability metric" in card
    assert "| collapse | none noticed |" in card


def test_what_the_data_say_of_actions_and_planning_is_in_the_checkpoint(tmp_path):
    said = {"action_low": (-1.0, -2.0), "action_high": (1.0, 0.5), "step_seconds": 0.1, "planning": '{"horizon": 3}'}
    write_dataset(tmp_path / "d.h5", synthetic_episodes(4, 12), dataclasses.replace(INFO, **said))
    steps = {"num_steps": 1, "predictor_steps": 0, "reachability_steps": 0}
    config = debug_config(tmp_path / "run", tmp_path / "d.h5", regularizer=EMAConfig(), **steps)
    model, info = load_checkpoint(train(config))
    assert info.interface == Interface((-1.0, -2.0), (1.0, 0.5), action_block=1, step_seconds=0.1, image_size=32)
    assert info.planning == {"horizon": 3}
    assert model.config.spherical  # as its remedy wants it


def test_a_cards_command_gives_the_settings_that_it_was_trained_with(trained):
    _, info = load_checkpoint(trained)
    command = re.search(r"(?m)^jepa-mpc train (.*)$", (trained / "card.md").read_text())[1]
    again = to_json(parse_config(command.split()))
    assert {**info.training, "device": "auto"} == {name: again[name] for name in info.training}


def test_a_remedys_settings_are_told_by_its_own_defaults():
    for remedy in (KLConfig(weight=SIGRegConfig().weight), KLConfig()):
        said = train_options(to_json(TrainConfig(output=Path(), regularizer=remedy)))
        assert parse_config(["--output", "x", *said.split()]).regularizer == remedy
    assert said == " --regularizer kl"


def test_a_training_is_where_it_is_asked_to_be(dataset_path, tmp_path):
    with pytest.raises(UserError, match="device 'tpu' is not there"):
        train(dataclasses.replace(debug_config(tmp_path, dataset_path), device="tpu"))


def test_devices(monkeypatch):
    assert choose_device("cpu") == torch.device("cpu")
    for name in ("cuda:7", "tpu", "nonsense"):
        with pytest.raises(UserError, match=f"device '{name}' is not there; this machine has: .*cpu"):
            choose_device(name)


def leaves(settings, prefix=""):
    nested = {name: value for name, value in settings.items() if isinstance(value, dict)}
    flat = {prefix + name: value for name, value in settings.items() if name not in nested}
    for name, value in nested.items():
        flat |= leaves(value, f"{prefix}{name}.")
    return flat


@pytest.mark.parametrize("folder", sorted(path.parent for path in (ROOT / "checkpoints").rglob("config.json")), ids=str)
def test_the_command_that_makes_a_bundled_checkpoint_again_asks_for_its_settings(folder):
    training = json.loads((folder / "config.json").read_text())["training"]
    said = re.findall(r"(?m)^jepa-mpc train (.*)$", (folder / "card.md").read_text())[-1].split()
    said = [str(folder) if word == "FOLDER-1" else word for word in said]  # what it goes on from, which is of its sizes
    for options in (said, ["--task", training["task"], "--output", "again", *shlex.split(train_options(training))]):
        asked = leaves(to_json(parse_config(options)))
        stored = {name: value for name, value in leaves(training).items() if name not in ("device", "init")}
        assert {name: asked[name] for name in stored} == stored  # options that came later are at their defaults


def test_presets_yield_to_options():
    config = parse_config(["--output", "x", "--preset", "debug", "--num-steps", "7", "--encoder.kind", "vit"])
    assert (config.preset, config.num_steps, config.batch_size) == ("debug", 7, TRAIN_PRESETS["debug"]["batch_size"])
    assert config.encoder == dataclasses.replace(TRAIN_PRESETS["debug"]["encoder"], kind="vit")
    named = parse_config(["--output", "x", "--preset", "paper", "--regularizer", "sigreg", "--regularizer.knots", "9"])
    assert named.regularizer == dataclasses.replace(TRAIN_PRESETS["paper"]["regularizer"], knots=9)


SHORT = {"num_steps": 3}


def test_a_preset_may_be_ones_own():
    config = parse_config(["--output", "x", "--preset", f"{__name__}:SHORT", "--batch-size", "5"])
    assert config == TrainConfig(output=Path("x"), preset=f"{__name__}:SHORT", num_steps=3, batch_size=5)
    with pytest.raises(UserError, match="unknown training preset 'papr'; did you mean paper"):
        parse_config(["--output", "x", "--preset", "papr"])


@pytest.mark.parametrize("name", ["math:pi", "math:floor", f"{__name__}:SHORT"])
def test_what_is_no_regularizer_is_refused(name):
    with pytest.raises(UserError, match=f"{name} is no regularizer: it must be a subclass of RegularizerConfig, not "):
        parse_config(["--output", "x", "--regularizer", name])


def test_a_stored_training_names_no_code_to_import():
    stored = to_json(TrainConfig(output=Path("x")))
    stored["regularizer"]["name"] = "antigravity:x"
    with pytest.raises(UserError, match="regularizer 'antigravity:x' is code that is not loaded"):
        train_options(stored)
    assert "preset" not in train_options({**to_json(TrainConfig(output=Path("x"))), "preset": "antigravity:x"})
    assert "antigravity" not in sys.modules


def test_the_command_refuses_missing_data_in_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "world_model/train.py", "--task", "reacher", "--output", "out"],
        cwd=tmp_path,
        env={**os.environ, "JEPA_MPC_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: no data set at {tmp_path}/data/reacher.h5; collect one with")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["none", "ema", "moco", "kl", "pldm"])
def test_a_training_with_another_remedy_resumes_to_the_same_weights(dataset_path, tmp_path, monkeypatch, name):
    settings = {"regularizer": REGULARIZERS[name](), "predictor_steps": 0, "reachability_steps": 0}
    whole = weights(train(debug_config(tmp_path / "whole", dataset_path, **settings)))
    config = debug_config(tmp_path / "killed", dataset_path, **settings)
    killed_at_draw(config, 18, monkeypatch)
    resumed = weights(train(config))
    for key, value in whole.items():
        torch.testing.assert_close(resumed[key], value, atol=0, rtol=0, msg=key)


# Pictures varied in training.

VARIED = {"augment": True, "augmentation": AugmentConfig(clean=0.1, change=0.5)}


@pytest.fixture(scope="module")
def trained_varied(dataset_path, tmp_path_factory):
    return train(debug_config(tmp_path_factory.mktemp("run") / "varied", dataset_path, **VARIED))


def test_varied_pictures_make_another_model(trained, trained_varied):
    plain, varied = weights(trained), weights(trained_varied)
    assert (plain["encoder.layers.0.0.weight"] - varied["encoder.layers.0.0.weight"]).abs().max() > 1e-3


@pytest.mark.parametrize("draw", [24, 100], ids=["joint", "predictor"])
def test_a_killed_training_on_varied_pictures_goes_on_to_the_same_weights(
    trained_varied, dataset_path, tmp_path, monkeypatch, draw
):
    config = debug_config(tmp_path / "killed", dataset_path, **VARIED)
    killed_at_draw(config, draw, monkeypatch)
    resumed = weights(train(config))
    for name, value in weights(trained_varied).items():
        torch.testing.assert_close(resumed[name], value, atol=0, rtol=0, msg=name)


def test_a_training_does_not_go_on_with_pictures_varied_otherwise(trained, trained_varied, dataset_path):
    with pytest.raises(UserError, match="augment is False there and True now"):
        train(debug_config(trained, dataset_path, augment=True))
    with pytest.raises(UserError, match=r"augmentation.* there and .* now"):
        train(debug_config(trained_varied, dataset_path, **{**VARIED, "augmentation": AugmentConfig(blur=0.5)}))


@pytest.mark.parametrize("steps", [{}, {"predictor_steps": 0, "reachability_steps": 0}], ids=["three", "joint alone"])
def test_the_end_is_recalibrated_on_pictures_like_those_of_training(dataset_path, tmp_path, steps):
    """Whether a later phase does so or none: of weights that hardly move, so that only the pictures differ."""
    data, short = Dataset(dataset_path), {"num_steps": 1, "learning_rate": 1e-9, **steps}
    model, _ = load_checkpoint(train(debug_config(tmp_path / "run", dataset_path, **VARIED, **short)))
    found = model.projector[1].running_var.clone()
    recalibrate_batchnorm(model, data, VARIED["augmentation"])
    torch.testing.assert_close(model.projector[1].running_var, found, rtol=1e-2, atol=1e-6)
    recalibrate_batchnorm(model, data)
    assert ((model.projector[1].running_var - found).abs() / found).max() > 0.3


def test_a_training_begins_calibrated_on_such_pictures(dataset_path):
    data = Dataset(dataset_path)
    model, _ = build(debug_config(None, dataset_path, **VARIED), data, torch.device("cpu"))
    found = model.projector[1].running_var.clone()
    recalibrate_batchnorm(model, data, VARIED["augmentation"], num_batches=4)
    torch.testing.assert_close(model.projector[1].running_var, found)


@pytest.mark.parametrize("predictor_steps", [20, 0])
def test_a_checkpoint_knows_what_it_usually_misses_by(dataset_path, tmp_path, predictor_steps):
    """From as many frames as its predictor was last trained on."""
    windows = {"num_frames": 4, "predictor_num_frames": 6, "predictor_steps": predictor_steps, "reachability_steps": 0}
    folder, data = train(debug_config(tmp_path / "run", dataset_path, **windows)), Dataset(dataset_path)
    model, info = load_checkpoint(folder)
    assert model.usual_miss == info.usual_miss
    assert len(info.usual_miss.share) == (5 if predictor_steps else 3)
    again = usual_miss(model, data, 1 + len(info.usual_miss.share))  # by weights in half precision
    np.testing.assert_allclose(info.usual_miss.share, again.share, rtol=0.05)


def test_what_never_misses_can_be_read_back(tmp_path):
    """All pictures are one, so that embeddings and predictions are."""
    still = [dataclasses.replace(each, pixels=np.full_like(each.pixels, 90)) for each in synthetic_episodes(6, 12)]
    write_dataset(tmp_path / "d.h5", still, INFO)
    steps = {"num_steps": 1, "predictor_steps": 0, "reachability_steps": 0, "learning_rate": 1e-9}
    folder = train(debug_config(tmp_path / "run", tmp_path / "d.h5", **steps))
    found = load_checkpoint(folder)[1].usual_miss
    assert found.median == pytest.approx(0, abs=1e-6)
    assert len(found.share) == 7


def test_a_checkpoint_knows_what_its_pictures_were_like(tmp_path):
    episodes = [
        dataclasses.replace(episode, pixels=255 - episode.pixels, randomised=True) if index % 2 else episode
        for index, episode in enumerate(synthetic_episodes(20, 12))
    ]
    info = dataclasses.replace(INFO, randomise=("camera", "colour"))
    write_dataset(tmp_path / "d.h5", episodes, info)
    steps = {"num_steps": 1, "predictor_steps": 0, "reachability_steps": 0}
    folder = train(debug_config(tmp_path / "run", tmp_path / "d.h5", **steps))
    own = np.concatenate([episode.pixels for episode in episodes[:19:2]]).astype(float)  # the last is held out
    found = load_picture_stats(folder)
    np.testing.assert_array_equal(found.mean, own.mean(0).round())
    np.testing.assert_array_equal(found.std, own.std(0).round())
    _, info = load_checkpoint(folder)
    assert info.data["randomise"] == ["camera", "colour"]
    made = "jepa-mpc collect --task square --policy uniform --num-episodes 20 --seed 0 --randomise camera,colour\n"
    assert made in (folder / "card.md").read_text()


def test_a_card_says_how_pictures_were_varied(trained, trained_varied):
    assert "--augment" not in (trained / "card.md").read_text()
    assert "--randomise none" in (trained / "card.md").read_text()
    _, info = load_checkpoint(trained_varied)
    command = re.search(r"(?m)^jepa-mpc train (.*)$", (trained_varied / "card.md").read_text())[1]
    again = parse_config(command.split())
    assert again.applied_augmentation == VARIED["augmentation"]
    assert {**info.training, "device": "auto"} == {name: to_json(again)[name] for name in info.training}


def test_a_training_may_go_on_from_a_checkpoint(trained, dataset_path, tmp_path):
    """With no steps of its own the encoder stays as it is, its statistics apart; predictor and metric learn on."""
    config = debug_config(tmp_path / "on", dataset_path, init=str(trained), num_steps=0, predictor_steps=5)
    before, after = weights(trained), weights(train(config))
    assert before.keys() == after.keys()
    changed = {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert {"predictor", "reachability"} <= changed
    learned = [name for name in before if name.startswith(("encoder", "projector")) and "running" not in name]
    assert all(torch.equal(before[name], after[name]) for name in learned if "num_batches" not in name)
    assert all(torch.equal(before[name], after[name]) for name in ("action_mean", "action_std"))
    assert "--init" in (tmp_path / "on/card.md").read_text()
    moved = weights(train(debug_config(tmp_path / "joint", dataset_path, init=str(trained), num_steps=2)))
    assert any(not torch.equal(before[name], moved[name]) for name in learned)


def test_what_cannot_go_on_is_one_line(trained, dataset_path, tmp_path):
    for changes, message in (
        (
            {"num_steps": 0},
            "--num-steps 0 leaves an encoder as it is, and a new one knows nothing; say --init CHECKPOINT",
        ),
        ({"init": str(trained), "embed_dim": 8}, "has embed_dim .*, not 8; leave its options out"),
        ({"init": str(tmp_path / "nowhere")}, "no checkpoint at .*nowhere"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            train(debug_config(tmp_path / "out", dataset_path, **changes))
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()


def test_options_of_a_model_come_from_the_checkpoint_that_goes_on():
    config = parse_config(["--output", "x", "--init", str(CHECKPOINT.parent / "push_t"), "--task", "push_t"])
    assert config.encoder.pooled
    assert config.predictor.width == 192
