"""Similarities of an evaluation as Parquet, one file per task, so that results can be compared record by record."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mets_ray import storage
from mets_ray.errors import DatasetError
from mets_ray.metrics.similarities import TaskSimilarities

SCORES_FOLDER = "scores"


def write_similarities(result_uri: str, scores: TaskSimilarities, facts: dict[str, str], baseline: str = "") -> str:
    """Write `scores/<task>.parquet`: `record_id`, `patient_id`, `similarity` and `label` (one list item per class).

    baseline: a folder for the scores of another model, below `scores`. facts: stored as the file's metadata. Returns
    the URI of the file.
    """
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
    uri = _uri(result_uri, scores.task, baseline)
    storage.write_bytes(uri, sink.getvalue().to_pybytes())
    return uri


def read_similarities(result_uri: str, task: str, baseline: str = "") -> TaskSimilarities | None:
    """Read the similarities of a task; None if the task was not scored. Raises DatasetError for any other file."""
    uri = _uri(result_uri, task, baseline)
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
    except (KeyError, ValueError, TypeError, AttributeError, OSError, pa.ArrowException) as error:
        raise DatasetError(
            f"`{uri}` holds no similarities: {error}", hint="give the result folder of jobs/evaluate.py"
        ) from error


def _uri(result_uri: str, task: str, baseline: str) -> str:
    return storage.join(result_uri, SCORES_FOLDER, *([baseline] if baseline else []), f"{task}.parquet")
