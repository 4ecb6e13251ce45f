"""What is wrong with recorded data is found, each kind by itself, and nothing is found where nothing is wrong."""

import dataclasses
import json

import numpy as np
import pytest
from conftest import INFO
from PIL import Image
from recordings import FIXTURES

from jepa_mpc.agent.collect import CollectConfig, collect
from jepa_mpc.world_model.data.inspection import inspect
from jepa_mpc.world_model.data.lag import find_lag
from jepa_mpc.world_model.data.sources import Numbers, Source, open_source


def dot(place, size=32):
    """A picture (size, size, 3) of a bright dot."""
    at = np.linspace(-1.2, 1.2, size)
    x, y = (np.exp(-(((at - each) / 0.2) ** 2)) for each in place)
    return np.repeat(np.uint8(20 + 230 * np.outer(y, x))[..., None], 3, axis=2)


class Recording(Source):
    """A dot that actions push about, in memory, to be damaged: episodes of actions, states, pictures and times."""

    looks = "in memory"

    def __init__(self, num_episodes=12, length=60, seed=0, smooth=0.0, inertia=0.0):
        rng = np.random.default_rng(seed)
        self.path, self.info = FIXTURES, dataclasses.replace(INFO, step_seconds=0.05, angles=(False, False))
        self.cameras, self.episodes = ("eye",), []
        for _ in range(num_episodes):
            action, place, speed = np.zeros((length, 2)), np.zeros((length, 2)), np.zeros(2)
            for row in range(length):
                action[row] = smooth * action[max(0, row - 1)] + (1 - smooth) * rng.uniform(-1, 1, 2)
                if row + 1 < length:
                    speed = inertia * speed + 0.25 * action[row]
                    place[row + 1] = np.clip(0.97 * place[row] + speed, -1, 1)
            pixels = np.stack([dot(each) for each in place])
            self.episodes.append([action, place, pixels, 0.05 * np.arange(length)])

    @property
    def lengths(self):
        return np.array([len(action) for action, *_ in self.episodes])

    @classmethod
    def recognises(cls, path):
        return False

    def read(self, episode):
        action, state, _, seconds = self.episodes[episode]
        return Numbers(action.copy(), state.copy(), seconds)

    def stream(self, episode, camera):
        yield from self.episodes[episode][2]


def found(source, **options):
    report, _ = inspect(source, **options)
    return report.findings


def only(source, *parts, **options):
    """Says that one thing is found, whose words and fix hold the parts."""
    (finding,) = found(source, **options)
    for part in parts:
        assert part in f"{finding.says} | {finding.fix}"
    return finding


@pytest.mark.parametrize("motion", [{}, {"smooth": 0.8}, {"inertia": 0.7}, {"smooth": 0.8, "inertia": 0.7}])
def test_nothing_is_wrong_with_what_is_right(motion):
    source = Recording(**motion)
    report, _ = inspect(source)
    assert report.findings == ()
    assert {name: lag.shift for name, lag in report.lags.items()} == {"eye": 0, "state": 0}
    assert report.lags["state"].is_seen


@pytest.mark.parametrize("every_step", [True, False])
def test_nothing_is_wrong_with_a_clean_data_set_of_ours(tmp_path, every_step):
    config = CollectConfig(num_episodes=4, num_processes=1, every_step=every_step, output=tmp_path / "own.h5")
    report, _ = inspect(open_source(collect(config)))
    assert report.findings == ()
    assert report.cameras[0].repeated == report.cameras[0].empty == 0
    assert (report.cameras[0].width, report.cameras[0].height) == (64, 64)
    assert report.block == (1 if every_step else 5)
    assert report.lags["state"].shift == 0
    if every_step:
        assert report.lags["state"].is_seen


@pytest.mark.parametrize("lag", [1, 2, 4, -1, -3])
@pytest.mark.parametrize("motion", [{}, {"smooth": 0.8}, {"inertia": 0.7}])
def test_a_lag_is_found_in_pictures_and_state(lag, motion):
    """By where the action of each row really acts, whether actions are alike from row to row or the dot has inertia."""
    source = Recording(num_episodes=30, **motion)
    for episode in source.episodes:
        action, *rest = episode
        rows = slice(max(0, -lag), len(action) - max(0, lag))
        moved = slice(max(0, lag), len(action) + min(0, lag))
        episode[:] = [action[moved], *(each[rows] for each in rest)]
    report, _ = inspect(source)
    assert {name: each.shift for name, each in report.lags.items()} == {"eye": lag, "state": lag}
    answer = "answer" if lag > 0 else "have answered"
    for finding in report.findings:
        assert f"{answer} {abs(lag)} rows ({abs(lag) * 50} ms)" in finding.says
        assert f"convert data --lag {lag}" in finding.fix


def test_a_camera_that_is_late_is_told_from_a_log_that_is():
    source = Recording()
    for episode in source.episodes:
        action, state, pixels, seconds = episode
        episode[:] = [action[2:], state[2:], pixels[:-2], seconds[2:]]
    finding = only(source, "the pictures of camera 'eye' answer 2 rows (100 ms) after the action beside them")
    assert "--frameskip 3" in finding.fix


def test_actions_of_another_log_are_found():
    source = Recording(num_episodes=30)
    for episode, other in zip(source.episodes, Recording(num_episodes=30, seed=1).episodes, strict=True):
        episode[0] = other[0]
    only(source, "actions foretell nothing of what follows", "check that they are those that were sent")


def test_too_few_rows_say_nothing_of_a_lag():
    assert find_lag([np.zeros((9, 3))] * 2, [np.zeros((9, 2))] * 2) is None
    assert find_lag([], []) is None


@pytest.mark.parametrize("has_state", [True, False])
@pytest.mark.parametrize("every", [2, 3])
def test_a_camera_slower_than_the_rows_is_found(every, has_state):
    source = Recording(smooth=0.7)
    for episode in source.episodes:
        action, state, pixels, seconds = episode
        state = state if has_state else state[:, :0]
        episode[:] = [action, state, pixels[np.arange(len(pixels)) // every * every], seconds]
    repeated = next(each for each in found(source) if "repeat" in each.says)
    assert f"it gives a new one every {every} rows" in repeated.says
    assert f"train with --frameskip {every}" in repeated.fix
    assert len(repeated.episodes) == 12


@pytest.mark.parametrize("has_state", [True, False])
def test_dropped_pictures_are_found_and_a_robot_that_rests_is_not_taken_for_them(has_state):
    rng, source, resting = np.random.default_rng(0), Recording(smooth=0.7), Recording(smooth=0.7)
    for episode in source.episodes:
        for row in np.flatnonzero(rng.random(60) < 0.1):
            episode[2][row] = episode[2][row - 1] if row else episode[2][0]
    for episode in resting.episodes:  # it moves, and rests for twenty rows
        action, state, pixels, _ = episode
        rows = np.r_[0:20, [20] * 20, 20:60]
        episode[:] = [action[rows], state[rows], pixels[rows], 0.05 * np.arange(len(rows))]
    for each in (*source.episodes, *resting.episodes):
        each[1] = each[1] if has_state else each[1][:, :0]
    only(source, "of the pictures of camera 'eye' repeat", "pictures were dropped", "--drop-episodes")
    assert not [each for each in found(resting) if "repeat" in each.says]


def test_a_camera_that_stands_still_is_found():
    source = Recording()
    for episode in source.episodes:
        episode[2][:] = episode[2][0]
    assert "camera 'eye' shows one picture all the time" in found(source)[0].says


@pytest.mark.parametrize(
    ("level", "what"), [(0, "black"), (8, "black"), (120, "of one colour"), ((0, 0, 200), "of one colour")]
)
def test_empty_pictures_are_found(level, what):
    source = Recording()
    source.episodes[3][2][10:14] = level
    source.episodes[7][2][-1] = level
    finding = only(source, f"5 pictures of camera 'eye' are {what}", "--drop-episodes 3 7")
    assert finding.episodes == (3, 7)


def test_numbers_that_are_none_are_found():
    source = Recording()
    source.episodes[2][0][5, 1] = np.nan
    source.episodes[4][0][7:9] = np.inf
    source.episodes[5][0][-1] = np.nan  # after which nothing was done
    assert only(source, "3 rows of actions are not numbers", "--drop-episodes 2 4").episodes == (2, 4)
    source = Recording()
    source.episodes[6][1][3] = np.nan
    assert only(source, "1 rows of states are not numbers", "--drop-episodes 6").episodes == (6,)


def test_an_action_that_never_varies_is_found_by_name():
    source = Recording()
    source.action_names = ("shoulder", "gripper")
    for episode in source.episodes:
        episode[0][:, 1] = 0.3
    assert found(source)[0].says == "action gripper never varies: that joint is not explored"
    for episode in source.episodes:
        episode[0][:, 0] = 0.1
    assert found(source)[0].says == "action shoulder, action gripper never varies: nothing is explored"


def test_short_episodes_are_found_by_the_frameskip_to_come():
    source = Recording()
    source.episodes[1][:] = [each[:7] for each in source.episodes[1]]
    assert only(source, "1 episodes have fewer than the 8 rows", "smaller --frameskip").episodes == (1,)
    source.episodes[1][:] = Recording(1).episodes[0]
    assert found(source) == ()
    assert "12 episodes have fewer than the 71 rows" in found(source, frameskip=10)[0].says
    only(Recording(num_episodes=1, length=200), "there is one episode")


def test_gaps_and_a_wrong_rate_are_found_in_the_times():
    source = Recording()
    source.episodes[2][3][20:] += 0.3
    assert only(source, "1 gaps between rows, of up to 0.35 s, where 0.05 s is usual").episodes == (2,)
    source = Recording()
    source.info = dataclasses.replace(source.info, step_seconds=0.1)
    only(source, "rows are 0.05 s apart, and the data say 0.1 s", "convert data --fps 20")
    source = Recording()
    source.episodes[8][3][30] = 0.0
    assert "times do not ascend" in found(source)[0].says


def test_what_cannot_be_read_is_found_and_the_rest_looked_at():
    source = Recording()
    source.episodes[5][2] = source.episodes[5][2][:-3]
    finding = only(source, "episode 5 has 60 rows and 57 pictures of camera 'eye'", "--drop-episodes 5")
    assert finding.episodes == (5,)
    report, _ = inspect(source)
    assert report.cameras[0].num_looked_at == 11 * 60


def test_ranges_and_shapes_are_told():
    source = Recording()
    report, sheets = inspect(source, num_episodes=4)
    assert (report.num_episodes, report.num_rows, report.shortest, report.longest) == (12, 720, 60, 60)
    assert report.rows_per_second == pytest.approx(20)
    actions = np.concatenate([each[0] for each in source.episodes])
    for index, each in enumerate(report.actions):
        assert each.name == f"action {index}"
        told = (each.least, each.mean, each.most, each.std)
        np.testing.assert_allclose(told, [getattr(actions[:, index], name)() for name in ("min", "mean", "max", "std")])
    assert report.cameras[0].num_looked_at == 240
    assert [row.shape for row in sheets["eye"]] == [(8, 32, 32, 3)] * 4
    np.testing.assert_array_equal(sheets["eye"][-1][-1], source.episodes[-1][2][-1])


def test_the_command_prints_and_writes(run_command, tmp_path):
    pytest.importorskip("av")
    pytest.importorskip("pyarrow")
    code, out, err = run_command("inspect", FIXTURES / "lerobot-v3", "--output", tmp_path / "seen", "--frameskip", "3")
    assert code == 0, err
    said = " ".join(out.split())
    for part in (
        "3, 17–30 rows each; 71 in all; 10 rows a second",
        "64×64; 71 looked at",
        "action x.pos",
        "fix: train with",
    ):
        assert part in said
    assert sorted(each.name for each in (tmp_path / "seen").iterdir()) == ["front.png", "report.json", "wrist.png"]
    report = json.loads((tmp_path / "seen/report.json").read_text())
    assert report["num_rows"] == 71
    assert report["findings"][0]["episodes"] == [2]
    assert np.asarray(Image.open(tmp_path / "seen/front.png")).shape == (3 * 66, 8 * 66, 3)
    code, _, err = run_command("inspect", FIXTURES / "lerobot-v3", "--output", tmp_path / "seen")
    assert code == 1
    assert "front.png exists already; delete it or choose another --output" in err
    assert run_command("inspect", tmp_path)[0] == 1


def test_every_fix_that_is_named_can_be_typed(run_command, tmp_path):
    """A lag in a folder of video is found, and gone once the command that is named has run."""
    pytest.importorskip("av")
    source = Recording(num_episodes=10)
    from recordings import write_csv, write_video

    (tmp_path / "log").mkdir()
    for index, (action, _, pixels, _) in enumerate(source.episodes):
        write_video(tmp_path / f"log/{index:03d}.mp4", pixels[:-2], fps=20)
        write_csv(tmp_path / f"log/{index:03d}.csv", {"action0": action[2:, 0], "action1": action[2:, 1]})
    code, out, _ = run_command("inspect", tmp_path / "log")
    said = " ".join(out.split())
    assert code == 0
    assert "answer 2 rows (100 ms) after the action beside them" in said
    assert "convert data --lag 2" in said
    options = ["--lag", "2", "--image-size", "32", "--output", tmp_path / "mended.h5"]
    assert run_command("convert data", tmp_path / "log", *options)[0] == 0
    assert "nothing wrong was found" in run_command("inspect", tmp_path / "mended.h5")[1]
