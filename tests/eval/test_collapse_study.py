import json
import re
from dataclasses import replace

import imageio.v3 as iio
import numpy as np
import pytest
from conftest import ROOT
from watching import assert_asked_the_pairs, watch_agents

from jepa_mpc import envs
from jepa_mpc.agent.base import DoNothingAgent, RandomAgent
from jepa_mpc.agent.collect import CollectConfig, collect
from jepa_mpc.agent.planning_agent import PlanningAgent
from jepa_mpc.eval.collapse import plots, report
from jepa_mpc.eval.collapse import study as collapse_study
from jepa_mpc.eval.collapse.plots import principal_plane, turned
from jepa_mpc.eval.collapse.report import StudyRow, Variant, num_hyperparameters, read_curves, tables
from jepa_mpc.eval.collapse.study import StudyConfig, measure, train_config, variants
from jepa_mpc.eval.metrics import rate
from jepa_mpc.settings import read
from jepa_mpc.world_model.checkpoint import load_checkpoint
from jepa_mpc.world_model.data.dataset import Dataset
from jepa_mpc.world_model.training.diagnostics import encode_rows


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    data = collect(CollectConfig(num_episodes=12, output=folder / "reacher.h5", num_processes=2))
    return StudyConfig(preset="debug", data=data, output=folder / "out", num_seeds=1, num_episodes=3)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # pairs are stored under the present folder


def test_every_remedy_is_trained_at_its_defaults_and_swept():
    names = [variant.name for variant in variants(num_seeds=3)]
    assert len(names) == len(set(names))
    assert names[:8] == [f"{r}-seed0" for r in ("none", "ema", "vicreg", "simclr", "moco", "kl", "pldm", "sigreg")]
    assert sum("-x" not in name for name in names) == 24
    for remedy in ("ema", "vicreg", "simclr", "moco", "kl", "pldm", "sigreg"):
        assert {f"x{factor}" for factor in ("0.1", "10")} <= {
            name.split("-")[2] for name in names if re.match(rf"{remedy}-\w+-x", name)
        }


def test_a_variant_scales_one_option_and_nothing_else(study):
    plain = train_config(study, Variant("vicreg"))
    scaled = train_config(study, Variant("vicreg", "covariance_weight", 10))
    assert scaled.regularizer.covariance_weight == pytest.approx(10 * plain.regularizer.covariance_weight)
    assert scaled.regularizer.variance_weight == plain.regularizer.variance_weight
    for field in ("num_steps", "batch_size", "rollout_weight", "seed", "encoder"):
        assert getattr(scaled, field) == getattr(plain, field)


def test_a_training_is_measured_once_and_keeps_its_latents(study, here, monkeypatch, tmp_path):
    seen = watch_agents(monkeypatch)
    row = measure(study, Variant("none"))
    folder = study.output / "runs" / "none-seed0"
    model, info = load_checkpoint(folder)
    assert row.embedding == info.metrics["embedding"]
    assert len(row.hits) == 3
    env, spec = envs.make("reacher"), envs.get_task("reacher")
    assert_asked_the_pairs(seen, env, spec, tmp_path / "pairs", seed=0, num_pairs=3, kinds=[PlanningAgent])
    data = Dataset(study.data)
    last = np.load(folder / "latents" / "000020.npy")
    first = np.load(folder / "latents" / "000000.npy")
    assert first.shape == last.shape == (1, 41, 16)  # one held-out episode of twelve, 41 pictures, 16 dimensions
    assert first.std() != last.std()
    final = encode_rows(model, data, data.rows_of(data.held_out_episodes)).numpy()
    assert np.corrcoef(final.ravel(), last.ravel())[0, 1] > 0.5  # ten steps later, and in half precision
    monkeypatch.setattr(collapse_study, "train", None)
    assert measure(study, Variant("none")) == row


def test_curves_are_what_the_trainer_logged(study, here):
    measure(study, Variant("none"))
    curves = read_curves(study.output / "runs" / "none-seed0")
    assert [step for step, _ in curves["std"]] == [0, 20]
    assert set(curves) == {"prediction", "std", "effective_rank", "sigreg", "probe_r2"}
    assert curves["prediction"][-1][0] == 30


def test_an_interrupted_study_goes_on_and_comes_to_the_same(study, here, monkeypatch, tmp_path, run_command):
    few = [Variant(name) for name in ("none", "sigreg")] + [Variant("sigreg", "weight", 10)]
    monkeypatch.setattr(collapse_study, "variants", lambda num_seeds: iter(few))
    options = ["--preset", "debug", "--data", study.data, "--num-episodes", 3, "--num-processes", 2]

    def run(output):
        code, _, err = run_command("benchmark collapse", *options, "--output", output)
        assert code == 0, err
        rows = json.loads((output / "collapse.json").read_text())["rows"]
        varying = ("commit", "command", "date", "machine", "learning_seconds")
        return [{key: value for key, value in row.items() if key not in varying} for row in rows]

    seen = watch_agents(monkeypatch)
    whole = run(tmp_path / "whole")
    env, spec = envs.make("reacher"), envs.get_task("reacher")
    baselines = [RandomAgent, DoNothingAgent]
    assert_asked_the_pairs(seen, env, spec, tmp_path / "pairs", seed=0, num_pairs=3, kinds=baselines)
    cut = tmp_path / "cut"
    run(cut)
    first_results = (cut / "rows/none-seed0.json").read_bytes()
    (cut / "rows/sigreg-seed0.json").unlink()  # killed between training and planning
    (cut / "rows/sigreg-weight-x10-seed0.json").unlink()  # killed before it began
    for path in (cut / "runs/sigreg-weight-x10-seed0").iterdir():
        if path.is_file():
            path.unlink()
    assert run(cut) == whole
    assert (cut / "rows/none-seed0.json").read_bytes() == first_results
    for name in ("before-after.png", "grid.png", "curves.png", "robustness.png"):
        assert iio.imread(cut / name).std() > 5
    assert len(iio.imread(cut / "collapse.gif")) == 2  # before the first step, and after 20 of 30
    assert "| `sigreg` | weight, 0.2 |" in (cut / "collapse.md").read_text()

    options[options.index(3)] = 4
    code, _, err = run_command("benchmark collapse", *options, "--output", cut)
    assert code == 1
    assert f"{cut} holds work with other settings: num_episodes is 3 there and 4 now; choose another --output" in err


def row(name, seed=0, option="", factor=1.0, hits=5, std=1.0, error=0.1, collapsed=""):
    return StudyRow(
        commit="c",
        command="",
        date="",
        machine={},
        regularizer=name,
        seed=seed,
        option=option,
        factor=factor,
        success={"planning": [i < hits for i in range(10)]},
        embedding={"std": std, "effective_rank": 3.0, "sigreg": 2.0, "probe_r2": {"a": 0.9, "b": 0.4}},
        loss={"joint": {"prediction": error}},
        collapsed=collapsed,
        learning_seconds=60.0,
    )


def test_tables_say_what_the_rows_hold(monkeypatch):
    names = ("none", "ema", "vicreg", "simclr", "moco", "kl", "pldm")
    rows = [row(name) for name in names]
    rows += [row("sigreg", 0, hits=10), row("sigreg", 1, hits=8, std=0.5)]
    rows += [row("sigreg", 0, "weight", 0.1, hits=2, collapsed="yes"), row("sigreg", 0, "weight", 10, hits=9)]
    text = tables(rows, {"random": [True] + [False] * 9})
    both = rate(18, 20)
    interval = f"[{100 * both.low:.1f}, {100 * both.high:.1f}]"
    # std (1 + 0.5) / 2; error over variance (0.1 + 0.4) / 2
    assert f"| `sigreg` | 100.0% / 80.0% | 90.0% {interval} | 0 of 2 | 3 | 60 s |" in text
    assert "| `sigreg` | 0.75 | 3.0 | 0.40 | 2.0 | 0.1 | 0.25 |" in text
    assert re.search(r"`sigreg` \| weight, 0.2 \| 20.0% \[[^|]*\]† \| 100.0% \[[^|]*\] \| 90.0% \[", text)
    assert re.search(r"`sigreg` \| 100.0% \[.*\]: defaults, seed 0 \| 20.0% \[.*\]: weight × 0.1, seed 0 \|", text)
    assert "random 10.0%" in text


def test_a_studys_results_go_where_they_are_asked_for(study, monkeypatch, tmp_path):
    written = []
    monkeypatch.setattr(collapse_study, "variants", lambda num_seeds: iter([]))
    monkeypatch.setattr(collapse_study, "published", lambda name: tmp_path / "docs" / name)
    monkeypatch.setattr(collapse_study, "_plan", lambda *_: {})
    monkeypatch.setattr(collapse_study, "write_results", lambda folder, *_: written.append(folder))
    for publish in (False, True):
        collapse_study.run_study(replace(study, output=tmp_path / "out", publish=publish))
    assert written == [tmp_path / "out", tmp_path / "docs/collapse"]


def test_success_by_factor_is_drawn_beside_the_random_agents(monkeypatch, tmp_path):
    drawn = {}
    for name in ("draw_before_after", "draw_grid", "draw_curves", "draw_robustness", "animate"):
        monkeypatch.setattr(plots, name, lambda path, *what: drawn.update({path.name: what}))
    monkeypatch.setattr(report, "read_curves", lambda run: {})
    rows = [row("none"), row("sigreg", hits=10), row("sigreg", option="weight", factor=10, hits=9)]
    agents = {"random": [True] + [False] * 9, "do_nothing": [False] * 10}
    report.write_results(tmp_path, tmp_path / "runs", {}, rows, agents)
    assert drawn["robustness.png"] == ({("sigreg", "weight"): [(1.0, rate(10, 10)), (10, rate(9, 10))]}, 0.1)


def test_hyperparameters_are_counted_from_the_configs():
    counted = {name: num_hyperparameters(name) for name in ("none", "ema", "vicreg", "pldm", "sigreg")}
    assert counted == {"none": 0, "ema": 1, "vicreg": 2, "pldm": 4, "sigreg": 3}


def test_the_principal_plane_keeps_what_lies_in_a_plane():
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(4, 10, 2)) * [3, 1]
    basis = np.linalg.qr(rng.normal(size=(7, 2)))[0]
    plane = principal_plane((flat @ basis.T + 5).astype(np.float32)).reshape(-1, 2)
    flat = flat.reshape(-1, 2)
    distances = [np.linalg.norm(points[:, None] - points[None], axis=-1) for points in (flat, plane)]
    np.testing.assert_allclose(*distances, atol=1e-4)
    assert plane[:, 0].std() > plane[:, 1].std()


def test_frames_of_the_animation_are_turned_to_fit():
    points = np.random.default_rng(0).normal(size=(2, 9, 2))
    angle = 1.2
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    mirrored = points @ rotation * [1, -1]
    np.testing.assert_allclose(turned([points, mirrored])[1], points, atol=1e-9)


def markdown_tables(text):
    """Tables as lists of {header: cell}."""
    found, header = [], None
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else None
        if cells is None:
            header = None
        elif header is None:
            header = cells
            found.append([])
        elif set(line) - set("|- "):
            found[-1].append(dict(zip(header, cells, strict=True)))
    return found


def test_the_page_shows_what_the_study_found():
    folder = ROOT / "docs/results/collapse"
    stored = json.loads((folder / "collapse.json").read_text())
    rows = read(list[StudyRow], stored["rows"], "collapse.json")
    text = (folder / "collapse.md").read_text()
    assert tables(rows, stored["baselines"]) == text
    assert {row.name for row in rows} == {variant.name for variant in variants(num_seeds=3)}
    reached, embeddings, *_ = markdown_tables(text)
    full = {row["remedy"]: {**row, **other} for row, other in zip(reached, embeddings, strict=True)}
    shown = [table for table in markdown_tables((ROOT / "docs/collapse.md").read_text()) if "remedy" in table[0]]
    assert [len(table) for table in shown] == [8, 8]
    for row in (row for table in shown for row in table):
        assert row.items() <= full[row["remedy"]].items()
