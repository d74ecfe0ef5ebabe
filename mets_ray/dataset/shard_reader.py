"""Reading a shard: open the file, select its rows, get its signals, and read ahead of the computation."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int16

from mets_ray import storage
from mets_ray.dataset.card import INDEX_COLUMNS
from mets_ray.dataset.folds import Selection
from mets_ray.errors import DatasetError

T = TypeVar("T")


def open_shard(dataset_uri: str, path: str) -> pq.ParquetFile:
    """Open a shard for reading by row groups. Raises DatasetError if it is missing."""
    uri = storage.join(dataset_uri, path)
    if not storage.exists(uri):
        raise DatasetError(
            f"`{path}` is listed in the card but missing in `{dataset_uri}`",
            hint="prepare the data set again: finished shards are kept",
        )
    filesystem, file_path = storage.arrow_filesystem(uri)
    return pq.ParquetFile(filesystem.open_input_file(file_path), pre_buffer=True)


def read_shard(dataset_uri: str, path: str, columns: Sequence[str], selection: Selection) -> pa.Table:
    """`columns` of a shard's selected rows, and `INDEX_COLUMNS`, which the selection is based on."""
    return _selected(open_shard(dataset_uri, path).read(columns=[*columns, *INDEX_COLUMNS]), selection)


class RowGroupReader:
    """Reads `columns` and `INDEX_COLUMNS` of row groups of a data set; each row group is read only once."""

    def __init__(self, dataset_uri: str, columns: Sequence[str], selection: Selection) -> None:
        self._dataset_uri = dataset_uri
        self._columns = [*columns, *INDEX_COLUMNS]
        self._selection = selection
        self._files: dict[str, pq.ParquetFile] = {}
        self._tables: dict[tuple[str, int], pa.Table] = {}

    def selected(self, path: str, row_group: int) -> pa.Table:
        """The selected rows of one row group, in stored order."""
        key = (path, row_group)
        if key not in self._tables:
            if path not in self._files:
                self._files[path] = open_shard(self._dataset_uri, path)
            table = self._files[path].read_row_group(row_group, columns=self._columns)
            self._tables[key] = _selected(table, self._selection)
        return self._tables[key]


def _selected(table: pa.Table, selection: Selection) -> pa.Table:
    mask = selection.mask(table["fold"].to_numpy(), table["patient_id"].to_pylist())
    return table if mask.all() else table.filter(pa.array(mask))


def signals(rows: pa.Table) -> Int16[np.ndarray, "row lead sample"]:
    """The column `signal_uv` of a table as one array."""
    array: np.ndarray = rows["signal_uv"].combine_chunks().to_numpy_ndarray()
    return array


def read_ahead(items: Iterator[T], readers: Executor) -> Iterator[T]:
    """The same items, with the next one always being read in a thread; reading begins now, not at the first `next`."""

    def following(coming: "Future[T | None]") -> Iterator[T]:
        while (item := coming.result()) is not None:
            coming = readers.submit(next, items, None)
            yield item

    return following(readers.submit(next, items, None))
