"""Settings: ranges that stand beside the defaults, and dataclasses that read themselves back from JSON.

    num_steps: Count = 2000
    learning_rate: Positive = 1e-3

`checked` holds settings against their annotations, `read` makes them of JSON, `to_json` the reverse. All three know
nested dataclasses, and settings that are chosen by name: a base class with a registry in `choices`, whose JSON says
which one under "name". A `Valid` dataclass is held against its annotations where it is made.
"""

import contextlib
import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union

from jepa_mpc.errors import UserError
from jepa_mpc.places import expanded
from jepa_mpc.registry import Registry, misfit

T = TypeVar("T")


@dataclass(frozen=True)
class Range:
    """Bounds of a number, within reach unless `open`."""

    low: float = -math.inf
    high: float = math.inf
    open: bool = False

    def refuses(self, value: float) -> str:
        """Returns what a number must do that it does not, such as "be at least 1", or nothing."""
        if not is_finite(value):
            return "be a finite number"
        inside = self.low < value < self.high if self.open else self.low <= value <= self.high
        if inside:
            return ""
        # A bound so high is there against overflow; it would tell a person nothing.
        if self.high == math.inf or (value <= self.low and self.high >= 1e6):
            return f"be {'above' if self.open else 'at least'} {self.low:g}"
        return f"lie between {self.low:g} and {self.high:g}" if self.open else f"be {self.low:g} to {self.high:g}"


def is_finite(value: float) -> bool:
    """Says whether that is a number within a float's reach; whole ones may be beyond it."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


Count = Annotated[int, Range(1, 10**12)]
Natural = Annotated[int, Range(0, 10**12)]
Seed = Annotated[int, Range(0, 2**31 - 1)]
Positive = Annotated[float, Range(0, open=True)]
NonNegative = Annotated[float, Range(0)]
Fraction = Annotated[float, Range(0, 1, open=True)]
Share = Annotated[float, Range(0, 1)]


class Refused(UserError):
    """A value that its annotation does not allow; `path` leads to it."""

    def __init__(self, path: Sequence[str], reason: str):
        super().__init__(f"{'.'.join(path) or 'it'} {reason}")
        self.path, self.reason = tuple(path), reason


class Valid:
    """A frozen dataclass that is held against its annotations, and `rules` of its own, where it is made.

    Raises `UserError`, which names the field, what was expected and what was found.
    """

    def __post_init__(self):
        with self.naming():
            for name, kind in _hints(type(self)).items():  # type: ignore[arg-type]  # mypy's doubt of a class's hash
                object.__setattr__(self, name, convert(kind, getattr(self, name), (name,)))
            for name, holds, refusal in self.rules():
                if not holds:
                    raise Refused((name,), refusal)

    def rules(self) -> Iterator[tuple[str, object, str]]:
        """Yields what annotations cannot say: a field, whether it is right, and what to say if not."""
        yield from ()

    @contextlib.contextmanager
    def naming(self) -> Iterator[None]:
        """Says in what is refused whose it is."""
        try:
            yield
        except Refused as error:
            raise UserError(f"{type(self).__name__} {getattr(self, 'name', '')}".rstrip() + f": {error}") from error


def checked(config: T) -> T:
    """Returns the settings, with `~` in paths expanded. Raises `UserError`, which names the option, on one that is out
    of its range or of another type, and on what is no settings.
    """
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise UserError(f"settings must be a dataclass such as AgentConfig(horizon=3), not {config!r}")
    try:
        return convert(type(config), config)
    except Refused as error:
        raise UserError(f"--{'.'.join(error.path).replace('_', '-')} {error.reason}") from error


def read(cls: type[T], stored: Any, where: object) -> T:
    """Returns the dataclass that JSON holds. Raises `UserError`, which names `where` and the field, on anything else:
    unknown and missing names, other types, values out of range.
    """
    try:
        return convert(cls, stored)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def to_json(value: Any) -> Any:
    """Returns what JSON can hold of settings: dataclasses become objects, tuples lists, paths text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        choice = {"name": value.choices.name_of(type(value))} if isinstance(value, Choice) else {}
        return choice | {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(each) for each in value]
    return str(value) if isinstance(value, Path) else value


@dataclass(frozen=True)
class Choice:
    """Settings of which there are several classes, told apart by the names of a registry."""

    choices: ClassVar[Registry[Any]]
    made: ClassVar[Any] = None  # what they are the settings of
    inline: ClassVar[bool] = False  # a command has its options without a prefix, so messages name them without one

    def __init_subclass__(cls) -> None:
        if "choices" in vars(cls):
            refusal = f"be a subclass of {cls.__name__}"
            cls.choices.must = lambda value: "" if isinstance(value, type) and issubclass(value, cls) else refusal

    @classmethod
    def makes(cls, name: str) -> Callable[[T], T]:
        """Registers these settings by name, as those of the class that is decorated so."""

        def register(made: T) -> T:
            cls.made = made
            cls.choices.register(name, cls)
            return made

        return register


def convert(kind: Any, value: Any, path: tuple[str, ...] = ()) -> Any:
    """Returns the value as its annotation wants it; raises `Refused`."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if kind in (bool, float) and getattr(value, "shape", None) == ():  # NumPy's
        value = value.item()
    if origin is Callable:
        return _convert_function(args[0], value, path)
    if origin is Annotated:
        result = convert(args[0], value, path)
        for bounds in (each for each in args[1:] if isinstance(each, Range)):
            if refusal := bounds.refuses(result):
                raise Refused(path, f"must {refusal}, not {result}")
        return result
    if origin in (Union, types.UnionType):
        return _convert_union(args, value, path)
    if origin is Literal:
        if value in args:
            return value
        raise Refused(path, f"must be {' or '.join(map(str, args))}, not {value!r}")
    if origin in (tuple, list):
        return _convert_sequence(origin, args, value, path)
    if origin in (dict, Mapping) and isinstance(value, origin):
        return {convert(args[0], key, path): convert(args[1], each, (*path, str(key))) for key, each in value.items()}
    if dataclasses.is_dataclass(kind):
        return _convert_dataclass(kind, value, path)
    if hasattr(kind, "_fields") and isinstance(value, list | tuple):  # a NamedTuple
        return kind(*_convert_sequence(tuple, tuple(typing.get_type_hints(kind).values()), value, path))
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not is_finite(value):
            raise Refused(path, f"must be a finite number, not {value}")
        return float(value)
    if kind is Path and isinstance(value, str | Path):
        return expanded(value)
    if kind is int and hasattr(value, "__index__") and not isinstance(value, bool):  # NumPy's integers too
        return int(value)
    if kind is not int and isinstance(kind, type) and isinstance(value, kind):
        return value
    raise Refused(path, f"must be {getattr(kind, '__name__', kind)}, not {value!r}")


def _convert_function(kinds: Sequence[Any], value: Any, path: tuple[str, ...]) -> Any:
    """Takes what can be called with so many arguments, one after another."""
    if why := misfit(value, len(kinds)):
        raise Refused(path, f"must be a function of {len(kinds)} arguments: {why}")
    return value


def _convert_union(kinds: Sequence[Any], value: Any, path: tuple[str, ...]) -> Any:
    if value is None and type(None) in kinds:
        return None
    *others, last = (kind for kind in kinds if kind is not type(None))
    for kind in others:
        with contextlib.suppress(Refused):
            return convert(kind, value, path)
    return convert(last, value, path)


def _convert_sequence(origin: type, kinds: Sequence[Any], value: Any, path: tuple[str, ...]) -> Any:
    if not isinstance(value, list | tuple):
        raise Refused(path, f"must be a list, not {value!r}")
    if origin is list or (len(kinds) == 2 and kinds[1] is Ellipsis):
        kinds = [kinds[0]] * len(value)
    if len(kinds) != len(value):
        raise Refused(path, f"must have {len(kinds)} entries, not {len(value)}")
    return origin(convert(kind, each, path) for kind, each in zip(kinds, value, strict=True))


def _convert_dataclass(kind: Any, value: Any, path: tuple[str, ...]) -> Any:
    if isinstance(value, kind) and isinstance(value, Valid | Range):  # one is valid already, the other may be endless
        return value
    if isinstance(value, kind):
        kind, given = type(value), {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif isinstance(value, dict):
        given = dict(value)
        if issubclass(kind, Choice):
            try:
                kind = kind.choices.loaded(str(given.pop("name", None)))
            except UserError as error:
                raise Refused((*path, "name"), f"is no {kind.choices.kind}: {error}") from error
    else:
        raise Refused(path, f"must be {kind.__name__}, not {value!r}")
    fields = dataclasses.fields(kind)
    if unknown := given.keys() - {field.name for field in fields}:
        raise Refused((*path, min(unknown)), "is unknown")
    needed = {f.name for f in fields if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING}
    if missing := needed - given.keys():
        raise Refused((*path, min(missing)), "is missing")
    hints = _hints(kind)
    inside = {name: path if getattr(hints[name], "inline", False) else (*path, name) for name in given}
    return kind(**{name: convert(hints[name], each, inside[name]) for name, each in given.items()})


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)
