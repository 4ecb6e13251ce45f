"""Files that are there whole or not at all, and folders that belong to one piece of work.

A scratch file has a random name that ends in `.unfinished`; what a killed process left of them in a folder is removed
when the folder is claimed again.
"""

import contextlib
import hashlib
import io
import json
import logging
import os
import secrets
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.errors import UserError, reason

log = logging.getLogger(__name__)

_SCRATCH = ".unfinished"
_CLAIM = "settings.json"
_LOCK, _HOLDER = ".lock", ".holder"


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Gives a scratch path to write to, which becomes `path` once the block ends well: flushed, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}{_SCRATCH}")
    scratch.touch(exist_ok=False)
    try:
        yield scratch
        with scratch.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes | str) -> None:
    """Writes a file, which is there whole or not at all."""
    with whole(path) as scratch:
        scratch.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON, whole or not at all."""
    write_whole(path, json.dumps(value, indent=2) + "\n")


def write_arrays(path: Path, arrays: Mapping[str, Any], compress: bool = False) -> None:
    """Writes arrays by name, and behind them a digest, so that a damaged file is known before it is looked into."""
    stream = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(stream, **arrays)
    content = stream.getvalue()
    write_whole(path, content + hashlib.sha256(content).digest())


def read_arrays(path: Path) -> dict[str, NDArray[Any]] | None:
    """Returns the arrays that `write_arrays` has written, or None if they are missing or not as they were written."""
    stored = path.read_bytes() if path.is_file() else b""
    content, digest = stored[:-32], stored[-32:]
    if hashlib.sha256(content).digest() != digest:
        return None
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return dict(file)


def read_json(path: Path, fix: str) -> Any:
    """Returns what a JSON file holds. Raises `UserError`, with the fix, if it is missing or damaged."""
    if path.exists() and not path.is_file():  # a pipe would be waited for, for ever
        raise UserError(f"{path} is not a file; {fix}")
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"there is no {path}; {fix}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({reason(error)}); {fix}") from error


def refuse_existing(path: Path, option: str = "--output") -> None:
    """Raises `UserError` if something is at a path that is to be written; nothing is ever overwritten unasked."""
    if path.exists() or path.is_symlink():
        raise UserError(f"{path} exists already; delete it or choose another {option}")


def require_new(path: Path, option: str = "--output") -> None:
    """Raises `UserError` unless a file can be written at a path where there is nothing yet: before the work that would
    be lost.
    """
    if path.is_dir():
        raise UserError(f"{option} {path} exists already, and is a folder; name a file")
    refuse_existing(path, option)
    require_folder(path.parent, f"{option} {path}")


def require_folder(path: Path, what: str) -> None:
    """Raises `UserError`, which says what for, unless a folder can be written to; it need not be there yet."""
    there = next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise UserError(f"{what} cannot be written: {there} is not a folder that one may write to")


@contextlib.contextmanager
def claimed(folder: Path, settings: Mapping[str, Any], free: Collection[str] = ()) -> Iterator[None]:
    """Makes a folder this work's own while the block lasts, and remembers its settings in `settings.json`.

    Raises `UserError` if another process is at work there, or if the folder holds work of other settings: it names
    what differs, but for `free` ones, which do not change what comes out.
    """
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{folder} cannot be a folder: there is a file of that name; name another") from error
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        holder = (folder / _HOLDER).read_text().strip() if (folder / _HOLDER).exists() else "?"
        raise UserError(f"process {holder} is at work in {folder}; wait for it or choose another --output") from error
    try:
        (folder / _HOLDER).write_text(f"{os.getpid()}\n")
        for left in folder.glob(f".*{_SCRATCH}"):
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink(missing_ok=True)
        _hold_settings(folder / _CLAIM, settings, free)
        yield
    finally:
        (folder / _HOLDER).unlink(missing_ok=True)
        lock.release()
        if not (folder / _CLAIM).exists():
            (folder / _LOCK).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # something else lies there
                folder.rmdir()


def give_up(folder: Path, done: Iterable[Path]) -> None:
    """Deletes files of a claimed folder that have served, and the folder with them when the claim ends."""
    for path in (*done, folder / _CLAIM):
        path.unlink(missing_ok=True)


def refuse_foreign(folder: Path) -> None:
    """Raises `UserError` if a folder to be claimed holds things, but no claim."""
    if folder.is_dir() and not (folder / _CLAIM).exists() and any(each.name[0] != "." for each in folder.iterdir()):
        raise UserError(f"{folder} holds files that are none of ours; move it away or choose another --output")


def _hold_settings(path: Path, settings: Mapping[str, Any], free: Collection[str]) -> None:
    """Compares settings with those in a file, or writes them there."""
    wanted = json.loads(json.dumps({name: value for name, value in settings.items() if name not in free}))
    stored = None
    try:
        stored = {name: value for name, value in json.loads(path.read_text()).items() if name not in free}
    except FileNotFoundError:
        pass
    except (OSError, ValueError, AttributeError):
        log.warning("%s is damaged; it is written again", path)
    if stored is None:
        write_json(path, wanted)
    elif differing := [name for name in {**stored, **wanted} if stored.get(name) != wanted.get(name)]:
        name, *others = differing
        rest = f" (and {len(others)} more)" if others else ""
        raise UserError(
            f"{path.parent} holds work with other settings: {name} is {stored.get(name)} there and {wanted.get(name)} "
            f"now{rest}; choose another --output"
        )
