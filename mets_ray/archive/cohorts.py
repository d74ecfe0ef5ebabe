"""All records above a similarity: every vector of the index is compared, a few thousand at a time."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from mets_ray.archive.lance_table import table_faults
from mets_ray.archive.schema import PATIENT

_ROWS_AT_ONCE = 8192


class CohortCount(NamedTuple):
    """How many records and patients reach a threshold, of how many records that pass the filter."""

    records: int
    patients: int
    of_records: int


class Cohort:
    """Records of a table that pass a filter with at least the similarity `above` to a unit vector."""

    def __init__(
        self,
        uri: str,
        table: Any,
        vector: Float32[np.ndarray, " dimension"],
        above: float,
        condition: str | None,
        columns: tuple[str, ...],
    ) -> None:
        self._uri = uri
        self._table = table
        self._vector = vector
        self._above = above
        self._condition = condition
        self._columns = columns

    def rows(self, behind: int = -1) -> Iterator[pa.Table]:
        """Their rows with `embedding` and `_rowid`, in the table's order. behind: only those after this `_rowid`."""
        for batch in self._batches(["embedding"], behind):
            above = self._reaches(batch)
            if above.any():
                yield self._of_ids(batch["_rowid"].filter(pa.array(above)))

    def count(self) -> CohortCount:
        """How many there are."""
        records = of_records = 0
        patients: set[tuple[str, str]] = set()
        for batch in self._batches([*PATIENT, "embedding"], -1):
            above = self._reaches(batch)
            records, of_records = records + int(above.sum()), of_records + batch.num_rows
            reached = batch.select(PATIENT).filter(pa.array(above))
            patients.update(zip(*(reached[name].to_pylist() for name in PATIENT), strict=True))
        return CohortCount(records, len(patients), of_records)

    def _batches(self, columns: list[str], behind: int) -> Iterator[pa.Table]:
        # Lance seeks to the row: what lies before it is not read, or the last pages of a long cohort would read it all.
        conditions = [self._condition] if behind < 0 else [self._condition, f"_rowid > {behind}"]
        wanted = " AND ".join(f"({one})" for one in conditions if one)
        with table_faults(self._uri):
            scanner = self._table.scanner(
                columns=columns, filter=wanted or None, batch_size=_ROWS_AT_ONCE, with_row_id=True
            )
            for batch in scanner.to_batches():
                if batch.num_rows:
                    yield pa.Table.from_batches([batch])

    def _reaches(self, rows: pa.Table) -> np.ndarray:
        embeddings = rows["embedding"].combine_chunks().flatten().to_numpy().reshape(rows.num_rows, -1)
        found: np.ndarray = embeddings @ self._vector >= np.float32(self._above)
        return found

    def _of_ids(self, ids: pa.ChunkedArray) -> pa.Table:
        listed = ", ".join(map(str, ids.to_pylist()))
        with table_faults(self._uri):
            rows = self._table.to_table(
                columns=[*self._columns, "embedding"], filter=f"_rowid IN ({listed})", with_row_id=True
            )
        return rows.sort_by("_rowid")
