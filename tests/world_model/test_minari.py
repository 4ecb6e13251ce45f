"""What Minari's own library reads is what was recorded."""

import h5py
import numpy as np
import pytest
from conftest import INFO, synthetic_episodes

from jepa_mpc.errors import UserError
from jepa_mpc.world_model.convert.minari import main
from jepa_mpc.world_model.data.dataset import Dataset, write_dataset

minari = pytest.importorskip("minari", "0.5.4")  # on Python 3.10 there is none that stores pictures as they are


def test_episodes_come_back_from_minari(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    recorded = synthetic_episodes(4, 12)
    write_dataset(tmp_path / "d.h5", recorded, INFO)
    args = ["--task", "square", "--data", str(tmp_path / "d.h5")]
    main(args)
    assert "wrote jepa-mpc/square/uniform-v0" in capsys.readouterr().out
    data = minari.load_dataset("jepa-mpc/square/uniform-v0")
    assert (data.total_episodes, data.total_steps) == (4, 48)
    assert "policy 'uniform', seed 0, none" in data.storage.metadata["description"]
    for episode, ours in zip(data.iterate_episodes(), recorded, strict=True):
        np.testing.assert_array_equal(episode.observations["pixels"], ours.pixels)
        np.testing.assert_array_equal(episode.observations["qpos"], ours.qpos)
        np.testing.assert_array_equal(episode.actions, ours.action)
        assert not episode.rewards.any()
        assert not episode.terminations.any()
        assert episode.truncations.tolist() == [False] * 11 + [True]
    with pytest.raises(UserError, match="Minari has a data set jepa-mpc/square/uniform-v0 already; choose another"):
        main(args)


def test_a_strangers_file_is_exported_step_by_step(tmp_path, monkeypatch):
    """It has a row a step, read five at a time; what is written is its rows, each once."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    rng, lengths = np.random.default_rng(0), [30, 17]
    with h5py.File(tmp_path / "theirs.h5", "w") as file:
        file["pixels"] = rng.integers(0, 256, (47, 8, 8, 3), np.uint8)
        file["action"] = action = rng.standard_normal((47, 2), np.float32)
        file["ep_len"], file["ep_offset"] = lengths, [0, 30]
    main(["--task", "push_t", "--data", str(tmp_path / "theirs.h5"), "--dataset-id", "theirs-v0"])
    data = minari.load_dataset("theirs-v0")
    assert data.total_steps == 29 + 16
    for episode, rows in zip(data.iterate_episodes(), (slice(0, 30), slice(30, 47)), strict=True):
        np.testing.assert_array_equal(episode.actions, action[rows][:-1])


def test_a_failed_export_leaves_nothing_and_a_wrong_name_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    write_dataset(tmp_path / "d.h5", synthetic_episodes(4, 12), INFO)
    args = ["--task", "square", "--data", str(tmp_path / "d.h5")]
    with pytest.raises(UserError, match="--dataset-id must be of the form namespace/name-v0, not 'no good'"):
        main([*args, "--dataset-id", "no good"])

    rows_of = Dataset.rows_of

    def interrupted(data, episodes):
        if episodes == [2]:  # when two are written
            raise KeyboardInterrupt
        return rows_of(data, episodes)

    with monkeypatch.context() as patch:
        patch.setattr(Dataset, "rows_of", interrupted)
        with pytest.raises(KeyboardInterrupt):
            main([*args, "--dataset-id", "half-v0"])
    assert not (tmp_path / "minari/half-v0").exists()
    main([*args, "--dataset-id", "half-v0"])
    assert minari.load_dataset("half-v0").total_episodes == 4
