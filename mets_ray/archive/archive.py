"""An opened archive: search by words, vectors, records and reports. It needs no Ray, and torch only to read words."""

import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Float32

from mets_ray.archive.cohorts import Cohort, CohortCount
from mets_ray.archive.cursor import read_cursor, search_digest, write_cursor
from mets_ray.archive.facts import ArchiveFacts, finished_facts
from mets_ray.archive.filters import quoted, read_filter
from mets_ray.archive.hits import HitMaker
from mets_ray.archive.lance_table import open_table, table_faults
from mets_ray.archive.query import Direction, Query, RecordKey
from mets_ray.archive.ranking import Bound, Ranking
from mets_ray.archive.results import CohortPage, Hit, NearReport, SearchPage
from mets_ray.archive.sample import Sample
from mets_ray.archive.schema import HIT_COLUMNS, PATIENT
from mets_ray.errors import ConfigError

if TYPE_CHECKING:
    from mets_ray.model.predictor import Predictor

MOST_HITS = 1000
"""Hits of one page."""

MOST_DEEP = 10_000
"""Hits of all pages of one search; `cohort` lists more."""

NOTICE = "Retrieved: a report of another ECG that is similar. It was not written for this one, and is no diagnosis."
_REPORT_RECORDS = 8  # records that are looked at for each report wanted
_IDS = ("record_id", "patient_id")


def open_archive(uri: str, *, bundle_uri: str | None = None, cache_bytes: int | None = None) -> "Archive":
    """Open the index that `mets-ray index` wrote.

    uri: its folder, on any storage. bundle_uri: the bundle that turns words into vectors; default: the one that the
    index names. It is loaded when words are first searched for. cache_bytes: how much of the vector index may stay in
    memory; default: Lance's 6 GiB. What does not fit is read again.

    Raises DatasetError if there is no index, it is half-written, damaged or of another schema; ConfigError if the extra
    `archive` is not installed.
    """
    facts = finished_facts(uri)
    table = open_table(uri, facts.table_version, cache_bytes)
    return Archive(uri, facts, table, Sample.read(uri, facts.sample_sha256), bundle_uri or facts.bundle_uri)


class Archive:
    """See `open_archive`. `facts`: what it holds, and of which bundle. Methods may be called from several threads.

    It stays at the state of the index in which it was opened. All searches take `where`, a filter on columns
    (`archive.filters`): `age > 60 and sex = 'female'`. All raise ConfigError for a `k` outside 1 to 1,000, a filter
    that cannot be read and a cursor of another search, and DatasetError where files of the index are gone.
    """

    def __init__(self, uri: str, facts: ArchiveFacts, table: Any, sample: Sample, bundle_uri: str) -> None:
        self.uri = uri
        self.facts = facts
        self._sample = sample
        self._bundle_uri = bundle_uri
        self._predictor: Predictor | None = None
        self._words = threading.Lock()
        self._table = table
        self._ranking = Ranking(uri, table, facts.partitions, (*_IDS, *HIT_COLUMNS))

    def require_bundle(self, digest: str) -> None:
        """Raise CheckpointError if the index is not of the bundle with this digest (`Bundle.digest`)."""
        self.facts.require_bundle(digest, self.uri)

    def search(
        self,
        query: str | Query,
        *,
        k: int = 50,
        where: str | None = None,
        cursor: str | None = None,
        one_per_patient: bool = True,
    ) -> SearchPage:
        """Records that fit words. query: a text is read by `Query.parse`. one_per_patient: only the best of each.

        The bundle is loaded on first use. Raises as `load_predictor` and `archive.words.read_query`, and
        CheckpointError if it is not the index's.
        """
        _check_k(k)
        read_filter(where)  # before a bundle is loaded for nothing
        return self.search_directions(
            self.directions(query), k=k, where=where, cursor=cursor, one_per_patient=one_per_patient
        )

    def search_directions(
        self,
        directions: Sequence[Direction],
        *,
        k: int = 50,
        where: str | None = None,
        cursor: str | None = None,
        one_per_patient: bool = True,
    ) -> SearchPage:
        """`search` for vectors that are known: `archive.words.read_query` makes them, or `Direction(embedding)`."""
        return self._page(directions, k, read_filter(where), cursor, one_per_patient)

    def like(
        self,
        record: str | Float32[np.ndarray, " dimension"],
        *,
        k: int = 50,
        where: str | None = None,
        cursor: str | None = None,
        one_per_patient: bool = True,
        source: str | None = None,
    ) -> SearchPage:
        """Records like one of the archive, by its id and without records of its own patient, or like an embedding.

        source: of the record, where several have its id; raises as `embedding`.
        """
        vector, condition = self._vector_and_others(record, read_filter(where), source)
        return self._page([Direction(vector)], k, condition, cursor, one_per_patient)

    def embedding(self, record_id: str, *, source: str | None = None) -> Float32[np.ndarray, " dimension"]:
        """The unit vector of a record.

        Raises ConfigError for an id that the archive does not hold, or that several sources have and none is named.
        """
        found: np.ndarray = _vectors(self._row(record_id, source))[0]
        return found

    def record(self, record_id: str, *, source: str | None = None) -> Hit:
        """The columns of a record; similarity and percentile are nan. Raises as `embedding`."""
        row = self._row(record_id, source).drop_columns(["embedding"]).to_pylist()[0]
        columns = {name: row[name] for name in HIT_COLUMNS}
        return Hit(row["record_id"], row["patient_id"], float("nan"), float("nan"), None, (), columns)

    def nearest_reports(
        self,
        record: str | Float32[np.ndarray, " dimension"],
        *,
        k: int = 5,
        where: str | None = None,
        source: str | None = None,
    ) -> tuple[NearReport, ...]:
        """Reports of the most similar ECGs, each once: retrieval, never a diagnosis. record, source: as in `like`.

        Raises ConfigError if the index was made without reports (`index.reports=false`).
        """
        if not self.facts.has_reports:
            raise ConfigError(
                f"`{self.uri}` holds no reports", hint="index into another folder with index.reports=true"
            )
        _check_k(k)
        vector, condition = self._vector_and_others(record, read_filter(where), source)
        others = "report IS NOT NULL" if condition is None else f"(report IS NOT NULL AND {condition})"
        ranking = Ranking(self.uri, self._table, self.facts.partitions, (*_IDS, "source", "report"))
        rows, _ = ranking.page(
            vector, k * _REPORT_RECORDS, condition=others, before=0, bound=None, one_per_patient=True
        )
        return _distinct_reports(rows, k)

    def cohort(
        self,
        query: str | Query | Sequence[Direction],
        *,
        above: float,
        where: str | None = None,
        not_of: RecordKey | None = None,
    ) -> Iterator[Hit]:
        """Every record with at least the similarity `above`, in the archive's order. Exact: all vectors are compared.

        not_of: a record whose patient is left out, as `like` does. Memory holds some thousand records, however many
        there are.
        """
        makes = self._hit_maker(query)
        for rows in self._cohort(makes, above, self._condition(where, not_of)).rows():
            yield from makes.hits(rows)

    def cohort_page(
        self,
        query: str | Query | Sequence[Direction],
        *,
        above: float,
        k: int = 1000,
        where: str | None = None,
        cursor: str | None = None,
        not_of: RecordKey | None = None,
    ) -> CohortPage:
        """`cohort` a page at a time; a cursor goes on where the page before ended."""
        _check_k(k)
        makes, condition = self._hit_maker(query), self._condition(where, not_of)
        digest = search_digest(makes.directions, above=above, where=condition)
        behind = read_cursor(cursor, digest, self.facts.table_version, {"row": int})["row"] if cursor else -1
        parts: list[pa.Table] = []
        for rows in self._cohort(makes, above, condition).rows(behind):
            parts.append(rows)
            if sum(part.num_rows for part in parts) > k:
                break
        found = pa.concat_tables(parts) if parts else None
        if found is None:
            return CohortPage((), None)
        page = found.slice(0, k)
        if found.num_rows <= k:
            return CohortPage(makes.hits(page), None)
        last = page["_rowid"][-1].as_py()
        return CohortPage(makes.hits(page), write_cursor(digest, self.facts.table_version, row=last))

    def count(
        self,
        query: str | Query | Sequence[Direction],
        *,
        above: float,
        where: str | None = None,
        not_of: RecordKey | None = None,
    ) -> CohortCount:
        """How many records and patients `cohort` finds, of how many records that pass the filter."""
        return self._cohort(self._hit_maker(query), above, self._condition(where, not_of)).count()

    def directions(self, query: str | Query) -> tuple[Direction, ...]:
        """The terms of a query as unit vectors; raises as `search`."""
        from mets_ray.archive.words import read_query

        parsed = Query.parse(query) if isinstance(query, str) else query
        with self._words:  # a predictor's texts are of one thread at a time
            return read_query(self.predictor(), parsed)

    def report_query(self, report: str) -> Query:
        """A report as a query for `search`. Raises ConfigError for a report without a finding, and as `search`."""
        from mets_ray.archive.words import report_query

        with self._words:
            return report_query(self.predictor(), report)

    def predictor(self) -> "Predictor":
        """The bundle that words are read with, loaded on first use. Raises as `search`."""
        from mets_ray.model.predictor import load_predictor

        if self._predictor is None:
            predictor = load_predictor(self._bundle_uri)
            self.require_bundle(predictor.bundle.digest)
            self._predictor = predictor
        return self._predictor

    def spread_rows(self, count: int) -> Float32[np.ndarray, "row dimension"]:
        """The embeddings of so many records of the archive's sample, or of all of it."""
        return self._sample.first(count)

    def nearest_exactly(self, vector: Float32[np.ndarray, " dimension"], k: int) -> Float[np.ndarray, " hit"]:
        """The similarities of the `k` nearest records, descending, from comparing all of them."""
        with table_faults(self.uri):
            nearest = {"column": "embedding", "q": vector, "k": k, "metric": "cosine", "use_index": False}
            rows = self._table.to_table(columns=["_distance"], nearest=nearest)
        found: np.ndarray = 1.0 - np.sort(rows["_distance"].to_numpy().astype(np.float64))
        return found

    def _page(
        self, directions: Sequence[Direction], k: int, condition: str | None, cursor: str | None, one_per_patient: bool
    ) -> SearchPage:
        _check_k(k)
        makes = self._hit_maker(directions)
        digest = search_digest(makes.directions, where=condition, one_per_patient=one_per_patient)
        before, bound = 0, None
        if cursor:
            at = read_cursor(cursor, digest, self.facts.table_version, {"hits": int, "similarity": float, "row": int})
            before, bound = at["hits"], Bound(at["similarity"], at["row"])
        if not 0 <= before <= MOST_DEEP - k:
            raise ConfigError(
                f"the page ends at hit {before + k:,} of the search; pages go to {MOST_DEEP:,}",
                hint="list all records above a similarity with `cohort`, or narrow the search with `where`",
            )
        rows, is_last = self._ranking.page(
            makes.vector, k, condition=condition, before=before, bound=bound, one_per_patient=one_per_patient
        )
        following = None
        if not is_last and rows.num_rows:
            similarity, row = 1.0 - float(rows["_distance"][-1].as_py()), int(rows["_rowid"][-1].as_py())
            following = write_cursor(
                digest, self.facts.table_version, hits=before + rows.num_rows, similarity=similarity, row=row
            )
        return SearchPage(makes.hits(rows), following, makes.terms, self.facts.records)

    def _hit_maker(self, query: str | Query | Sequence[Direction]) -> HitMaker:
        directions = self.directions(query) if isinstance(query, str | Query) else query
        windowed = [key for key, dataset in self.facts.datasets.items() if dataset.windows]
        return HitMaker(directions, self._sample, self.facts.dimension, windowed)

    def _condition(self, where: str | None, not_of: RecordKey | None) -> str | None:
        condition = read_filter(where)
        return condition if not_of is None else self._vector_and_others(not_of.record_id, condition, not_of.source)[1]

    def _cohort(self, makes: HitMaker, above: float, condition: str | None) -> Cohort:
        if not -1.0 <= above <= 1.0:
            raise ConfigError(f"`above` is {above}", hint="give a cosine similarity between -1 and 1, for example 0.3")
        return Cohort(self.uri, self._table, makes.vector, above, condition, (*_IDS, *HIT_COLUMNS))

    def _vector_and_others(
        self, record: str | Float32[np.ndarray, " dimension"], condition: str | None, source: str | None
    ) -> tuple[Float32[np.ndarray, " dimension"], str | None]:
        """The vector of a record, and the condition that leaves its patient out; an embedding as it is."""
        if not isinstance(record, str):
            return record, condition
        row = self._row(record, source)
        same = " AND ".join(f"{name} = {quoted(row[name][0].as_py())}" for name in PATIENT)
        others = f"NOT ({same})"
        return _vectors(row)[0], others if condition is None else f"({others} AND {condition})"

    def _row(self, record_id: str, source: str | None) -> pa.Table:
        condition = f"record_id = {quoted(record_id)}"
        if source is not None:
            condition += f" AND source = {quoted(source)}"
        with table_faults(self.uri):
            rows = self._table.to_table(columns=[*_IDS, *HIT_COLUMNS, "embedding"], filter=condition)
        if not rows.num_rows:
            of = "" if source is None else f" of the source {source[:80]!r}"
            raise ConfigError(
                f"the archive holds no record {record_id[:80]!r}{of}",
                hint="give the record_id of a hit, or an embedding",
            )
        if rows.num_rows > 1:
            sources = ", ".join(f"`{name}`" for name in rows["source"].to_pylist())
            raise ConfigError(
                f"the sources {sources} have a record {record_id[:80]!r} each", hint="name one of them with `source`"
            )
        return rows


def _check_k(k: int) -> None:
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= MOST_HITS:
        raise ConfigError(
            f"`k` is {k!r}",
            hint=f"ask for 1 to {MOST_HITS:,} hits; the page's `cursor` gives the next, `cohort` all of them",
        )


def _vectors(rows: pa.Table) -> Float32[np.ndarray, "row dimension"]:
    flat = rows["embedding"].combine_chunks().flatten().to_numpy()
    found: np.ndarray = flat.reshape(rows.num_rows, -1)
    return found


def _distinct_reports(rows: pa.Table, k: int) -> tuple[NearReport, ...]:
    """The first `k` reports of rows in their order, with how many of the rows have each."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows.select(["report", "record_id", "_distance"]).to_pylist():
        first = found.setdefault(row["report"], row | {"records": 0})
        first["records"] += 1
    chosen = list(found.values())[:k]
    return tuple(
        NearReport(one["report"], 1.0 - one["_distance"], one["records"], one["record_id"], NOTICE) for one in chosen
    )
