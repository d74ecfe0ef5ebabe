"""The columns of a table of scores, one for each class: `similarity:<task>:<class>` and what follows from it."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Float32

from mets_ray.metrics.levels import Levels
from mets_ray.model.calibrated_classes import CalibratedClasses

__all__ = ["ScoreTask", "with_calibrated", "with_columns", "with_z_scores"]


@dataclass(frozen=True)
class ScoreTask:
    """Classes of one task, their unit vectors, float32 [class, dimension], and the calibration of each."""

    task: str
    classes: tuple[str, ...]
    vectors: np.ndarray
    calibrated: CalibratedClasses | None = None


def with_columns(
    table: pa.Table,
    prefix: str,
    classes: tuple[str, ...],
    values: Float[np.ndarray, "record class"],
    unknown: Bool[np.ndarray, " record"] | None = None,
) -> pa.Table:
    """The table with a column of values for each class, `<prefix>:<class>`; null where they are unknown."""
    for column, name in enumerate(classes):
        table = table.append_column(f"{prefix}:{name}", pa.array(np.ascontiguousarray(values[:, column]), mask=unknown))
    return table


def with_z_scores(
    table: pa.Table, task: ScoreTask, levels: Levels, similarity: Float32[np.ndarray, "record class"]
) -> pa.Table:
    """The columns `z_score:<task>:<class>`, float32; null as `Predictor.z_scores` has None: for ECGs that lack leads
    and for means of several windows, because the ECGs of the reference are whole and of one window."""
    unknown = _lack_leads(table)
    if "windows" in table.column_names:
        unknown |= table["windows"].to_numpy() > 1
    z_scores = levels.standardise(similarity).astype(np.float32)
    return with_columns(table, f"z_score:{task.task}", task.classes, z_scores, unknown)


def with_calibrated(
    table: pa.Table, task: ScoreTask, calibrated: CalibratedClasses, similarity: Float32[np.ndarray, "record class"]
) -> pa.Table:
    """The columns of the calibrated classes; null for ECGs that lack leads, for which there is no calibration."""
    unknown = _lack_leads(table)
    names = ("probability", "probability_low", "probability_high")
    kinds = dict(zip(names, calibrated.probabilities(similarity), strict=True))
    kinds["present"] = calibrated.decisions(similarity)
    for column, (name, fault) in enumerate(zip(task.classes, calibrated.faults, strict=True)):
        for kind, values in kinds.items() if fault is None else ():
            of_class = pa.array(np.ascontiguousarray(values[:, column]), mask=unknown)
            table = table.append_column(f"{kind}:{task.task}:{name}", of_class)
    return table


def _lack_leads(table: pa.Table) -> Bool[np.ndarray, " record"]:
    return np.asarray([bool(missing) for missing in table["leads_missing"].to_pylist()], dtype=np.bool_)
