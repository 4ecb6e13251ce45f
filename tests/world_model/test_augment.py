"""Pictures varied for training: every way by hand or by SciPy's, how often each is drawn, which frames share one."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from jepa_mpc.errors import UserError
from jepa_mpc.settings import checked
from jepa_mpc.world_model.data.augment import AugmentConfig, Draws, augment, draw, vary
from jepa_mpc.world_model.training.config import TrainConfig

NONE = AugmentConfig(0, 0, brightness=1, contrast=1, cast=0, grey=0, noise=0, blur=0, shift=0, angle=0, zoom=0)
# The only thing that these vary changes a frame's brightness, so that the frame tells which draw is its own.
FADING = replace(NONE, brightness=2.0)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def windows(B, T, side=16, seed=0):
    return torch.randint(0, 256, (B, T, side, side, 3), dtype=torch.uint8, generator=seeded(seed))


def blobs(num, side=64, seed=0):
    """Pictures (N, 3, H, W) that are smooth, so that ways to interpolate agree."""
    noise = np.random.default_rng(seed).uniform(0, 255, (num, 3, side, side))
    smooth = ndimage.gaussian_filter(noise, (0, 0, side / 20, side / 20))
    return torch.from_numpy(100 + 8 * (smooth - smooth.mean())).clamp(0, 255).float()


def ways(num, **changes):
    """So many draws that leave pictures as they are, but for these."""
    eye = torch.eye(3)
    unchanged = {
        "colour": torch.cat([eye, torch.zeros(3, 1)], dim=1).expand(num, 3, 4),
        "place": eye[:2].expand(num, 2, 3),
        "moved": torch.zeros(num, dtype=torch.bool),
        "variance": torch.zeros(num),
        "noise": torch.zeros(num),
        "stretch": torch.zeros(num, dtype=torch.long),
    }
    return Draws(**{**unchanged, **changes})


def drawn(config, num=4000, side=64, seed=0):
    return draw(config, num, side, seeded(seed))


def factors(colour):
    """The eigenvalues (N, 3) of colour matrices, the largest first."""
    return torch.linalg.eigvals(colour[:, :, :3]).real.sort(dim=1, descending=True).values


def test_without_settings_pictures_are_the_very_same_and_nothing_is_drawn():
    pixels, generator = windows(2, 3), seeded()
    assert augment(pixels, None, generator) is pixels
    assert torch.equal(torch.rand(5, generator=generator), torch.rand(5, generator=seeded()))


@pytest.mark.parametrize("config", [AugmentConfig(clean=1), NONE], ids=["clean", "nothing to vary"])
def test_what_is_not_varied_keeps_its_numbers(config):
    pixels = windows(4, 3)
    varied = augment(pixels, config, seeded())
    assert varied.shape == pixels.shape
    assert varied.dtype == torch.float32
    torch.testing.assert_close(varied, pixels.float(), rtol=0, atol=0 if config.clean else 1e-3)


def test_what_it_is_given_stays_as_it_was():
    pixels = windows(4, 3)
    before = pixels.clone()
    assert not torch.equal(augment(pixels, AugmentConfig(clean=0), seeded()), pixels.float())
    assert torch.equal(pixels, before)


def test_the_generator_decides_all():
    pixels = windows(6, 4)
    first, again, other = (augment(pixels, AugmentConfig(), seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_training_varies_only_where_it_is_asked_to():
    config = TrainConfig(output=None, augment=False, augmentation=replace(NONE, blur=2.0))
    assert config.applied_augmentation is None
    assert replace(config, augment=True).applied_augmentation == replace(NONE, blur=2.0)


# Colour.


def test_brightness_is_a_factor_of_all_colours():
    most = 2.5
    colour = drawn(replace(NONE, brightness=most)).colour
    factor = colour[:, 0, 0]
    torch.testing.assert_close(colour[:, :, :3], factor[:, None, None] * torch.eye(3).expand_as(colour[:, :, :3]))
    torch.testing.assert_close(colour[:, :, 3], torch.zeros(len(colour), 3))
    logs = factor.log() / math.log(most)
    np.testing.assert_allclose(logs.quantile(torch.tensor([0, 0.5, 1.0])), [-1, -0.25, 0.5], atol=0.04)
    pictures = blobs(2)
    fainter = (factor[:2, None, None, None] * pictures).clamp(max=255)
    torch.testing.assert_close(vary(pictures.clone(), ways(2, colour=colour[:2])), fainter)


def test_contrast_turns_about_100():
    most = 3.0
    colour = drawn(replace(NONE, contrast=most)).colour
    factor = colour[:, 0, 0]
    logs = factor.log() / math.log(most)
    np.testing.assert_allclose(logs.quantile(torch.tensor([0, 0.5, 1.0])), [-1, -0.25, 0.5], atol=0.04)
    levels = torch.tensor([60.0, 100.0, 140.0])[:, None].expand(3, 3)  # of three pixels, grey
    seen = torch.einsum("nij,pj->npi", colour[:, :, :3], levels) + colour[:, None, :, 3]
    expected = torch.stack([100 - 40 * factor, 100 + 0 * factor, 100 + 40 * factor], dim=1)
    torch.testing.assert_close(seen, expected[:, :, None].expand_as(seen), rtol=0, atol=1e-3)


def test_a_cast_weighs_each_colour_by_itself():
    colour = drawn(replace(NONE, cast=0.3)).colour
    gains = colour[:, :, :3].diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(colour[:, :, :3], torch.diag_embed(gains))
    np.testing.assert_allclose(gains.amin(0), 0.7, atol=0.01)
    np.testing.assert_allclose(gains.amax(0), 1.3, atol=0.01)
    np.testing.assert_allclose(np.corrcoef(gains.T), np.eye(3), atol=0.06)


def test_a_loss_of_colour_leads_to_the_luminance():
    luminance = torch.tensor([0.299, 0.587, 0.114])
    colour = drawn(replace(NONE, grey=0.8)).colour
    kept = factors(colour)[:, 1]  # a grey stays as it is; all else is kept so far
    touched = kept < 1 - 1e-6
    assert touched.float().mean() == pytest.approx(0.3, abs=0.03)
    assert kept.min() == pytest.approx(0.2, abs=0.01)
    pixel = torch.tensor([10.0, 200.0, 90.0])
    mixed = kept[:, None] * pixel + (1 - kept[:, None]) * (luminance @ pixel)
    torch.testing.assert_close(colour[:, :, :3] @ pixel + colour[:, :, 3], mixed, rtol=1e-4, atol=1e-2)


def test_contrast_comes_first_and_the_gains_after_it():
    """All together, with the parts read back from a draw: gain · (contrast · (M p − 100) + 100)."""
    config = replace(NONE, brightness=2.0, contrast=2.0, cast=0.3, grey=1.0)
    colour, pixel = drawn(config, num=500).colour, torch.tensor([30.0, 180.0, 120.0])
    matrix, added = colour[:, :, :3], colour[:, :, 3]
    scale = matrix.sum(2)  # gain · contrast, for M leaves a grey as it is
    gain = (added + 100 * scale) / 100
    contrast = scale / gain
    np.testing.assert_allclose(contrast, contrast[:, :1].expand(-1, 3), rtol=1e-3)
    assert gain.min() < 0.5
    assert contrast.max() > 1.3
    lost = 1 - matrix[:, 0, 0] / scale[:, 0]
    lost = lost / (1 - 0.299)
    toward = (1 - lost[:, None]) * pixel + lost[:, None] * (torch.tensor([0.299, 0.587, 0.114]) @ pixel)
    by_hand = gain * (contrast * (toward - 100) + 100)
    torch.testing.assert_close(matrix @ pixel + added, by_hand, rtol=1e-3, atol=1e-2)


# Place.


def shifted(pictures, right, down):
    """Moves pictures by so many pixels."""
    N, side = len(pictures), pictures.shape[-1]
    place = torch.eye(3)[:2].repeat(N, 1, 1)
    place[:, 0, 2], place[:, 1, 2] = -2 * right / side, -2 * down / side  # where the result is taken from
    return vary(pictures.clone(), ways(N, place=place, moved=torch.ones(N, dtype=torch.bool)))


@pytest.mark.parametrize(("right", "down"), [(3, 0), (0, -2), (-4, 5)])
def test_a_shift_by_whole_pixels_is_a_roll_inside(right, down):
    pictures = windows(2, 1)[:, 0].permute(0, 3, 1, 2).float()
    inside = (..., slice(5, -5), slice(5, -5))
    rolled = pictures.roll((right, down), dims=(3, 2))
    torch.testing.assert_close(shifted(pictures, right, down)[inside], rolled[inside], rtol=0, atol=0.01)


def test_beyond_the_edge_lies_what_is_at_the_edge():
    pictures = windows(1, 1)[:, 0].permute(0, 3, 1, 2).float()
    torch.testing.assert_close(
        shifted(pictures, 3, 0)[..., :3], pictures[..., :1].expand(-1, -1, -1, 3), rtol=0, atol=0.01
    )


def test_a_turn_a_zoom_and_a_shift_are_as_scipy_has_them():
    config = replace(NONE, shift=5, angle=12, zoom=0.2)
    draws, pictures = drawn(config, num=12), blobs(12)
    assert draws.moved.any()
    varied = vary(pictures.clone(), draws)
    middle = np.array([31.5, 31.5])
    for place, moved, before, after in zip(draws.place.numpy(), draws.moved, pictures, varied, strict=True):
        if not moved:
            assert torch.equal(after, before)
            continue
        matrix = place[::-1, 1::-1]  # rows before columns
        offset = middle + 32 * place[::-1, 2] - matrix @ middle
        for channel, expected in zip(after, before, strict=True):
            found = ndimage.affine_transform(expected, matrix, offset, order=1, mode="nearest")
            np.testing.assert_allclose(channel, found, atol=0.05)


def test_places_are_turned_scaled_and_shifted_by_no_more_than_the_most():
    for side in (64, 128):
        place = drawn(replace(NONE, shift=5, angle=6, zoom=0.1), side=side).place
        turn, scale = torch.atan2(place[:, 1, 0], place[:, 0, 0]).rad2deg(), 1 / place[:, :, :2].det().sqrt()
        pixels = place[:, :, 2] * side / 2
        for values, most in (
            (turn, 6.0),
            (scale - 1, 0.1),
            (pixels[:, 0], side / 64 * 5),
            (pixels[:, 1], side / 64 * 5),
        ):
            np.testing.assert_allclose(values.quantile(torch.tensor([0, 0.5, 1])) / most, [-1, 0, 1], atol=0.05)
        torch.testing.assert_close(place[:, 0, 0], place[:, 1, 1])  # a turn and a scale, and nothing oblique
        torch.testing.assert_close(place[:, 0, 1], -place[:, 1, 0])


# Blur and noise.


@pytest.mark.parametrize("variance", [0.3, 0.5, 1.7, 4.0])
def test_a_blurs_variance_is_what_was_drawn_along_both_axes(variance):
    """Of a single bright pixel, through as many passes as it takes, the last of them a part."""
    picture, axis = torch.zeros(2, 3, 33, 33), torch.arange(33) - 16.0
    picture[:, :, 16, 16] = 200
    blurred = vary(picture.clone(), ways(2, variance=torch.tensor([0.0, variance])))
    assert torch.equal(blurred[0], picture[0])
    for channel in blurred[1] / 200:
        assert channel.sum() == pytest.approx(1, abs=1e-4)
        for along in (0, 1):
            assert (channel.sum(along) * axis).sum() == pytest.approx(0, abs=1e-4)
            assert (channel.sum(along) * axis**2).sum() == pytest.approx(variance, rel=1e-3)


def test_a_blur_is_much_like_a_gaussian():
    pictures = windows(1, 1, side=48)[:, 0].permute(0, 3, 1, 2).float()
    found = vary(pictures.clone(), ways(1, variance=torch.tensor([4.0]))).numpy()
    expected = ndimage.gaussian_filter(pictures.numpy(), (0, 0, 2, 2))
    inside = (..., slice(9, -9), slice(9, -9))
    assert np.abs(found - expected)[inside].max() < 0.15 * expected[inside].std()


def test_blurs_and_noise_are_seldom_and_up_to_the_most():
    for side in (64, 32):
        draws = drawn(replace(NONE, blur=1.5, noise=25), side=side)
        for values, most in ((draws.variance.sqrt(), 1.5 * side / 64), (draws.noise, 25)):
            some = values[values > 0] / most
            assert len(some) / 4000 == pytest.approx(0.3, abs=0.03)
            np.testing.assert_allclose(some.quantile(torch.tensor([0, 0.5, 1])), [0, 0.5, 1], atol=0.05)
        both = ((draws.variance > 0) & (draws.noise > 0)).float().mean()
        assert both == pytest.approx(0.09, abs=0.02)  # each by its own chance


def test_noise_has_its_std_and_is_anothers_for_each_stretch():
    middle = torch.full((3, 3, 64, 64), 128.0)
    stretch, std = torch.tensor([0, 0, 2**20 - 1]), torch.tensor([0.0, 20.0, 20.0])
    plain, one, other = vary(middle.clone(), ways(3, noise=std, stretch=stretch))
    assert torch.equal(plain, middle[0])
    noise = torch.stack([one, other]) - 128
    np.testing.assert_allclose(noise.std((1, 2, 3)), 20, rtol=0.02)
    np.testing.assert_allclose(noise.mean((1, 2, 3)), 0, atol=0.6)
    correlation = np.corrcoef([*one.flatten(1).numpy(), *other.flatten(1).numpy()])  # of colours and stretches
    np.testing.assert_allclose(correlation, np.eye(6), atol=0.06)


def test_stretches_of_noise_begin_all_over_the_bank():
    stretch = drawn(AugmentConfig()).stretch
    np.testing.assert_allclose(
        stretch.double().quantile(torch.tensor([0, 0.5, 1.0]).double()) / 2**20, [0, 0.5, 1], atol=0.03
    )


# What frames share.


def brightness_of(varied):
    """Of windows of one level, the level (B, T)."""
    assert (varied - varied[..., :1, :1, :1]).abs().max() < 1e-3
    return varied[..., 0, 0, 0]


@pytest.mark.parametrize("change", [0.0, 0.25, 0.6, 1.0])
@pytest.mark.parametrize("T", [2, 3, 8])
def test_a_frame_has_another_draw_than_the_one_before_it_as_often_as_is_said(T, change):
    pixels = torch.full((2000, T, 2, 2, 3), 100, dtype=torch.uint8)
    level = brightness_of(augment(pixels, replace(FADING, change=change), seeded(T)))
    changed = (level.diff(dim=1).abs() > 1e-4).float().mean(0)
    np.testing.assert_allclose(changed, change, atol=0.05 if 0 < change < 1 else 2e-3)  # at every place alike
    assert len(level[:, 0].unique()) > 1900  # windows have draws of their own


def test_a_draw_once_left_does_not_come_back():
    pixels = torch.full((500, 6, 2, 2, 3), 100, dtype=torch.uint8)
    for window in brightness_of(augment(pixels, replace(FADING, change=0.5), seeded())):
        runs = 1 + int((window.diff().abs() > 1e-4).sum())
        assert len((window * 1e3).round().unique()) == runs


def test_frames_of_one_draw_are_moved_and_coloured_alike_so_motion_is_as_it_was():
    """A spot that goes right by two pixels a frame goes on doing so, wherever it is seen, in one colour."""
    pixels, down, right = torch.zeros(50, 4, 32, 32, 3, dtype=torch.uint8), 14, 10
    for frame in range(4):
        pixels[:, frame, down : down + 4, right + 2 * frame : right + 2 * frame + 4] = torch.tensor(
            [200, 120, 60]
        ).byte()
    config = replace(NONE, shift=5, brightness=2.0, cast=0.3)
    varied = augment(pixels, config, seeded())
    weight = varied.sum(-1) + 1e-9
    centre = (weight.sum(2) * torch.arange(32.0)).sum(-1) / weight.sum((2, 3))
    torch.testing.assert_close(centre.diff(dim=1), torch.full((50, 3), 2.0), rtol=0, atol=1e-2)
    whole = varied.sum((2, 3))
    torch.testing.assert_close(whole, whole[:, :1].expand_as(whole), rtol=1e-4, atol=0.1)
    assert centre[:, 0].std() > 0.5


def test_a_share_of_the_draws_is_clean():
    pixels = windows(3000, 1, side=4)
    varied = augment(pixels, replace(AugmentConfig(), clean=0.4), seeded())
    untouched = (varied == pixels).flatten(1).all(1).float().mean()
    assert untouched == pytest.approx(0.4, abs=0.03)
    moved = drawn(replace(AugmentConfig(), clean=0.4)).moved.float().mean()
    assert moved == pytest.approx(0.6 * 0.7, abs=0.03)


def test_a_window_is_varied_as_its_place_in_the_batch_says_whatever_else_is_there():
    pixels = windows(6, 3)
    varied = augment(pixels, AugmentConfig(), seeded())
    others = pixels.clone()
    others[1:] = windows(5, 3, seed=9)
    torch.testing.assert_close(augment(others, AugmentConfig(), seeded())[0], varied[0])


# Whatever the settings.

CONFIGS = st.builds(
    AugmentConfig,
    clean=st.floats(0, 1),
    change=st.floats(0, 1),
    brightness=st.floats(1, 100),
    contrast=st.floats(1, 100),
    cast=st.floats(0, 1),
    grey=st.floats(0, 1),
    noise=st.floats(0, 255),
    blur=st.floats(0, 3),
    shift=st.floats(0, 64),
    angle=st.floats(0, 180),
    zoom=st.floats(0, 0.5),
)


@given(CONFIGS, st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 5), st.sampled_from([8, 16, 30]))
def test_values_stay_those_of_a_picture(config, seed, B, T, side):
    varied = augment(windows(B, T, side), config, seeded(seed))
    assert varied.shape == (B, T, side, side, 3)
    assert (varied >= 0).all()
    assert (varied <= 255).all()


@given(CONFIGS, st.integers(0, 2**32), st.sampled_from([32, 64, 224]))
def test_draws_are_within_their_ranges(config, seed, side):
    draws, unit = draw(config, 50, side, seeded(seed)), side / 64
    assert (draws.variance.sqrt() <= config.blur * unit * 1.001).all()
    assert ((draws.noise >= 0) & (draws.noise <= config.noise * 1.001)).all()
    assert (draws.place[:, :, 2].abs() * side / 2 <= config.shift * unit * 1.001).all()
    size = draws.place[:, :, :2].double().det().sqrt()
    assert (size * (1 + config.zoom) >= 0.999).all()
    assert (size * (1 - config.zoom) <= 1.001).all()
    turn = torch.atan2(draws.place[:, 1, 0], draws.place[:, 0, 0])
    assert (turn.abs() <= math.radians(config.angle) + 0.001).all()
    assert ((draws.stretch >= 0) & (draws.stretch < 2**20)).all()
    white = draws.colour.double() @ torch.tensor([100.0, 100.0, 100.0, 1.0]).double()  # contrast leaves it
    assert (white <= 100 * config.brightness**0.5 * (1 + config.cast) * 1.01).all()
    assert (white >= 100 / config.brightness * (1 - config.cast) * 0.99 - 0.01).all()


@pytest.mark.parametrize(
    ("setting", "value", "line"),
    [
        ("clean", 1.5, r"--augmentation\.clean must be 0 to 1, not 1\.5"),
        ("change", -0.1, r"--augmentation\.change must be 0 to 1"),
        ("brightness", 0.5, r"--augmentation\.brightness must be 1 to 100"),
        ("blur", -1.0, r"--augmentation\.blur must be 0 to 16"),
        ("noise", math.nan, r"--augmentation\.noise must be a finite number"),
    ],
)
def test_impossible_settings_are_one_line(tmp_path, setting, value, line):
    with pytest.raises(UserError, match=line):
        checked(TrainConfig(output=tmp_path, augmentation=AugmentConfig(**{setting: value})))
