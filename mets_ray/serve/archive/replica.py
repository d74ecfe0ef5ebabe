"""What a replica of the archive does, without Ray and without the model: it searches with vectors and reads signals."""

import io
import logging
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from threading import Lock
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mets_ray import storage
from mets_ray.archive.cohorts import CohortCount
from mets_ray.archive.cursor import IndexChangedError
from mets_ray.archive.facts import ArchiveFacts, finished_facts
from mets_ray.archive.results import CohortPage, Hit, NearReport, SearchPage
from mets_ray.ecg.preprocess import SignalConfig
from mets_ray.errors import CheckpointError, ConfigError, DatasetError, RequestError
from mets_ray.serve.archive.opened import OpenedArchive
from mets_ray.serve.archive.question import Question
from mets_ray.serve.settings import ServeConfig

logger = logging.getLogger("ray.serve")

_T = TypeVar("_T")

_ROWS_AT_ONCE = 10_000
_COHORT_SCHEMA = pa.schema(
    [
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("patient_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("similarity", pa.float32(), nullable=False),
        pa.field("percentile", pa.float32(), nullable=False),
        pa.field("probability", pa.float32()),
    ]
)


@dataclass(frozen=True)
class StoredEcg:
    """A record of the archive. signal_uv: int16 [lead, sample] in microvolts, prepared as `signal` says."""

    hit: Hit
    signal: SignalConfig
    signal_uv: np.ndarray
    report: str


class ArchiveReplica:
    """An archive that answers questions, at the newest state of its index. Its methods may be called from any thread.

    Raises as `OpenedArchive`.
    """

    def __init__(self, config: ServeConfig, bundle_digest: str) -> None:
        self._config = config
        self._bundle_digest = bundle_digest
        self._opened = OpenedArchive(config, bundle_digest)
        self._refreshing = Lock()

    def facts(self) -> ArchiveFacts:
        """The facts of the index."""
        return self._opened.archive.facts

    def refresh(self) -> bool:
        """Open the index again if a job has finished since. Returns whether it did; raises as `OpenedArchive`."""
        assert self._config.archive_uri is not None
        with self._refreshing:
            if finished_facts(self._config.archive_uri) == self.facts():
                return False
            self._opened = OpenedArchive(self._config, self._bundle_digest)
            return True

    def search(self, question: Question, k: int, where: str | None, cursor: str | None, one: bool) -> SearchPage:
        """The best `k` records; one: of each patient. Raises RequestError."""

        def ask(opened: OpenedArchive) -> SearchPage:
            if question.record_id is None:
                return opened.archive.search_directions(
                    question.directions, k=k, where=where, cursor=cursor, one_per_patient=one
                )
            opened.record(question.record_id, question.source)  # 404 for an unknown one
            return opened.archive.like(
                question.record_id, k=k, where=where, cursor=cursor, one_per_patient=one, source=question.source
            )

        return self._asked(ask)

    def nearest_reports(self, question: Question, k: int, where: str | None) -> tuple[NearReport, ...]:
        """Reports of the ECGs that are most similar to one ECG. Raises RequestError."""

        def ask(opened: OpenedArchive) -> tuple[NearReport, ...]:
            if question.record_id is None:
                (direction,) = question.directions
                return opened.archive.nearest_reports(direction.vector, k=k, where=where)
            opened.record(question.record_id, question.source)  # 404 for an unknown one
            return opened.archive.nearest_reports(question.record_id, k=k, where=where, source=question.source)

        return self._asked(ask)

    def count(self, question: Question, above: float, where: str | None) -> CohortCount:
        """How many records are at least so similar. Raises RequestError."""

        def ask(opened: OpenedArchive) -> CohortCount:
            directions = opened.directions(question)
            return opened.archive.count(directions, above=above, where=where, not_of=question.record)

        return self._asked(ask)

    def cohort_page(
        self, question: Question, above: float, where: str | None, k: int, cursor: str | None
    ) -> CohortPage:
        """The next `k` of these records, in the archive's order. Raises RequestError."""

        def ask(opened: OpenedArchive) -> CohortPage:
            directions = opened.directions(question)
            return opened.archive.cohort_page(
                directions, above=above, where=where, k=k, cursor=cursor, not_of=question.record
            )

        return self._asked(ask)

    def write_cohort(self, question: Question, above: float, where: str | None) -> str:
        """Write these records as one Parquet file below `archive_cohort_uri`, whole or not at all; answers its URI.

        Raises RequestError.
        """
        assert self._config.archive_cohort_uri is not None
        # The server chooses the name: nothing that a client sends becomes a path.
        name = f"cohort-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:8]}.parquet"
        uri = storage.join(self._config.archive_cohort_uri, name)

        def write(opened: OpenedArchive) -> str:
            directions = opened.directions(question)
            hits = opened.archive.cohort(directions, above=above, where=where, not_of=question.record)
            storage.write_bytes(uri, _cohort_file(hits))
            return uri

        return self._asked(write)

    def ecg(self, record_id: str, source: str | None) -> StoredEcg:
        """The signal of a record. Raises RequestError 404 for an unknown id, 500 or 503 for an unreadable shard."""

        def read(opened: OpenedArchive) -> StoredEcg:
            hit = opened.record(record_id, source)
            records = opened.records(hit.columns["dataset"])
            stored = records.read(hit.columns["shard"], hit.record_id)
            return StoredEcg(hit, records.dataset.card.signal, stored.signal_uv, stored.report)

        return self._asked(read)

    def _asked(self, ask: Callable[[OpenedArchive], _T]) -> _T:
        """What the archive says of a question is the client's to mend; what it says of its files is in the log."""
        try:
            return self._newest(ask)
        except IndexChangedError as error:
            raise RequestError(409, "archive_changed", error.fact, hint=error.hint) from error
        except ConfigError as error:
            raise RequestError(422, "bad_query", error.fact, hint=error.hint) from error
        except storage.UnreachableError as error:
            raise RequestError(503, "storage", "the store of the archive does not respond", hint="try again") from error
        except (DatasetError, CheckpointError) as error:
            logger.error("the archive: %s", error)
            raise RequestError(
                500,
                "archive_damaged",
                "a file of the archive is missing or damaged",
                hint="the server's log names it; other records are not affected",
            ) from error

    def _newest(self, ask: Callable[[OpenedArchive], _T]) -> _T:
        """A job that adds records removes old files in time: what is gone may be there under a new name; and another
        replica may have seen it first and given a cursor."""
        try:
            return ask(self._opened)
        except storage.UnreachableError:
            raise
        except (DatasetError, IndexChangedError):
            if not self.refresh():
                raise
            return ask(self._opened)


def _cohort_file(hits: Iterator[Hit]) -> bytes:
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, _COHORT_SCHEMA, compression="zstd") as writer:
        while some := [_cohort_row(hit) for hit in islice(hits, _ROWS_AT_ONCE)]:
            writer.write_table(pa.Table.from_pylist(some, schema=_COHORT_SCHEMA))
    return buffer.getvalue()


def _cohort_row(hit: Hit) -> dict[str, object]:
    return {
        "record_id": hit.record_id,
        "patient_id": hit.patient_id,
        "source": hit.columns["source"],
        "similarity": hit.similarity,
        "percentile": hit.percentile,
        "probability": hit.probability,
    }
