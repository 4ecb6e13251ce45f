"""Ranges beside defaults hold, and settings read themselves back as what they were."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jepa_mpc.errors import UserError
from jepa_mpc.registry import Registry
from jepa_mpc.settings import Choice, Count, Fraction, Natural, NonNegative, Positive, Seed, checked, read, to_json

SHAPES: Registry[Any] = Registry("shape")


@dataclass(frozen=True)
class Shape(Choice):
    choices: ClassVar[Registry[Any]] = SHAPES
    size: Positive = 1.0


@dataclass(frozen=True)
class Square(Shape):
    corners: Count = 4


SHAPES.register("dot", Shape)
SHAPES.register("square", Square)


class Rate(NamedTuple):
    rate: float
    n: int


@dataclass(frozen=True)
class Inner:
    inline: ClassVar[bool] = False
    discount: Fraction = 0.9
    weight: NonNegative = 0.0


@dataclass(frozen=True)
class Inline:
    inline: ClassVar[bool] = True
    horizon: Count = 2


@dataclass(frozen=True)
class Settings:
    name: str
    steps: Count = 3
    workers: Natural = 0
    seed: Seed = 0
    device: Count | str = 1
    limit: Positive | None = None
    sizes: tuple[Count, ...] = (1, 2)
    pair: tuple[int, str] = (1, "a")
    kind: Literal["a", "b"] = "a"
    output: Path = Path("here")
    rate: Rate = field(default_factory=lambda: Rate(0.5, 2))
    table: dict[str, float] = field(default_factory=dict)
    inner: Inner = field(default_factory=Inner)
    agent: Inline = field(default_factory=Inline)
    shape: Shape = field(default_factory=Square)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"steps": 0}, "--steps must be at least 1, not 0"),
        ({"workers": -1}, "--workers must be at least 0, not -1"),
        ({"steps": 10**13}, "--steps must be 1 to 1e+12, not 10000000000000"),
        ({"steps": 1.5}, "--steps must be int, not 1.5"),
        ({"steps": True}, "--steps must be int, not True"),
        ({"limit": 0.0}, "--limit must be above 0, not 0.0"),
        ({"limit": True}, "--limit must be float, not True"),
        ({"seed": 2**31}, "--seed must be 0 to 2.14748e+09, not 2147483648"),
        ({"limit": math.inf}, "--limit must be a finite number, not inf"),
        ({"limit": math.nan}, "--limit must be a finite number, not nan"),
        ({"sizes": (1, 0)}, "--sizes must be at least 1, not 0"),
        ({"kind": "c"}, "--kind must be a or b, not 'c'"),
        ({"inner": Inner(discount=1.0)}, "--inner.discount must lie between 0 and 1, not 1.0"),
        ({"inner": Inner(weight=-0.5)}, "--inner.weight must be at least 0, not -0.5"),
        ({"agent": Inline(horizon=0)}, "--horizon must be at least 1, not 0"),
        ({"shape": Square(corners=0)}, "--shape.corners must be at least 1, not 0"),
    ],
)
def test_what_is_out_of_range_is_named_as_one_typed_it(changes, line):
    with pytest.raises(UserError) as error:
        checked(Settings(name="x", **changes))
    assert str(error.value) == line


def test_what_is_in_range_stays_as_it_is_but_for_home():
    given = Settings(name="x", output=Path("~/runs"), steps=np.int64(7))
    assert checked(given).output == Path.home() / "runs"
    assert checked(given).steps == 7
    assert type(checked(given).steps) is int
    assert checked(Settings(name="x")) == Settings(name="x")


@given(
    steps=st.integers(1, 10**6),
    limit=st.none() | st.floats(1e-6, 1e6),
    device=st.integers(1, 9) | st.text(),
    sizes=st.lists(st.integers(1, 99)).map(tuple),
    table=st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False)),
    shape=st.sampled_from([Shape(2.5), Square(), Square(0.5, 7)]),
)
def test_settings_survive_json(steps, limit, device, sizes, table, shape):
    settings = Settings(name="é", steps=steps, limit=limit, device=device, sizes=sizes, table=table, shape=shape)
    back = read(Settings, json.loads(json.dumps(to_json(settings))), "file")
    assert back == settings
    assert type(back.shape) is type(shape)
    assert isinstance(back.rate, Rate)


@pytest.mark.parametrize(
    ("stored", "line"),
    [
        ({}, "config.json: name is missing"),
        ({"name": "x", "colour": 1}, "config.json: colour is unknown"),
        ({"name": 3}, "config.json: name must be str, not 3"),
        ({"name": "x", "inner": {"discount": 2}}, "config.json: inner.discount must lie between 0 and 1, not 2.0"),
        ({"name": "x", "sizes": 3}, "config.json: sizes must be a list, not 3"),
        ({"name": "x", "pair": [1]}, "config.json: pair must have 2 entries, not 1"),
        ({"name": "x", "table": {"a": "b"}}, "config.json: table.a must be float, not 'b'"),
        ({"name": "x", "shape": {"name": "sqare"}}, "config.json: shape.name is no shape"),
        ([], "config.json: it must be Settings, not []"),
    ],
)
def test_what_does_not_fit_is_named(stored, line):
    with pytest.raises(UserError) as error:
        read(Settings, stored, "config.json")
    assert str(error.value).startswith(line)
