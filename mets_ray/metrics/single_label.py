"""METS's balanced protocol: one class per record, argmax prediction; accuracy, precision, recall, F1 with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from mets_ray.errors import MetsError
from mets_ray.metrics.intervals import Interval, mean_of_defined, percentile_interval, resamples

SINGLE_LABEL_SCORES = ("accuracy", "mean_ovr_accuracy", "macro_precision", "macro_recall", "macro_f1")
"""The scores that `single_label_scores` returns, in this order."""


@dataclass(frozen=True)
class BalancedDraw:
    """A sample in which all classes are equally frequent, ordered by class.

    `available` counts for each class the records that have it and no other of the sampled classes. `per_class` is the
    number of records sampled per class, 0 if a class has none.
    """

    rows: Int[np.ndarray, "drawn"]
    truth: Int[np.ndarray, "drawn"]
    per_class: int
    available: tuple[int, ...]


@dataclass(frozen=True)
class SingleLabelIntervals:
    """The result of `bootstrap_single_label`: an interval for each of `SINGLE_LABEL_SCORES`, and the confusion matrix.

    `samples` holds each score of each resample; resamples are as in `AurocIntervals.macro_samples`.
    """

    scores: dict[str, Interval]
    confusion: Int[np.ndarray, "truth prediction"]
    samples: dict[str, Float[np.ndarray, "resample"]]


def recalls(confusion: Int[np.ndarray, "truth prediction"]) -> Float[np.ndarray, "truth"]:
    """The share of each class's records that were predicted as it; NaN for a class without a record."""
    of_class = confusion.sum(axis=1)
    return np.where(of_class == 0, np.nan, confusion.diagonal() / np.maximum(of_class, 1))


def balanced_draw(
    labels: Bool[np.ndarray, "record class"], classes: Sequence[str], per_class: int, seed: int
) -> BalancedDraw:
    """Sample equally many records per class, at most `per_class`, from the records with exactly one of the classes.

    labels: which of `classes`, in this order, each record has; other classes are ignored. Each class is sampled
    without replacement by a separate generator seeded with (seed, class name): a smaller sample is a subset of a larger
    one, and the order of the classes does not matter.

    Raises MetsError if `labels` has another number of columns, `per_class` is below 1, a class is given twice, or fewer
    than 2 classes are given.
    """
    if labels.shape[1] != len(classes):
        raise MetsError(f"`labels` has {labels.shape[1]} columns for {len(classes)} `classes`")
    if len(set(classes)) != len(classes) or len(classes) < 2:
        raise MetsError(f"`classes` is {list(classes)}", hint="give at least 2 classes, each once")
    if per_class < 1:
        raise MetsError(f"`per_class` is {per_class}", hint="use at least 1; METS uses 200")
    single = labels.sum(axis=1) == 1
    candidates = [np.flatnonzero(single & labels[:, column]) for column in range(len(classes))]
    available = tuple(len(rows) for rows in candidates)
    drawn = min(per_class, *available)
    rows = [
        np.sort(np.random.default_rng([seed, *name.encode()]).permutation(rows)[:drawn])
        for name, rows in zip(classes, candidates, strict=True)
    ]
    return BalancedDraw(np.concatenate(rows), np.repeat(np.arange(len(classes)), drawn), drawn, available)


def single_label_scores(
    truth: Int[np.ndarray, "record"], predicted: Int[np.ndarray, "record"], classes: int
) -> dict[str, float]:
    """The scores of `SINGLE_LABEL_SCORES` for records with one class each; all are nan if there are no records.

    Precision, recall and F1 are scikit-learn's, averaged over the classes in `truth`; the precision of a class that is
    never predicted is 0. `mean_ovr_accuracy` is the mean of the one-vs-rest accuracies. With 5 classes, random guessing
    gives 0.68, so it is not comparable with an accuracy, but it may be what METS reported.
    """
    _require_classes(truth, predicted, classes)
    if not len(truth):
        return dict.fromkeys(SINGLE_LABEL_SCORES, float("nan"))
    precision, recall, f1, support = precision_recall_fscore_support(
        truth, predicted, labels=np.arange(classes), zero_division=0.0
    )
    of = support > 0
    right = float((truth == predicted).mean())
    values = (right, _mean_ovr_accuracy(right, classes), precision[of].mean(), recall[of].mean(), f1[of].mean())
    return {name: float(value) for name, value in zip(SINGLE_LABEL_SCORES, values, strict=True)}


def bootstrap_single_label(
    truth: Int[np.ndarray, "record"],
    predicted: Int[np.ndarray, "record"],
    classes: int,
    groups: Shaped[np.ndarray, "record"] | Sequence[str],
    *,
    samples: int = 1000,
    seed: int,
    level: float = 0.95,
) -> SingleLabelIntervals:
    """`single_label_scores` with percentile bootstrap intervals; patients (`groups`) are resampled with all records.

    A class that is missing from a resample is excluded from that resample's means, as in `bootstrap_macro_auroc`.
    Raises MetsError as that function, and if a class number is not in [0, classes).
    """
    values = single_label_scores(truth, predicted, classes)
    drawn = {name: np.full(max(samples, 0), np.nan) for name in SINGLE_LABEL_SCORES}
    # Each record is in one of classes² cells, so the weights of a resample summed by cell are its confusion matrix.
    of_cell = (truth * classes + predicted)[None, :] == np.arange(classes**2)[:, None]
    for rows, weights in resamples(groups, len(truth), samples=samples, seed=seed, level=level):
        confusion = (of_cell.astype(np.int64) @ weights).reshape(classes, classes, -1)
        for name, score in zip(SINGLE_LABEL_SCORES, _scores_of_confusions(confusion), strict=True):
            drawn[name][rows] = score
    return SingleLabelIntervals(
        scores={name: percentile_interval(values[name], drawn[name], level) for name in SINGLE_LABEL_SCORES},
        confusion=np.asarray(confusion_matrix(truth, predicted, labels=np.arange(classes)), dtype=np.int64)
        if len(truth)
        else np.zeros((classes, classes), dtype=np.int64),
        samples=drawn,
    )


def _require_classes(truth: np.ndarray, predicted: np.ndarray, classes: int) -> None:
    for name, numbers in (("truth", truth), ("predicted", predicted)):
        wrong = numbers[(numbers < 0) | (numbers >= classes)]
        if len(wrong):
            raise MetsError(f"`{name}` holds the class number {wrong[0]}, which is not in [0, {classes})")


def _mean_ovr_accuracy(accuracy: Any, classes: int) -> Any:
    # A misclassified record is wrong for two classes, the true and the predicted one, and right for all others.
    return 1.0 - 2.0 * (1.0 - accuracy) / classes


def _scores_of_confusions(confusion: Int[np.ndarray, "truth prediction resample"]) -> tuple[np.ndarray, ...]:
    """`SINGLE_LABEL_SCORES` of each resample."""
    classes = len(confusion)
    right = np.einsum("ccr->cr", confusion).astype(np.float64)
    of_class, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    accuracy = right.sum(axis=0) / of_class.sum(axis=0)
    lost = of_class == 0
    ratios = (
        right / np.maximum(predicted, 1),  # 0 where the class is never predicted
        right / np.maximum(of_class, 1),
        2.0 * right / np.maximum(predicted + of_class, 1),
    )
    macro = [mean_of_defined(np.where(lost, np.nan, ratio).T) for ratio in ratios]
    return accuracy, _mean_ovr_accuracy(accuracy, classes), *macro
