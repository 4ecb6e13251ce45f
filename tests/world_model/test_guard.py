import logging

import pytest
import torch
from test_train import debug_config

from jepa_mpc.world_model.checkpoint import load_checkpoint
from jepa_mpc.world_model.regularizers.base import RegularizerConfig
from jepa_mpc.world_model.train import train
from jepa_mpc.world_model.training.guard import CollapseGuard


def alive(seed=0):
    return torch.randn(200, 32, generator=torch.Generator().manual_seed(seed))


def feed(guard, first, rest):
    guard.see(0, first)
    for step in range(20, 20 * (len(rest) + 1), 20):
        guard.see(step, rest[step // 20 - 1])
    return guard


def test_living_embeddings_are_left_in_peace(caplog):
    guard = feed(CollapseGuard(patience=100), alive(), [alive(seed) for seed in range(20)])
    assert not guard.verdict()
    assert guard.verdict() == ""
    assert not caplog.records


def one_direction():
    return alive()[:, :1] * torch.ones(32)


@pytest.mark.parametrize("collapsed", [lambda: 0.01 * alive(), one_direction], ids=["scale", "rank"])
def test_collapse_in_scale_or_rank_is_said_once_it_has_lasted(caplog, collapsed):
    guard = feed(CollapseGuard(patience=100), alive(), [alive(), *[collapsed()] * 4])
    assert not guard.verdict()  # since step 40, now 100
    with caplog.at_level(logging.WARNING):
        for step in range(120, 300, 20):
            guard.see(step, collapsed())
    assert guard.verdict()
    (record,) = caplog.records
    line = record.getMessage()
    assert "collapsed since step 40" in line
    assert "raise its weight, or train with --regularizer sigreg" in line
    assert "\n" not in line


def test_a_dip_is_no_collapse():
    rest = [alive(), *[0.01 * alive()] * 4, alive(), *[0.01 * alive()] * 4]
    assert not feed(CollapseGuard(patience=100), alive(), rest).verdict()


def test_embeddings_that_recover_are_no_longer_collapsed():
    guard = feed(CollapseGuard(patience=100), alive(), [*[0.01 * alive()] * 8, alive()])
    assert guard.verdict() == ""


def test_the_guard_remembers_across_a_resumption():
    first = feed(CollapseGuard(patience=100), alive(), [0.01 * alive()] * 3)
    second = CollapseGuard(patience=100)
    second.load_state_dict(first.state_dict())
    for step in (80, 100, 120):
        second.see(step, 0.01 * alive())
    assert "collapsed since step 20 (std 0.00" in second.verdict()


@pytest.fixture(scope="module")
def without_regulariser(dataset_path, tmp_path_factory):
    settings = {"num_steps": 300, "predictor_steps": 0, "reachability_steps": 0, "learning_rate": 3e-3}
    folder = tmp_path_factory.mktemp("collapse") / "run"
    return train(debug_config(folder, dataset_path, regularizer=RegularizerConfig(), **settings))


def test_prediction_alone_collapses_and_the_checkpoint_says_so(without_regulariser):
    with pytest.warns(UserWarning, match="will not plan: the embeddings have collapsed since step"):
        _, info = load_checkpoint(without_regulariser)
    assert "--regularizer sigreg" in info.collapsed
    assert f"| collapse | {info.collapsed} |" in (without_regulariser / "card.md").read_text()
    assert info.metrics["embedding"]["std"] < 0.1
    assert info.metrics["loss"]["joint"]["prediction"] < 1e-2
    assert set(info.metrics["loss"]["joint"]) == {"prediction", "rollout"}
