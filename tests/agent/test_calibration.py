"""Another camera, learned from a few pictures: what is found, what is done to pictures, and the command."""

import json
import math
import re
import shutil
import warnings
from dataclasses import replace

import numpy as np
import pytest
from conftest import CHECKPOINT, INFO, synthetic_episodes
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import affine_transform, gaussian_filter
from watching import watch_agents

from jepa_mpc import envs
from jepa_mpc.agent.agent_config import AgentConfig
from jepa_mpc.agent.calibration import Calibration
from jepa_mpc.agent.planning_agent import PlanningAgent
from jepa_mpc.errors import UserError
from jepa_mpc.pictures import PictureStats
from jepa_mpc.planners import CEMConfig
from jepa_mpc.settings import to_json
from jepa_mpc.world_model.checkpoint import load_checkpoint, load_picture_stats
from jepa_mpc.world_model.data.dataset import Dataset, write_dataset

SIDE = 64
DARK = Calibration((0.5, 1.0, 2.0), (10.0, 0.0, -20.0))
WORDS = re.compile(r"moved by (\S+)% of their side right and (\S+)% down, turned clockwise by (\S+)° and scaled")


def scene(rng):
    """A still background with structure."""
    smooth = gaussian_filter(rng.uniform(0, 255, (SIDE, SIDE, 3)), (3, 3, 0))
    return 40 + 150 * (smooth - smooth.min()) / np.ptp(smooth)


def with_thing(background, rng):
    """The scene with a thing somewhere in it."""
    picture, (x, y) = background.copy(), rng.integers(4, SIDE - 16, 2)
    picture[y : y + 10, x : x + 10] = (230, 60, 40)
    return picture


def taken(picture, right=0.0, down=0.0, clockwise=0.0, zoom=1.0, gain=1.0, offset=0.0):
    """What a camera shows whose picture lies so many pixels to the right and down, and is turned and enlarged."""
    cos, sin = math.cos(math.radians(clockwise)) / zoom, math.sin(math.radians(clockwise)) / zoom
    back, middle = np.array([[cos, -sin], [sin, cos]]), np.full(2, (SIDE - 1) / 2)  # of (y, x)
    origin = middle - back @ (middle + np.array([down, right]))
    moved = [affine_transform(colour, back, origin, order=1, mode="nearest") for colour in np.moveaxis(picture, -1, 0)]
    return (np.stack(moved, -1) * gain + offset).round().clip(0, 255).astype(np.uint8)


def usual(background, rng, number=200):
    """Mean and std of training's pictures."""
    pictures = np.stack([with_thing(background, rng) for _ in range(number)])
    return (getattr(pictures, of)(0).round().astype(np.uint8) for of in ("mean", "std"))


def matrix_of(clockwise, zoom, right, down):
    """The map that turns a picture clockwise about its middle, enlarges it, and then moves it by shares of its side."""
    angle = math.radians(clockwise)
    back = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]) / zoom
    (a, b), (c, d) = back.tolist()
    x, y = (-back @ [2 * right, 2 * down]).tolist()
    return a, b, x, c, d, y


@settings(max_examples=8)
@given(st.integers(0, 2**32 - 1))
def test_another_camera_is_found_from_a_dozen_pictures(seed):
    rng = np.random.default_rng(seed)
    background = scene(rng)
    mean, std = usual(background, rng)
    way, far = rng.uniform(0, 2 * math.pi), rng.uniform(0, 5)
    gain, offset = rng.uniform(0.6, 1.2, 3), rng.uniform(-15, 15, 3)
    right, down, turn, zoom = far * math.cos(way), far * math.sin(way), rng.uniform(-6, 6), rng.uniform(0.92, 1.08)
    pictures = [with_thing(background, rng) for _ in range(12)]
    shown = np.stack([taken(picture, right, down, turn, zoom, gain, offset) for picture in pictures])
    found = Calibration.fit(shown, PictureStats(mean, std))

    # Brought back, all that both cameras see is as it was, up to resampling twice at the edges of the thing.
    inside = np.s_[:, 9:-9, 9:-9]
    differs = np.abs(found(shown)[inside] - np.stack(pictures)[inside])
    assert differs.mean() < 1.5
    assert np.percentile(differs, 90) < 4
    # And the numbers are those that undo what was done; 0.025 of half a side is 0.8 pixels.
    a, b, _, c, d, _ = matrix_of(turn, zoom, 0, 0)  # which is the way back
    undone = -np.array([[a, b], [c, d]]) @ [right, down] / SIDE
    np.testing.assert_allclose(found.matrix, matrix_of(-turn, 1 / zoom, *undone), atol=0.025)
    values = np.array([60.0, 180.0])[:, None]
    np.testing.assert_allclose(values * found.gain + found.offset, (values - offset) / gain, atol=6)


def test_pictures_as_in_training_stay_as_they_are():
    rng = np.random.default_rng(0)
    background = scene(rng)
    mean, std = usual(background, rng)
    for exact in (mean[None], np.stack([mean] * 3)):
        found = Calibration.fit(exact, PictureStats(mean, std))
        np.testing.assert_array_equal(found(exact), exact)
    pictures = np.stack([with_thing(background, rng) for _ in range(12)]).round().astype(np.uint8)
    assert np.abs(Calibration.fit(pictures, PictureStats(mean, std))(pictures).astype(int) - pictures).mean() < 1


def test_what_moves_counts_little():
    """A thing that stands still in the new pictures, and anywhere in training's, is not taken for a change of light."""
    rng = np.random.default_rng(1)
    background = scene(rng)
    mean, std = usual(background, rng)
    picture = taken(with_thing(background, rng), right=2)[None]
    (moved, _, turn), gain = described(found := Calibration.fit(picture, PictureStats(mean, std))), found.gain
    assert moved == pytest.approx(100 * -2 / SIDE, abs=0.5)
    assert abs(turn) < 0.5
    np.testing.assert_allclose(gain, 1, atol=0.06)


def test_colours_by_hand():
    calibration = Calibration((0.5, 1.0, 2.0), (10.0, -5.4, -20.0))
    picture = np.zeros((2, 2, 3), np.uint8)
    picture[0, 0], picture[0, 1], picture[1, 0] = (100, 100, 100), (3, 3, 3), (255, 255, 255)
    # 3 / 2 + 10 is 11.5, which is rounded to the even 12.
    expected = [[[60, 95, 180], [12, 0, 0]], [[138, 250, 255], [10, 0, 0]]]
    np.testing.assert_array_equal(calibration(picture), expected)


@pytest.mark.parametrize(("right", "down"), [(3, 0), (0, 2), (-4, 5)])
def test_a_move_by_whole_pixels_is_a_roll_and_beyond_the_edge_the_edge_goes_on(right, down):
    picture = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    moved = Calibration(matrix=matrix_of(0, 1, right / SIDE, down / SIDE))(picture)
    columns, rows = (np.clip(np.arange(SIDE) - by, 0, SIDE - 1) for by in (right, down))
    np.testing.assert_array_equal(moved, picture[rows][:, columns])


def test_turns_and_scales_are_about_the_middle():
    picture = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    np.testing.assert_array_equal(Calibration(matrix=matrix_of(90, 1, 0, 0))(picture), np.rot90(picture, -1))
    fine = np.kron(picture, np.ones((2, 2, 1))).astype(np.uint8)
    halved = Calibration(matrix=matrix_of(0, 0.5, 0, 0))(fine)[SIDE // 2 : -SIDE // 2, SIDE // 2 : -SIDE // 2]
    np.testing.assert_array_equal(halved, picture)


def test_any_number_of_pictures_in_any_order_of_axes():
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (2, 3, 8, 8, 3), np.uint8)
    calibration = Calibration((0.9, 1.1, 1.0), (3.0, 0.0, 1.0), matrix_of(5, 1.1, 0.1, -0.1))
    done = calibration(pictures)
    assert (done.shape, done.dtype) == (pictures.shape, np.uint8)
    for i, j in np.ndindex(2, 3):
        np.testing.assert_array_equal(calibration(pictures[i, j]), done[i, j])
    np.testing.assert_array_equal(calibration(pictures[:, ::-1]), done[:, ::-1])
    kept = pictures.copy()
    pictures.flags.writeable = False  # as Pillow's are
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(calibration(pictures), done)
    np.testing.assert_array_equal(pictures, kept)


def described(calibration):
    return [float(number) for number in WORDS.search(calibration.describe()).groups()]


@pytest.mark.parametrize(
    ("clockwise", "zoom", "right", "down"),
    [(0, 1, 0.125, 0), (0, 1, 0, 0.125), (10, 1, 0, 0), (-10, 1, 0, 0), (0, 1.25, 0, 0), (7, 0.8, -0.1, 0.05)],
)
def test_in_words_it_is_what_one_sees(clockwise, zoom, right, down):
    """A bar from the middle to the right: where its ends come to lie is measured in the picture."""
    calibration = Calibration((1.0, 0.5, 1.0), (0.0, 0.0, -7.0), matrix_of(clockwise, zoom, right, down))
    text = calibration.describe()
    assert described(calibration) == pytest.approx([100 * right, 100 * down, clockwise], abs=0.06)
    assert text.startswith("colours × 1.00, 0.50, 1.00 plus 0.00, 0.00, -7.00; ")
    assert text.endswith(f"scaled by {zoom:.3f}")
    seen = []
    for x in (0, 16):
        dot = np.zeros((SIDE, SIDE, 3), np.uint8)
        dot[31:33, 31 + x : 33 + x, 0] = 255
        mass = calibration(dot)[..., 0].astype(float)
        seen.append(np.array([(mass * axis).sum() / mass.sum() for axis in np.mgrid[:SIDE, :SIDE][::-1]]) - 31.5)
    middle, end = seen
    np.testing.assert_allclose(middle, [SIDE * right, SIDE * down], atol=0.3)
    along, across = end - middle  # right, and down: clockwise
    assert math.hypot(along, across) == pytest.approx(16 * zoom, abs=0.4)
    assert math.degrees(math.atan2(across, along)) == pytest.approx(clockwise, abs=1)


def test_nothing_has_no_sign():
    text = Calibration((1.0, 1.0, 1.0), (-0.001, 0.0, 0.0), (1.0, 0.0, 1e-5, 0.0, 1.0, 0.0)).describe()
    assert "-" not in text
    assert described(Calibration()) == [0, 0, 0]


def test_it_reads_itself_back(tmp_path):
    calibration = Calibration((0.5, 1.0, 2.0), (10.0, 0.0, -20.0), matrix_of(3, 1.05, 0.01, -0.02))
    path = tmp_path / "camera.json"
    path.write_text(json.dumps(to_json(calibration)))
    assert Calibration.load(path) == calibration


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no .*camera.json; make it again with `jepa-mpc calibrate`"),
        ('{"gain": [1, 1', "camera.json is damaged .*; make it again"),
        ("[1, 2]", r"camera.json is damaged: it must be Calibration, not \[1, 2\]"),
        ('{"gain": [1, 1]}', "camera.json is damaged: gain must have 3 entries, not 2"),
        ('{"gain": [1, 1, "x"]}', "gain must be float, not 'x'"),
        ('{"offset": [0, NaN, 0]}', "offset must be a finite number, not nan"),
        ('{"success_rate": 0.9}', "success_rate is unknown"),
        ('{"matrix": [0, 0, 0, 0, 0, 0]}', "matrix must neither flatten nor mirror a picture"),
        ('{"matrix": [-1, 0, 0, 0, 1, 0]}', "matrix must neither flatten nor mirror a picture"),
        ('{"matrix": [1, 0, 1e30, 0, 1, 0]}', "matrix must be -10 to 10, not 1e\\+30"),
        ('{"gain": [1, 0, 1]}', "gain must be 0.1 to 10, not 0"),
        ('{"gain": [1, 1e300, 1]}', "gain must be 0.1 to 10, not 1e\\+300"),
        ('{"gain": [1' + "0" * 400 + ", 1, 1]}", "gain must be a finite number"),
        ('{"offset": [0, 1e4, 0]}', "offset must be -2550 to 2550, not 10000"),
    ],
)
def test_a_file_that_is_no_calibration_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "camera.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        Calibration.load(path)
    assert "\n" not in str(caught.value)


def test_what_are_no_pictures_is_refused():
    mean, std = usual(scene(np.random.default_rng(0)), np.random.default_rng(0), 5)
    whole = np.stack([mean] * 8)
    for wrong, message in (
        (whole[:0], r"must be \(N, 64, 64, 3\), not \(0, 64, 64, 3\)"),
        (whole / 255, "must be uint8, 0 to 255, not float64"),
        (whole[:, :32, :32], r"must be \(N, 64, 64, 3\), not \(8, 32, 32, 3\)"),
        (whole[0], r"must be \(N, 64, 64, 3\), not \(64, 64, 3\)"),
        (whole[..., 0], r"must be \(..., H, W, 3\), not \(8, 64, 64\)"),
    ):
        with pytest.raises(UserError, match=message):
            Calibration.fit(wrong, PictureStats(mean, std))
    for stats in ((mean / 255, std), (mean, std * np.nan), (mean.tolist(), [1, [2]])):
        with pytest.raises(UserError, match="pictures must be"):
            Calibration.fit(whole, PictureStats(*stats))
    with pytest.raises(UserError, match="pictures must be an array"):
        Calibration()([mean, mean[:5]])
    for wrong in (mean / 255, mean[..., 0], mean[:0]):
        with pytest.raises(UserError, match=r"pictures must be (uint8|\(..., H, W, 3\))"):
            Calibration()(wrong)


def test_pictures_of_something_else_are_refused():
    rng = np.random.default_rng(0)
    background = scene(rng)
    mean, std = usual(background, rng)
    others = [np.zeros_like(mean), np.full_like(mean, 255), mean[::-1], rng.integers(0, 256, mean.shape, np.uint8)]
    for other in others:
        with pytest.raises(UserError, match="cannot be made like training's; take them of the same scene"):
            Calibration.fit(np.stack([other] * 8), PictureStats(mean, std))


def test_an_agent_calibrates_pictures_and_not_goals():
    """What the calibrated agent does with pictures is what another does with calibrated ones, toward the same goals."""
    env = envs.make("reacher")
    env.reset(seed=0)
    (goal, _), start = env.reset(seed=1), env.reset(seed=2)[0]
    model, _ = load_checkpoint(CHECKPOINT)
    config = AgentConfig(CEMConfig(num_samples=64, num_elites=8, num_iterations=6))
    acted = {}
    for name, calibration, picture, aim in (
        ("calibrated", DARK, start, goal),
        ("by hand", None, DARK(start), goal),
        ("goal too", None, DARK(start), DARK(goal)),
        ("not at all", None, start, goal),
    ):
        agent = PlanningAgent(model, env.action_space, 5, config, calibration=calibration)
        agent.reset(aim[None], [0])
        acted[name] = np.stack([agent.act(picture[None]), agent.act(DARK(picture)[None])])
    np.testing.assert_array_equal(acted["calibrated"][0], acted["by hand"][0])
    assert np.abs(acted["calibrated"] - acted["goal too"])[0].max() > 0.01
    assert np.abs(acted["calibrated"] - acted["not at all"])[0].max() > 0.01


def test_an_agent_is_loaded_with_a_calibration_or_its_file(tmp_path):
    path = tmp_path / "camera.json"
    path.write_text(json.dumps(to_json(DARK)))
    picture = envs.make("reacher").reset(seed=0)[0][None]
    bounds = envs.make("reacher").action_space
    done = []
    for calibration in (DARK, path, str(path), None):
        agent = PlanningAgent.load(CHECKPOINT, bounds=bounds, calibration=calibration)
        agent.reset(picture, [0])
        done.append(agent.act(picture))
    np.testing.assert_array_equal(done[0], done[1])
    np.testing.assert_array_equal(done[0], done[2])
    assert np.abs(done[0] - done[3]).max() > 0.01
    with pytest.raises(UserError, match=r"there is no .*gone.json; make it again"):
        PlanningAgent.load(CHECKPOINT, bounds=bounds, calibration=tmp_path / "gone.json")
    for wrong in (42, {"gain": [1, 1, 1]}, True):
        with pytest.raises(UserError, match="calibration must be a Calibration or the file of one, not"):
            PlanningAgent.load(CHECKPOINT, calibration=wrong)


@pytest.fixture
def pictures(tmp_path):
    """A folder of eight pictures of an arm in poses of its own, taken by a camera that is darker and 2 px off."""
    env, folder = envs.make("reacher"), tmp_path / "pictures"
    folder.mkdir()
    for seed in range(8):
        Image.fromarray(taken(env.reset(seed=seed)[0], right=2, gain=0.8)).save(folder / f"{seed}.png")
    return folder


def test_the_command_says_what_it_has_found(run_command, pictures, tmp_path):
    (pictures / ".hidden").write_text("none of it")
    output = tmp_path / "new" / "camera.json"
    options = ["--pictures", pictures, "--output", output, "--checkpoint", CHECKPOINT]
    code, out, err = run_command("calibrate", *options)
    assert (code, err) == (0, "")
    found = Calibration.load(output)
    assert out == f"wrote {output}: {found.describe()}\n"
    right, down, turn = described(found)
    assert right == pytest.approx(100 * -2 / SIDE, abs=0.8)
    assert (down, turn) == pytest.approx((0, 0), abs=0.8)
    np.testing.assert_allclose(np.multiply(found.gain, 0.8 * 150) + found.offset, 150, atol=8)
    code, _, err = run_command("calibrate", *options)
    assert (code, err) == (1, f"error: {output} exists already; delete it or choose another --output\n")


def test_a_training_leaves_what_cameras_are_calibrated_by(run_command, tmp_path):
    """From a data set to a calibrated camera, which is half as bright, lies a pixel higher, and shows more pixels."""
    rng, side = np.random.default_rng(0), 32
    background, episodes = scene(rng)[::2, ::2], synthetic_episodes(num_episodes=20, num_blocks=12)
    for episode in episodes:
        episode.pixels[:] = np.where(episode.pixels, 255, background)
    write_dataset(tmp_path / "square.h5", episodes, replace(INFO, task="reacher"))
    options = ["--preset", "debug", "--device", "cpu"]
    steps = [word for phase in ("num", "predictor", "reachability") for word in (f"--{phase}-steps", 2)]
    folder = tmp_path / "run"
    code, _, err = run_command("train", *options, *steps, "--data", tmp_path / "square.h5", "--output", folder)
    assert code == 0, err
    data = Dataset(tmp_path / "square.h5")
    pixels = data.pixels[data.rows_of(data.train_episodes)].astype(float)
    for of, stored in load_picture_stats(folder)._asdict().items():
        np.testing.assert_allclose(stored, getattr(pixels, of)(0), atol=0.51)

    (tmp_path / "seen").mkdir()
    for number, picture in enumerate(pixels[::20]):
        seen = np.roll(picture, -1, axis=0)
        seen[-1] = seen[-2]
        large = np.kron(0.5 * seen, np.ones((3, 3, 1))).round().astype(np.uint8)
        Image.fromarray(large).save(tmp_path / "seen" / f"{number}.png")
    output = tmp_path / "camera.json"
    options = ["--pictures", tmp_path / "seen", "--output", output, "--checkpoint", folder]
    code, _, err = run_command("calibrate", *options)
    assert code == 0, err
    found = Calibration.load(output)
    assert described(found) == pytest.approx([0, 100 / side, 0], abs=0.8)
    np.testing.assert_allclose(found.gain, 2, atol=0.1)


def test_bad_input_to_the_command_is_one_line(run_command, pictures, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("mine")
    (old := tmp_path / "old").mkdir()
    shutil.copytree(CHECKPOINT, old, dirs_exist_ok=True)
    (old / "pictures.safetensors").unlink()
    shutil.copytree(CHECKPOINT, damaged := tmp_path / "damaged")
    (damaged / "pictures.safetensors").write_bytes(b"none")
    shutil.copytree(pictures, with_text := tmp_path / "with-text")
    (with_text / "notes.txt").write_text("the camera stands left")
    (small := tmp_path / "small").mkdir()
    Image.new("RGB", (63, 63)).save(small / "a.png")
    (black := tmp_path / "black").mkdir()
    Image.new("RGB", (64, 64)).save(black / "a.png")
    for changes, message in (
        ({"--pictures": tmp_path / "nowhere"}, "--pictures .*nowhere is no folder"),
        ({"--pictures": tmp_path / "file"}, "--pictures .*file is no folder"),
        ({"--pictures": tmp_path / "empty"}, "--pictures .*empty is empty; put some of the camera's pictures there"),
        ({"--pictures": with_text}, "notes.txt is no picture that can be read; use PNG, JPEG, WEBP, BMP"),
        ({"--pictures": small}, "a.png is 63×63; at least 64×64 pixels are needed"),
        ({"--pictures": black}, "these pictures cannot be made like training's"),
        ({"--output": tmp_path / "file"}, "file exists already; delete it or choose another --output"),
        ({"--output": tmp_path}, "exists already, and is a folder; name a file"),
        ({"--output": tmp_path / "file" / "x.json"}, "cannot be written"),
        ({"--checkpoint": old}, "is of an older version, which kept no pictures.safetensors; train it again"),
        ({"--checkpoint": damaged}, "pictures.safetensors is damaged"),
        ({"--checkpoint": tmp_path / "nowhere"}, "no checkpoint at .*nowhere"),
        ({"--checkpoint": "recher"}, "no checkpoint at recher; train one with .*, or a bundled one: .*reacher"),
    ):
        options = {"--pictures": pictures, "--output": tmp_path / "out.json", "--checkpoint": CHECKPOINT, **changes}
        code, out, err = run_command("calibrate", *(word for option in options.items() for word in option))
        assert (code, out) == (1, ""), (changes, err)
        assert re.match(f"error: .*{message}.*\n$", err), err
        assert not (tmp_path / "out.json").exists()
    assert (tmp_path / "file").read_text() == "mine"


def test_a_goal_that_another_camera_took_is_calibrated(run_command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    goal = envs.make("reacher").reset(seed=4)[0]
    Image.fromarray(goal).save("goal.png")
    (tmp_path / "camera.json").write_text(json.dumps(to_json(DARK)))
    seen = watch_agents(monkeypatch)
    options = ["--task", "reacher", "--checkpoint", CHECKPOINT, "--goal-image", "goal.png", "--budget", 5]
    for name, more in (("a", []), ("b", ["--calibration", "camera.json"])):
        assert run_command("plan", *options, "--output", name, *more)[::2] == (0, "")
    (as_it_is, *_), (calibrated, *_) = seen["PlanningAgent"]
    np.testing.assert_array_equal(as_it_is[0][0], goal)
    np.testing.assert_array_equal(calibrated[0][0], DARK(goal))
    code, _, err = run_command("plan", *options[:4], "--calibration", "camera.json")
    assert (code, err) == (1, "error: --calibration is of the camera that took --goal-image; give both, or neither\n")
    code, _, err = run_command("plan", *options, "--calibration", "gone.json")
    assert (code, err) == (1, "error: there is no gone.json; make it again with `jepa-mpc calibrate`\n")
