"""AUROC by cross-validation: each record is scored once, by a model that saw none of its patient's records.

Each fold's model has a scale of its own, so only records of the same fold are compared: the AUROC is the share of all
pairs of a positive and a negative of one fold in which the positive scores higher. Pooling the scores of all folds
would also rank the models' scales (Parker et al. 2007, doi:10.1186/1471-2105-8-326), and a mean over folds would weigh
a fold with one positive like one with fifty.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from mets_ray.errors import DatasetError
from mets_ray.metrics.auroc import AurocIntervals, mann_whitney_plan, share_won, won_and_pairs
from mets_ray.metrics.intervals import mean_of_defined, percentile_interval, require_finite, resamples
from mets_ray.metrics.similarities import TaskSimilarities


@dataclass(frozen=True)
class CrossValidated:
    """One task's scores of all records, and the number of the fold that each was tested in."""

    scores: TaskSimilarities
    fold: Int[np.ndarray, "record"]

    @classmethod
    def join(cls, folds: Sequence[TaskSimilarities]) -> "CrossValidated":
        """From the scores of each fold. Raises DatasetError for other classes, or a patient in two folds."""
        first = folds[0]
        for number, one in enumerate(folds):
            if one.classes != first.classes:
                raise DatasetError(f"fold {number} of task `{first.task}` has other classes than fold 0")
        fold = np.repeat(np.arange(len(folds)), [len(one.record_ids) for one in folds])
        patients = np.concatenate([one.patients for one in folds])
        if len(set(zip(patients.tolist(), fold.tolist(), strict=True))) != len(set(patients.tolist())):
            raise DatasetError(
                f"a patient of task `{first.task}` was tested in two folds", hint="group folds by patient"
            )
        return cls(
            TaskSimilarities(
                first.task,
                first.classes,
                tuple(name for one in folds for name in one.record_ids),
                patients,
                np.concatenate([one.similarity for one in folds]),
                np.concatenate([one.truth for one in folds]),
            ),
            fold,
        )


def cross_validated_auroc(
    of: CrossValidated,
    *,
    samples: int = 1000,
    seed: int,
    level: float = 0.95,
    drawn_from: Shaped[np.ndarray, "drawn"] | Sequence[str] | None = None,
) -> AurocIntervals:
    """The macro AUROC over pairs within folds and that of each class, with bootstrap intervals over patients.

    Resamples, `drawn_from` and what a class without pairs counts as: see `bootstrap_macro_auroc`. With one fold the
    result is the same as there. Raises MetsError as it does.
    """
    scores = of.scores
    require_finite("scores", scores.similarity)
    plans = [
        _plans(scores.similarity[:, column], scores.truth[:, column], of.fold) for column in range(len(scores.classes))
    ]
    one = np.ones((len(of.fold), 1), dtype=np.int32)
    values = np.asarray([_stratified(one, plan)[0] for plan in plans])
    per_class = np.full((max(samples, 0), len(plans)), np.nan)
    drawn = resamples(scores.patients, len(of.fold), samples=samples, seed=seed, level=level, drawn_from=drawn_from)
    for rows, weights in drawn:
        for column, plan in enumerate(plans):
            per_class[rows, column] = _stratified(weights, plan)
    macro_samples = mean_of_defined(per_class)
    return AurocIntervals(
        macro=percentile_interval(float(mean_of_defined(values[None])[0]), macro_samples, level),
        per_class=tuple(
            percentile_interval(float(value), per_class[:, column], level) for column, value in enumerate(values)
        ),
        macro_samples=macro_samples,
    )


_Plan = tuple[np.ndarray, ...]


def _plans(
    scores: Float[np.ndarray, "record"], labels: Bool[np.ndarray, "record"], fold: Int[np.ndarray, "record"]
) -> list[tuple[np.ndarray, _Plan]]:
    """For each fold its rows, and the plan of its pairs."""
    rows_of = [np.flatnonzero(fold == number) for number in np.unique(fold)]
    return [(rows, mann_whitney_plan(scores[rows], labels[rows])) for rows in rows_of]


def _stratified(
    weights: Int[np.ndarray, "record resample"], plans: list[tuple[np.ndarray, _Plan]]
) -> Float[np.ndarray, "resample"]:
    counted = [won_and_pairs(weights[rows], *plan) for rows, plan in plans]
    return share_won(np.sum([won for won, _ in counted], axis=0), np.sum([pairs for _, pairs in counted], axis=0))
