"""Similarity and truth of each scored record and class of one task."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Shaped

from mets_ray.errors import DatasetError


@dataclass(frozen=True)
class TaskSimilarities:
    """Cosine similarities of the scored records with the classes of one task, their labels and patients."""

    task: str
    classes: tuple[str, ...]
    record_ids: tuple[str, ...]
    patients: Shaped[np.ndarray, "record"]
    similarity: Float64[np.ndarray, "record class"]
    truth: Bool[np.ndarray, "record class"]

    def rows(self, record_ids: tuple[str, ...]) -> "TaskSimilarities":
        """The rows of `record_ids`, in that order. Raises KeyError for a record that was not scored."""
        position = {name: row for row, name in enumerate(self.record_ids)}
        chosen = np.asarray([position[name] for name in record_ids], dtype=np.int64)
        return TaskSimilarities(
            self.task, self.classes, record_ids, self.patients[chosen], self.similarity[chosen], self.truth[chosen]
        )


def paired(first: TaskSimilarities, second: TaskSimilarities) -> tuple[TaskSimilarities, TaskSimilarities]:
    """Both results on the records that both scored, in the same order.

    Raises DatasetError if classes or labels differ, or no record was scored in both.
    """
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
            f"{len(differing)} of {len(common)} records have different labels in the other result, for example "
            f"`{common[differing[0]]}`",
            hint="score both on the same data set",
        )
    return one, other
