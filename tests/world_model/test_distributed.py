"""Two processes learn what one does: the same loss, the same gradients, the same model.

What one does is asserted by hand, its steps in `test_phases.py` and their succession in `test_train.py`.
"""

import copy
import dataclasses
import functools
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from conftest import INFO, ROOT, synthetic_episodes
from safetensors.torch import load_file, save_file

from jepa_mpc.distributed import average_gradients, mean_over_ranks, num_ranks, process_group, rank
from jepa_mpc.world_model.checkpoint import load_checkpoint
from jepa_mpc.world_model.data.dataset import Dataset, write_dataset
from jepa_mpc.world_model.regularizers import REGULARIZERS
from jepa_mpc.world_model.regularizers.sigreg import SIGRegConfig
from jepa_mpc.world_model.training.build import build
from jepa_mpc.world_model.training.config import TRAIN_PRESETS, TrainConfig
from jepa_mpc.world_model.training.guard import CollapseGuard
from jepa_mpc.world_model.training.phases import (
    encode_all,
    joint_phase,
    predictor_phase,
    reachability_phase,
    recalibrate_batchnorm,
)

# The remedies whose steps are compared, by their own names, and one more step on varied pictures.
STEPS = {**{name: REGULARIZERS[name] for name in REGULARIZERS}, "varied": SIGRegConfig}
ALL_PHASES = ("sigreg", "varied")


def torchrun(*command, num_processes=2):
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_processes)]
    return subprocess.run(
        [sys.executable, *launch, *map(str, command)],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}:{ROOT / 'tests/world_model'}",
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
    )


def one_step_each(dataset_path, folder):
    """Losses and gradients of one step of every phase and remedy, in this process's group."""
    data, done = Dataset(dataset_path), {}
    for name, remedy_config in STEPS.items():
        settings = {**TRAIN_PRESETS["debug"], "regularizer": remedy_config(), "augment": name == "varied"}
        settings["predictor"] = dataclasses.replace(settings["predictor"], projector_hidden=8)  # with a BatchNorm
        config = TrainConfig(output=folder, task="square", precision="float32", **settings)
        model, remedy = build(config, data, torch.device("cpu"))
        torch.manual_seed(1)  # of which no ReLU stands so near its kink that rounding decides
        for parameter in model.parameters():  # nothing starts at zero, where gradients would hide
            parameter.data += 0.02 * torch.randn(parameter.shape)
        recalibrate_batchnorm(model, data, config.applied_augmentation)
        frozen = functools.cache(functools.partial(encode_all, model, data))
        phases = [joint_phase(config, model, remedy, CollapseGuard(), data)]
        if name in ALL_PHASES:
            phases.append(predictor_phase(config, model, data, frozen))
            target = copy.deepcopy(model.reachability)
            torch.nn.init.normal_(target.features[-1].weight)
            phases.append(reachability_phase(config, model, target, data, frozen))
        for phase in phases:
            step_loss = average_gradients(phase.begin(), phase.trained)
            phase.trained.zero_grad()
            loss, terms = step_loss(0, phase.load(np.random.default_rng(1)))
            loss.backward()
            for term, value in terms.items():
                done[f"{name}/{phase.name}/term/{term}"] = mean_over_ranks(value.detach()).clone()
            for parameter, value in phase.trained.named_parameters():
                if value.grad is not None:
                    done[f"{name}/{phase.name}/gradient/{parameter}"] = value.grad.clone(
                        memory_format=torch.contiguous_format
                    )
        for buffer, value in model.named_buffers():
            done[f"{name}/buffer/{buffer}"] = value.float().clone()
    return done


@pytest.fixture(scope="module")
def noise_path(tmp_path_factory):
    """Pictures of noise: over flat ones PyTorch's own BatchNorm sums so that a mean is off by 1e-4 on a CPU."""
    path, rng = tmp_path_factory.mktemp("data") / "noise.h5", np.random.default_rng(0)
    episodes = synthetic_episodes(num_episodes=20, num_blocks=12)
    for episode in episodes:
        episode.pixels[:] = rng.integers(0, 256, episode.pixels.shape)
    write_dataset(path, episodes, dataclasses.replace(INFO, task="two_room"))
    return path


@pytest.fixture(scope="module")
def steps(noise_path, tmp_path_factory):
    """What one process computes, and each of two."""
    folder = tmp_path_factory.mktemp("steps")
    done = torchrun(__file__, noise_path, folder)
    assert done.returncode == 0, done.stderr
    return one_step_each(noise_path, folder), [load_file(folder / f"rank{r}.safetensors") for r in (0, 1)]


@pytest.mark.parametrize("name", STEPS)
def test_two_processes_give_the_loss_and_gradients_of_one(steps, name):
    alone, ranks = steps
    phases = {key.split("/")[1] for key in alone if key.startswith(f"{name}/") and "/term/" in key}
    assert phases == ({"joint", "predictor", "reachability"} if name in ALL_PHASES else {"joint"})
    for of_rank in ranks:
        assert set(of_rank) == set(alone)
        for phase in phases:
            terms = [key for key in alone if key.startswith(f"{name}/{phase}/term/")]
            for key in terms:
                assert abs(of_rank[key] - alone[key]) < 1e-5 * alone[key].abs(), key
            gradients = [key for key in alone if key.startswith(f"{name}/{phase}/gradient/")]
            expected, found = (torch.cat([x[key].flatten() for key in gradients]) for x in (alone, of_rank))
            rounding = 1e-4 if phase == "reachability" else 1e-5  # whitening enlarges it
            assert (found - expected).norm() < rounding * expected.norm(), phase
            for key in gradients:  # a bias before a BatchNorm has no gradient but rounding
                assert (of_rank[key] - alone[key]).norm() < 1e-4 * alone[key].norm() + rounding * expected.norm(), key
        for key in (key for key in alone if key.startswith(f"{name}/buffer/")):
            torch.testing.assert_close(of_rank[key], alone[key], rtol=1e-4, atol=1e-6, msg=key)


def options(output, data):
    """Of a short training, as the command line takes them."""
    return ["--preset", "debug", "--task", "two_room", "--data", data, "--output", output, "--precision", "float32"]


THIRDS = ["--batch-size", 9, "--predictor-batch-size", 66, "--reachability-batch-size", 18]


@pytest.mark.parametrize(
    ("count", "sizes", "far"),
    [(2, [], 1e-2), pytest.param(3, THIRDS, 5e-2, marks=pytest.mark.slow)],
    ids=["two", "three"],
)
def test_several_processes_train_the_model_that_one_does(noise_path, tmp_path, count, sizes, far):
    """Three do not divide the pictures that BatchNorm is calibrated on: two of them count twice."""
    script = ROOT / "world_model/train.py"
    assert torchrun(script, *options(tmp_path / "one", noise_path), *sizes, num_processes=1).returncode == 0
    done = torchrun(script, *options(tmp_path / "two", noise_path), *sizes, num_processes=count)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("wrote") == 1
    (one, info), (two, info_two) = (load_checkpoint(tmp_path / name) for name in ("one", "two"))
    losses, losses_two = info.metrics["loss"], info_two.metrics["loss"]
    for phase, terms in losses.items():
        assert losses_two[phase] == pytest.approx(terms, rel=1e-3 if count == 2 else 2e-2), phase
    z, z_two = (model.encode(torch.from_numpy(Dataset(noise_path).pixels[:50])) for model in (one, two))
    torch.testing.assert_close(z, z_two, atol=far, rtol=0)  # steps amplify what rounding differs by


def test_half_precision_is_shared_too(noise_path, tmp_path):
    command = [ROOT / "world_model/train.py", *options(tmp_path / "run", noise_path)]
    command[-1] = "bfloat16"
    done = torchrun(*command)
    assert done.returncode == 0, done.stderr
    assert load_checkpoint(tmp_path / "run")[1].metrics["loss"]["joint"]["prediction"] < 1


def test_two_processes_collect_the_data_that_one_does(tmp_path):
    command = [ROOT / "agent/collect.py", "--task", "two_room", "--num-episodes", 45, "--num-processes", 1]
    for name, num_processes in (("one", 1), ("two", 2)):
        done = torchrun(*command, "--output", tmp_path / f"{name}.h5", num_processes=num_processes)
        assert done.returncode == 0, done.stderr
    with h5py.File(tmp_path / "one.h5") as one, h5py.File(tmp_path / "two.h5") as two:
        assert set(one) == set(two)
        for column in one:
            np.testing.assert_array_equal(one[column], two[column])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.h5", "two.h5"]


REFUSED = """
import sys
from pathlib import Path
import torch
from jepa_mpc.distributed import claimed_by_first, process_group
from jepa_mpc.errors import UserError

with process_group(torch.device("cpu")):
    try:
        with claimed_by_first(Path(sys.argv[1]), {"seed": 1}):
            print("at work", flush=True)
    except UserError as error:
        print(error, flush=True)
"""


def test_a_folder_that_the_first_process_is_refused_all_are(tmp_path):
    (tmp_path / "settings.json").write_text('{"seed": 0}')
    (tmp_path / "script.py").write_text(REFUSED)
    said = torchrun(tmp_path / "script.py", tmp_path).stdout
    assert said.count("seed is 0 there and 1 now; choose another --output") == 2
    assert "at work" not in said


def test_two_processes_measure_what_one_does(tmp_path, read_results):
    command = [ROOT / "eval/run_planning.py", "--task", "two_room", "--num-episodes", 60, "--no-video"]
    results = []
    for num_processes in (1, 2):
        folder = tmp_path / str(num_processes)
        done = torchrun(*command, "--output", folder, num_processes=num_processes)
        assert done.returncode == 0, done.stderr
        results.append(read_results(folder))
    one, two = results
    assert one["num_episodes"] == 60
    assert one["baselines"] == two["baselines"]
    # Plans are made in batches, whose size rounds products differently: pairs are the same to the bit, ends nearly.
    for name in ("pair", "distance", "success"):
        assert [each[name] for each in one["episodes"]] == [each[name] for each in two["episodes"]]
    ends = [[each["final_error"] for each in results["episodes"]] for results in (one, two)]
    assert np.abs(np.subtract(*ends)).max() < 1.0  # of 224 pixels


def test_windows_that_cannot_be_shared_are_one_line(noise_path, tmp_path):
    done = torchrun(ROOT / "world_model/train.py", *options(tmp_path / "run", noise_path), "--batch-size", 9)
    assert done.returncode != 0
    assert "error: 2 processes cannot share --batch-size 9 evenly; change that, or start 1" in done.stderr
    assert not (tmp_path / "run").exists()


if __name__ == "__main__":
    with process_group(torch.device("cpu")):
        assert num_ranks() == 2
        save_file(one_step_each(Path(sys.argv[1]), Path(sys.argv[2])), f"{sys.argv[2]}/rank{rank()}.safetensors")
    sys.exit()
