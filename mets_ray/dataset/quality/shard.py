"""The figures of one shard, from its small columns and its measures; its signals are read only where it has no
measures."""

import hashlib
from collections import Counter
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int, UInt64

from mets_ray.dataset.card import DatasetCard, Shard
from mets_ray.dataset.quality.counts import (
    BOUNDS,
    EDGES,
    EXAMPLES,
    MOST_LABELS,
    MOST_TEXTS,
    NOT_TOLD,
    QualityCounts,
    age_band,
)
from mets_ray.dataset.quality.duplicates import RecordKeys
from mets_ray.dataset.quality.measures import measure_stored, read_measures
from mets_ray.dataset.quality.tally import Tally
from mets_ray.dataset.shard_reader import open_shard, signals
from mets_ray.ecg.ecg import LEADS
from mets_ray.text.languages import language_of
from mets_ray.text.reports import text_id

_HIDDEN_BY_FILTER = ("offset_mv", "flat_s", "clipped_s", "wander_share")


def count_shard(dataset_uri: str, card: DatasetCard, shard: Shard) -> QualityCounts:
    """The figures of one shard. Raises as `open_shard`."""
    columns = ["record_id", "patient_id", "fold", "report", "statements", "labels", "age", "sex"]
    rows = open_shard(dataset_uri, shard).read(columns=columns)
    counts = QualityCounts(records=rows.num_rows)
    measures = _measures(dataset_uri, shard, rows)
    if measures is not None:
        counts.from_source = rows.num_rows
        _count_facts(counts, measures)
    else:
        measures = _measured_again(dataset_uri, card, shard, rows)
    _count_signals(counts, measures, is_filtered=not counts.from_source and card.highpass_hz is not None)
    if card.has_reports:
        _count_texts(counts, rows)
    _count_people(counts, rows)
    counts.keys.append(_keys(rows, measures))
    return counts


def _measures(dataset_uri: str, shard: Shard, rows: pa.Table) -> pa.Table | None:
    """What `prepare` measured; None where an older version wrote nothing, or the file is of other records."""
    measures = read_measures(dataset_uri, shard)
    return measures if measures is not None and measures["record_id"].equals(rows["record_id"]) else None


def _measured_again(dataset_uri: str, card: DatasetCard, shard: Shard, rows: pa.Table) -> pa.Table:
    """Measures of the stored signals, one row group at a time."""
    file = open_shard(dataset_uri, shard)
    start, parts = 0, []
    for number, size in enumerate(shard.row_group_rows):
        signals_uv = signals(file.read_row_group(number, columns=["signal_uv"]))
        parts.append(measure_stored(rows["record_id"].slice(start, size).to_pylist(), signals_uv, card.signal))
        start += size
    return pa.concat_tables(parts)


def _count_signals(counts: QualityCounts, measures: pa.Table, *, is_filtered: bool) -> None:
    """is_filtered: the measures are of stored signals, from which a filter took away what some of them tell."""
    columns = {name: measure_array(measures, name) for name in {*EDGES, *(bound.column for bound in BOUNDS.values())}}
    columns["offset_mv"] = np.abs(columns["offset_mv"])
    for name in _HIDDEN_BY_FILTER if is_filtered else ():
        columns[name] = np.full_like(columns[name], np.nan)
    for name, edges in EDGES.items():
        counts.distributions[name] = _histogram(columns[name], edges)
    ids = measures["record_id"]
    for name, bound in BOUNDS.items():
        values = columns[bound.column]
        _flag(counts, name, ids, in_any_lead(np.isfinite(values)), in_any_lead(bound.is_beyond(values)))
    suspect = np.asarray(measures["suspect"].to_pylist())
    counts.suspects.update(name for name in suspect.tolist() if name)
    for name in counts.suspects:
        _flag(counts, name, ids, np.isfinite(columns["limb_residual"]), suspect == name)
    counts.measured["limb leads"] = int(np.isfinite(columns["limb_residual"]).sum())


def _count_facts(counts: QualityCounts, measures: pa.Table) -> None:
    """What the records' files say of themselves."""
    for name in ("format", "device", "site"):
        counts.facts[name] = Tally(text or NOT_TOLD for text in measures[name].to_pylist())
    counts.facts["rate"] = Tally(f"{rate:.10g} Hz" for rate in measures["source_rate_hz"].to_pylist())
    counts.facts["length"] = Tally(f"{length:.4g} s" for length in measures["source_duration_s"].to_pylist())
    derived = measures["derived_leads"].to_pylist()
    counts.facts["derived leads"] = Tally(", ".join(leads) for leads in derived if leads)


def in_any_lead(values: Bool[np.ndarray, "record *lead"]) -> Bool[np.ndarray, " record"]:
    """Whether it is so in a lead of a record, for what is measured by lead."""
    return np.asarray(values.any(axis=1)) if values.ndim == 2 else values


def _flag(counts: QualityCounts, name: str, ids: pa.ChunkedArray, told: np.ndarray, beyond: np.ndarray) -> None:
    counts.measured[name] += int(told.sum())
    counts.flagged[name] += int(beyond.sum())
    counts.examples[name] = [ids[int(row)].as_py() for row in np.flatnonzero(beyond)[:EXAMPLES]]


def measure_array(measures: pa.Table, name: str) -> Float[np.ndarray, "record *lead"]:
    """A column of `MEASURES_SCHEMA` that holds numbers."""
    column = measures[name].combine_chunks()
    if not pa.types.is_fixed_size_list(column.type):
        return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)
    return np.asarray(column.flatten().to_numpy(zero_copy_only=False), dtype=np.float64).reshape(-1, len(LEADS))


def _histogram(values: Float[np.ndarray, "..."], edges: Float[np.ndarray, " edge"]) -> Int[np.ndarray, "..."]:
    if values.ndim == 2:
        return np.stack([_histogram(column, edges) for column in values.T])
    finite = values[np.isfinite(values)]
    return np.histogram(np.clip(finite, edges[0], edges[-1]), edges)[0].astype(np.int64)


def _count_texts(counts: QualityCounts, rows: pa.Table) -> None:
    patients, reports = rows["patient_id"].to_pylist(), rows["report"].to_pylist()
    for report, count in Counter(reports).items():
        counts.languages[language_of(report)] += count
    statements = rows["statements"].to_pylist()
    counts.without_statements = sum(not parts for parts in statements)
    # By patients: a text of one patient is shown to nobody, in however many windows or records it stands.
    written = zip(patients, statements, strict=True)
    counts.reports = _texts(Counter(report for _, report in set(zip(patients, reports, strict=True))))
    counts.statements = _texts(
        Counter(part for _, part in {(patient, part) for patient, parts in written for part in parts})
    )


def _texts(repeated: Counter[str]) -> Tally[str]:
    tally: Tally[str] = Tally(capacity=MOST_TEXTS)
    tally.include(repeated)
    return tally


def _count_people(counts: QualityCounts, rows: pa.Table) -> None:
    told = zip(rows["fold"].to_pylist(), rows["age"].to_pylist(), rows["sex"].to_pylist(), strict=True)
    groups = [(("fold", str(fold)), ("age", age_band(age)), ("sex", sex or "unknown")) for fold, age, sex in told]
    labels = rows["labels"].to_pylist()
    counts.people.update(group for one in groups for group in one)
    counts.labels = Tally(
        ((label, *group) for one, found in zip(groups, labels, strict=True) for label in set(found) for group in one),
        capacity=MOST_LABELS,
    )
    counts.without_labels = sum(not found for found in labels)


def _keys(rows: pa.Table, measures: pa.Table) -> RecordKeys:
    return RecordKeys(
        fold=rows["fold"].to_numpy(),
        patient=_hashes(rows["patient_id"].to_pylist()),
        report=np.asarray([text_id(text) for text in rows["report"].to_pylist()], dtype=np.int64).view(np.uint64),
        signal=measures["signal_hash"].to_numpy(),
        coarse=measures["coarse_hash"].to_numpy(),
    )


def _hashes(texts: Iterable[str]) -> UInt64[np.ndarray, " text"]:
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, dtype=np.uint64)
