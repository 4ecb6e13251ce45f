"""Several cameras, and what a robot feels: stored, encoded, hidden, learned from and planned with."""

import json
import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from conftest import INFO, synthetic_episodes
from PIL import Image
from test_train import debug_config

from jepa_mpc.agent.agent_config import AgentConfig
from jepa_mpc.agent.calibration import Calibration
from jepa_mpc.agent.picture_file import load_goal
from jepa_mpc.agent.planning_agent import PlanningAgent
from jepa_mpc.errors import UserError
from jepa_mpc.eval.trial import Trial
from jepa_mpc.eval.variations import VARIATIONS, Chance
from jepa_mpc.pictures import PictureStats, side_by_side, square
from jepa_mpc.world_model.checkpoint import load_checkpoint, load_info, load_picture_stats
from jepa_mpc.world_model.data.augment import AugmentConfig, augment
from jepa_mpc.world_model.data.dataset import UNUSED, Dataset, DatasetError, append_episodes, write_dataset
from jepa_mpc.world_model.latent_policy import train as policy_training
from jepa_mpc.world_model.latent_policy.train import LatentPolicyConfig
from jepa_mpc.world_model.model.encoder import EncoderConfig, MultiModalEncoder, build_encoder
from jepa_mpc.world_model.model.jepa import JEPA, JEPAConfig
from jepa_mpc.world_model.model.predictor import PredictorConfig
from jepa_mpc.world_model.observation import ModalityDropout, Observation, draw_hidden, drop_modalities, hide_views
from jepa_mpc.world_model.train import train
from jepa_mpc.world_model.training.diagnostics import encode_rows

CAMERAS, FELT = ("front", "wrist"), ("x", "y", "speed")
BOUNDS = {"action_low": (-1.0, -1.0), "action_high": (1.0, 1.0), "step_seconds": 0.1}
TWO = replace(INFO, cameras=CAMERAS, proprio_names=FELT, **BOUNDS)


def two_views(num_episodes, num_blocks=9, seed=0):
    """Episodes of two cameras, of which the second sees the first's picture upside down, and three numbers."""
    rng, recorded = np.random.default_rng(seed), synthetic_episodes(num_episodes, num_blocks, seed=seed)
    felt = [rng.normal(size=(len(each.pixels), 3)).astype(np.float32) for each in recorded]
    return [
        replace(each, pixels=np.concatenate([each.pixels, each.pixels[:, ::-1]], axis=2), proprio=now)
        for each, now in zip(recorded, felt, strict=True)
    ]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    file = tmp_path_factory.mktemp("views") / "two.h5"
    write_dataset(file, two_views(12), TWO)
    return file


def tiny(num_views=2, proprio_dim=3, **encoder):
    config = EncoderConfig(image_size=16, num_views=num_views, channels=(4, 8), **encoder)
    predictor = PredictorConfig(width=16, depth=1, num_heads=2)
    torch.manual_seed(0)
    return JEPA(JEPAConfig(4, 8, 16, config, predictor, proprio_dim=proprio_dim)).eval()


def noise(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(1, 256, shape, np.uint8))


# Stored


@pytest.mark.parametrize("in_memory", ["yes", "no"])
def test_each_camera_has_a_column_and_they_are_read_side_by_side(path, in_memory):
    with h5py.File(path) as file:
        columns = [file[f"pixels/{camera}"][:] for camera in CAMERAS]
        felt = file["proprio"][:]
    np.testing.assert_array_equal(columns[1], columns[0][:, ::-1])
    data, rows = Dataset(path, in_memory=in_memory), np.array([[3, 50], [7, 0]])
    side = columns[0].shape[1]
    assert data.pixels.shape[1:] == (side, 2 * side, 3)
    assert (data.num_views, data.info.cameras, data.info.proprio_names) == (2, CAMERAS, FELT)
    seen, _ = data.windows(rows)
    np.testing.assert_array_equal(seen.pixels, np.concatenate(columns, axis=2)[rows])
    np.testing.assert_array_equal(seen.proprio, felt[rows])


def test_more_of_the_same_is_appended_and_what_differs_is_refused(path, tmp_path):
    file = tmp_path / "more.h5"
    for _ in range(2):
        append_episodes(file, two_views(2), TWO)
    assert len(Dataset(file).ep_len) == 4
    with pytest.raises(DatasetError, match="has another cameras"):
        append_episodes(file, synthetic_episodes(1, 9), replace(TWO, cameras=()))
    write_dataset(tmp_path / "one.h5", synthetic_episodes(3, 9), replace(INFO, **BOUNDS))
    with pytest.raises(DatasetError, match=r"differs from .* in cameras"):
        Dataset([path, tmp_path / "one.h5"])


def test_files_that_do_not_tell_what_is_felt_go_beside_those_that_do(tmp_path):
    for name, info in (("felt", replace(INFO, proprio_names=FELT)), ("unfelt", INFO)):
        episodes = synthetic_episodes(3, 9)
        if info.proprio_names:
            episodes = [replace(each, proprio=np.ones((len(each.pixels), 3), np.float32)) for each in episodes]
        write_dataset(tmp_path / f"{name}.h5", episodes, info)
    data = Dataset([tmp_path / "unfelt.h5", tmp_path / "felt.h5"])
    num = len(data.proprio) // 2
    assert np.isnan(data.proprio[:num]).all()
    assert (data.proprio[num:] == 1).all()
    mean, std = data.proprio_stats()
    np.testing.assert_allclose(mean, 1)
    np.testing.assert_array_equal(std, UNUSED)  # it never varies, and whatever it is then is nothing


def test_a_column_of_another_size_than_its_names_is_refused(path, tmp_path):
    file = tmp_path / "d.h5"
    file.write_bytes(path.read_bytes())
    with h5py.File(file, "r+") as stored:
        stored.attrs["proprio_names"] = ["x", "y"]
    with pytest.raises(DatasetError, match="column 'proprio' must be 2 numbers"):
        Dataset(file)


# Encoded


def test_every_view_is_encoded_as_it_would_be_alone():
    views = build_encoder(tiny().config.encoder).eval()
    assert isinstance(views, MultiModalEncoder)
    pictures = torch.rand(5, 3, 16, 32) * 2 - 1
    one = views.each
    expected = torch.cat([one(pictures[..., :16]), one(pictures[..., 16:])], dim=1)
    torch.testing.assert_close(views(pictures), expected)


def test_a_camera_that_shows_nothing_has_features_of_its_own():
    views = build_encoder(tiny().config.encoder).eval()
    with torch.no_grad():
        views.absent.copy_(torch.randn_like(views.absent))
    pictures = torch.rand(2, 3, 16, 32) * 2 - 1
    pictures[0, :, :, 16:] = -1
    features = views(pictures).unflatten(1, (2, -1))
    torch.testing.assert_close(features[0, 1], views.absent[1])
    torch.testing.assert_close(features[0, 0], views.each(pictures[:1, ..., :16])[0])
    assert not torch.equal(features[1, 1], views.absent[1])


def test_what_is_not_known_is_neither_nothing_nor_the_mean():
    encoder = build_encoder(tiny(num_views=1).config.encoder, 2).eval()
    encoder.mean.copy_(torch.tensor([1.0, 2.0]))
    encoder.std.copy_(torch.tensor([0.5, 4.0]))
    pictures = (torch.rand(1, 3, 16, 16) * 2 - 1).expand(3, -1, -1, -1)
    given = torch.tensor([[1.0, 2.0], [torch.nan, 2.0], [1.5, 6e9]])
    by_hand = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [1.0, 10.0, 0.0, 0.0]])
    features = encoder(pictures, given)
    seen = encoder.each(pictures)
    torch.testing.assert_close(features[:, : seen.shape[1]], seen)
    torch.testing.assert_close(features[:, seen.shape[1] :], torch.relu(encoder.proprio(by_hand)))
    assert not torch.equal(*features[:2])
    nothing = torch.full((3, 2), torch.nan)
    torch.testing.assert_close(encoder(pictures), encoder(pictures, nothing))


def test_pictures_alone_are_observations_of_which_nothing_is_felt():
    model, pixels = tiny(), noise(3, 2, 16, 32, 3)
    z = model.encode(pixels)
    assert z.shape == (3, 2, 8)
    unknown = torch.full((3, 2, 3), torch.nan)
    torch.testing.assert_close(model.encode(Observation(pixels, unknown)), z)
    felt = model.encode(Observation(pixels, torch.zeros(3, 2, 3)))
    assert not torch.allclose(felt, z)
    plain = tiny(proprio_dim=0)
    torch.testing.assert_close(plain.encode(Observation(pixels, unknown)), plain.encode(pixels))
    with pytest.raises(UserError, match=r"pictures must be \(..., 16, 32, 3\), not"):
        model.encode(pixels[..., :16, :])


# Hidden


def test_each_is_hidden_as_often_as_is_said_and_one_camera_is_left():
    hidden = draw_hidden(20_000, 4, 0.3, torch.Generator().manual_seed(0))
    views = hidden[:, :3]
    assert not views.all(1).any()
    expected = 0.3 - 0.3**3 / 3  # where all were drawn, each is left as often
    torch.testing.assert_close(views.float().mean(0), torch.full((3,), expected), atol=0.015, rtol=0)
    assert hidden[:, 3].float().mean().item() == pytest.approx(0.3, abs=0.015)
    all_but_one = draw_hidden(3000, 4, 1.0, torch.Generator().manual_seed(0))[:, :3]
    assert (all_but_one.sum(1) == 2).all()
    torch.testing.assert_close(all_but_one.float().mean(0), torch.full((3,), 2 / 3), atol=0.05, rtol=0)


def test_what_is_hidden_changes_within_a_window_as_often_as_is_said():
    pixels, felt, dropout = noise(400, 5, 4, 12, 3), torch.ones(400, 5, 2), ModalityDropout(0.3, 0.25)
    seen = drop_modalities(Observation(pixels, felt), 3, dropout, torch.Generator().manual_seed(0))
    views = seen.pixels.unflatten(3, (3, 4))
    dark = (views == 0).all(-1).all(-1).all(2)  # (B, T, V)
    hidden = seen.proprio.isnan()
    assert torch.equal(hidden[..., 0], hidden[..., 1])
    assert (seen.proprio[~hidden] == 1).all()
    shown = ~dark[:, :, None, :, None, None].expand_as(views)
    assert torch.equal(views[shown], pixels.unflatten(3, (3, 4))[shown])
    for each in (hidden[..., 0], dark[..., 0]):
        share = each.float().mean().item()
        stays = (each[:, 1:] == each[:, :-1]).float().mean().item()
        assert stays == pytest.approx(1 - 0.25 * 2 * share * (1 - share), abs=0.03)


def test_where_there_is_nothing_to_hide_no_number_is_drawn():
    generator = torch.Generator().manual_seed(0)
    before, seen = generator.get_state(), Observation(noise(2, 3, 4, 4, 3))
    assert drop_modalities(seen, 1, ModalityDropout(0.5, 0.5), generator) is seen
    assert torch.equal(generator.get_state(), before)


def test_goals_are_hidden_by_their_rows_whoever_encodes_which(trained, path):
    model, data = load_checkpoint(trained)[0], Dataset(path)
    every = encode_rows(model, data, np.arange(len(data.action)), dropout=0.5)
    for rank in (0, 1):
        mine = np.arange(rank, len(data.action), 2)
        torch.testing.assert_close(encode_rows(model, data, mine, batch_size=7, dropout=0.5), every[mine])
    hidden = draw_hidden(len(data.action), 3, 0.5, torch.Generator().manual_seed(0))[:, :2]
    assert hidden.any(0).all()
    rows = np.arange(30)
    pixels = torch.from_numpy(data.pixels[rows])
    torch.testing.assert_close(every[rows], model.encode(hide_views(pixels, hidden[rows])))


def test_each_cameras_pictures_are_varied_for_themselves():
    pixels, config = noise(6, 4, 8, 16, 3), AugmentConfig()
    varied = augment(pixels, config, torch.Generator().manual_seed(1))
    apart = pixels.unflatten(3, (2, 8)).movedim(3, 1).flatten(0, 1)
    expected = augment(apart, config, torch.Generator().manual_seed(1))
    torch.testing.assert_close(varied[:, :, :, :8], expected[0::2])
    torch.testing.assert_close(varied[:, :, :, 8:], expected[1::2])


# Learned from, and planned with


@pytest.fixture(scope="module")
def trained(path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return train(debug_config(folder / "model", path, proprio=True))


def test_a_checkpoint_says_what_it_sees_and_feels(trained, path):
    model, info = load_checkpoint(trained)
    assert (info.model.encoder.num_views, info.model.proprio_dim) == (2, 3)
    assert (info.interface.cameras, info.interface.proprio_names) == (CAMERAS, FELT)
    data = Dataset(path)
    mean, std = data.proprio_stats()
    torch.testing.assert_close(model.encoder.mean, torch.from_numpy(mean))
    torch.testing.assert_close(model.encoder.std, torch.from_numpy(std))
    assert load_picture_stats(trained).mean.shape == data.pixels.shape[1:]
    rows = np.arange(20)
    torch.testing.assert_close(encode_rows(model, data, rows), model.encode(data.observations(rows)))
    goals = encode_rows(model, data, rows, dropout=0.0)
    torch.testing.assert_close(goals, model.encode(data.observations(rows).pixels))


def test_without_its_switch_nothing_is_felt(path, tmp_path):
    info = load_info(train(debug_config(tmp_path / "model", path)))
    assert (info.model.proprio_dim, info.interface.proprio_names) == (0, ())


def test_what_the_data_do_not_tell_cannot_be_felt(tmp_path):
    write_dataset(tmp_path / "d.h5", synthetic_episodes(4, 9), INFO)
    with pytest.raises(UserError, match="--proprio is of data that tell what a robot feels, and these do not"):
        train(debug_config(tmp_path / "model", tmp_path / "d.h5", proprio=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"modality_dropout": 0.5}, "--modality-dropout hides cameras or proprioception, and there is one camera"),
        ({"encoder": EncoderConfig(num_views=2)}, "--encoder.num-views is as many as the data have cameras, 1; leave"),
    ],
)
def test_what_one_camera_cannot_have_is_refused(tmp_path, settings, message):
    write_dataset(tmp_path / "d.h5", synthetic_episodes(4, 9), INFO)
    with pytest.raises(UserError, match=message):
        train(debug_config(tmp_path / "model", tmp_path / "d.h5", **settings))


@pytest.fixture
def agent(trained):
    return PlanningAgent.load(trained, AgentConfig(objective="latent", effort_weight=0.0))


def test_what_is_felt_changes_what_is_done_and_what_is_unknown_may_be_left_out(agent, path):
    data = Dataset(path)
    goal, now = data.pixels[np.array([5])], data.pixels[np.array([40])]
    answers = []
    for felt in (None, np.full((1, 3), np.nan), np.array([[2.0, -2.0, 1.0]])):
        agent.reset(goal, [0])
        answers.append(agent.act(now, felt))
    np.testing.assert_array_equal(answers[0], answers[1])
    assert not np.array_equal(answers[0], answers[2])


@pytest.mark.parametrize(
    ("felt", "message"),
    [
        (np.zeros((1, 2)), r"proprio must be numbers \(1, 3\), not float64 \(1, 2\)"),
        (np.full((1, 3), np.inf), r"proprio must be below 1e\+15, or NaN where it is not known"),
        (np.full((1, 3), 3e38), r"proprio must be below 1e\+15"),
        ([[1, 2], [3]], r"proprio must be numbers \(1, 3\): "),
        ([["a", "b", "c"]], "proprio must be numbers"),
    ],
)
def test_what_cannot_be_felt_is_refused(agent, path, felt, message):
    pictures = Dataset(path).pixels[np.array([5])]
    agent.reset(pictures, [0])
    with pytest.raises(UserError, match=message):
        agent.act(pictures, felt)


def test_an_agent_of_pictures_alone_feels_nothing(path, tmp_path):
    agent = PlanningAgent.load(train(debug_config(tmp_path / "model", path)), AgentConfig(objective="latent"))
    pictures = Dataset(path).pixels[np.array([5])]
    agent.reset(pictures, [0])
    with pytest.raises(UserError, match="this model knows pictures alone"):
        agent.act(pictures, np.zeros((1, 3)))


def test_a_goal_may_be_a_picture_of_one_camera(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "wrist.png")
    goal = load_goal(tmp_path / "wrist.png", (16, 32), CAMERAS, "wrist")
    np.testing.assert_array_equal(goal[:, :16], 0)
    np.testing.assert_array_equal(goal[:, 16:], square(picture, 16, "it"))


def test_a_goal_may_be_all_cameras_pictures_side_by_side(tmp_path):
    views = np.random.default_rng(0).integers(0, 256, (2, 48, 48, 3), np.uint8)
    Image.fromarray(np.concatenate([*views], axis=1)).save(tmp_path / "both.png")
    goal = load_goal(tmp_path / "both.png", (16, 32), CAMERAS, None)
    np.testing.assert_array_equal(goal, side_by_side([*views], (16, 32), "it"))


@pytest.mark.parametrize(
    ("size", "cameras", "camera", "message"),
    [
        ((16, 32), CAMERAS, "left", "--goal-camera left must be one of front, wrist"),
        ((16, 16), (), "front", "--goal-camera front is for models of several cameras; leave it out"),
        ((16, 32), CAMERAS, None, "is 40×40, not 2 squares side by side; .* --goal-camera front or wrist"),
    ],
)
def test_a_goal_that_no_camera_can_have_taken_is_refused(tmp_path, size, cameras, camera, message):
    Image.new("RGB", (40, 40)).save(tmp_path / "goal.png")
    with pytest.raises(UserError, match=message):
        load_goal(tmp_path / "goal.png", size, cameras, camera)


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        ([np.zeros((20, 20, 3), np.uint8)], "the robot must be 2 pictures, one a camera, not 1"),
        (np.zeros((20, 20, 3), np.uint8), r"the robot must be 2 pictures, one a camera, not 1"),
        ([np.zeros((20, 20, 3)), None], "the robot must be .* uint8, not float64"),
    ],
)
def test_pictures_that_are_not_one_a_camera_are_refused(pictures, message):
    with pytest.raises(UserError, match=message):
        side_by_side(pictures, (16, 32), "the robot")


class Feeling:
    """Notes what it is told."""

    action_block, num_proprio = 5, 4

    def __init__(self):
        self.told = []

    def reset(self, goals, seeds):
        self._num = len(seeds)

    def act(self, pictures, proprio=None):
        self.told.append((pictures, proprio))
        return np.full((len(pictures), 5, 2), 0.1 * len(self.told), np.float32)


def test_a_trial_tells_an_agent_what_is_felt_at_each_picture(task_trial):
    agent = Feeling()
    _, traces = task_trial.run(agent)
    for index, (pictures, proprio) in enumerate(agent.told):
        for episode, trace in enumerate(traces):
            picture = task_trial.env.picture_of(trace.states[5 * index])
            np.testing.assert_array_equal(pictures[episode], picture)
            np.testing.assert_array_equal(proprio[episode], task_trial.env.proprio)
    agent.told, agent.num_proprio = [], 0
    task_trial.run(agent)
    assert all(proprio is None for _, proprio in agent.told)


@pytest.fixture
def task_trial(tmp_path, monkeypatch):
    from jepa_mpc import envs

    monkeypatch.setenv("JEPA_MPC_HOME", str(tmp_path))
    spec, env = envs.get_task("ball_in_cup@cam0+cam1"), envs.make("ball_in_cup@cam0+cam1")
    yield Trial.on_pairs(env, replace(spec, goal_offset=5), "standard", 3, 2, budget=15)
    env.close()


def test_the_four_commands_work_for_several_cameras_and_what_is_felt(run_command, tmp_path, monkeypatch):
    monkeypatch.setenv("JEPA_MPC_HOME", str(tmp_path))
    task = ["--task", "ball_in_cup@cam0+cam1"]
    model, few = ["--checkpoint", str(tmp_path / "m")], ["--num-samples", "8", "--num-iterations", "1"]
    tell = ["--horizon", "2", "--no-video"]
    collected = run_command("collect", *task, "--num-episodes", "6", "--num-processes", "1")
    assert collected[0] == 0, collected[2]
    learned = run_command("train", *task, "--preset", "debug", "--proprio", "--output", str(tmp_path / "m"))
    assert learned[0] == 0, learned[2]
    planned = run_command("plan", *task, *model, *few, *tell, "--num-episodes", "2", "--output", str(tmp_path / "p"))
    assert planned[0] == 0, planned[2]
    told = "cameras cam0 and cam1, proprioception (4 numbers)"
    assert json.loads((tmp_path / "p" / "results.json").read_text())["checkpoint"]["declared"] == told
    assert f"| declared | {told} |" in (tmp_path / "m" / "card.md").read_text()
    assert "declared" in planned[1]
    Image.new("RGB", (80, 80), "blue").save(tmp_path / "goal.png")
    goal = ["--goal-image", str(tmp_path / "goal.png"), "--goal-camera", "cam1", "--budget", "10"]
    to_picture = run_command("plan", *task, *model, *few, *tell, *goal, "--output", str(tmp_path / "g"))
    assert to_picture[0] == 0, to_picture[2]


# What does not fit


def test_cameras_and_numbers_are_known_by_their_names(trained, path, tmp_path):
    other = tmp_path / "other.h5"
    write_dataset(other, two_views(12), replace(TWO, cameras=CAMERAS[::-1]))
    felt = tmp_path / "felt.h5"
    write_dataset(felt, two_views(12), replace(TWO, proprio_names=("x", "y", "load")))
    assert len({Dataset(each).fingerprint() for each in (path, other, felt)}) == 3
    again = {"init": str(trained), "proprio": True, "num_steps": 0}
    for each, message in (
        (other, "sees by front and wrist, not by wrist and front; name data of its own"),
        (felt, "feels x, y, speed, not x, y, load; name data of its own"),
    ):
        with pytest.raises(UserError, match=message):
            train(debug_config(tmp_path / each.stem, each, **again))


def test_another_number_of_numbers_is_refused():
    model = tiny()
    with pytest.raises(UserError, match=r"proprio must be \(..., 3\), not \(2, 4\)"):
        model.encode(Observation(noise(2, 16, 32, 3), torch.zeros(2, 4)))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"cameras": ["front"]}, r"interface.picture_size is \(32, 32\), and that of the model \(32, 64\)"),
        ({"proprio_names": ["x"]}, "interface.proprio_names are 1, and the model takes 3 numbers"),
    ],
)
def test_a_checkpoint_that_contradicts_itself_is_refused(trained, tmp_path, changed, message):
    shutil.copytree(trained, tmp_path / "copy")
    config = tmp_path / "copy/config.json"
    told = json.loads(config.read_text())
    told["interface"] |= changed
    config.write_text(json.dumps(told))
    with pytest.raises(UserError, match=message):
        load_info(tmp_path / "copy")


def test_a_calibration_is_of_one_camera(path):
    pictures = Dataset(path).pixels[:20]
    with pytest.raises(UserError, match="a calibration is of one camera's square pictures"):
        Calibration()(pictures)
    with pytest.raises(UserError, match="a calibration is of one camera's square pictures"):
        Calibration.fit(pictures, PictureStats(pictures[0], pictures[1]))


def test_a_variation_changes_each_cameras_picture_for_itself():
    views = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    chance = Chance((0.3, 0.6), np.random.default_rng(0), 1)
    for name in ("shift", "brightness", "occlusion"):
        variation = VARIATIONS[name]
        wide = variation.changed(np.concatenate([*views], axis=1), 0.5, chance)
        apart = [variation.changed(view, 0.5, chance) for view in views]
        np.testing.assert_array_equal(wide, np.concatenate(apart, axis=1))


def test_a_policy_learns_toward_goals_as_they_may_be_shown(trained, path, tmp_path):
    """Of which nothing is felt, and in which cameras are missing."""
    told = []

    def note(config, policy, data, z, z_goal=None):
        told.append((z, z_goal))
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policy_training, "policy_phase", note)
        with pytest.raises(KeyboardInterrupt):
            policy_training.train(LatentPolicyConfig(tmp_path, "gcbc", "square", trained, (path,)))
    ((z, z_goal),) = told
    model, data = load_checkpoint(trained)[0], Dataset(path)
    rows = np.arange(len(data.action))
    torch.testing.assert_close(z, encode_rows(model, data, rows))
    torch.testing.assert_close(z_goal, encode_rows(model, data, rows, dropout=0.2))
    assert not torch.allclose(z, z_goal)
