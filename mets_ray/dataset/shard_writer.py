"""Writing a shard: read its records in parallel, check them, write those that pass and list those that are rejected.

A shard is finished when its summary is in `progress/`, which is written last. An interrupted run leaves no summary for
an unfinished shard, and no card; the next run reads the summaries and writes only the remaining shards. Summaries
carry hashes, so a file that was lost or damaged since is written again.
"""

import hashlib
import io
import json
import math
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from mets_ray import storage
from mets_ray.console import say
from mets_ray.dataset.card import MAX_ROW_GROUP_ROWS, REJECTED_SCHEMA, Shard, shard_schema
from mets_ray.dataset.privacy import Privacy
from mets_ray.dataset.quality.measures import measures_table, quality_path
from mets_ray.dataset.record_reader import Accepted, Outcome, RecordReader, ShardTask
from mets_ray.ecg.preprocess import SignalConfig
from mets_ray.errors import RecordError
from mets_ray.sources.manifest import ManifestRow
from mets_ray.sources.source import Source

CONVERSION_VERSION = 6
"""Raise it when the same files and settings give other samples, when other records are rejected, or when other
statements are measured: `ecg`, `Source.read`."""

# A missing or damaged file may have been fixed since: a shard with such records is read again.
MENDABLE = frozenset({"missing_file", "truncated_file", "header_mismatch", "unreadable_header"})

_SAMPLE_OF_A_KIND = 20  # of finds of identifying text, in each shard

_ROWS_AT_ONCE = 8  # that a thread reads before it converts them
_KEPT_BYTES = 24 * 1024**2  # below 32 MiB, above which glibc learns nothing

_LEAST_PIECE_BYTES = 256 * 1024
_PARQUET_TAIL_BYTES = 8  # the footer's length and `PAR1`

Key = TypeVar("Key", int, str)


class ShardSummary(BaseModel):
    """The outcome for one shard's records; `shard` is None if none passed. `other_signals`: in how many records a
    signal that is no ECG was left out, by its name. `derived_leads`: in how many records leads were derived, by what
    `derivation` says. `absent_leads`: in how many records a lead is zeros. `stated`: what the records' own files say,
    and in how many records: `{"language of the reports": {"fr": 12}}`. `identifying`: in how many records each kind of
    identifying text was found, and some of them as kind, `record_id` and the masked words around it.
    `recordings_lost`: recordings that are cut into windows and were rejected as a whole, each one of `records_in`.
    Without `quality_sha256`, an older version wrote no measures."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shard: Shard | None
    rejected_sha256: str = ""  # of `rejected/<name>.parquet`; "" where nothing was rejected
    quality_sha256: str = ""  # of `quality/<name>.parquet`
    records_in: int
    recordings_lost: int = 0
    rejected: dict[str, int]
    folds: dict[int, int]
    other_signals: dict[str, int] = {}
    derived_leads: dict[str, int] = {}
    absent_leads: dict[str, int] = {}
    stated: dict[str, dict[str, int]] = {}
    identifying: dict[str, int] = {}
    identifying_sample: tuple[tuple[str, str, str], ...] = ()
    reused: bool = False


def write_shard(
    task: ShardTask,
    source: Source,
    *,
    signal: SignalConfig,
    dataset_uri: str,
    reads_in_flight: int,
    privacy: Privacy,
) -> ShardSummary:
    """Write `shards/<name>.parquet`, `quality/<name>.parquet`, `rejected/<name>.parquet` and, last,
    `progress/<name>.json`.

    A finished shard is not made again, unless one of its files is missing or is not what was written, or it had records
    with files that may have been fixed since (`MENDABLE`). Bad records are counted by reason and listed in `rejected/`;
    storage failures (DatasetError) stop the job.
    """
    progress_uri = storage.join(dataset_uri, "progress", f"{task.name}.json")
    if (finished := _finished(task.name, progress_uri, dataset_uri)) is not None:
        return finished.model_copy(update={"reused": True})

    outcomes = _read(RecordReader(task, source, signal, privacy), len(task.rows), reads_in_flight)
    accepted = [result for _, result in outcomes if isinstance(result, Accepted)]
    rejected = [(row, result) for row, result in outcomes if isinstance(result, RecordError)]

    shard = write_accepted(task.name, accepted, signal, dataset_uri) if accepted else None
    summary = ShardSummary(
        shard=shard,
        rejected_sha256=_write_rejected(task.name, rejected, privacy, dataset_uri) if rejected else "",
        quality_sha256=_write_quality(task.name, accepted, signal, dataset_uri) if accepted else "",
        records_in=len(outcomes),
        recordings_lost=_recordings_lost(task, rejected),
        rejected=_count([error.reason for _, error in rejected]),
        folds=_count([item.row.fold for item in accepted]),
        other_signals=_count([name for item in accepted for name in item.other_signals]),
        derived_leads=_count([item.derived_leads for item in accepted if item.derived_leads]),
        stated={
            fact: _count([item.stated[fact] for item in accepted if fact in item.stated])
            for fact in sorted({fact for item in accepted for fact in item.stated})
        },
        identifying=_count([kind for item in accepted for kind in item.finds.counts]),
        identifying_sample=_sample(accepted),
        absent_leads=_count([name for item in accepted for name in item.absent_leads]),
    )
    storage.write_bytes(progress_uri, storage.seal(summary.model_dump_json(exclude={"reused"})))
    return summary


def _recordings_lost(task: ShardTask, rejected: list[tuple[ManifestRow, RecordError]]) -> int:
    if task.stride_s is None:
        return 0
    recordings = {row.record_id for row in task.rows}
    return sum(row.record_id in recordings for row, _ in rejected)


def _read(reader: RecordReader, rows: int, reads_in_flight: int) -> list[Outcome]:
    # Freed once, a large block tells glibc to keep what is freed from now on: otherwise each record of 12 × 5000 asks
    # the system for its megabytes anew, which takes a third of its time (mallopt(3), M_MMAP_THRESHOLD).
    np.empty(_KEPT_BYTES, dtype=np.uint8)
    size = max(1, min(_ROWS_AT_ONCE, math.ceil(rows / reads_in_flight)))
    parts = [range(start, min(start + size, rows)) for start in range(0, rows, size)]
    # Threads, because a record takes a few small requests to storage, with a latency of tens of milliseconds.
    with ThreadPoolExecutor(reads_in_flight) as pool:
        return [outcome for several in pool.map(reader.read, parts) for outcome in several]


def _finished(name: str, progress_uri: str, dataset_uri: str) -> ShardSummary | None:
    """The summary of a shard whose files are all as they were written; None if the shard must be made."""
    try:
        sealed = storage.unseal(storage.read_bytes(progress_uri))
        sealed.check()
        summary = ShardSummary.model_validate_json(json.dumps(sealed.facts))
    except storage.MissingFileError:
        return None
    except ValueError as error:  # pydantic's ValidationError is one
        say(f"`{progress_uri}` is damaged, so its shard is rebuilt: {error}")
        return None
    if summary.rejected.keys() & MENDABLE:
        return None
    written = {summary.shard.path: summary.shard.sha256} if summary.shard else {}
    if summary.quality_sha256:
        written[quality_path(name)] = summary.quality_sha256
    if summary.rejected:
        written[rejected_path(name)] = summary.rejected_sha256
    for path, sha256 in written.items():
        uri = storage.join(dataset_uri, path)
        if not storage.is_whole(uri, sha256):
            say(f"`{uri}` is missing or damaged, so it is rebuilt")
            return None
    return summary


def _sample(accepted: list[Accepted]) -> tuple[tuple[str, str, str], ...]:
    """The first finds of each kind, with the masked words around them."""
    by_kind: dict[str, list[tuple[str, str, str]]] = {}
    for item in accepted:
        for kind, words in item.finds.contexts:
            by_kind.setdefault(kind, []).append((kind, item.row.record_id, words))
    return tuple(find for kind in sorted(by_kind) for find in by_kind[kind][:_SAMPLE_OF_A_KIND])


def write_accepted(name: str, accepted: list[Accepted], signal: SignalConfig, dataset_uri: str) -> Shard:
    """Write `shards/<name>.parquet` below `dataset_uri`."""
    rows = [item.row for item in accepted]
    schema = shard_schema(signal)
    columns = {
        "record_id": [row.record_id for row in rows],
        "patient_id": [row.patient_id for row in rows],
        "fold": [row.fold for row in rows],
        "signal_uv": pa.FixedShapeTensorArray.from_numpy_ndarray(np.stack([item.signal_uv for item in accepted])),
        "report": [item.report for item in accepted],
        "statements": [list(row.statements) for row in rows],
        "labels": [list(row.labels) for row in rows],
        "age": [row.age for row in rows],
        "sex": [row.sex for row in rows],
    }
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(column, type=schema.field(key).type)
        for key, column in columns.items()
    ]
    path = f"shards/{name}.parquet"
    data = _parquet(pa.Table.from_arrays(arrays, schema=schema))
    storage.write_bytes(storage.join(dataset_uri, path), data)
    starts = range(0, len(rows), MAX_ROW_GROUP_ROWS)
    row_group_rows = tuple(min(MAX_ROW_GROUP_ROWS, len(rows) - start) for start in starts)
    pieces = storage.cut(data, _chunk_boundaries(data), _LEAST_PIECE_BYTES)
    return Shard(path=path, sha256=hashlib.sha256(data).hexdigest(), row_group_rows=row_group_rows, pieces=pieces)


def _chunk_boundaries(data: bytes) -> list[int]:
    """Where the column chunks of a Parquet file begin, and where its footer does."""
    metadata = pq.read_metadata(pa.BufferReader(data))
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    chunks = [group.column(number) for group in groups for number in range(group.num_columns)]
    starts = [
        min(offset for offset in (chunk.dictionary_page_offset, chunk.data_page_offset) if offset) for chunk in chunks
    ]
    return sorted([*starts, len(data) - metadata.serialized_size - _PARQUET_TAIL_BYTES])


def rejected_path(name: str) -> str:
    return f"rejected/{name}.parquet"


def _write_rejected(
    name: str, rejected: list[tuple[ManifestRow, RecordError]], privacy: Privacy, dataset_uri: str
) -> str:
    """Write `rejected/<name>.parquet`. Returns its sha256."""
    table = pa.Table.from_pylist(
        [privacy.of_rejected(row, error) for row, error in rejected],
        schema=REJECTED_SCHEMA,
    )
    data = _parquet(table)
    storage.write_bytes(storage.join(dataset_uri, rejected_path(name)), data)
    return hashlib.sha256(data).hexdigest()


def _write_quality(name: str, accepted: list[Accepted], signal: SignalConfig, dataset_uri: str) -> str:
    """Write `quality/<name>.parquet`. Returns its sha256."""
    table = measures_table(
        [item.row.record_id for item in accepted],
        [item.measures for item in accepted if item.measures is not None],
        np.stack([item.signal_uv for item in accepted]),
        signal.sampling_rate_hz,
    )
    data = _parquet(table)
    storage.write_bytes(storage.join(dataset_uri, quality_path(name)), data)
    return hashlib.sha256(data).hexdigest()


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", row_group_size=MAX_ROW_GROUP_ROWS)
    return buffer.getvalue()


def _count(values: list[Key]) -> dict[Key, int]:
    return {value: values.count(value) for value in sorted(set(values))}
