"""Reading a shard: open the file, select its rows, get its signals, and read ahead of the computation."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int16, Int64

from mets_ray import storage
from mets_ray.dataset.card import INDEX_COLUMNS, Shard
from mets_ray.dataset.folds import Selection
from mets_ray.errors import DatasetError

T = TypeVar("T")

_MAKE_AGAIN = "run prepare again with the settings of the data set: it keeps whole shards and makes the others again"


def open_shard(dataset_uri: str, shard: Shard) -> pq.ParquetFile:
    """Open a shard for reading by row groups; what is read of it is compared with the card's hashes.

    Raises DatasetError if it is missing, and DamagedFileError, as reading does, if it is not the file that was written.
    """
    uri = storage.join(dataset_uri, shard.path)
    try:
        file = storage.open_checked(uri, shard.sha256, shard.pieces, hint=_MAKE_AGAIN)
        if not shard.pieces:
            return pq.ParquetFile(file, pre_buffer=True)
        # Read by itself: pyarrow would fetch the last 64 kB, and with them pieces that nobody asked for.
        file.seek(sum(piece.size for piece in shard.pieces[:-1]))
        metadata = pq.read_metadata(pa.BufferReader(file.read()))
        return pq.ParquetFile(file, metadata=metadata, pre_buffer=True)
    except storage.MissingFileError as error:
        raise DatasetError(
            f"`{shard.path}` is listed in the card but missing in `{dataset_uri}`", hint=_MAKE_AGAIN
        ) from error


def read_shard(dataset_uri: str, shard: Shard, columns: Sequence[str], selection: Selection) -> pa.Table:
    """`columns` of a shard's selected rows, and `INDEX_COLUMNS`, which the selection is based on.

    Raises as `open_shard`.
    """
    rows = open_shard(dataset_uri, shard).read(columns=[*columns, *INDEX_COLUMNS])
    mask = _mask(rows, selection)
    return rows if mask.all() else rows.filter(pa.array(mask))


class RowGroupReader:
    """Reads `columns` and `INDEX_COLUMNS` of row groups of a data set, opening each shard once.

    shards: by path."""

    def __init__(
        self, dataset_uri: str, shards: Mapping[str, Shard], columns: Sequence[str], selection: Selection
    ) -> None:
        self._dataset_uri = dataset_uri
        self._shards = shards
        self._columns = [*columns, *INDEX_COLUMNS]
        self._selection = selection
        self._files: dict[str, pq.ParquetFile] = {}

    def read(self, path: str, row_group: int) -> tuple[pa.Table, Int64[np.ndarray, " selected"]]:
        """All rows of one row group in stored order, and the positions of the selected ones."""
        if path not in self._files:
            self._files[path] = open_shard(self._dataset_uri, self._shards[path])
        rows = self._files[path].read_row_group(row_group, columns=self._columns)
        return rows, np.flatnonzero(_mask(rows, self._selection))


def _mask(rows: pa.Table, selection: Selection) -> np.ndarray:
    return selection.mask(rows["fold"].to_numpy(), rows["patient_id"].to_pylist())


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
