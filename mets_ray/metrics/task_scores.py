"""Scores of a task by class with intervals, and the paired difference of two results."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Shaped

from mets_ray.metrics.auroc import average_precision, bootstrap_macro_auroc, paired_difference
from mets_ray.metrics.intervals import Interval
from mets_ray.metrics.similarities import TaskSimilarities, paired


@dataclass(frozen=True)
class ClassScore:
    """One row of a task's table; the AUROC is nan if the class has no positives or no negatives.

    `patients` is the number of patients with at least one positive record.
    """

    name: str
    auroc: Interval
    average_precision: float
    positives: int
    patients: int
    records: int

    @property
    def scored(self) -> bool:
        return not math.isnan(self.auroc.value)


@dataclass(frozen=True)
class TaskScore:
    """One task: its macro AUROC with a 95% bootstrap interval over patients, and its classes.

    `macro_samples` holds the macro AUROC of each resample; tasks of one data set share their resamples.
    """

    task: str
    macro: Interval
    classes: tuple[ClassScore, ...]
    records: int
    macro_samples: Float[np.ndarray, "resample"] = field(default_factory=lambda: np.empty(0), repr=False, compare=False)


@dataclass(frozen=True)
class Comparison:
    """A task's macro AUROC minus that of another result on the same `records`, with its paired 95% interval."""

    task: str
    difference: Interval
    records: int


def score_task(
    scores: TaskSimilarities, *, samples: int, seed: int, drawn_from: Shaped[np.ndarray, "drawn"] | None = None
) -> TaskScore:
    """Macro AUROC and the AUROC of each class, with intervals over patients; see `bootstrap_macro_auroc`."""
    similarity, truth, patients = scores.similarity, scores.truth, scores.patients
    intervals = bootstrap_macro_auroc(similarity, truth, patients, samples=samples, seed=seed, drawn_from=drawn_from)
    _, precisions = average_precision(similarity, truth)
    classes = tuple(
        ClassScore(
            name,
            intervals.per_class[column],
            float(precisions[column]),
            positives=int(truth[:, column].sum()),
            patients=len(np.unique(patients[truth[:, column]])),
            records=len(truth),
        )
        for column, name in enumerate(scores.classes)
    )
    return TaskScore(scores.task, intervals.macro, classes, len(truth), intervals.macro_samples)


def compare(first: TaskSimilarities, second: TaskSimilarities, *, samples: int, seed: int) -> Comparison:
    """The paired difference of two results of one task, on the records that both scored.

    Raises DatasetError as `similarities.paired`.
    """
    one, other = paired(first, second)
    difference = paired_difference(
        one.similarity, other.similarity, one.truth, one.patients, samples=samples, seed=seed
    )
    return Comparison(first.task, difference, len(one.record_ids))


def mean_of_tasks(tasks: Sequence[TaskScore]) -> Interval:
    """Mean of the tasks' macro AUROCs with its 95% interval; tasks that cannot be scored are skipped."""
    scored = [task for task in tasks if not math.isnan(task.macro.value)]
    if not scored:
        return Interval(math.nan, math.nan, math.nan)
    value = float(np.mean([task.macro.value for task in scored]))
    samples = np.mean([task.macro_samples for task in scored], axis=0)
    low, high = np.nanpercentile(samples, [2.5, 97.5]) if np.isfinite(samples).any() else (math.nan, math.nan)
    return Interval(value, float(low), float(high))
