"""Columns of Arrow tables, as LeRobot's Parquet files and Lance's folders hold them, as arrays of numbers."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jepa_mpc.errors import reason
from jepa_mpc.world_model.data.extras import needed
from jepa_mpc.world_model.data.hdf5 import PACKED, DatasetError, guarded

if TYPE_CHECKING:
    import pyarrow as pa


def numbers(column: "pa.ChunkedArray", where: str) -> NDArray[np.float64]:
    """Returns a column of numbers, or of lists of equally many: (N, W). What is missing is NaN.

    Raises `DatasetError`, which says where, on anything else.
    """
    import pyarrow as pa
    from pyarrow import types

    flat, rows, kind = column.combine_chunks(), len(column), column.type
    while isinstance(flat, pa.ExtensionArray):
        flat = flat.storage
    while types.is_list(flat.type) or types.is_large_list(flat.type) or types.is_fixed_size_list(flat.type):
        if flat.null_count or len(np.unique(flat.value_lengths().to_numpy(zero_copy_only=False))) > 1:
            raise DatasetError(f"{where} must be lists of one length, not {kind} of several; write it again")
        flat = flat.flatten()
    if not (types.is_integer(flat.type) or types.is_floating(flat.type) or types.is_boolean(flat.type)):
        raise DatasetError(f"{where} must be numbers or lists of them, not {kind}; write it again")
    values = flat.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return values.reshape(rows, -1) if rows else np.empty((0, 0))


class Parquet:
    """One Parquet file: its columns, and what it declares held against its size before any of it is read."""

    def __init__(self, path: Path):
        pq = needed("pyarrow.parquet", "data", "to read Parquet files")
        if not path.is_file():
            raise DatasetError(f"there is no {path}; copy the data set again")
        self.path = path
        with self._guarded():
            self._file = pq.ParquetFile(path)

    def read(self, columns: Sequence[str], optional: Sequence[str] = ()) -> dict[str, NDArray[np.float64]]:
        """Returns columns of numbers by name, each (N, W). Raises `DatasetError` on one that is missing."""
        there = self._file.schema_arrow.names
        if missing := [name for name in columns if name not in there]:
            raise DatasetError(f"{self.path} has no column {missing[0]!r}; it has {', '.join(there)}")
        columns = [*columns, *(name for name in optional if name in there)]
        self._refuse_bombs(columns)
        with self._guarded():
            table = self._file.read(columns)
            return {name: numbers(table[name], f"{self.path}: column {name!r}") for name in columns}

    def values(self, column: str, start: int, count: int) -> Iterator[Any]:
        """Yields so many values of a column from a row on, as Python's own, a few in memory."""
        groups: list[int] = []
        skipped = end = 0
        for group in range(self._file.num_row_groups):
            begin, end = end, end + self._file.metadata.row_group(group).num_rows
            if end > start and begin < start + count:
                skipped = start - begin if not groups else skipped
                groups.append(group)
        with self._guarded():
            for batch in self._file.iter_batches(32, row_groups=groups, columns=[column]):
                yield from batch.column(0)[skipped : skipped + count].to_pylist()
                count -= max(0, len(batch) - skipped)
                skipped = max(0, skipped - len(batch))
                if count <= 0:
                    return

    def _refuse_bombs(self, columns: Sequence[str]) -> None:
        with self._guarded():
            metadata, declared = self._file.metadata, 0
            for group in map(metadata.row_group, range(metadata.num_row_groups)):
                for chunk in map(group.column, range(group.num_columns)):
                    if any(f"{chunk.path_in_schema}.".startswith(f"{name}.") for name in columns):
                        declared += 8 * chunk.num_values
            if declared > PACKED * (self.path.stat().st_size + 4096):
                raise DatasetError(f"{self.path} declares {declared} bytes, more than it holds; copy it again")

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        with guarded(self.path, "copy the data set again"):
            yield


def json_lines(path: Path) -> list[Any]:
    """Returns what a file has in every line, as JSON. Raises `DatasetError` if it is missing or damaged."""
    if not path.is_file():
        raise DatasetError(f"there is no {path}; copy the data set again")
    try:
        return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is damaged ({reason(error)}); copy the data set again") from error
