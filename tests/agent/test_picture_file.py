"""Pictures of a person's own: what serves, and how the model sees it."""

import os

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image

from jepa_mpc.agent.picture_file import load_picture
from jepa_mpc.errors import UserError


def test_pictures_are_cut_to_their_centre_and_averaged(tmp_path):
    picture = np.zeros((64, 128, 3), np.uint8)
    picture[:, 32:96] = np.arange(64, dtype=np.uint8)[None, :, None]
    iio.imwrite(tmp_path / "wide.png", picture)
    np.testing.assert_array_equal(load_picture(tmp_path / "wide.png", 64), picture[:, 32:96])
    checks = np.kron(np.indices((64, 64)).sum(0) % 2 * 200, np.ones((2, 2)))[..., None].repeat(3, -1).astype(np.uint8)
    noise = np.tile([[0, 8], [12, 4]], (64, 64))[..., None].astype(np.uint8)  # 6 on average
    iio.imwrite(tmp_path / "large.png", checks + noise)
    np.testing.assert_array_equal(load_picture(tmp_path / "large.png", 64), checks[::2, ::2] + 6)
    iio.imwrite(tmp_path / "grey.png", picture[:, 32:96, 0])
    np.testing.assert_array_equal(load_picture(tmp_path / "grey.png", 64), picture[:, 32:96])


def test_pictures_that_cannot_serve_are_refused(tmp_path):
    with pytest.raises(UserError, match="no picture at"):
        load_picture(tmp_path / "none.png", 64)
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(UserError, match="is no picture that can be read"):
        load_picture(tmp_path / "text.png", 64)
    with pytest.raises(UserError, match="is no file; name a picture"):
        load_picture(tmp_path, 64)
    iio.imwrite(tmp_path / "small.png", np.zeros((63, 80, 3), np.uint8))
    with pytest.raises(UserError, match="80×63; at least 64×64 pixels are needed"):
        load_picture(tmp_path / "small.png", 64)


def test_a_picture_is_turned_as_its_camera_says(tmp_path):
    picture = np.zeros((80, 64, 3), np.uint8)
    picture[:16] = 255  # a bright edge at the top, which belongs to the right
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the picture is to be turned clockwise
    Image.fromarray(picture).save(tmp_path / "phone.jpg", exif=exif, quality=95)
    seen = load_picture(tmp_path / "phone.jpg", 64)
    assert seen[:, -6:].min() > 200  # 8 of its 16 columns lie in the centre square
    assert seen[:, :-12].max() < 50


def test_a_transparent_picture_is_blended_on_white_which_is_said(tmp_path):
    picture = np.zeros((64, 64, 4), np.uint8)
    picture[..., 3] = np.arange(64, dtype=np.uint8)[:, None] * 4
    Image.fromarray(picture).save(tmp_path / "cut-out.png")
    with pytest.warns(UserWarning, match="is transparent in parts; the agent is shown white there"):
        seen = load_picture(tmp_path / "cut-out.png", 64)
    np.testing.assert_allclose(seen[..., 0], 255 - picture[..., 3].astype(int), atol=1)


def test_pictures_are_refused_by_format_and_size_before_they_are_decoded(tmp_path):
    Image.new("L", (13_000, 13_000)).save(tmp_path / "huge.png")
    Image.new("L", (8_100, 8_000)).save(tmp_path / "large.png")
    Image.new("RGB", (80, 80)).save(tmp_path / "drawing.eps")
    (tmp_path / "drawing.eps").rename(tmp_path / "drawing.png")
    Image.fromarray(np.zeros((64, 64), np.uint16)).save(tmp_path / "deep.png")
    os.mkfifo(tmp_path / "fifo.png")
    whole = tmp_path / "whole.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 80, 3), np.uint8)).save(whole)
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:-2000])
    for name, message in {
        "huge.png": "more than 64 million pixels",
        "large.png": "more than 64 million pixels",
        "drawing.png": "no picture that can be read; use PNG, JPEG, WEBP, BMP",
        "deep.png": "more than 8 bits a channel",
        "fifo.png": "is no file",
        "cut.jpg": "is damaged",
    }.items():
        with pytest.raises(UserError, match=message):
            load_picture(tmp_path / name, 64)
