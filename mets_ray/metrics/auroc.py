"""Scores of zero-shot recognition and retrieval: arrays in, floats out.

AUROC, average precision, precision, recall and F1 are scikit-learn's. What it lacks is here: intervals that resample
patients, balanced draws, and retrieval recall that knows equal reports.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, roc_auc_score

from mets_ray.errors import MetsError
from mets_ray.metrics.intervals import Interval, mean_of_defined, percentile_interval, require_finite, resamples


@dataclass(frozen=True)
class AurocIntervals:
    """What `bootstrap_macro_auroc` found.

    `macro_samples` holds the macro AUROC of each resample. With the same seed and the same groups, resample i draws the
    same patients for every model, so the difference of two models' `macro_samples` is a paired bootstrap.
    """

    macro: Interval
    per_class: tuple[Interval, ...]
    macro_samples: Float[np.ndarray, "resample"]


def macro_auroc(
    scores: Float[np.ndarray, "record class"], labels: Bool[np.ndarray, "record class"]
) -> tuple[float, Float[np.ndarray, "class"]]:
    """Mean over classes of the one-against-rest AUROC, and the AUROC of each class.

    A class without positives or without negatives is nan and does not enter the mean; the mean is nan when no class
    does. Raises MetsError for scores that are not finite or shapes that differ.
    """
    return _over_classes(roc_auc_score, scores, labels)


def average_precision(
    scores: Float[np.ndarray, "record class"], labels: Bool[np.ndarray, "record class"]
) -> tuple[float, Float[np.ndarray, "class"]]:
    """Mean over classes of the average precision, and that of each class; nan and errors as in `macro_auroc`."""
    return _over_classes(average_precision_score, scores, labels)


def bootstrap_macro_auroc(
    scores: Float[np.ndarray, "record class"],
    labels: Bool[np.ndarray, "record class"],
    groups: Shaped[np.ndarray, "record"] | Sequence[str],
    *,
    samples: int = 1000,
    seed: int,
    level: float = 0.95,
    drawn_from: Shaped[np.ndarray, "drawn"] | Sequence[str] | None = None,
) -> AurocIntervals:
    """Percentile bootstrap intervals of the macro AUROC and of each class's AUROC.

    `groups` holds patient ids. Patients are drawn with replacement, each with all of its records, because a patient's
    ECGs are alike: drawing records makes intervals too narrow (Field & Welsh 2007, "Bootstrapping clustered data").
    A class that has lost all positives or all negatives in a resample is left out of that resample's mean, and that
    resample out of the class's own interval.

    drawn_from: all patients of which `groups` are some, where tasks with other records shall share their draws; then
    the mean of their `macro_samples` is a joint bootstrap. By default the patients in `groups`.

    Each resample is a vector of whole-number weights, and the AUROC a weighted Mann-Whitney statistic: the negatives
    are sorted once, running sums of their weights give the weight below and at each positive, ties count one half.

    Raises MetsError as `macro_auroc`, and where `samples` is below 1, `level` not inside (0, 1), `groups` of another
    length, or one of them not in `drawn_from`.
    """
    macro, values = macro_auroc(scores, labels)
    per_class = np.full((max(samples, 0), scores.shape[1]), np.nan)
    plans = {
        int(column): _mann_whitney_plan(scores[:, column], labels[:, column])
        for column in np.flatnonzero(~np.isnan(values))
    }
    drawn = resamples(groups, len(scores), samples=samples, seed=seed, level=level, drawn_from=drawn_from)
    for rows, weights in drawn:
        for column, plan in plans.items():
            per_class[rows, column] = _weighted_auroc(weights, *plan)
    macro_samples = mean_of_defined(per_class)
    return AurocIntervals(
        macro=percentile_interval(macro, macro_samples, level),
        per_class=tuple(
            percentile_interval(float(value), per_class[:, column], level) for column, value in enumerate(values)
        ),
        macro_samples=macro_samples,
    )


def paired_difference(
    first: Float[np.ndarray, "record class"],
    second: Float[np.ndarray, "record class"],
    labels: Bool[np.ndarray, "record class"],
    groups: Shaped[np.ndarray, "record"] | Sequence[str],
    *,
    samples: int = 1000,
    seed: int,
    level: float = 0.95,
) -> Interval:
    """Macro AUROC of `first` less that of `second` on the same records, with a paired bootstrap interval.

    Both are scored on the same resampled patients, so what is hard for both cancels: the interval is narrower than the
    two intervals beside each other suggest. Errors as in `bootstrap_macro_auroc`.
    """
    one, other = (
        bootstrap_macro_auroc(scores, labels, groups, samples=samples, seed=seed, level=level)
        for scores in (first, second)
    )
    return percentile_interval(one.macro.value - other.macro.value, one.macro_samples - other.macro_samples, level)


def chance_auroc(
    scores: Float[np.ndarray, "record class"],
    labels: Bool[np.ndarray, "record class"],
    *,
    samples: int = 1000,
    seed: int,
    level: float = 0.95,
) -> Interval:
    """Mean and percentile interval of the macro AUROC when records swap their labels at random: what no skill gives.

    Whole rows of `labels` are permuted, so classes keep their counts and go together as they did. Errors as in
    `macro_auroc`.
    """
    _, values = macro_auroc(scores, labels)
    scored = ~np.isnan(values)
    ranks, of_class = rankdata(scores[:, scored], axis=0), labels[:, scored]
    positives = of_class.sum(axis=0)
    pairs = positives * (len(labels) - positives)
    lowest = positives * (positives + 1) / 2
    generator = np.random.default_rng(seed)
    drawn = np.full(samples, np.nan)
    for position in range(samples if scored.any() else 0):
        # Mann-Whitney: the AUROC is the positives' rank sum above the lowest possible one, per pair.
        won = np.einsum("rc,rc->c", ranks, of_class[generator.permutation(len(labels))]) - lowest
        drawn[position] = float((won / pairs).mean())
    return percentile_interval(float(drawn.mean()) if samples else float("nan"), drawn, level)


def _over_classes(
    score: Callable[[Any, Any], float],
    scores: Float[np.ndarray, "record class"],
    labels: Bool[np.ndarray, "record class"],
) -> tuple[float, Float[np.ndarray, "class"]]:
    if scores.shape != labels.shape:
        raise MetsError(f"scores are {scores.shape} and labels {labels.shape}, not the same [record, class]")
    require_finite("scores", scores)
    values = np.full(scores.shape[1], np.nan)
    for column in range(scores.shape[1]):
        if labels[:, column].any() and not labels[:, column].all():
            values[column] = score(labels[:, column], scores[:, column])
    return float(mean_of_defined(values[None])[0]), values


def _mann_whitney_plan(
    scores: Float[np.ndarray, "record"], labels: Bool[np.ndarray, "record"]
) -> tuple[np.ndarray, ...]:
    """(rows of negatives by score, rows of positives, negatives below each positive, negatives below or at it)."""
    positives, negatives = np.flatnonzero(labels), np.flatnonzero(~labels)
    negatives = negatives[np.argsort(scores[negatives])]
    below = np.searchsorted(scores[negatives], scores[positives], side="left")
    below_or_at = np.searchsorted(scores[negatives], scores[positives], side="right")
    return negatives, positives, below, below_or_at


def _weighted_auroc(
    weights: Int[np.ndarray, "record resample"],
    negatives: Int[np.ndarray, "negative"],
    positives: Int[np.ndarray, "positive"],
    below: Int[np.ndarray, "positive"],
    below_or_at: Int[np.ndarray, "positive"],
) -> Float[np.ndarray, "resample"]:
    running = np.zeros((len(negatives) + 1, weights.shape[1]), dtype=np.int64)
    np.cumsum(weights[negatives], axis=0, out=running[1:])
    positive_weights = weights[positives].astype(np.int64)
    # Whole numbers until the division: the result does not depend on the order of summation.
    twice_won = np.einsum("pr,pr->r", positive_weights, running[below] + running[below_or_at])
    pairs = positive_weights.sum(axis=0) * running[-1]
    auroc = np.full(len(pairs), np.nan)
    np.divide(twice_won, 2 * pairs, out=auroc, where=pairs > 0)
    return auroc
