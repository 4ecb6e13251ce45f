"""Columns of HDF5 files that a stranger may have written: what they are is checked before any of it is read.

A column must lie in its file (no link, external storage or virtual data set leads elsewhere), be of the shape and type
that it should, and not declare more than the file can hold.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from jepa_mpc.errors import UserError, reason

if TYPE_CHECKING:
    import h5py

_TYPES = {"uint8": "u", "float": "f", "integer": "iu"}  # NumPy's letters for what a column may be of
_PACKED = 1_100  # the most that HDF5's own compression makes of a byte


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
        raise DatasetError(f"{path} is a folder; data sets are HDF5 files, so write one of it or name another")
    if not path.is_file():  # nor a pipe, which would block
        raise DatasetError(f"no data set at {path}; {fix}")
    return h5py.File(path, "r")


def column(
    file: "h5py.File", name: str, shape: str, kind: str, sizes: Mapping[str, int] | None = None
) -> "h5py.Dataset":
    """Returns a column, which is still to be read.

    Args:
        shape: a letter a dimension, whose size stands in `sizes` or is free but not 0; or the digit that it must be.
        kind: uint8, float or integer.

    Raises `DatasetError` if the column is missing, elsewhere, of another shape or type, or coded in an unknown way.
    """
    import h5py

    path, links, key = file.filename, file.id.links, name.encode()
    if not links.exists(key):
        raise DatasetError(f"{path} has no column {name!r}; write it again with one")
    if links.get_info(key).type != h5py.h5l.TYPE_HARD:
        raise DatasetError(f"{path}: column {name!r} is a link, which is not followed; write the data into the file")
    found = file[name]
    wanted = [int(d) if d.isdigit() else (sizes or {}).get(d) for d in shape]
    said = f"({', '.join(str(size or d) for size, d in zip(wanted, shape, strict=True))}{',' * (len(shape) == 1)})"
    must = f"{path}: column {name!r} must be {said} {kind}"
    if not isinstance(found, h5py.Dataset):
        raise DatasetError(f"{must}, not a group; write it again")
    if found.is_virtual or found.external:
        raise DatasetError(f"{path}: column {name!r} lies in other files, which are not read; write it into this one")
    fits = found.shape is not None and len(found.shape) == len(shape)
    fits = fits and all(here == size if size else here > 0 for here, size in zip(found.shape, wanted, strict=True))
    if not fits or found.dtype.kind not in _TYPES[kind] or (kind == "uint8" and found.dtype.itemsize != 1):
        raise DatasetError(f"{must}, not {found.shape} {found.dtype}; write it again")
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
    if name != "pixels" and found.nbytes > _PACKED * (found.id.get_storage_size() + 4096):
        raise DatasetError(f"{path}: column {name!r} declares {found.nbytes} bytes, more than the file holds")
    return found
