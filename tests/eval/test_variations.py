"""Pictures that are a little different: each variation by another implementation, and cameras that show them."""

import io
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from line import Line
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from jepa_mpc import envs
from jepa_mpc.agent.base import RandomAgent
from jepa_mpc.agent.calibration import Calibration
from jepa_mpc.errors import UserError
from jepa_mpc.eval.pairs import Pairs, held_out_pairs
from jepa_mpc.eval.protocols import PROTOCOLS
from jepa_mpc.eval.trial import Camera, Trial
from jepa_mpc.eval.variations import VARIATIONS, WHERES, CalibratedCamera, Chance, Variation, VariedCamera
from jepa_mpc.pictures import PictureStats

SIDE = 64
OF_PICTURES = [name for name in VARIATIONS if VARIATIONS[name].change is not None]
OF_SCENES = [name for name in VARIATIONS if VARIATIONS[name].look is not None]
ALWAYS_FRESH = ("noise", "distractor")  # in every picture of an episode


def picture(seed=0, side=SIDE):
    """Smooth and bright, with edges and all colours."""
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.uniform(0, 255, (side, side, 3)), (side / 20, side / 20, 0))
    smooth = 60 + 120 * (smooth - smooth.min()) / np.ptp(smooth)
    smooth[side // 4 : side // 2, side // 3 : side // 2] = (200, 40, 90)
    return smooth.round().astype(np.uint8)


def changed(name, shown, strength, u=0.3, v=0.6, block=0, seed=0):
    """What a variation makes of a picture, as numbers before they are rounded."""
    chance = Chance((u, v), np.random.default_rng(seed), block)
    return np.asarray(VARIATIONS[name].change(Image.fromarray(shown), strength, chance)).astype(float)


def direction(right, down):
    """The number that Chance turns into that direction."""
    return math.atan2(down, right) / (2 * math.pi) % 1


def test_each_says_what_it_is_and_has_three_strengths_that_it_allows():
    assert set(VARIATIONS) == {*OF_PICTURES, *OF_SCENES}
    for name in VARIATIONS:
        variation = VARIATIONS[name]
        far = [abs(strength - variation.nothing) for strength in variation.strengths]
        assert 0 < far[0] < far[1] < far[2]
        assert not any(map(variation.range.refuses, (*variation.strengths, variation.nothing)))
        assert variation.what.format("7") != variation.what.format("8")


@pytest.mark.parametrize("name", OF_PICTURES)
@pytest.mark.parametrize("side", [SIDE, 33])
def test_strengths_go_from_nothing_over_slight_to_strong(name, side):
    shown, variation = picture(side=side), VARIATIONS[name]
    nothing = np.abs(changed(name, shown, variation.nothing) - shown)
    assert nothing.max() <= (60 if name == "jpeg" else 0)  # even at its best, JPEG halves the pixels of colour
    differs = [np.abs(changed(name, shown, strength) - shown).mean() for strength in variation.strengths]
    assert nothing.mean() < differs[0] < differs[1] < differs[2]


@given(strength=st.floats(0, 3), seed=st.integers(0, 5))
def test_light_by_hand(strength, seed):
    shown = picture(seed)
    grey = np.array(shown @ np.array([299, 587, 114]) / 1000).round()[..., None]  # ITU-R 601
    mean = round(float(grey.mean()))
    for name, expected in (
        ("brightness", shown * strength),
        ("contrast", mean + (shown.astype(float) - mean) * strength),
    ):
        np.testing.assert_allclose(changed(name, shown, strength), expected.clip(0, 255), atol=1.6 + strength)
    if strength <= 1:
        expected = shown + strength * (grey - shown)
        np.testing.assert_allclose(changed("grey", shown, strength), expected, atol=2)


@given(strength=st.floats(0, 1), u=st.floats(0, 1, exclude_max=True))
def test_a_cast_makes_one_colour_more_of_what_others_are_less(strength, u):
    gains = changed("cast", np.full((8, 8, 3), 100, np.uint8), strength, u)[0, 0] / 100
    expected = [1 + strength * math.cos(2 * math.pi * (u + third / 3)) for third in range(3)]
    np.testing.assert_allclose(gains, expected, atol=1e-9)
    assert gains.mean() == pytest.approx(1)


def test_noise_has_its_std_and_is_new_each_time():
    shown = np.full((SIDE, SIDE, 3), 128, np.uint8)
    for strength in VARIATIONS["noise"].strengths:
        one, other = (changed("noise", shown, strength, seed=seed) - 128 for seed in range(2))
        assert one.std() == pytest.approx(strength, rel=0.04)
        assert abs(one.mean()) < 0.05 * strength
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.05


@pytest.mark.parametrize("side", [SIDE, 128])
@pytest.mark.parametrize("strength", [0.5, 1, 2])
def test_a_blur_is_gaussian_in_shares_of_the_picture(side, strength):
    shown = picture(side=side)
    sigma = strength * side / 64
    error = np.abs(
        changed("blur", shown, strength) - gaussian_filter(shown.astype(float), (sigma, sigma, 0), mode="nearest")
    )
    assert error.mean() < 0.8  # Pillow repeats boxes instead, and rounds after each
    assert error.max() < 8
    edge = np.zeros((side, side, 3), np.uint8)
    edge[:, side // 2 :] = 255
    slope, x = np.diff(changed("blur", edge, strength)[0, :, 0]) / 255, np.arange(side - 1)
    assert math.sqrt(slope @ np.square(x - slope @ x)) == pytest.approx(sigma, rel=0.04)


@given(st.integers(0, 100))
def test_jpeg_is_pillows_own(quality):
    shown, file = picture(), io.BytesIO()
    Image.fromarray(shown).save(file, format="jpeg", quality=quality)
    np.testing.assert_array_equal(changed("jpeg", shown, quality), np.asarray(Image.open(file)))
    np.testing.assert_array_equal(changed("jpeg", shown, quality + 0.2), changed("jpeg", shown, quality))


@pytest.mark.parametrize(("side", "right", "down"), [(64, 3, 0), (64, 0, 2), (64, -5, 0), (64, 0, -16), (128, 6, 0)])
def test_a_shift_by_whole_pixels_is_a_roll_and_beyond_the_edge_the_edge_goes_on(side, right, down):
    shown = picture(side=side)
    strength = math.hypot(right, down) * 64 / side
    columns, rows = (np.clip(np.arange(side) - by, 0, side - 1) for by in (right, down))
    seen = changed("shift", shown, strength, v=direction(right, down))
    np.testing.assert_allclose(seen, shown[rows][:, columns], atol=1)
    inside = np.s_[16:-16, 16:-16]
    np.testing.assert_allclose(seen[inside], np.roll(shown, (down, right), (0, 1))[inside], atol=1)


@pytest.mark.parametrize(("u", "quarters"), [(0.2, -1), (0.7, 1)])
def test_turns_are_about_the_middle_either_way(u, quarters):
    shown = picture()
    np.testing.assert_allclose(changed("rotation", shown, 90, u), np.rot90(shown, quarters), atol=1)
    np.testing.assert_allclose(changed("rotation", shown, 180, u), np.rot90(shown, 2), atol=1)
    # By other angles it is what interpolating with SciPy gives.
    angle, middle = math.radians(8) * quarters, (SIDE - 1) / 2
    y, x = np.mgrid[:SIDE, :SIDE] - middle
    back = math.cos(angle) * y + math.sin(angle) * x + middle, math.cos(angle) * x - math.sin(angle) * y + middle
    expected = [
        map_coordinates(colour, back, order=1, mode="nearest") for colour in np.moveaxis(shown.astype(float), -1, 0)
    ]
    np.testing.assert_allclose(changed("rotation", shown, 8, u), np.stack(expected, -1), atol=1.5)


def test_larger_or_smaller_by_a_known_factor():
    shown = picture()
    middle = (SIDE - 1) / 2
    for u, factor in ((0.2, 1.25), (0.7, 0.75), (0.7, 0.5)):
        y, x = (np.mgrid[:SIDE, :SIDE] - middle) / factor + middle
        expected = [
            map_coordinates(colour, (y, x), order=1, mode="nearest")
            for colour in np.moveaxis(shown.astype(float), -1, 0)
        ]
        np.testing.assert_allclose(changed("zoom", shown, abs(factor - 1), u), np.stack(expected, -1), atol=1.5)


@given(
    name=st.sampled_from(["shift", "rotation", "zoom"]),
    share=st.floats(0, 1),
    u=st.floats(0, 1, exclude_max=True),
    v=st.floats(0, 1, exclude_max=True),
)
def test_beyond_the_edge_there_is_never_black(name, share, u, v):
    white = np.full((SIDE, SIDE, 3), 255, np.uint8)
    assert changed(name, white, share * VARIATIONS[name].range.high, u, v).min() >= 254


@given(
    strength=st.floats(0, 1),
    u=st.floats(0, 1, exclude_max=True),
    v=st.floats(0, 1, exclude_max=True),
    side=st.sampled_from([16, 33, SIDE]),
)
def test_what_is_covered_is_a_square_of_its_share(strength, u, v, side):
    shown = np.zeros((side, side, 3), np.uint8)
    covered = changed("occlusion", shown, strength, u, v)[..., 0] == 128
    edge = round(side * math.sqrt(strength))
    assert covered.sum() == edge**2
    if edge:
        rows, columns = (np.flatnonzero(covered.any(axis)) for axis in (1, 0))
        assert len(rows) == len(columns) == edge
        # It may lie anywhere inside, in proportion to the two numbers.
        assert columns[0] == pytest.approx(u * (side - edge), abs=0.51)
        assert rows[0] == pytest.approx(v * (side - edge), abs=0.51)


def test_the_ball_rolls_between_blocks_and_stays_inside():
    shown = np.full((SIDE, SIDE, 3), 200, np.uint8)
    for u, v in ((0.3, 0.6), (0.99, 0.01), (0.0, 0.0)):
        places = []
        for block in range(60):
            seen = changed("distractor", shown, 8, u, v, block)
            ball = (seen != 200).any(-1)
            rows, columns = (np.flatnonzero(ball.any(axis)) for axis in (1, 0))
            assert 4 <= len(columns) <= 8
            assert 4 <= len(rows) <= 8  # half of it may be beyond the edge
            places.append((columns.mean(), rows.mean()))
        steps = np.abs(np.diff(places, axis=0))
        assert (steps.sum(1) > 0).all()
        assert steps.max() < 0.07 * SIDE
        assert np.ptp(places, axis=0).min() > 0.8 * SIDE  # and sees all of the picture
    np.testing.assert_array_equal(
        changed("distractor", shown, 8, block=5, seed=1), changed("distractor", shown, 8, block=5)
    )
    across = [(changed("distractor", shown, each, 0.5, 0.5) != 200).any(-1).any(0).sum() for each in (4, 8, 12)]
    assert across == [4, 8, 12]


class Scene(Line):
    """A line whose picture has structure, and moves by a pixel as x does by one."""

    def __init__(self, image_size=SIDE, fast_rendering=True):
        super().__init__(image_size, fast_rendering)
        self._shown = picture(side=image_size)

    def render(self):
        return np.roll(self._shown, round(self.x), axis=1)


def pairs_of(env, states, goals):
    pictures = np.stack([np.array(env.picture_of(np.atleast_1d(goal))) for goal in goals])
    return Pairs(
        np.stack([np.atleast_1d(each) for each in states]),
        *[np.stack([np.atleast_1d(each) for each in goals])] * 2,
        pictures,
    )


@pytest.fixture(scope="module")
def arm():
    return envs.make("reacher")


@pytest.fixture(scope="module")
def arms_pairs(arm, tmp_path_factory):
    return held_out_pairs(arm, envs.get_task("reacher"), 11, 4, tmp_path_factory.mktemp("goals"), far=True)


def camera(name, where="camera", strength=None, seed=0):
    variation = VARIATIONS[name]
    return VariedCamera(variation, variation.strengths[2] if strength is None else strength, where, seed)


@pytest.mark.parametrize("name", list(VARIATIONS))
def test_goals_differ_where_they_are_to_and_are_then_what_the_camera_shows(name, arm, arms_pairs):
    for where in WHERES:
        goals = camera(name, where).goals(arm, arms_pairs, 0)
        assert (goals is arms_pairs.goal_picture) == (where != "both")
    goals = camera(name, "both").goals(arm, arms_pairs, 0)
    assert goals.shape == arms_pairs.goal_picture.shape
    assert np.abs(goals.astype(int) - arms_pairs.goal_picture).reshape(len(goals), -1).mean(1).min() > 0.3
    for pair, (state, goal) in enumerate(zip(arms_pairs.goal_state, goals, strict=True)):
        arm.set_state(state)
        shown = camera(name, "both").picture(arm, pair, 3, 10)
        assert np.array_equal(shown, goal) == (name not in ALWAYS_FRESH)
    plain = camera(name, "both", VARIATIONS[name].nothing).goals(arm, arms_pairs, 0)
    np.testing.assert_array_equal(plain, arms_pairs.goal_picture)


@pytest.mark.parametrize("name", list(VARIATIONS))
def test_a_drift_begins_with_the_plain_picture_and_ends_with_the_full_one(name, arm, arms_pairs):
    plain = np.array(arm.picture_of(arms_pairs.start_state[1]))
    shown = [camera(name, "drift").picture(arm, 1, block, 8).astype(int) for block in range(9)]
    np.testing.assert_array_equal(shown[0], plain)
    np.testing.assert_array_equal(shown[8], camera(name, "camera").picture(arm, 1, 8, 8))
    if name in ("distractor", "light"):  # the ball rolls on, and under a lamp that turns some places grow darker again
        return
    far = np.array([np.abs(each - plain).mean() for each in shown])
    assert (np.diff(far) > -0.35).all()
    assert far[2] < far[5] < far[8]


@pytest.mark.parametrize("name", list(VARIATIONS))
def test_an_episodes_draw_is_its_own_and_stays(name, arm, arms_pairs):
    arm.set_state(arms_pairs.start_state[0])

    def shown(pair, block, seed=0, num_blocks=10):
        return camera(name, seed=seed).picture(arm, pair, block, num_blocks)

    first = shown(0, 2)
    np.testing.assert_array_equal(shown(0, 2, num_blocks=20), first)
    assert np.array_equal(shown(0, 7), first) == (name not in ALWAYS_FRESH)
    if name not in ("brightness", "contrast", "grey", "blur", "jpeg"):  # of which there is one kind
        pictures = {shown(pair, 2, seed).tobytes() for pair in range(4) for seed in range(4)}
        assert len(pictures) > (2 if name in ("rotation", "zoom") else 15) - 1


@pytest.mark.parametrize("name", OF_SCENES)
def test_scenes_get_their_own_looks_back_and_states_stay(name, arm, arms_pairs, monkeypatch):
    arm.set_state(arms_pairs.start_state[2])
    arm.advance(np.array([0.5, -0.5]))
    state, before = arm.get_state(), np.array(arm.render())
    varied = camera(name).picture(arm, 2, 0, 10)
    assert np.abs(varied.astype(int) - before).mean() > 1
    np.testing.assert_array_equal(arm.get_state(), state)
    np.testing.assert_array_equal(arm.render(), before)
    render = type(arm).render
    monkeypatch.setattr(type(arm), "render", lambda self: (_ for _ in ()).throw(UserError("no picture")))
    with pytest.raises(UserError, match="no picture"):
        camera(name).picture(arm, 2, 0, 10)
    monkeypatch.setattr(type(arm), "render", render)
    np.testing.assert_array_equal(arm.render(), before)


@pytest.mark.parametrize("name", OF_SCENES)
def test_how_far_a_scene_differs_goes_by_the_strength(name, arm, arms_pairs):
    arm.set_state(arms_pairs.start_state[0])
    plain = np.array(arm.render()).astype(int)
    differs = [
        np.mean([np.abs(camera(name, strength=each).picture(arm, pair, 0, 1) - plain).mean() for pair in range(8)])
        for each in VARIATIONS[name].strengths
    ]
    assert 0 < differs[0] < differs[1] < differs[2]


def test_only_simulators_with_looks_offer_what_changes_the_scene(arm):
    line, two_room = Line(), envs.make("two_room")
    for name in VARIATIONS:
        assert VARIATIONS[name].offered_by(arm)
        for env in (line, two_room):
            assert VARIATIONS[name].offered_by(env) == (name in OF_PICTURES)


class Recorder(RandomAgent):
    """Acts at random, and remembers what it was shown."""

    def reset(self, goals, seeds):
        super().reset(goals, seeds)
        self.__dict__.setdefault("goals", []).append(goals)
        self.__dict__.setdefault("batches", []).append([])

    def act(self, pictures):
        self.batches[-1].append(pictures)
        return super().act(pictures)

    def seen(self):
        """Returns goals (N, H, W, 3), and pictures (N, K, H, W, 3)."""
        return np.concatenate(self.goals), np.concatenate([np.stack(batch, axis=1) for batch in self.batches])


def run(env, spec, pairs, batch_size=50, budget=20, **settings):
    agent = Recorder(env.action_space, spec.action_block)
    trial = Trial(env, spec, pairs, PROTOCOLS["far"], seed=3, budget=budget, **settings)
    records, traces = trial.run(agent, batch_size=batch_size)
    return records, traces, *agent.seen()


def test_the_usual_camera_shows_what_the_simulator_draws(arm, arms_pairs):
    spec = envs.get_task("reacher")
    records, traces, goals, pictures = run(arm, spec, arms_pairs)
    np.testing.assert_array_equal(goals, arms_pairs.goal_picture)
    for trace, shown in zip(traces, pictures, strict=True):
        np.testing.assert_array_equal(trace.pictures[:-1], shown)
        drawn = [np.array(arm.picture_of(state)) for state in trace.states[:: spec.action_block]]
        np.testing.assert_array_equal(trace.pictures, drawn)
    # However its pictures are taken, an episode of such an agent comes to the same, and is judged the same.
    for other in (Camera(), camera("blur"), camera("camera", "both"), camera("noise", "drift")):
        again, others, *_ = run(arm, spec, arms_pairs, camera=other)
        assert again == records
        for one, another in zip(traces, others, strict=True):
            np.testing.assert_array_equal(one.states, another.states)


@pytest.mark.parametrize("name", ["noise", "distractor", "shift", "light"])
@pytest.mark.parametrize("where", WHERES)
def test_neither_batches_nor_the_number_of_pairs_change_what_is_shown(name, where, arm, arms_pairs):
    spec = envs.get_task("reacher")
    _, _, goals, pictures = run(arm, spec, arms_pairs, camera=camera(name, where))
    assert np.abs(pictures[:, -1].astype(int) - run(arm, spec, arms_pairs)[3][:, -1]).mean() > 0.1
    for some, batch_size in ((4, 3), (4, 1), (2, 50)):
        _, _, fewer, shown = run(arm, spec, arms_pairs[:some], batch_size, camera=camera(name, where))
        np.testing.assert_array_equal(fewer, goals[:some])
        np.testing.assert_array_equal(shown, pictures[:some])


def test_a_calibrated_camera_shows_what_trainings_would():
    """A camera that is darker and shifted comes out as training's, up to resampling: the camera's, and the goals."""
    env = Scene()
    starts = np.zeros((6, 1))  # what stands still is all there is to calibrate by
    pairs = pairs_of(env, starts[:2], [0.0, 2.0])
    usual = PictureStats(np.array(env.picture_of(starts[0])), np.zeros((SIDE, SIDE, 3), np.uint8))
    for where in ("camera", "both"):
        for name in ("shift", "cast", "zoom"):
            varied = camera(name, where, VARIATIONS[name].strengths[1])
            calibrated = CalibratedCamera(varied, usual, 3, starts)
            env.set_state(np.array([1.0]))
            expected = np.array(env.render())
            before, after = (each.picture(env, 1, 0, 4) for each in (varied, calibrated))
            np.testing.assert_array_equal(env.get_state(), [1.0])
            off, left = (np.abs(each.astype(int) - expected)[8:-8, 8:-8].mean() for each in (before, after))
            assert left < 3 < off, (name, off, left)
            goals = calibrated.goals(env, pairs, 0)
            if where == "camera":
                assert goals is pairs.goal_picture
            else:
                off, left = (
                    np.abs(each.astype(int) - pairs.goal_picture)[:, 8:-8, 8:-8].mean()
                    for each in (varied.goals(env, pairs, 0), goals)
                )
                assert left < 3 < off, (name, off, left)


def test_a_camera_is_calibrated_once_an_episode_by_other_episodes_starts(arm, arms_pairs, monkeypatch):
    shown = np.stack([np.array(arm.picture_of(state)) for state in arms_pairs.start_state])
    usual = PictureStats(shown.mean(0).astype(np.uint8), np.full(shown.shape[1:], 9, np.uint8))
    fitted, fit = [], Calibration.fit
    monkeypatch.setattr(
        Calibration, "fit", lambda pictures, *stats: (fitted.append(pictures), fit(pictures, *stats))[1]
    )
    calibrated = CalibratedCamera(camera("brightness", strength=1.0), usual, 2, arms_pairs.start_state)
    run(arm, envs.get_task("reacher"), arms_pairs, camera=calibrated)
    assert len(fitted) == 4
    for pair, pictures in enumerate(fitted):
        np.testing.assert_array_equal(pictures, [shown[(pair + 1) % 4], shown[(pair + 2) % 4]])


def test_a_camera_that_shows_nothing_is_left_as_it_is():
    env = Scene()
    usual = PictureStats(np.array(env.picture_of(np.zeros(1))), np.zeros((SIDE, SIDE, 3), np.uint8))
    dark = camera("brightness", strength=0.0)
    assert not CalibratedCamera(dark, usual, 2, np.zeros((4, 1))).picture(env, 0, 0, 1).any()


def test_typed_strengths_are_read_or_refused():
    assert VARIATIONS["shift"].strength("2.5") == 2.5
    assert VARIATIONS["jpeg"].strength("0") == 0
    assert str(VARIATIONS["shift"].strength("-0")) == "0.0"
    for name, text, message in (
        ("shift", "x", "its strength must be a number, not 'x'"),
        ("shift", "-1", r"its strength, as in 'shifted by … px of 64', must be 0 to 16, not -1"),
        ("noise", "nan", "must be a finite number, not nan"),
        ("jpeg", "101", "must be 0 to 100, not 101"),
    ):
        with pytest.raises(UserError, match=message):
            VARIATIONS[name].strength(text)


def same(picture, strength, chance):
    return picture


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "Variation: change or look must be given, and not both"),
        ({"change": same, "look": "light"}, "Variation: change or look must be given, and not both"),
        ({"change": 5}, "Variation: change must be a function of 3 arguments"),
        ({"change": lambda picture: picture}, "Variation: change must be a function of 3 arguments"),
        ({"look": "bogus"}, "Variation: look must be camera or light or colour, not 'bogus'"),
        ({"strengths": ("a", "b", "c")}, "Variation: strengths must be float, not 'a'"),
        ({"strengths": ()}, "Variation: strengths must have 3 entries, not 0"),
        ({"strengths": (math.nan, 1, 2)}, "Variation: strengths must be a finite number, not nan"),
        ({"change": same, "strengths": (-1, -2, -3)}, "Variation: strengths must be at least 0, not -1"),
        ({"change": same, "what": "without"}, "Variation: what must be one line of words with {} for the strength"),
        ({"change": same, "what": "{strength}"}, "Variation: what must be one line"),
        ({"change": same, "what": "a | {}"}, "Variation: what must be one line"),
        ({"change": same, "nothing": "no"}, "Variation: nothing must be float, not 'no'"),
    ],
)
def test_a_variation_of_ones_own_is_held_against_what_it_must_be(settings, message):
    with pytest.raises(UserError, match=re.escape(message)):
        Variation(**{"what": "by {}", "strengths": (1, 2, 3), **settings})


@pytest.mark.parametrize(
    ("made", "found"),
    [
        (lambda shown: None, "not object ()"),
        (lambda shown: np.full(np.shape(shown), np.nan), "not float64 (64, 64, 3) with numbers that are not finite"),
        (lambda shown: np.zeros((10, 10, 3)), "not float64 (10, 10, 3)"),
        (lambda shown: shown.convert("L"), "not uint8 (64, 64)"),
        (lambda shown: shown.convert("RGBA"), "not uint8 (64, 64, 4)"),
    ],
)
def test_what_is_no_picture_any_more_is_refused_by_its_name(made, found):
    own = Variation("by {}", (1, 2, 3), lambda shown, strength, chance: made(shown))
    with pytest.raises(UserError, match=re.escape("the variation 'by {}' must make pictures (64, 64, 3)")) as caught:
        own.changed(picture(), 1, Chance((0.5, 0.5), np.random.default_rng(0), 0))
    assert str(caught.value).endswith(found)
