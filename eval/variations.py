"""Pictures that differ from training's: other light, another camera, a hand in front of it, each at stated strengths.

They are corruptions as of ImageNet-C (Hendrycks & Dietterich, arXiv 1903.12261), made anew for a robot's camera.

What a simulator can do, it does (`envs/looks.py`): the camera moves in the scene, lamps turn, things change colour. The
rest is done to the finished picture by Pillow, and shares no code with what training does to pictures.
"""

import io
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from jepa_mpc.agent.calibration import Calibration
from jepa_mpc.envs import PixelEnv
from jepa_mpc.envs.looks import Look, Looks
from jepa_mpc.errors import UserError
from jepa_mpc.eval.pairs import Pairs
from jepa_mpc.eval.trial import Camera
from jepa_mpc.pictures import PictureStats, views
from jepa_mpc.registry import Registry
from jepa_mpc.seeds import episode_rng
from jepa_mpc.settings import Range, Valid

log = logging.getLogger(__name__)

Picture = NDArray[np.uint8]
_SPEED = (0.05, 0.035)  # of the ball that rolls by, right and down, in pictures a block
Where = Literal["camera", "both", "drift"]
WHERES: dict[Where, str] = {
    "camera": "the camera's pictures alone, the goal as in training",
    "both": "goal and camera alike",
    "drift": "the camera's pictures, from nothing to all within an episode, the goal as in training",
}


@dataclass(frozen=True)
class Chance:
    """What is drawn for an episode (numbers of 0 to 1, a direction) and anew for each of its pictures (a generator)."""

    numbers: tuple[float, float]
    rng: np.random.Generator
    block: int  # since the start; −1 is the goal's picture, and below are those that calibrate

    @property
    def sign(self) -> float:
        """Returns 1 or −1, as drawn for the episode."""
        return 1.0 if self.numbers[0] < 0.5 else -1.0

    @property
    def direction(self) -> tuple[float, float]:
        """Returns a unit vector, right and down."""
        angle = 2 * math.pi * self.numbers[1]
        return math.cos(angle), math.sin(angle)


Change = Callable[[Image.Image, float, Chance], Image.Image | NDArray[np.floating]]


@dataclass(frozen=True)
class Variation(Valid):
    """One kind of difference: `change` or `look` makes it.

    Attributes:
        what: in words, with `{}` for the strength.
        strengths: a slight, a medium and a strong one.
        change: makes another of a picture in RGB, a strength and what chance decides; arrays (H, W, 3) are rounded.
        look: what the simulator changes, where it does.
        nothing: the strength at which nothing differs.
        range: what strengths can be.
    """

    what: str
    strengths: tuple[float, float, float]
    change: Change | None = None
    look: Look | None = None
    nothing: float = 0.0
    range: Range = Range(0)

    def rules(self):
        worded = "{}" in self.what and not set(self.what.replace("{}", "")) & set("{}|\n")
        yield "what", worded, f"must be one line of words with {{}} for the strength, not {self.what!r}"
        yield "change", (self.change is None) != (self.look is None), "or look must be given, and not both"
        for strength in self.strengths:
            if refusal := self.range.refuses(strength):
                yield "strengths", False, f"must {refusal}, not {strength}"

    def changed(self, picture: Picture, strength: float, chance: Chance) -> Picture:
        """Returns what `change` makes of a picture (H, W, 3). Raises `UserError` where that is no such picture."""
        assert self.change is not None
        if len(each := views(picture)) > 1:  # a camera's picture changes for itself
            return np.concatenate([self.changed(view, strength, chance) for view in each], axis=1)
        made = np.asarray(self.change(Image.fromarray(picture), strength, chance))
        numbers = made.dtype.kind in "buif" and made.shape == picture.shape
        if not (numbers and np.isfinite(made).all()):
            found = f"{made.dtype} {made.shape}" + " with numbers that are not finite" * numbers
            raise UserError(f"the variation {self.what!r} must make pictures {picture.shape}, 0 to 255, not {found}")
        return made.round().clip(0, 255).astype(np.uint8)

    def offered_by(self, env: PixelEnv) -> bool:
        """Says whether the simulator can show it."""
        return self.look is None or self.look in env.changeable

    def strength(self, text: str) -> float:
        """Returns a strength that was typed. Raises `UserError` on what cannot be one."""
        try:
            value = float(text)
        except ValueError as error:
            raise UserError(f"its strength must be a number, not {text!r}") from error
        if refusal := self.range.refuses(value):
            raise UserError(f"its strength, as in {self.what.format('…')!r}, must {refusal}, not {text}")
        return value + 0.0  # −0 is 0


VARIATIONS: Registry[Variation] = Registry(
    "variation", must=lambda value: "" if isinstance(value, Variation) else "be a jepa_mpc.eval.variations.Variation"
)


def _picture(
    name: str, what: str, *strengths: float, nothing: float = 0.0, most: float = math.inf
) -> Callable[[Change], Change]:
    """Registers what a function makes of a picture, of strengths from 0 to the most."""

    def register(change: Change) -> Change:
        slight, medium, strong = strengths
        variation = Variation(what, (slight, medium, strong), change, nothing=nothing, range=Range(0, most))
        VARIATIONS.register(name, variation)
        return change

    return register


@_picture("brightness", "brightness × {}", 0.8, 0.6, 0.4, nothing=1.0, most=10)
def _brightness(picture, strength, _):
    return ImageEnhance.Brightness(picture).enhance(strength)


@_picture("contrast", "contrast × {}", 0.8, 0.6, 0.4, nothing=1.0, most=10)
def _contrast(picture, strength, _):
    return ImageEnhance.Contrast(picture).enhance(strength)


@_picture("cast", "red, green and blue × 1 ± {}", 0.1, 0.2, 0.3, most=1)
def _cast(picture, strength, chance):
    thirds = 2 * math.pi * (np.arange(3) / 3 + chance.numbers[0])  # the gains' mean is 1, whatever the colour
    return np.asarray(picture) * (1 + strength * np.cos(thirds))


@_picture("grey", "{} of the colour lost", 0.3, 0.6, 1.0, most=1)
def _grey(picture, strength, _):
    return ImageEnhance.Color(picture).enhance(1 - strength)


@_picture("noise", "noise of std {} of 255", 5, 15, 30, most=255)
def _noise(picture, strength, chance):
    return np.asarray(picture) + chance.rng.normal(0, strength, np.shape(picture))


@_picture("blur", "blur of std {} px of 64", 0.5, 1, 2, most=64)
def _blur(picture, strength, _):
    return picture.filter(ImageFilter.GaussianBlur(strength * picture.width / 64))


@_picture("jpeg", "JPEG of quality {}", 70, 40, 20, nothing=100, most=100)
def _jpeg(picture, strength, _):
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=round(strength))
    return Image.open(file).convert("RGB")


@_picture("shift", "shifted by {} px of 64", 1, 3, 5, most=16)
def _shift(picture, strength, chance):
    right, down = chance.direction
    return _warp(picture, move=(strength * right * picture.width / 64, strength * down * picture.width / 64))


@_picture("rotation", "turned by {}°", 2, 4, 8, most=180)
def _rotation(picture, strength, chance):
    return _warp(picture, angle=math.radians(chance.sign * strength))


@_picture("zoom", "larger or smaller by {}", 0.03, 0.06, 0.12, most=0.5)
def _zoom(picture, strength, chance):
    return _warp(picture, scale=1 + chance.sign * strength)


def _warp(picture: Image.Image, move=(0.0, 0.0), angle: float = 0.0, scale: float = 1.0) -> Image.Image:
    """Moves, turns and scales a picture about its middle; beyond its edge, the edge goes on."""
    side, cos, sin = picture.width, math.cos(angle) / scale, math.sin(angle) / scale
    margin, middle = side // 2, side / 2
    padded = Image.fromarray(np.pad(np.asarray(picture), ((margin, margin), (margin, margin), (0, 0)), "edge"))
    x, y = -middle - move[0], -middle - move[1]
    origin = middle + margin
    back = (cos, sin, cos * x + sin * y + origin, -sin, cos, -sin * x + cos * y + origin)
    return padded.transform(picture.size, Image.Transform.AFFINE, back, Image.Resampling.BILINEAR)


@_picture("occlusion", "{} of the picture covered", 0.05, 0.1, 0.2, most=1)
def _occlusion(picture, strength, chance):
    covered, side = picture.copy(), round(picture.width * math.sqrt(strength))
    left, top = (round((picture.width - side) * number) for number in chance.numbers)
    covered.paste((128, 128, 128), (left, top, left + side, top + side))
    return covered


@_picture("distractor", "a ball {} px of 64 across rolls by", 4, 8, 12, most=64)
def _distractor(picture, strength, chance):
    seen, side, across = picture.copy(), picture.width, strength * picture.width / 64
    phases = (number + speed * chance.block for number, speed in zip(chance.numbers, _SPEED, strict=True))
    x, y = (side * abs(phase % 2 - 1) for phase in phases)  # to and fro between the edges
    corner = x - across / 2, y - across / 2
    far = corner[0] + across - 1, corner[1] + across - 1  # Pillow's boxes have their last pixel too
    if across >= 1:
        ImageDraw.Draw(seen).ellipse((*corner, *far), fill=(60, 160, 70))
    return seen


def _look(look: Look, what: str, *strengths: float, most: float) -> None:
    """Registers what the simulator changes under that name, of strengths from 0 to the most."""
    slight, medium, strong = strengths
    VARIATIONS.register(look, Variation(what, (slight, medium, strong), look=look, range=Range(0, most)))


_look("camera", "camera moved by {} of its distance", 0.02, 0.05, 0.1, most=0.5)
_look("light", "lamps turned by {}°", 15, 30, 60, most=180)
_look("colour", "{} of every colour is another", 0.25, 0.5, 1.0, most=1)


@dataclass(frozen=True)
class VariedCamera(Camera):
    """Takes pictures that differ, in each episode in its own way, from those of training."""

    variation: Variation
    strength: float
    where: Where
    seed: int

    def goals(self, env: PixelEnv, pairs: Pairs, first: int) -> Picture:
        if self.where != "both":
            return pairs.goal_picture
        shown = []
        for index, state in enumerate(pairs.goal_state, start=first):
            env.set_state(state)
            shown.append(self._seen(env, index, -1, 1.0))
        return np.stack(shown)

    def picture(self, env: PixelEnv, pair: int, block: int, num_blocks: int) -> Picture:
        return self._seen(env, pair, block, max(0.0, block / num_blocks) if self.where == "drift" else 1.0)

    def _seen(self, env: PixelEnv, pair: int, block: int, share: float) -> Picture:
        rng, variation = episode_rng("variation", self.seed, pair), self.variation
        strength = variation.nothing + share * (self.strength - variation.nothing)
        if strength == variation.nothing:  # not even what a JPEG of quality 100 loses
            return np.array(env.render())
        if variation.look is not None:
            env.set_looks(Looks.draw(rng, **{variation.look: strength}))
            try:
                return np.array(env.render())
            finally:
                env.set_looks(None)
        u, v = rng.uniform(size=2).tolist()
        chance = Chance((u, v), episode_rng(f"variation {block}", self.seed, pair), block)
        return variation.changed(env.render(), strength, chance)


@dataclass(frozen=True)
class CalibratedCamera(Camera):
    """Calibrates, before each episode, what another camera shows, by pictures of it from other episodes' starts."""

    camera: Camera
    usual: PictureStats
    num_pictures: int
    starts: NDArray[np.float64]
    _found: dict[int, Calibration] = field(default_factory=dict, compare=False, repr=False)

    def goals(self, env: PixelEnv, pairs: Pairs, first: int) -> Picture:
        shown = self.camera.goals(env, pairs, first)
        if shown is pairs.goal_picture:  # training's own camera took them
            return shown
        return np.stack([self._calibration(env, pair)(goal) for pair, goal in enumerate(shown, start=first)])

    def picture(self, env: PixelEnv, pair: int, block: int, num_blocks: int) -> Picture:
        return self._calibration(env, pair)(self.camera.picture(env, pair, block, num_blocks))

    def _calibration(self, env: PixelEnv, pair: int) -> Calibration:
        if pair not in self._found:
            now, pictures = np.array(env.get_state()), []
            for index in range(self.num_pictures):
                env.set_state(self.starts[(pair + 1 + index) % len(self.starts)])
                pictures.append(self.camera.picture(env, pair, -2 - index, 1))
            env.set_state(now)
            try:
                self._found[pair] = Calibration.fit(np.stack(pictures), self.usual)
            except UserError as error:  # pictures that tell nothing are taken as they are
                log.warning("pair %d is shown uncalibrated: %s", pair, error)
                self._found[pair] = Calibration()
        return self._found[pair]
