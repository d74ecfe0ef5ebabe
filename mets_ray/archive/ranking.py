"""The nearest records of an index, patients told apart, as deep as a page needs."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from mets_ray.archive.lance_table import table_faults
from mets_ray.archive.schema import PATIENT

_DEPTHS = (64, 128, 256, 512, 1024, 4096, 16384, 65536)
"""How many records are fetched: always one of these, so that pages of one search see the same ranking."""

_REFINED = 2  # times the depth: records of the coarse ranking whose exact similarity is computed
_MOST_PROBED = 256
_PROBED_SHARE = 4
_FIRST_GUESS = 2  # patients have this many records among the nearest


@dataclass(frozen=True)
class Bound:
    """The last hit of the page before: its similarity and where its row lies."""

    similarity: float
    row: int


class Ranking:
    """Searches one version of a table. partitions: of its vector index; 0 where there is none, so all are compared."""

    def __init__(self, uri: str, table: Any, partitions: int, columns: tuple[str, ...]) -> None:
        self._uri = uri
        self._table = table
        self._probes = min(partitions, _MOST_PROBED, max(16, partitions // _PROBED_SHARE))
        self._columns = [*columns, "embedding", "_distance"]

    def page(
        self,
        vector: Float32[np.ndarray, " dimension"],
        k: int,
        *,
        condition: str | None,
        before: int,
        bound: Bound | None,
        one_per_patient: bool,
    ) -> tuple[pa.Table, bool]:
        """The next `k` rows behind `bound`, the nearest first, and whether these are the last.

        before: rows of the pages before. Columns: those of the archive, `embedding`, `_distance`, `_rowid`.
        """
        wanted = before + k + 1
        guess = wanted * _FIRST_GUESS if one_per_patient else wanted
        for depth in _depths(guess):
            rows = self._nearest(vector, depth, condition)
            ended = rows.num_rows < depth
            chosen = _behind(rows, bound, one_per_patient=one_per_patient)
            if len(chosen) > k or ended:
                break
        return rows.take(pa.array(chosen[:k], pa.int64())), len(chosen) <= k and ended

    def _nearest(self, vector: np.ndarray, depth: int, condition: str | None) -> pa.Table:
        nearest: dict[str, Any] = {"column": "embedding", "q": vector, "k": depth, "metric": "cosine"}
        if self._probes:
            # At least these partitions, and more where a filter leaves too few of their rows.
            nearest |= {
                "minimum_nprobes": self._probes,
                "maximum_nprobes": None,
                "refine_factor": _REFINED,
            }
        with table_faults(self._uri):
            rows = self._table.to_table(
                columns=self._columns, nearest=nearest, filter=condition, prefilter=True, with_row_id=True
            )
        order = np.lexsort((rows["_rowid"].to_numpy(), rows["_distance"].to_numpy()))
        return rows.take(pa.array(order))


def _depths(guess: int) -> Iterator[int]:
    at_least = [depth for depth in _DEPTHS if depth >= guess] or [_DEPTHS[-1]]
    return iter(at_least)


def _behind(rows: pa.Table, bound: Bound | None, *, one_per_patient: bool) -> list[int]:
    """Places of the rows behind the bound; only the nearest row of each patient, wherever that stands."""
    similarity, ids = 1.0 - rows["_distance"].to_numpy().astype(np.float64), rows["_rowid"].to_numpy()
    patients = zip(*(rows[name].to_pylist() for name in PATIENT), strict=True) if one_per_patient else ids.tolist()
    seen, chosen = set(), []
    for place, patient in enumerate(patients):
        if patient in seen:
            continue
        seen.add(patient)
        if bound is None or (-similarity[place], int(ids[place])) > (-bound.similarity, bound.row):
            chosen.append(place)
    return chosen
