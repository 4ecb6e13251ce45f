"""Something wrong with recorded data, in words."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Something wrong, in words, and what to do about it."""

    says: str
    fix: str
    episodes: tuple[int, ...] = ()


def few(episodes: Iterable[int]) -> str:
    """Returns episodes as one types them, if they are many, the first."""
    named = [*episodes]
    return " ".join(map(str, named[:10])) + (" …" if len(named) > 10 else "")
