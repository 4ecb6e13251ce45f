"""Improving by practice, from data to a table, with a model of seconds."""

import json
import re
import shutil

import h5py
import numpy as np
import pytest
from conftest import ROOT

from jepa_mpc import envs
from jepa_mpc.agent.collect import CollectConfig, collect
from jepa_mpc.eval import improve as improve_module
from jepa_mpc.eval.metrics import rate
from jepa_mpc.world_model.checkpoint import load_info
from jepa_mpc.world_model.latent_policy.stored import load_latent_policy
from jepa_mpc.world_model.weights import read_tensors

STEPS = ["--predictor-steps", 10, "--num-episodes", 3, "--num-pairs", 4]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A folder with data of the reacher and a checkpoint of them."""
    from jepa_mpc.world_model.train import main as train

    folder, spec = tmp_path_factory.mktemp("start"), envs.get_task("reacher")
    object.__setattr__(spec, "episode_len", 50)
    try:
        collect(CollectConfig(num_episodes=6, output=folder / "data.h5", num_processes=1))
    finally:
        object.__setattr__(spec, "episode_len", 200)
    train(["--preset", "debug", "--augment", "--data", str(folder / "data.h5"), "--output", str(folder / "first")])
    return folder


@pytest.fixture
def improve(run_command, start, tmp_path):
    options = ["--checkpoint", start / "first", "--data", start / "data.h5", "--output", tmp_path / "out", *STEPS]
    return lambda *more: run_command("improve", *options, *more)


def test_rounds_practise_train_and_are_measured(improve, start, tmp_path, monkeypatch):
    code, out, err = improve("--rounds", 2, "--share", 0.25)
    folder = tmp_path / "out"
    assert code == 0, err
    assert out == f"wrote {folder}/improve.md; the model is in {folder}/round-2/checkpoint\n"
    for number, files in ((1, 2), (2, 3)):
        with h5py.File(folder / f"round-{number}/practice.h5") as practice:
            assert len(practice["ep_len"]) == 3
            assert practice.attrs["data_policy"] == "practice"
        info = load_info(folder / f"round-{number}/checkpoint")
        shares = info.training["shares"]
        assert len(shares) == files
        np.testing.assert_allclose([shares[0], sum(shares)], [0.75, 1])
        assert (info.training["num_steps"], info.training["predictor_steps"]) == (0, 10)
        assert info.training["augment"] is True  # as it was trained before
        assert info.training["init"].endswith("first" if number == 1 else "round-1/checkpoint")
    first, second = (h5py.File(folder / f"round-{number}/practice.h5")["action"][:] for number in (1, 2))
    assert not np.array_equal(first, second, equal_nan=True)

    # The encoder is as it was, the predictor is not.
    models = [start / "first", folder / "round-2/checkpoint"]
    before, after = (read_tensors(each / "model.safetensors")[0] for each in models)
    same = {name: bool((before[name] == after[name]).all()) for name in before if name.endswith("weight")}
    assert all(value for name, value in same.items() if name.startswith(("encoder", "projector")))
    assert not any(value for name, value in same.items() if name.startswith("predictor") and "norm" not in name)

    rows = {name: json.loads((folder / f"{name}.json").read_text()) for name in ("before", "after")}
    assert (rows["before"]["num_practised"], rows["after"]["num_practised"]) == (0, 6)
    for row in rows.values():
        assert row["num_episodes"] == len(row["episodes"]) == 4
        assert row["success_rate"] == rate(sum(each["success"] for each in row["episodes"]), 4).rate
        assert set(row["baselines"]) == {"random", "do_nothing"}
    text = (folder / "improve.md").read_text()
    assert re.search(r"\| after \| 6 \| [\d.]+ \| \d", text)
    assert "--rounds 2" in text.replace("\n", " ")

    # What is done is not done again, and what is missing is.
    monkeypatch.setattr(improve_module, "collect", lambda *_: pytest.fail("collected again"))
    monkeypatch.setattr(improve_module, "_measure", lambda *_: pytest.fail("measured again"))
    assert improve("--rounds", 2, "--share", 0.25)[0] == 0
    assert (folder / "improve.md").read_text() == text
    code, _, err = improve("--rounds", 2, "--share", 0.3)
    assert code == 1
    assert err.splitlines()[-1].endswith("share is 0.25 there and 0.3 now; choose another --output")
    monkeypatch.undo()
    shutil.rmtree(folder / "round-2/checkpoint")
    (folder / "after.json").unlink()
    assert improve("--rounds", 2, "--share", 0.25)[0] == 0
    again = read_tensors(folder / "round-2/checkpoint/model.safetensors")[0]
    assert all(bool((again[name] == after[name]).all()) for name in after)


def test_a_model_that_plans_by_what_was_done_also_does_so_by_what_was_practised(run_command, start, tmp_path):
    first, policy = tmp_path / "first", tmp_path / "policy"
    shutil.copytree(start / "first", first)
    learn = [
        "--kind",
        "retrieval",
        "--retrieval.num-plans",
        3,
        "--checkpoint",
        first,
        "--data",
        start / "data.h5",
        "--output",
        policy,
    ]
    assert run_command("train-latent-policy", *learn)[0] == 0
    shutil.copy(policy / "retrieval.safetensors", first)
    stored = json.loads((first / "config.json").read_text())
    stored["planning"]["warm_start"] = "retrieval"
    (first / "config.json").write_text(json.dumps(stored))
    options = ["--checkpoint", first, "--data", start / "data.h5", "--output", tmp_path / "out", *STEPS]
    code, _, err = run_command("improve", *options, "--rounds", 2)
    assert code == 0, err
    made = [first, *(tmp_path / f"out/round-{number}/checkpoint" for number in (1, 2))]
    policies = [load_latent_policy(each / "retrieval.safetensors", each)[1] for each in made]
    assert [each.retrieval.num_plans for each in policies] == [3, 3, 3]
    frames = [len(read_tensors(each / "retrieval.safetensors")[0]["z"]) for each in made]
    assert frames[0] < frames[1] < frames[2]
    assert all(load_info(each).planning == stored["planning"] for each in made)
    assert (tmp_path / "out/after.json").exists()


def test_no_round_begins_after_the_minutes_are_over(improve, tmp_path, caplog):
    code, _, err = improve("--rounds", 3, "--minutes", 1e-6)
    assert code == 0, err
    assert "minutes are over after 1 rounds" in caplog.text
    folder = tmp_path / "out"
    assert not (folder / "round-2").exists()
    took = json.loads((folder / "round-1/minutes.json").read_text())
    rows = {name: json.loads((folder / f"{name}.json").read_text()) for name in ("before", "after")}
    assert (rows["before"]["minutes"], rows["after"]["minutes"]) == (0, round(took, 1))
    assert rows["after"]["num_practised"] == 3
    (folder / "round-1/minutes.json").write_text("7.5")  # as of another day, which counts when it goes on
    (folder / "after.json").unlink()
    assert improve("--rounds", 3, "--minutes", 7)[0] == 0
    assert not (folder / "round-2").exists()
    assert json.loads((folder / "after.json").read_text())["minutes"] == 7.5


def test_bad_input_is_one_line(run_command, tmp_path, start):
    out = ["--output", tmp_path / "out"]
    other = ["--output", tmp_path / "other"]
    for options, message in (
        ([*out, "--share", 1], "--share must lie between 0 and 1, not 1.0"),
        ([*out, "--rounds", 0], "--rounds must be at least 1, not 0"),
        ([*out, "--data", tmp_path / "none.h5"], "no data set at"),
        ([*out, "--checkpoint", tmp_path / "none"], "no checkpoint at"),
        ([*other, "--task", "two_room", "--data", start / "data.h5"], "was collected on task 'reacher'"),
        (["--output", ROOT / "README.md", "--data", start / "data.h5"], "README.md"),
        ([], "output"),
    ):
        code, _, err = run_command("improve", *options)
        assert code in (1, 2)
        assert message in err
        assert "Traceback" not in err
