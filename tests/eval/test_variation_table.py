"""The table of pictures that are a little different: what is asked, what is measured, and what is shown of it."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from conftest import CHECKPOINT, ROOT
from line import LINE, Line
from PIL import Image, ImageEnhance
from watching import watch_agents

from jepa_mpc import envs, places
from jepa_mpc.errors import UserError
from jepa_mpc.eval.metrics import rate
from jepa_mpc.eval.pairs import Pairs, held_out_pairs
from jepa_mpc.eval.protocols import PROTOCOLS
from jepa_mpc.eval.tables import variations as variation_table
from jepa_mpc.eval.tables.variations import Asked, VariationRow, VariationsConfig, asked_for, draw, measure, table
from jepa_mpc.eval.trial import BATCH_SIZE, Trial
from jepa_mpc.eval.variations import VARIATIONS
from jepa_mpc.settings import read, to_json

FEW = ["--num-episodes", 2, "--seed", 3, "--budget", 10]


@pytest.fixture
def evaluate(run_command, tmp_path, monkeypatch):
    """Runs the command on two pairs, from a folder of its own; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    return lambda *options: run_command("evaluate", *FEW, "--output", "out", *options)


def asked(*words, where="camera"):
    found = asked_for(VariationsConfig(variation=words, where=where))
    return [(each.name, each.strength) for each in found]


def test_names_strengths_and_all_are_asked_for_once():
    assert asked("blur@1.5") == [("blur", 1.5)]
    assert asked("jpeg@0", "jpeg@100") == [("jpeg", 0), ("jpeg", 100)]
    assert asked("grey") == [("grey", 0.3), ("grey", 0.6), ("grey", 1.0)]
    everything = [(name, strength) for name in VARIATIONS for strength in VARIATIONS[name].strengths]
    assert asked() == asked("all") == asked("all", "grey") == everything
    assert asked("blur@2.0", "blur", "blur@2") == [("blur", 2), ("blur", 0.5), ("blur", 1)]
    found = asked_for(VariationsConfig(variation=("blur@1", "jpeg@40"), where="all"))
    assert [each.row for each in found] == [
        *("camera-blur-1", "camera-jpeg-40", "both-blur-1", "both-jpeg-40", "drift-blur-1", "drift-jpeg-40")
    ]


def test_every_strength_has_a_file_of_its_own():
    near = asked_for(VariationsConfig(variation=("noise@5", "noise@5.0000001", "noise@15")))
    assert [each.row for each in near] == ["camera-noise-5", "camera-noise-5.0000001", "camera-noise-15"]


def test_every_checkpoint_has_a_folder_of_its_own(run_command, tmp_path, home):
    shutil.copytree(CHECKPOINT, tmp_path / "mine")
    for options in ([], ["--checkpoint", tmp_path / "mine"]):
        code, _, err = run_command("evaluate", *FEW, "--variation", "noise@15", *options)
        assert code == 0, err
        assert "measured again" not in err
    folders = {path.parent.name for path in home.rglob("clean.json")}
    assert folders == {"reacher-far-budget10-2-seed3", "reacher-far-budget10-mine-2-seed3"}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("jpg", "unknown variation 'jpg'; did you mean jpeg? there are: brightness, "),
        ("", "unknown variation ''; there are: brightness, "),
        ("@3", "unknown variation ''; there are: brightness, "),
        ("os:path", "os:path is no variation: it must be a jepa_mpc.eval.variations.Variation"),
        ("all@2", "all has no strength of its own; name a variation, or leave @2 out"),
        ("jpeg@", "its strength must be a number, not ''"),
        ("shift@x", "its strength must be a number, not 'x'"),
        ("shift@1@2", "its strength must be a number, not '1@2'"),
        ("shift@nan", "its strength, as in 'shifted by … px of 64', must be a finite number, not nan"),
        ("shift@-1", "its strength, as in 'shifted by … px of 64', must be 0 to 16, not -1"),
        ("jpeg@101", "its strength, as in 'JPEG of quality …', must be 0 to 100, not 101"),
        ("brightness@1e9", "its strength, as in 'brightness × …', must be 0 to 10, not 1e9"),
    ],
)
def test_what_is_no_variation_or_no_strength_is_one_line(evaluate, tmp_path, word, message):
    code, out, err = evaluate("--variation", word)
    assert (code, out) == (1, "")
    assert err.startswith(f"error: --variation {word}: ")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_other_bad_input_is_one_line(evaluate, run_command, tmp_path):
    for options, message in (
        (["--where", "nowhere"], "where"),
        (
            ["--task", "two_room", "--variation", "blur", "--variation", "camera@0.1", "--variation", "light"],
            "the simulator of two_room cannot show camera or light; name other variations",
        ),
        (["--calibrate", 2], "--calibrate 2 needs as many other episodes; raise --num-episodes above it"),
        (["--calibrate", -1], "--calibrate must be at least 0, not -1"),
        (["--budget", 0], "--budget must be at least 1, not 0"),
        (["--task", "recher"], "unknown task 'recher'; did you mean reacher?"),
        (["--checkpoint", "nowhere"], "no checkpoint at nowhere"),
        (["--task", "two_room", "--checkpoint", CHECKPOINT], "was trained on task 'reacher', not 'two_room'"),
        (["--output", CHECKPOINT / "config.json"], "config.json cannot be written"),
        (["--num-episodes", 10**400], "--num-episodes must be a finite number"),
        (["--publish"], "--publish writes into docs/results; leave --output out"),
    ):
        code, _, err = evaluate(*options)
        assert code in (1, 2)
        assert message in err
        assert "Traceback" not in err
        assert code == 2 or err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def lines_of(text):
    """By row: what the pictures are said to be, touched and held with intervals, and noticed."""
    found = re.findall(r"^\| ([^|]*) \| ([^|]*) \| ([^|]*) \| ([^|]*) \| \[JSON\]\((\S*).json\) \|$", text, re.M)
    return {name: cells for *cells, name in found}


def test_rows_are_measured_once_and_the_table_shows_them(evaluate, tmp_path, monkeypatch):
    options = ["--variation", "brightness", "--variation", "jpeg@50", "--where", "all"]
    seen = watch_agents(monkeypatch)
    code, out, err = evaluate(*options)
    assert (code, out) == (0, "wrote out/variations.md\n"), err
    rows = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "out").glob("*.json")}
    names = [
        f"{where}-{each}"
        for where in ("camera", "both", "drift")
        for each in ("brightness-0.8", "brightness-0.6", "brightness-0.4", "jpeg-50")
    ]
    assert set(rows) == {"clean", *names}
    text = (tmp_path / "out/variations.md").read_text()
    assert "`jepa-mpc evaluate --task reacher` of the bundled model" in text.replace("\n", " ")
    assert "2 far pairs of seed 3" in text.replace("\n", " ")
    assert all("--variation jpeg@50 --where all" in row["command"] for row in rows.values())
    lines = lines_of(text)
    assert list(lines) == names
    for name in names:
        where, variation, strength = name.split("-")
        row = rows[name]
        assert row["asked"].items() >= {"variation": variation, "strength": float(strength), "where": where}.items()
        assert row["asked"]["budget"] == 10
        what, *shares, noticed = lines[name]
        assert what == VARIATIONS[variation].what.format(strength)
        for share, stored in zip(shares, ([row["success_rate"], *row["success_interval"]], row["held"]), strict=True):
            assert share == "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * each for each in stored))
        assert noticed == ("–" if row["noticed"] is None else f"{100 * row['noticed'][0]:.1f}")
    figure = Image.open(tmp_path / "out/variations.png")
    assert 500 < figure.width < 1500
    assert 250 < figure.height < 900

    # Each row was measured under pictures that are as it says.
    env, spec = envs.make("reacher"), envs.get_task("reacher")
    pairs = held_out_pairs(env, spec, 3, 2, tmp_path / "pairs", far=True)
    starts = np.stack([np.array(env.picture_of(state)) for state in pairs.start_state])
    dark = [
        np.stack([np.asarray(ImageEnhance.Brightness(Image.fromarray(each)).enhance(0.6)) for each in shown])
        for shown in (pairs.goal_picture, starts)
    ]
    resets = dict(zip(["clean", *names], seen["PlanningAgent"], strict=True))
    for name, goals, first in (
        ("clean", pairs.goal_picture, starts),
        ("camera-brightness-0.6", pairs.goal_picture, dark[1]),
        ("both-brightness-0.6", *dark),
        ("drift-brightness-0.6", pairs.goal_picture, starts),
    ):
        np.testing.assert_array_equal(resets[name][0], goals)
        np.testing.assert_array_equal(resets[name][2], first)
    assert len({tuple(seeds) for _, seeds, _ in resets.values()}) == 1

    monkeypatch.setattr(variation_table, "measure", lambda *_: pytest.fail("measured again"))
    assert evaluate(*options)[0] == 0
    assert (tmp_path / "out/variations.md").read_text() == text
    assert evaluate("--variation", "brightness@0.6", "--where", "drift")[0] == 0  # shows what is there at all strengths
    shown = [name for name in names if "jpeg" not in name]  # which is none of these
    assert list(lines_of((tmp_path / "out/variations.md").read_text())) == shown
    for option, was, now in (("seed", 3, 4), ("budget", 10, 11), ("num-episodes", 2, 3)):
        code, _, err = evaluate(*options, f"--{option}", now)
        assert code == 1
        name = option.replace("-", "_")
        assert f"clean.json is a row of another table: {name} is {was} there and {now} now" in err


def test_all_of_what_a_simulator_can_show_is_measured(evaluate, tmp_path):
    """Of the scene of two_room nothing can be changed, and what is asked for without a name is left out there."""
    code, _, err = evaluate("--task", "two_room", "--budget", 1)  # a single picture, too
    assert code == 0, err
    names = [f"camera-{name}-{strength:g}" for name in VARIATIONS for strength in VARIATIONS[name].strengths]
    left_out = {name for name in names if name.split("-")[1] in ("camera", "light", "colour")}
    assert list(lines_of((tmp_path / "out/variations.md").read_text())) == [x for x in names if x not in left_out]


@pytest.mark.parametrize("protocol", ["standard", "hold", "strict"])
def test_success_is_judged_by_the_protocol(evaluate, tmp_path, protocol):
    code, _, err = evaluate("--variation", "grey@1", "--protocol", protocol, "--budget", 30)
    assert code == 0, err
    own = {"standard": "first_hit", "hold": "held", "strict": "strict"}[protocol]
    text = (tmp_path / "out/variations.md").read_text().replace("\n", " ")
    assert f"on 2 {protocol} pairs of seed 3" in text
    for name in ("clean", "camera-grey-1"):
        row = json.loads((tmp_path / f"out/{name}.json").read_text())
        assert row["asked"]["protocol"] == protocol
        assert [row["success_rate"], *row["success_interval"]] == row[own]


def test_what_is_published_is_not_measured_again_elsewhere(run_command, tmp_path, monkeypatch, home):
    place = tmp_path / "checkout"
    shutil.copytree(CHECKPOINT, place / "checkpoints/reacher")
    monkeypatch.setattr(places, "checkout", lambda: place)
    options = [*FEW, "--variation", "grey@1"]
    code, out, err = run_command("evaluate", *options)
    trial = home / "runs/tables/variations/reacher-far-budget10-2-seed3"
    assert (code, out) == (0, f"wrote {trial}/variations.md\n"), err
    assert not (place / "docs").exists()
    monkeypatch.setattr(variation_table, "measure", lambda *_: pytest.fail("measured again"))
    code, out, err = run_command("evaluate", *options, "--publish")
    folder = place / "docs/results/variations/reacher-far-budget10"
    assert (code, out) == (0, f"wrote {folder}/variations.md\n"), err
    for name in ("variations.md", "clean.json", "camera-grey-1.json"):
        assert (folder / name).read_text() == (trial / name).read_text()
    assert run_command("evaluate", *options, "--output", tmp_path / "third")[0] == 0


def test_a_calibrated_agent_sees_nearly_what_training_saw(evaluate, tmp_path, monkeypatch):
    folder = tmp_path / "reacher"
    shutil.copytree(CHECKPOINT, folder)
    options = ["--checkpoint", folder, "--variation", "cast@0.3", "--num-episodes", 5, "--budget", 5]
    seen = watch_agents(monkeypatch)
    for more, output in (([], "plain"), (["--calibrate", 4], "calibrated")):
        code, _, err = evaluate(*options, *more, "--output", output)
        assert code == 0, err
    clean, cast, _, calibrated = (pictures.astype(int) for _, _, pictures in seen["PlanningAgent"])
    assert np.abs(calibrated - clean).mean() < 0.25 * np.abs(cast - clean).mean()
    row = json.loads((tmp_path / "calibrated/camera-cast-0.3.json").read_text())
    assert row["asked"]["calibrate"] == 4
    assert "calibrated by 4 pictures" in (tmp_path / "calibrated/variations.md").read_text().replace("\n", " ")
    code, _, err = evaluate(*options, "--calibrate", 3, "--output", "calibrated")
    assert code == 1
    assert "clean.json is a row of another table: calibrate is 4 there and 3 now" in err
    (folder / "pictures.safetensors").unlink()
    code, _, err = evaluate(*options, "--calibrate", 4, "--output", "neither")
    assert (code, err.count("\n")) == (1, 1)
    assert "which kept no pictures.safetensors; train it again" in err


class Surprised:
    """Walks on, and is as surprised by each episode's pictures as its row says."""

    action_block = LINE.action_block

    def __init__(self, rows):
        self.rows = np.array(rows, np.float32)
        self.first = self.now = 0

    def reset(self, goals, seeds):
        self.first, self.now, self.block = self.now, self.now + len(goals), 0

    def act(self, pictures):
        self.block += 1
        return np.ones((len(pictures), self.action_block, 1), np.float32)

    def surprise(self):
        return self.rows[self.first : self.now, self.block - 1]


def measured(rows, goals):
    goals = np.array(goals, float)[:, None]
    pictures = np.stack([Line().render()] * len(goals))
    pairs = Pairs(np.zeros_like(goals), goals, goals, pictures)
    return measure(Trial(Line(), LINE, pairs, PROTOCOLS["far"], seed=0, budget=6), Surprised(rows))


def test_what_most_pictures_say_is_noticed_from_the_second_on():
    nan = np.nan
    row = measured([[nan, 0.5, 1.5], [nan, 0.9, 1.0], [nan, 2, 3], [9, 0, 0]], [4, 9, 9, 9])
    assert row.noticed == rate(1, 4)
    assert (row.num_episodes, row.first_hit) == (4, rate(1, 4))
    many = [[nan, 0, 0]] * BATCH_SIZE + [[nan, 2, 3]] * 3
    row = measured(many, [9] * len(many))
    assert row.noticed == rate(3, len(many))
    unknown = measured([[nan, nan, nan]] * 2, [9, 9])
    assert unknown.noticed is None


def test_surprise_of_a_single_picture_is_unknown():
    pairs = Pairs(*np.zeros((3, 2, 1)), np.stack([Line().render()] * 2))
    row = measure(Trial(Line(), LINE, pairs, PROTOCOLS["far"], seed=0, budget=1), Surprised([[9.0], [9.0]]))
    assert (row.num_episodes, row.noticed) == (2, None)


@pytest.fixture
def some_row():
    """Makes a row of ten episodes that came to such shares, of one that was measured."""
    row = measured([[0, 0, 0]] * 2, [9, 9])

    def of(success, held=0.0, noticed=None):
        reached, held, noticed = (
            None if share is None else rate(round(10 * share), 10) for share in (success, held, noticed)
        )
        success, *interval = reached
        changes = {"success_rate": success, "success_interval": tuple(interval), "held": held, "noticed": noticed}
        return replace(row, **changes, num_episodes=10)

    return of


def test_a_table_by_hand(some_row):
    clean, rows = some_row(0.9, 0.8, 0.1), {Asked("shift", 2.5, "both"): some_row(0.4, 0.2, 0.7)}
    text = table(clean, rows, VariationsConfig(variation=("shift@2.5",), where="both", num_episodes=10, seed=5))
    assert "As in training: 90.0 [59.6, 98.2] % reached, 80.0 [49.0, 94.3] % held, 10.0 % noticed" in text.replace(
        "\n", " "
    )
    line = "| shifted by 2.5 px of 64 | 40.0 [16.8, 68.7] | 20.0 [5.7, 51.0] | 70.0 | [JSON](both-shift-2.5.json) |"
    assert line in text
    assert "**both**: goal and camera alike." in text
    assert "**camera**" not in text


def test_a_figure_goes_from_nothing_to_strong_by_place(some_row, monkeypatch, tmp_path):
    figures = []
    monkeypatch.setattr("jepa_mpc.eval.figures.save", lambda figure, path: figures.append(figure))
    rows = {}
    for name, shares in (("jpeg", {20: 0.1, 70: 0.8, 40: 0.5}), ("blur", {1: 0.3})):
        rows |= {Asked(name, strength, "camera"): some_row(share) for strength, share in shares.items()}
    rows[Asked("blur", 1, "drift")] = some_row(0.6)
    rows[Asked("jpeg", 40, "both")] = some_row(0.7)  # one of three strengths, over its own
    draw(some_row(1.0), rows, "reacher, far: success, %", tmp_path / "x.png")
    blur, jpeg = figures[0].axes
    assert (jpeg.get_title(), blur.get_title()) == ("JPEG of quality …", "blur of std … px of 64")
    drawn = [(line.get_label(), list(line.get_xdata()), list(line.get_ydata())) for line in jpeg.lines]
    assert drawn == [("camera", [0, 1, 2, 3], pytest.approx([100, 80, 50, 10])), ("both", [0, 2], [100, 70])]
    assert [tick.get_text() for tick in jpeg.get_xticklabels()] == ["100", "70", "40", "20"]
    assert [(line.get_label(), *line.get_ydata()) for line in blur.lines] == [("camera", 100, 30), ("drift", 100, 60)]
    (legend,) = figures[0].legends
    assert [text.get_text() for text in legend.get_texts()] == ["camera", "drift", "both"]
    assert figures[0].get_supylabel() == "reacher, far: success, %"


def test_rows_read_themselves_back(some_row):
    for row in (some_row(0.5, 0.5, 0.5), some_row(0.5)):
        assert read(VariationRow, json.loads(json.dumps(to_json(row))), "row") == row


def test_a_trial_needs_pairs():
    with pytest.raises(UserError, match="--num-episodes must be at least 1"):
        variation_table.write_variation_table(VariationsConfig(num_episodes=0))


@pytest.mark.parametrize("folder", sorted((ROOT / "docs/results/variations").iterdir()), ids=lambda folder: folder.name)
def test_the_committed_tables_are_drawn_from_the_committed_rows(folder, tmp_path, monkeypatch):
    asked = json.loads((folder / "clean.json").read_text())["asked"]
    monkeypatch.setattr(variation_table, "measure", lambda *_: pytest.fail("measured again"))
    weights = {"weights": asked["weights"]}  # training seeds are not bundled
    monkeypatch.setattr(variation_table, "digests", lambda *_: weights)
    on_pairs = Trial.on_pairs  # of which two do, where nothing is measured
    few = staticmethod(lambda env, spec, protocol, seed, _, budget: on_pairs(env, spec, protocol, seed, 2, budget))
    monkeypatch.setattr(variation_table.Trial, "on_pairs", few)
    (tmp_path / "rows").mkdir()
    for row in folder.glob("*.json"):
        shutil.copy(row, tmp_path / "rows")
    checkpoint = None
    if (training := folder.name.partition("-far-")[2]) and not asked.get("calibrate"):
        shutil.copytree(CHECKPOINT, checkpoint := tmp_path / training)
    told = {name: asked[name] for name in ("task", "protocol")}
    config = VariationsConfig(**told, checkpoint=checkpoint, calibrate=asked.get("calibrate", 0))
    config = replace(config, variation=(one_of(folder),), output=tmp_path / "rows")
    assert variation_table.write_variation_table(config).read_text() == (folder / "variations.md").read_text()


def one_of(folder):
    row = json.loads(next(folder.glob("camera-*.json")).read_text())["asked"]
    return f"{row['variation']}@{row['strength']}"
