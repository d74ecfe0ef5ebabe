"""One record of a prepared data set at a time, by its id: for showing it, not for computing with it.

Only the row group that holds the record is read, and of other row groups nothing but the small column of ids.
"""

from dataclasses import dataclass
from threading import Lock

import numpy as np
import pyarrow.parquet as pq
from cachetools import LRUCache

from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.dataset.recording_windows import window_name
from mets_ray.dataset.shard_reader import open_shard, signals
from mets_ray.errors import DatasetError

_OPEN_SHARDS = 16


@dataclass(frozen=True)
class _OpenShard:
    """A shard that stays open. places: of each record id, its row group and its row in it. lock: one reads at a time,
    because the file has a position."""

    file: pq.ParquetFile
    places: dict[str, tuple[int, int]]
    lock: Lock


@dataclass(frozen=True)
class StoredRecord:
    """signal_uv: int16 [lead, sample] in microvolts, as it was prepared; not writeable.

    report: empty where the data set has none.
    """

    signal_uv: np.ndarray
    report: str

    @property
    def nbytes(self) -> int:
        """What it takes in memory."""
        return self.signal_uv.nbytes + 4 * len(self.report)


class SingleRecords:
    """Single records by their ids, from any thread.

    cache_bytes: how much of the records that were read last is kept. The ids of the shards that were used last are kept
    beside them.
    """

    def __init__(self, dataset: PreparedDataset, *, cache_bytes: int) -> None:
        self.dataset = dataset
        self._kept: LRUCache[tuple[str, str], StoredRecord] = LRUCache(cache_bytes, getsizeof=lambda kept: kept.nbytes)
        self._shards: LRUCache[str, _OpenShard] = LRUCache(_OPEN_SHARDS)
        self._lock = Lock()

    @property
    def cached_bytes(self) -> int:
        """What the kept records take."""
        return int(self._kept.currsize)

    def read(self, shard: str, record_id: str) -> StoredRecord:
        """A record; of a recording that was cut into windows, the first window. shard: its path, as in the card.

        Raises DatasetError if the shard is missing or damaged, or does not hold the record.
        """
        with self._lock:
            kept = self._kept.get((shard, record_id))
        if kept is not None:
            return kept
        opened, (row_group, row) = self._find(shard, record_id)
        with opened.lock:
            rows = opened.file.read_row_group(row_group, columns=["signal_uv", "report"])
        signal_uv = signals(rows)[row].copy()  # a view would keep the whole row group
        signal_uv.flags.writeable = False
        record = StoredRecord(signal_uv, rows["report"][row].as_py())
        with self._lock:
            if record.nbytes <= self._kept.maxsize:
                self._kept[shard, record_id] = record
        return record

    def _find(self, shard: str, record_id: str) -> tuple[_OpenShard, tuple[int, int]]:
        opened = self._open(shard)
        place = opened.places.get(record_id)
        if place is None:
            raise DatasetError(
                f"a record of the index is not in `{shard}`",
                where=self.dataset.uri,
                hint="name the data set that was scored, and index its scores again",
            )
        return opened, place

    def _open(self, path: str) -> _OpenShard:
        with self._lock:
            opened = self._shards.get(path)
        if opened is not None:
            return opened
        shard = self.dataset.shards.get(path)
        if shard is None:
            raise DatasetError(
                f"the card lists no shard `{path}`",
                where=self.dataset.uri,
                hint="name the data set that was scored, and index its scores again",
            )
        file = open_shard(self.dataset.uri, shard)
        places: dict[str, tuple[int, int]] = {}
        for row_group in range(file.num_row_groups):
            ids = file.read_row_group(row_group, columns=["record_id"])["record_id"].to_pylist()
            for row, row_id in enumerate(ids):
                places[row_id] = (row_group, row)
                window = None if self.dataset.card.window_stride_s is None else window_name(row_id)
                if window is not None:
                    places.setdefault(window.record_id, (row_group, row))
        opened = _OpenShard(file, places, Lock())
        with self._lock:
            self._shards[path] = opened
        return opened
