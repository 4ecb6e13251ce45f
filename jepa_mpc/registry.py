"""Things that are chosen by name: tasks, planners, objectives, data policies, regularisers, rivals.

What is registered has a name. A stranger's is registered in a file of their own, or named `module:attribute` where a
person is asked for a name; the module is then imported, from the folder one stands in too. Installed packages may list
modules to import under the entry-point group `jepa_mpc`. A name in a file of data imports nothing (`loaded`).
"""

import difflib
import importlib
import importlib.metadata
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from types import FrameType, ModuleType
from typing import Any, Generic, TypeVar

from jepa_mpc.errors import UserError

T = TypeVar("T")


def load(reference: str) -> object:
    """Imports what `module:attribute` names; raises `UserError` if it is not there."""
    module_name, _, attribute = reference.partition(":")
    if not attribute:
        raise UserError(f"{reference!r} names no function; say module:function, such as my_robot:arm")
    module = import_module(module_name, reference)
    if not hasattr(module, attribute):
        raise UserError(f"module {module_name!r} has no {attribute!r}; correct {reference!r}")
    return getattr(module, attribute)


def import_module(module_name: str, reference: str) -> ModuleType:
    """Imports a module, from the folder one stands in too; raises `UserError`, with the reference, if there is none."""
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise UserError(f"{reference!r} names no module; say module:name, as one imports it: my_robot:dot")
    if "" not in sys.path:  # scripts leave it out
        sys.path.append("")
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # something that the module itself imports
        fix = "give it as it is imported from here"
        if module_name.endswith(".py"):
            fix = f"leave .py out: {reference.replace('.py:', ':')}"
        raise UserError(f"no module {module_name!r} for {reference!r}; {fix}") from error


def same(one: str, other: str) -> bool:
    """Says whether two names mean one thing: `module:name` is also `name`, once the module is imported, and a file is
    the same wherever one stands.
    """
    if is_model_file(one) and is_model_file(other):
        (path, camera), (other_path, other_camera) = split_camera(one), split_camera(other)
        return (os.path.basename(path), camera) == (os.path.basename(other_path), other_camera)
    return one == other or ((":" in one) != (":" in other) and one.rpartition(":")[2] == other.rpartition(":")[2])


def is_model_file(name: str) -> bool:
    """Says whether the name of a task is an MJCF file's, with or without a camera behind an @."""
    return split_camera(name)[0].lower().endswith(".xml")


def split_camera(name: str) -> tuple[str, str]:
    """Returns the name of a task, and of the camera behind its @, if there is one; folders may have an @ too, and
    cameras a slash.
    """
    model_file = re.fullmatch(r"(.*?\.xml)(?:@(.*))?", name, re.IGNORECASE | re.DOTALL)
    plain, camera = model_file.groups() if model_file else name.partition("@")[::2]
    return plain, camera or ""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns a question that suggests the nearest names, or nothing where none is near."""
    near = difflib.get_close_matches(name, known, n=3) or [each for each in known if name and name in each][:3]
    return f"did you mean {' or '.join(near)}?" if near else ""


def misfit(function: Any, count: int) -> str:
    """Says why a value cannot be called with so many arguments, or nothing."""
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError as error:
        return str(error)
    except ValueError:  # some built-in functions do not say
        pass
    return ""


def takes(count: int) -> Callable[[Any], str]:
    """Returns what a registry holds functions of so many arguments against."""
    return lambda value: f"be a function of {count} argument{'s' * (count > 1)}" if misfit(value, count) else ""


class Registry(Generic[T]):
    """Values of one kind by name, in the order in which they were registered.

    Args:
        kind: what a value is called in messages, such as "planner".
        listed_by: the command that lists the names, where they are too many for a message.
        must: says what a value must be that it is not, such as "be a function of 4 arguments", or nothing.
    """

    def __init__(self, kind: str, listed_by: str = "", must: Callable[[Any], str] = lambda value: ""):
        self.kind, self._listed_by, self.must = kind, listed_by, must
        self._values: dict[str, T | str] = {}
        self._found: dict[str, T] = {}  # by `module:attribute`; such are not listed
        self._origins: dict[str, str] = {}  # by name, the module of a stranger who registered it

    def register(self, name: str, value: T | str) -> None:
        """Adds a value, or `module:attribute`, which is imported when it is asked for.

        Raises `UserError` if another has that name.
        """
        if self._values.setdefault(name, value) != value:
            raise UserError(f"there is a {self.kind} {name!r} already; choose another name")
        self._origins.setdefault(name, _caller())

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __getitem__(self, name: str) -> T:
        """Returns the value of that name; raises `UserError`, which says what names there are, if there is none."""
        if name not in self._values and ":" in name:
            return self._strangers(name)
        if name not in self._values:
            _import_installed()
        if name not in self._values:
            hints = did_you_mean(name, self), "" if self._listed_by else f"there are: {', '.join(self)}"
            hint = " ".join(filter(None, hints)) or f"`{self._listed_by}` lists them"
            raise UserError(f"unknown {self.kind} {name!r}; {hint}")
        value = self._values[name]
        if isinstance(value, str):
            value = self._values[name] = load(value)  # type: ignore[assignment]
        return self.held(value, name)  # type: ignore[arg-type]

    def loaded(self, name: str) -> T:
        """Returns the value that a name in a file means. A file chooses no code to import: a `module:name` of it must
        be registered by that module, or found before. Raises `UserError`, which says how, where it is not.
        """
        if ":" in name and name not in self._values and name not in self._found:
            module_name, _, attribute = name.partition(":")
            _import_installed()
            if not self._is_by(module_name, attribute):
                fix = f"import {module_name} first, or say --{self.kind} {name}"
                raise UserError(f"{self.kind} {name!r} is code that is not loaded; {fix}")
            self._found[name] = self[attribute]
        return self[name]

    def held(self, value: T, name: object) -> T:
        """Returns a value that is of this kind; raises `UserError` on any other."""
        if refusal := self.must(value):
            raise UserError(f"{name} is no {self.kind}: it must {refusal}, not {value!r}")
        return value

    def name_of(self, value: T) -> str:
        """Returns the name of a value that is registered, with the module where that is a stranger's, else how to
        import it.
        """
        for name in self._values:
            if self._values[name] is value or (isinstance(self._values[name], str) and self[name] is value):
                return ":".join(filter(None, (self._origins[name], name)))
        name = f"{value.__module__}:{value.__qualname__}"  # type: ignore[attr-defined]
        self._found.setdefault(name, value)  # a file that is written now may be read here
        return name

    def _strangers(self, name: str) -> T:
        """Imports a module, and takes its attribute of that name, or else what it has registered under it."""
        if name not in self._found:
            module_name, _, attribute = name.partition(":")
            known = attribute in self._values
            module = import_module(module_name, name)
            by_it = self._is_by(module_name, attribute) or (attribute in self._values and not known)
            registered = by_it and not hasattr(module, attribute)
            self._found[name] = self[attribute] if registered else self.held(load(name), name)  # type: ignore[arg-type]
        return self._found[name]

    def _is_by(self, module_name: str, name: str) -> bool:
        """Says whether a module, or one inside it, has registered the name."""
        return name in self._values and f"{self._origins[name]}.".startswith(f"{module_name}.")


def _import_installed() -> None:
    for entry in importlib.metadata.entry_points(group="jepa_mpc"):
        entry.load()


def _caller() -> str:
    """Returns the stranger's module that registers; nothing where it is the package, or a script that is run."""
    frame: FrameType | None = sys._getframe(1)
    while frame and _is_own(frame) and frame.f_code.co_name != "<module>":  # our functions, on the way to here
        frame = frame.f_back
    name = "" if frame is None or _is_own(frame) else frame.f_globals["__name__"]
    return "" if name == "__main__" else name


def _is_own(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] == "jepa_mpc"
