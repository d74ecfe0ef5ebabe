"""One record of a prepared data set at a time, by its id: for showing it, not for computing with it.

Only the row group that holds the record is read, and of other row groups nothing but the small column of ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from cachetools import LRUCache
from jaxtyping import Int16

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


class SingleRecords:
    """Signals and reports of single records, from any thread.

    cache_bytes: how much of the signals that were read last is kept. The ids of the shards that were used last are kept
    beside them.
    """

    def __init__(self, dataset: PreparedDataset, *, cache_bytes: int) -> None:
        self.dataset = dataset
        self._kept: LRUCache[tuple[str, str], np.ndarray] = LRUCache(cache_bytes, getsizeof=lambda kept: kept.nbytes)
        self._shards: LRUCache[str, _OpenShard] = LRUCache(_OPEN_SHARDS)
        self._lock = Lock()

    @property
    def cached_bytes(self) -> int:
        """What the signals that are kept take."""
        return int(self._kept.currsize)

    def signal_uv(self, shard: str, record_id: str) -> Int16[np.ndarray, "lead sample"]:
        """The signal of a record in microvolts, as it was prepared. shard: its path, as in the card.

        Of a recording that was cut into windows, the first window. Raises DatasetError if the shard is missing or
        damaged, or does not hold the record.
        """
        with self._lock:
            kept = self._kept.get((shard, record_id))
        if kept is not None:
            return kept
        opened, (row_group, row) = self._find(shard, record_id)
        with opened.lock:
            rows = opened.file.read_row_group(row_group, columns=["signal_uv"])
        signal_uv = signals(rows)[row].copy()  # a view would keep the whole row group
        signal_uv.flags.writeable = False
        with self._lock:
            if signal_uv.nbytes <= self._kept.maxsize:
                self._kept[shard, record_id] = signal_uv
        return signal_uv

    def reports(self, shard: str, record_ids: Sequence[str]) -> list[str]:
        """The reports of records of one shard; no signal is read. Raises as `signal_uv`."""
        places = [self._find(shard, record_id) for record_id in record_ids]
        found: dict[int, pa.ChunkedArray] = {}
        for opened, (row_group, _) in places:
            if row_group not in found:
                with opened.lock:
                    found[row_group] = opened.file.read_row_group(row_group, columns=["report"])["report"]
        return [found[row_group][row].as_py() for _, (row_group, row) in places]

    def _find(self, shard: str, record_id: str) -> tuple[_OpenShard, tuple[int, int]]:
        opened = self._open(shard)
        place = opened.places.get(record_id)
        if place is None:
            raise DatasetError(
                f"the record `{record_id}` is not in `{shard}`",
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
