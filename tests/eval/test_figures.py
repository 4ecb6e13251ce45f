"""What pictures must be on any page and to any eye: one palette over a GIF's frames, a card that dark pages show."""

import numpy as np
from PIL import Image

from jepa_mpc.eval import figures
from jepa_mpc.eval.video import write_gif


def test_what_stands_still_in_a_gif_does_not_flicker(tmp_path):
    """A background of many colours, before which a square of ever other colours moves."""
    rng = np.random.default_rng(0)
    ground = np.kron(rng.integers(0, 255, (8, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    frames = [ground.copy() for _ in range(40)]
    for index, frame in enumerate(frames):
        frame[10:20, index : index + 10] = rng.integers(0, 255, 3)
    write_gif(tmp_path / "moving.gif", frames, [80] * 39 + [1500])
    with Image.open(tmp_path / "moving.gif") as gif:
        shown, durations = [], []
        for index in range(gif.n_frames):
            gif.seek(index)
            shown.append(np.asarray(gif.convert("RGB")).astype(int))
            durations.append(gif.info["duration"])
    assert sum(durations) == 39 * 80 + 1500
    assert len(shown) == 40
    assert all((frame[20:] == shown[0][20:]).all() for frame in shown)
    assert np.abs(shown[0] - frames[0]).mean() < 20  # and it is the picture


def test_figures_lie_on_a_white_card_with_round_corners(tmp_path):
    figure = figures.new_figure(4, 3)
    figure.subplots().plot([0, 1], [0, 1], color=figures.BLACK)
    figures.save(figure, tmp_path / "figure.png")
    picture = np.asarray(Image.open(tmp_path / "figure.png"))
    assert picture.shape == (360, 480, 4)
    assert not picture[[0, 0, -1, -1], [0, -1, 0, -1], 3].any()  # the page shows at the corners
    assert (picture[[4, -5], 240] == 255).all()  # and nowhere else
    assert (picture[20:-20, 20:-20, 3] == 255).all()


def test_colours_are_told_apart_by_the_colour_blind():
    """As protan and deutan eyes see them (Machado et al., 2009, severity 1), two are never alike."""
    protan = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    deutan = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    colours = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in figures.COLOURS]) ** 2.2
    for seen in (np.clip(colours @ np.array(matrix).T, 0, 1) ** (1 / 2.2) for matrix in (np.eye(3), protan, deutan)):
        apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1) + 9 * np.eye(len(seen))
        assert apart.min() > 0.15
    assert len(set(figures.MARKERS)) >= 9  # colour alone is not asked of anyone
