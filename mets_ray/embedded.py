"""Records of a data set as a bundle sees them, in order of their ids; windows of one recording become one record."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float32, Shaped


@dataclass(frozen=True)
class EmbeddedRecords:
    """Row i of each field is of `record_ids[i]`. `rows` counts the stored rows that these were made of.

    `features` come before the projection, where a linear probe stands; `embeddings` are unit vectors behind it.
    """

    record_ids: tuple[str, ...]
    patients: Shaped[np.ndarray, "record"]
    labels: list[list[str]]
    reports: tuple[str, ...]
    embeddings: Float32[np.ndarray, "record dimension"]
    features: Float32[np.ndarray, "record feature"]
    rows: int


def embedded_records(rows: Sequence[dict[str, Any]]) -> EmbeddedRecords:
    """From rows with the columns `record_id`, `patient_id`, `labels`, `report`, `ecg_embedding`, `ecg_features`."""
    rows = sorted(rows, key=lambda row: str(row["record_id"]))
    return _join_windows(
        EmbeddedRecords(
            record_ids=tuple(str(row["record_id"]) for row in rows),
            patients=np.asarray([str(row["patient_id"]) for row in rows]),
            labels=[list(row["labels"]) for row in rows],
            reports=tuple(str(row["report"]) for row in rows),
            embeddings=np.asarray([row["ecg_embedding"] for row in rows], dtype=np.float32),
            features=np.asarray([row["ecg_features"] for row in rows], dtype=np.float32),
            rows=len(rows),
        )
    )


def _join_windows(records: EmbeddedRecords) -> EmbeddedRecords:
    """Rows `<patient>-w0`, `<patient>-w1`, ... are one recording (`sources.cinc`): their embeddings are averaged.

    The mean of unit vectors is brought back to length 1, as the service does with a long recording.
    """
    names = np.asarray(
        [_recording(name, str(patient)) for name, patient in zip(records.record_ids, records.patients, strict=True)]
    )
    recordings, first, of_row = np.unique(names, return_index=True, return_inverse=True)
    if len(recordings) == len(names):
        return records
    counts = np.bincount(of_row)[:, None]

    def mean(values: np.ndarray) -> np.ndarray:
        total = np.zeros((len(recordings), values.shape[1]))
        np.add.at(total, of_row, values)
        return total / counts

    embeddings = mean(records.embeddings)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    return replace(
        records,
        record_ids=tuple(recordings.tolist()),
        patients=records.patients[first],
        labels=[records.labels[row] for row in first],
        reports=tuple(records.reports[row] for row in first),
        embeddings=embeddings.astype(np.float32),
        features=mean(records.features).astype(np.float32),
    )


def _recording(record_id: str, patient: str) -> str:
    start, mark, number = record_id.rpartition("-w")
    return start if mark and start == patient and number.isdecimal() else record_id
