"""What a replica of the archive does, without Ray and without the model: it searches with vectors and reads signals."""

import io
import logging
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mets_ray import storage
from mets_ray.archive.archive import open_archive
from mets_ray.archive.cohorts import CohortCount
from mets_ray.archive.facts import ArchiveFacts
from mets_ray.archive.filters import quoted
from mets_ray.archive.query import Direction
from mets_ray.archive.results import CohortPage, Hit, NearReport, SearchPage
from mets_ray.dataset.card import DatasetCard
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.dataset.single_records import SingleRecords
from mets_ray.errors import ConfigError, DatasetError, RequestError
from mets_ray.serve.settings import ServeConfig

logger = logging.getLogger("ray.serve")

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
class Question:
    """What is looked for: directions, or a record of the archive.

    source: where several have a record with this id.
    """

    directions: tuple[Direction, ...] = ()
    record_id: str | None = None
    source: str | None = None


@dataclass(frozen=True)
class StoredEcg:
    """A record of the archive. signal_uv: int16 [lead, sample] in microvolts, as the data set of `card` has it."""

    hit: Hit
    card: DatasetCard
    signal_uv: np.ndarray
    report: str


class ArchiveReplica:
    """An opened index and the data sets that its records come from. Its methods may be called from several threads.

    Raises as `open_archive`, CheckpointError if the index is of another bundle than that with `bundle_digest`, and
    ConfigError if `archive_dataset_uri` is not among its data sets.
    """

    def __init__(self, config: ServeConfig, bundle_digest: str) -> None:
        assert config.archive_uri is not None
        self._archive = open_archive(config.archive_uri, cache_bytes=config.archive_memory_bytes // 2)
        self._archive.require_bundle(bundle_digest)
        self._config = config
        self._uris = {key: dataset.uri for key, dataset in self.facts.datasets.items()}
        if config.archive_dataset_uri is not None:
            self._uris |= self._moved(config.archive_dataset_uri)
        self._opened: dict[str, SingleRecords] = {}
        self._opening = Lock()

    @property
    def facts(self) -> ArchiveFacts:
        return self._archive.facts

    @property
    def cached_bytes(self) -> int:
        """What the kept signals take."""
        return sum(records.cached_bytes for records in self._opened.values())

    def search(self, question: Question, k: int, where: str | None, cursor: str | None, one: bool) -> SearchPage:
        """The best `k` records; one: of each patient. Raises RequestError."""
        with _as_request_errors():
            return self._archive.search_directions(
                self._directions(question),
                k=k,
                where=self._of_others(question, where),
                cursor=cursor,
                one_per_patient=one,
            )

    def nearest_reports(self, question: Question, k: int, where: str | None) -> tuple[NearReport, ...]:
        """Reports of the ECGs that are most similar to one ECG. Raises RequestError."""
        with _as_request_errors():
            (direction,) = self._directions(question)
            return self._archive.nearest_reports(direction.vector, k=k, where=self._of_others(question, where))

    def count(self, question: Question, above: float, where: str | None) -> CohortCount:
        """How many records are at least so similar. Raises RequestError."""
        with _as_request_errors():
            return self._archive.count(self._directions(question), above=above, where=where)

    def cohort_page(
        self, question: Question, above: float, where: str | None, k: int, cursor: str | None
    ) -> CohortPage:
        """The next `k` of these records, in the archive's order. Raises RequestError."""
        with _as_request_errors():
            directions = self._directions(question)
            return self._archive.cohort_page(directions, above=above, where=where, k=k, cursor=cursor)

    def write_cohort(self, question: Question, above: float, where: str | None) -> str:
        """Write these records as one Parquet file below `archive_cohort_uri`, whole or not at all; answers its URI.

        Raises RequestError.
        """
        assert self._config.archive_cohort_uri is not None
        with _as_request_errors():
            hits = self._archive.cohort(self._directions(question), above=above, where=where)
            buffer = io.BytesIO()
            with pq.ParquetWriter(buffer, _COHORT_SCHEMA, compression="zstd") as writer:
                while some := list(islice(hits, _ROWS_AT_ONCE)):
                    rows = [_cohort_row(hit) for hit in some]
                    writer.write_table(pa.Table.from_pylist(rows, schema=_COHORT_SCHEMA))
            # The server chooses the name: nothing that a client sends becomes a path.
            name = f"cohort-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:8]}.parquet"
            uri = storage.join(self._config.archive_cohort_uri, name)
            storage.write_bytes(uri, buffer.getvalue())
        return uri

    def ecg(self, record_id: str, source: str | None) -> StoredEcg:
        """The signal of a record. Raises RequestError 404 for an unknown id, 500 or 503 for an unreadable shard."""
        with _as_request_errors():
            hit = self._record(record_id, source)
            records = self._records(hit.columns["dataset"])
            stored = records.read(hit.columns["shard"], hit.record_id)
        return StoredEcg(hit, records.dataset.card, stored.signal_uv, stored.report)

    def _record(self, record_id: str, source: str | None) -> Hit:
        try:
            return self._archive.record(record_id, source=source)
        except ConfigError as error:
            raise RequestError(404, "unknown_record", error.fact, hint=error.hint) from error

    def _directions(self, question: Question) -> tuple[Direction, ...]:
        if question.record_id is None:
            return question.directions
        self._record(question.record_id, question.source)
        return (Direction(self._archive.embedding(question.record_id, source=question.source)),)

    def _of_others(self, question: Question, where: str | None) -> str | None:
        """The filter without the patient whose record is asked about."""
        if question.record_id is None:
            return where
        others = f"patient_id <> {quoted(self._record(question.record_id, question.source).patient_id)}"
        return others if where is None or not where.strip() else f"{others} and ({where})"

    def _records(self, key: str) -> SingleRecords:
        with self._opening:
            if key not in self._opened:
                each = self._config.archive_signal_cache_bytes // len(self._uris)
                self._opened[key] = SingleRecords(PreparedDataset.open(self._uris[key]), cache_bytes=each)
            return self._opened[key]

    def _moved(self, uri: str) -> dict[str, str]:
        content = PreparedDataset.open(uri).card.content_sha256
        keys = [key for key, dataset in self.facts.datasets.items() if dataset.content_sha256 == content]
        if not keys:
            raise ConfigError(
                f"`archive_dataset_uri` {uri} is none of the data sets in the index {self._config.archive_uri}",
                hint="name the data set that was scored, or leave the setting out",
            )
        return dict.fromkeys(keys, uri)


def _cohort_row(hit: Hit) -> dict[str, object]:
    return {
        "record_id": hit.record_id,
        "patient_id": hit.patient_id,
        "source": hit.columns["source"],
        "similarity": hit.similarity,
        "percentile": hit.percentile,
        "probability": hit.probability,
    }


@contextmanager
def _as_request_errors() -> Iterator[None]:
    """What the archive says of a query is the client's to mend; what it says of its files is in the server's log."""
    try:
        yield
    except ConfigError as error:
        raise RequestError(422, "bad_query", error.fact, hint=error.hint) from error
    except storage.UnreachableError as error:
        raise RequestError(503, "storage", "the store of the archive does not respond", hint="try again") from error
    except DatasetError as error:
        logger.error("the archive: %s", error)
        raise RequestError(
            500,
            "archive_damaged",
            "a file of the archive is missing or damaged",
            hint="the server's log names it; other records are not concerned",
        ) from error
