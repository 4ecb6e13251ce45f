"""Columns of HDF5 files that a stranger may have written: what they are is checked before any of it is read.

A column must lie in its file (no link, external storage or virtual data set leads elsewhere), be of the shape and type
that it should, and not declare more than the file can hold.
"""

import contextlib
import itertools
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from jepa_mpc.errors import UserError, reason

if TYPE_CHECKING:
    import h5py

_TYPES = {"uint8": "u", "float": "f", "integer": "iu"}  # NumPy's letters for what a column may be of
PACKED = 1_100  # the most that HDF5's own compression makes of a byte
_HELD_BACK = 32 * 2**20  # bytes at most that HDF5 writes only when it closes a file: its caches and indices


class DatasetError(UserError):
    """A data set that cannot be used; the message is one line that names the fix."""


@contextlib.contextmanager
def guarded(path: Path, fix: str = "write it again") -> Iterator[None]:
    """Says in one line what the HDF5 library says of a file that it cannot open or read."""
    try:
        yield
    except BlockingIOError as error:
        raise DatasetError(f"{path} is locked: another program has it open for writing; wait for that") from error
    except PermissionError:
        raise
    except (OSError, RuntimeError, LookupError, ValueError, TypeError) as error:
        raise DatasetError(f"{path} is truncated or no data set ({reason(error)}); {fix}") from error


def open_file(path: Path, fix: str = "name another") -> "h5py.File":
    """Opens a file to read. Raises `DatasetError` if there is none; within `guarded`, if HDF5 cannot read it."""
    import h5py

    if path.is_dir():
        convert = f"jepa-mpc convert data {shlex.quote(str(path))} --output FILE.h5"
        raise DatasetError(f"{path} is a folder; data sets are HDF5 files, and `{convert}` may make one of it")
    if not path.is_file():  # nor a pipe, which would block
        raise DatasetError(f"no data set at {path}; {fix}")
    return h5py.File(path, "r")


@contextlib.contextmanager
def writing(path: Path, mode: str) -> Iterator["h5py.File"]:
    """Opens a file to write to; whoever adds to it must `reserve` the room before."""
    import h5py

    with h5py.File(path, mode) as file:
        reserve(file, 0)
        yield file
        file.flush()
        size = file.id.get_filesize()
    os.truncate(path, size)


def reserve(file: "h5py.File", num_bytes: int) -> None:
    """Takes the room on the disk for so many bytes more. Raises `OSError` where there is none.

    Notable: HDF5 that finds the disk full when it closes a file tries again when Python ends, and crashes.
    """
    if hasattr(os, "posix_fallocate"):
        with open(file.filename, "rb+") as there:
            try:
                os.posix_fallocate(there.fileno(), 0, file.id.get_filesize() + num_bytes + _HELD_BACK)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(Path(file.filename).parent)) from error


def column(
    file: "h5py.File", name: str, shape: str, kind: str, sizes: Mapping[str, int] | None = None
) -> "h5py.Dataset":
    """Returns a column, which is still to be read.

    Args:
        name: of the column, with the groups that it stands in: `episode_0/actions`.
        shape: a letter a dimension, whose size stands in `sizes` or is free but not 0; or the digit that it must be.
        kind: uint8, float or integer.

    Raises `DatasetError` if the column is missing, elsewhere, of another shape or type, or coded in an unknown way.
    """
    found = local(file, name)
    wanted = [int(d) if d.isdigit() else (sizes or {}).get(d) for d in shape]
    said = f"({', '.join(str(size or d) for size, d in zip(wanted, shape, strict=True))}{',' * (len(shape) == 1)})"
    fits = found.shape is not None and len(found.shape) == len(shape)
    fits = fits and all(here == size if size else here > 0 for here, size in zip(found.shape, wanted, strict=True))
    if not fits or found.dtype.kind not in _TYPES[kind] or (kind == "uint8" and found.dtype.itemsize != 1):
        raise DatasetError(
            f"{file.filename}: column {name!r} must be {said} {kind}, not {found.shape} {found.dtype}; write it again"
        )
    if shape != "NHW3" and found.nbytes > PACKED * (found.id.get_storage_size() + 4096):
        raise DatasetError(f"{file.filename}: column {name!r} declares {found.nbytes} bytes, more than the file holds")
    return found


def local(file: "h5py.File", name: str) -> "h5py.Dataset":
    """Returns a column of any shape and type, which lies in this file and can be decoded."""
    import h5py

    path, found = file.filename, _inside(file, name)
    if not isinstance(found, h5py.Dataset):
        raise DatasetError(f"{path}: column {name!r} must be a column, not a group; write it again")
    if found.is_virtual or found.external:
        raise DatasetError(f"{path}: column {name!r} lies in other files, which are not read; write it into this one")
    properties = found.id.get_create_plist()
    for code, _, _, coding in map(properties.get_filter, range(properties.get_nfilters())):
        if not h5py.h5z.filter_avail(code):
            with contextlib.suppress(ImportError):
                import hdf5plugin  # noqa: F401 (registers them)
        if not h5py.h5z.filter_avail(code):
            raise DatasetError(
                f"{path}: column {name!r} is coded by {coding.decode() or f'filter {code}'}, for which the package "
                "hdf5plugin is needed; `pip install hdf5plugin`"
            )
    return found


def column_names(file: "h5py.File", group: str = "") -> list[str]:
    """Returns the names of the columns of a file, or below a group of it, in order; none that are links."""
    import h5py

    if group and isinstance(_inside(file, group), h5py.Dataset):
        return [group]
    names, seen, todo = [], set(), [group]
    while todo:
        place = todo.pop()
        inside = _inside(file, place) if place else file
        for key in inside:
            name = f"{place}/{key}".lstrip("/")
            if not isinstance(inside.get(key, getlink=True), h5py.HardLink):
                continue
            if isinstance(found := inside[key], h5py.Dataset):
                names.append(name)
            elif isinstance(found, h5py.Group) and (address := h5py.h5o.get_info(found.id).addr) not in seen:
                seen.add(address)  # for groups may hold each other
                todo.append(name)
    return sorted(names)


def _inside(file: "h5py.File", name: str) -> "h5py.HLObject":
    """Returns what a name leads to without a link to elsewhere."""
    import h5py

    for key in map(str.encode, itertools.accumulate(name.split("/"), "{}/{}".format)):
        if not file.id.links.exists(key):
            raise DatasetError(f"{file.filename} has no column {name!r}; write it again with one")
        if file.id.links.get_info(key).type != h5py.h5l.TYPE_HARD:
            raise DatasetError(
                f"{file.filename}: column {name!r} is a link, which is not followed; write the data into the file"
            )
    return file[name]
