"""Similarities of an evaluation as Parquet, one file per task, so that another one can be compared record by record."""

import json
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float64, Shaped

from mets_ray import storage
from mets_ray.errors import DatasetError

SCORES_FOLDER = "scores"


@dataclass(frozen=True)
class TaskSimilarities:
    """Cosine similarity and truth of each scored record and class of one task."""

    task: str
    classes: tuple[str, ...]
    record_ids: tuple[str, ...]
    patients: Shaped[np.ndarray, "record"]
    similarity: Float64[np.ndarray, "record class"]
    truth: Bool[np.ndarray, "record class"]

    def rows(self, record_ids: tuple[str, ...]) -> "TaskSimilarities":
        """Those of `record_ids`, in that order; each must be here."""
        position = {name: row for row, name in enumerate(self.record_ids)}
        chosen = np.asarray([position[name] for name in record_ids], dtype=np.int64)
        return TaskSimilarities(
            self.task, self.classes, record_ids, self.patients[chosen], self.similarity[chosen], self.truth[chosen]
        )


def write_similarities(result_uri: str, scores: TaskSimilarities, facts: dict[str, str]) -> str:
    """Write `scores/<task>.parquet`: `record_id`, `patient_id`, `similarity` and `label` (lists by class)."""
    size = len(scores.classes)
    table = pa.table(
        {
            "record_id": pa.array(scores.record_ids, pa.string()),
            "patient_id": pa.array(scores.patients.tolist(), pa.string()),
            "similarity": pa.FixedSizeListArray.from_arrays(pa.array(scores.similarity.reshape(-1)), size),
            "label": pa.FixedSizeListArray.from_arrays(pa.array(scores.truth.reshape(-1)), size),
        },
        metadata=facts | {"task": scores.task, "classes": json.dumps(scores.classes)},
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    uri = _uri(result_uri, scores.task)
    storage.write_bytes(uri, sink.getvalue().to_pybytes())
    return uri


def read_similarities(result_uri: str, task: str) -> TaskSimilarities | None:
    """What an evaluation left for a task, None where it did not score it. Raises DatasetError for another file."""
    uri = _uri(result_uri, task)
    if not storage.exists(uri):
        return None
    try:
        table = pq.read_table(pa.BufferReader(storage.read_bytes(uri)))
        classes = tuple(json.loads((table.schema.metadata or {})[b"classes"]))
        shape = (table.num_rows, len(classes))
        similarity, label = (
            table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(shape)
            for name in ("similarity", "label")
        )
        return TaskSimilarities(
            task,
            classes,
            tuple(table["record_id"].to_pylist()),
            np.asarray(table["patient_id"].to_pylist()),
            similarity.astype(np.float64),
            label.astype(np.bool_),
        )
    except (KeyError, ValueError, pa.ArrowInvalid) as error:
        raise DatasetError(
            f"`{uri}` holds no similarities: {error}", hint="give the result folder of jobs/evaluate.py"
        ) from error


def paired(first: TaskSimilarities, second: TaskSimilarities) -> tuple[TaskSimilarities, TaskSimilarities]:
    """Both on the records that both scored, in one order. Raises DatasetError where they are not of the same labels."""
    if first.classes != second.classes:
        raise DatasetError(
            f"task `{first.task}` has the classes {list(first.classes)} here and {list(second.classes)} in the other",
            hint="compare results of the same version of the label sets",
        )
    common = tuple(sorted(set(first.record_ids) & set(second.record_ids)))
    if not common:
        raise DatasetError(
            f"no record of task `{first.task}` was scored in both", hint="score both on the same folds of one data set"
        )
    one, other = first.rows(common), second.rows(common)
    differing = np.flatnonzero((one.truth != other.truth).any(axis=1))
    if len(differing):
        raise DatasetError(
            f"{len(differing)} of {len(common)} records have other labels in the other result, for example "
            f"`{common[differing[0]]}`",
            hint="score both on the same data set",
        )
    return one, other


def _uri(result_uri: str, task: str) -> str:
    return storage.join(result_uri, SCORES_FOLDER, f"{task}.parquet")
