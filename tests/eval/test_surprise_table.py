"""The table of faults: what sets in when, and how well surprise tells of it."""

import json
import re

import numpy as np
import pytest
from conftest import CHECKPOINT, ROOT

from jepa_mpc import envs
from jepa_mpc.eval.tables import surprise as table_module
from jepa_mpc.eval.tables.surprise import FAULTS, NONE, SurpriseConfig, SurpriseRow, auc, scores, table
from jepa_mpc.settings import read

MADE = {"commit": "x", "command": "y", "date": "z", "machine": {}}


def row(surprise, onset):
    return SurpriseRow(num_episodes=len(surprise), surprise=surprise, onset=onset, **MADE)


def test_auc_is_the_share_of_pairs_in_the_right_order():
    rng = np.random.default_rng(0)
    faulty, well = rng.normal(1, 1, 30).round(1), rng.normal(0, 1, 20).round(1)
    by_hand = np.mean([(a > b) + 0.5 * (a == b) for a in faulty for b in well])
    assert auc(faulty.tolist(), well.tolist()) == pytest.approx(by_hand)
    assert auc([2, 3], [0, 1]) == 1
    assert auc([0], [1]) == 0


def test_a_score_is_the_highest_surprise_from_the_fault_on():
    # The first picture has no surprise, so a fault at picture 2 is the second of these.
    assert scores(row([[9.0, 1.0, 2.0], [0.5, 3.0, 1.0]], [2, 1]), [2, 1]) == [2.0, 3.0]


def test_a_table_by_hand():
    well = row([[0.5, 0.5, 3.5], [0.5, 1.0, 1.0]], [2, 2])
    rows = {NONE: well, "covered": row([[0.5, 9.0, 9.0], [0.5, 0.9, 4.0]], [2, 2])}
    text = table(rows, SurpriseConfig(num_episodes=2, seed=5)).replace("\n", " ")
    assert "at 33.33 in 1,000 steps" in text  # one of six pictures, five steps apart
    assert "| the camera is covered | 1.000 | 100.0 | 1.5 | [JSON](covered.json) |" in text
    assert "frozen" not in text


def test_the_committed_table_is_drawn_from_the_committed_rows():
    folder = ROOT / "docs/results/surprise/reacher"
    rows = {name: read(SurpriseRow, stored(folder / f"{name}.json"), name) for name in (NONE, *FAULTS)}
    assert table(rows, SurpriseConfig()) == (folder / "surprise.md").read_text()
    # Beside the bars: what the text says of them.
    assert all(auc(scores(row, row.onset), scores(rows[NONE], row.onset)) > 0.95 for row in map(rows.get, FAULTS))


def stored(path):
    return {name: value for name, value in json.loads(path.read_text()).items() if name != "asked"}


def test_faults_are_what_they_say(run_command, tmp_path):
    """What the agent was shown differs from the fault on, and not before."""
    seen = {}
    act = table_module.PlanningAgent.act

    def watched(self, pictures):
        seen.setdefault(now[0], []).append(pictures.copy())
        return act(self, pictures)

    measure, now = table_module.measure, [NONE]

    def measured(trial, agent, fault):
        now[0] = fault
        return measure(trial, agent, fault)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_module.PlanningAgent, "act", watched)
        patch.setattr(table_module, "measure", measured)
        options = ["--num-episodes", 3, "--seed", 3, "--checkpoint", CHECKPOINT, "--output", tmp_path / "out"]
        code, out, err = run_command("benchmark surprise", *options)
    assert (code, out) == (0, f"wrote {tmp_path}/out/surprise.md\n"), err
    rows = {name: json.loads((tmp_path / f"out/{name}.json").read_text()) for name in (NONE, *FAULTS)}
    shown = {name: np.stack(pictures, axis=1) for name, pictures in seen.items()}
    assert shown[NONE].shape[:2] == (3, 20)
    for fault in ("teleport", "frozen", "covered"):
        for pair, onset in enumerate(rows[fault]["onset"]):
            assert 2 <= onset <= 5
            np.testing.assert_array_equal(shown[fault][pair, :onset], shown[NONE][pair, :onset])
            assert (shown[fault][pair, onset] != shown[NONE][pair, onset]).any()
        np.testing.assert_array_equal(rows[fault]["onset"], rows["covered"]["onset"])
    for pair, onset in enumerate(rows["frozen"]["onset"]):
        assert (shown["frozen"][pair, onset:] == shown["frozen"][pair, onset - 1]).all()
        assert len(np.unique(shown["covered"][pair, onset:])) == 1
    assert rows["load"]["onset"] == [1, 1, 1]
    assert all(np.array(rows[name]["surprise"]).shape == (3, 19) for name in rows)
    assert re.search(
        r"\| every body weighs twice as much, from the start \| [01]\.\d{3} \|",
        (tmp_path / "out/surprise.md").read_text(),
    )


def test_a_load_is_taken_off_again():
    env = envs.make("reacher")
    before = env.unwrapped.model.body_mass.copy(), env.unwrapped.model.body_inertia.copy()
    with table_module._load(env):
        np.testing.assert_allclose(env.unwrapped.model.body_mass, 2 * before[0])
    np.testing.assert_allclose(env.unwrapped.model.body_inertia, before[1])
