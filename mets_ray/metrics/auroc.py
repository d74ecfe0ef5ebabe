"""AUROC and average precision over classes, with bootstrap intervals that resample patients.

The scores themselves are scikit-learn's; the intervals, the paired difference and the chance level are computed here.
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
    """The result of `bootstrap_macro_auroc`.

    `macro_samples` holds the macro AUROC of each resample. With the same seed and the same groups, resample i contains
    the same patients for every model, so the difference of two models' `macro_samples` is a paired bootstrap.
    """

    macro: Interval
    per_class: tuple[Interval, ...]
    macro_samples: Float[np.ndarray, "resample"]


def macro_auroc(
    scores: Float[np.ndarray, "record class"], labels: Bool[np.ndarray, "record class"]
) -> tuple[float, Float[np.ndarray, "class"]]:
    """Mean over classes of the one-vs-rest AUROC, and the AUROC of each class.

    A class without positives or without negatives is nan and excluded from the mean; the mean is nan if all classes
    are. Raises MetsError for scores that are not finite or shapes that differ.
    """
    return _over_classes(roc_auc_score, scores, labels)


def average_precision(
    scores: Float[np.ndarray, "record class"], labels: Bool[np.ndarray, "record class"]
) -> tuple[float, Float[np.ndarray, "class"]]:
    """Mean average precision over classes, and that of each class; nan and errors as in `macro_auroc`."""
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

    `groups` holds patient ids. Patients are sampled with replacement, each with all their records. ECGs of one patient
    are correlated, so sampling records would make the intervals too narrow (Field & Welsh 2007, "Bootstrapping
    clustered data"). A class without positives or negatives in a resample is excluded from that resample's mean, and
    that resample from the class's own interval.

    drawn_from: a superset of the patients in `groups`, so that tasks with different records share their resamples; the
    mean of their `macro_samples` is then a joint bootstrap. Default: the patients in `groups`.

    Each resample is a vector of integer weights, and the AUROC a weighted Mann-Whitney statistic: the negatives are
    sorted once, and cumulative sums of their weights give the weight below and at each positive. Ties count one half.

    Raises MetsError as `macro_auroc`, and if `samples` is below 1, `level` is not in (0, 1), `groups` has another
    length, or one of them is not in `drawn_from`.
    """
    macro, values = macro_auroc(scores, labels)
    per_class = np.full((max(samples, 0), scores.shape[1]), np.nan)
    plans = {
        int(column): mann_whitney_plan(scores[:, column], labels[:, column])
        for column in np.flatnonzero(~np.isnan(values))
    }
    drawn = resamples(groups, len(scores), samples=samples, seed=seed, level=level, drawn_from=drawn_from)
    for rows, weights in drawn:
        for column, plan in plans.items():
            per_class[rows, column] = share_won(*won_and_pairs(weights, *plan))
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
    """Macro AUROC of `first` minus that of `second` on the same records, with a paired bootstrap interval.

    Both are scored on the same resampled patients, so variation that affects both cancels out: the interval is narrower
    than the two separate intervals suggest. Errors as in `bootstrap_macro_auroc`.
    """
    one, other = (
        bootstrap_macro_auroc(scores, labels, groups, samples=samples, seed=seed, level=level)
        for scores in (first, second)
    )
    return percentile_interval(one.macro.value - other.macro.value, one.macro_samples - other.macro_samples, level)


def chance_auroc(
    scores: Float[np.ndarray, "record class"],
    labels: Bool[np.ndarray, "record class"],
    groups: Shaped[np.ndarray, "record"],
    *,
    samples: int = 1000,
    seed: int,
    level: float = 0.95,
) -> Interval:
    """Chance level: mean and percentile interval of the macro AUROC with labels permuted between patients.

    Whole rows of `labels` are permuted, so class counts and co-occurrences are preserved. Those of a patient (`groups`)
    stay together: they are laid along the records, patient by patient, in a random order of the patients. Records of
    one patient are alike, so permuting them one by one would make chance seem more certain than it is. Errors as in
    `macro_auroc`.
    """
    _, values = macro_auroc(scores, labels)
    scored = ~np.isnan(values)
    ranks, of_class = rankdata(scores[:, scored], axis=0), labels[:, scored]
    positives = of_class.sum(axis=0)
    pairs = positives * (len(labels) - positives)
    lowest = positives * (positives + 1) / 2
    generator = np.random.default_rng(seed)
    _, of_record = np.unique(groups, return_inverse=True)
    by_patient = np.argsort(of_record, kind="stable")
    ranks, of_class, of_record = ranks[by_patient], of_class[by_patient], of_record[by_patient]
    drawn = np.full(samples, np.nan)
    for position in range(samples if scored.any() else 0):
        order = np.argsort(generator.permutation(of_record[-1] + 1)[of_record], kind="stable")
        # Mann-Whitney: the AUROC is the rank sum of the positives minus its minimum, divided by the number of pairs.
        won = np.einsum("rc,rc->c", ranks, of_class[order]) - lowest
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


def mann_whitney_plan(
    scores: Float[np.ndarray, "record"], labels: Bool[np.ndarray, "record"]
) -> tuple[np.ndarray, ...]:
    """(negative rows sorted by score, positive rows, negatives below each positive, negatives below or at it)."""
    positives, negatives = np.flatnonzero(labels), np.flatnonzero(~labels)
    negatives = negatives[np.argsort(scores[negatives])]
    below = np.searchsorted(scores[negatives], scores[positives], side="left")
    below_or_at = np.searchsorted(scores[negatives], scores[positives], side="right")
    return negatives, positives, below, below_or_at


def won_and_pairs(
    weights: Int[np.ndarray, "record resample"],
    negatives: Int[np.ndarray, "negative"],
    positives: Int[np.ndarray, "positive"],
    below: Int[np.ndarray, "positive"],
    below_or_at: Int[np.ndarray, "positive"],
) -> tuple[Int[np.ndarray, "resample"], Int[np.ndarray, "resample"]]:
    """For a `mann_whitney_plan`: twice the weight of the pairs that the positive wins, and the weight of all pairs."""
    running = np.zeros((len(negatives) + 1, weights.shape[1]), dtype=np.int64)
    np.cumsum(weights[negatives], axis=0, out=running[1:])
    positive_weights = weights[positives].astype(np.int64)
    # Integers until the division, so the result does not depend on the order of summation.
    twice_won = np.einsum("pr,pr->r", positive_weights, running[below] + running[below_or_at])
    return twice_won, positive_weights.sum(axis=0) * running[-1]


def share_won(
    twice_won: Int[np.ndarray, "resample"], pairs: Int[np.ndarray, "resample"]
) -> Float[np.ndarray, "resample"]:
    """The AUROC of `won_and_pairs`; nan without a pair."""
    auroc = np.full(len(pairs), np.nan)
    np.divide(twice_won, 2 * pairs, out=auroc, where=pairs > 0)
    return auroc
