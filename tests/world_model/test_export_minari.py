"""What Minari's own library reads is what was recorded."""

import sys

import minari
import numpy as np
import pytest
from conftest import INFO, synthetic_episodes

from jepa_mpc.world_model.convert.minari import main
from jepa_mpc.world_model.data.dataset import write_dataset


def test_episodes_come_back_from_minari(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    recorded = synthetic_episodes(4, 12)
    write_dataset(tmp_path / "d.h5", recorded, INFO)
    monkeypatch.setattr(sys, "argv", ["export", "--task", "square", "--data", str(tmp_path / "d.h5")])
    main()
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
    with pytest.raises(SystemExit, match="Minari has a data set jepa-mpc/square/uniform-v0 already; choose another"):
        main()
