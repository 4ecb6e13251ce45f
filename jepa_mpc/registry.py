"""Things that are chosen by name: tasks, planners, objectives, data policies, regularisers, rivals.

What is registered has a name. A stranger's is registered in a file of their own, or named `module:attribute` where a
name is asked for; the module is then imported, from the folder one stands in too. Installed packages may list modules
to import under the entry-point group `jepa_mpc`.
"""

import difflib
import importlib
import importlib.metadata
import sys
from collections.abc import Iterable, Iterator
from types import FrameType, ModuleType
from typing import Generic, TypeVar

from jepa_mpc.errors import UserError

T = TypeVar("T")


def load(reference: str) -> object:
    """Imports what `module:attribute` names; raises `UserError` if it is not there."""
    module_name, _, attribute = reference.partition(":")
    module = import_module(module_name, reference)
    if not hasattr(module, attribute):
        raise UserError(f"module {module_name!r} has no {attribute!r}; correct {reference!r}")
    return getattr(module, attribute)


def import_module(module_name: str, reference: str) -> ModuleType:
    """Imports a module, from the folder one stands in too; raises `UserError`, with the reference, if there is none."""
    if "" not in sys.path:  # scripts leave it out
        sys.path.append("")
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # something that the module itself imports
        raise UserError(f"no module {module_name!r} for {reference!r}; give it as it is imported from here") from error


def same(one: str, other: str) -> bool:
    """Says whether two names mean one thing: `module:name` is also `name`, once the module is imported."""
    return one == other or ((":" in one) != (":" in other) and one.rpartition(":")[2] == other.rpartition(":")[2])


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns a question that suggests the nearest names, or nothing where none is near."""
    near = difflib.get_close_matches(name, known, n=3) or [each for each in known if name and name in each][:3]
    return f"did you mean {' or '.join(near)}?" if near else ""


class Registry(Generic[T]):
    """Values of one kind by name, in the order in which they were registered.

    Args:
        kind: what a value is called in messages, such as "planner".
        listed_by: the command that lists the names, where they are too many for a message.
    """

    def __init__(self, kind: str, listed_by: str = ""):
        self.kind, self._listed_by = kind, listed_by
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
            for entry in importlib.metadata.entry_points(group="jepa_mpc"):
                entry.load()
        if name not in self._values:
            hints = did_you_mean(name, self), "" if self._listed_by else f"there are: {', '.join(self)}"
            hint = " ".join(filter(None, hints)) or f"`{self._listed_by}` lists them"
            raise UserError(f"unknown {self.kind} {name!r}; {hint}")
        value = self._values[name]
        if isinstance(value, str):
            value = self._values[name] = load(value)  # type: ignore[assignment]
        return value  # type: ignore[return-value]

    def name_of(self, value: T) -> str:
        """Returns the name of a value that is registered, with the module where that is a stranger's, else how to
        import it.
        """
        for name in self._values:
            if self._values[name] is value or (isinstance(self._values[name], str) and self[name] is value):
                return ":".join(filter(None, (self._origins[name], name)))
        return f"{value.__module__}:{value.__qualname__}"  # type: ignore[attr-defined]

    def _strangers(self, name: str) -> T:
        """Imports a module, and takes its attribute of that name, or else what it has registered under it."""
        if name not in self._found:
            module_name, _, attribute = name.partition(":")
            known = attribute in self._values
            module = import_module(module_name, name)
            by_it = not known or f"{self._origins[attribute]}.".startswith(f"{module_name}.")
            registered = by_it and attribute in self._values and not hasattr(module, attribute)
            self._found[name] = self[attribute] if registered else load(name)  # type: ignore[assignment]
        return self._found[name]


def _caller() -> str:
    """Returns the stranger's module that registers; nothing where it is the package, or a script that is run."""
    frame: FrameType | None = sys._getframe(1)
    while frame and _is_own(frame) and frame.f_code.co_name != "<module>":  # our functions, on the way to here
        frame = frame.f_back
    name = "" if frame is None or _is_own(frame) else frame.f_globals["__name__"]
    return "" if name == "__main__" else name


def _is_own(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] == "jepa_mpc"
