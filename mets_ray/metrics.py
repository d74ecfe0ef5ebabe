"""Scores of zero-shot recognition and retrieval: arrays in, floats out.

AUROC, average precision, precision, recall and F1 are scikit-learn's. What it lacks is here: intervals that resample
patients, balanced draws, and retrieval recall that knows equal reports.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, confusion_matrix, precision_recall_fscore_support, roc_auc_score

from mets_ray.errors import MetsError

# Resamples whose weights are held at once: with 2,000 records one block of weights is 1 MB and stays in cache.
_RESAMPLES_AT_ONCE = 128
_ROWS_AT_ONCE = 512


class Interval(NamedTuple):
    """A score and its bootstrap interval; all three are nan where the score is not defined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class AurocIntervals:
    """What `bootstrap_macro_auroc` found.

    `macro_samples` holds the macro AUROC of each resample. With the same seed and the same groups, resample i draws the
    same patients for every model, so the difference of two models' `macro_samples` is a paired bootstrap.
    """

    macro: Interval
    per_class: tuple[Interval, ...]
    macro_samples: Float[np.ndarray, "resample"]


SINGLE_LABEL_SCORES = ("accuracy", "mean_ovr_accuracy", "macro_precision", "macro_recall", "macro_f1")
"""What `single_label_scores` gives, in this order."""


@dataclass(frozen=True)
class BalancedDraw:
    """Records in which each class is as frequent as any other, ordered by class.

    `available` counts by class the records that have this class and no other of those drawn from; `per_class` is the
    number drawn of each, 0 where a class has none.
    """

    rows: Int[np.ndarray, "drawn"]
    truth: Int[np.ndarray, "drawn"]
    per_class: int
    available: tuple[int, ...]


@dataclass(frozen=True)
class SingleLabelIntervals:
    """What `bootstrap_single_label` found: an interval by name of `SINGLE_LABEL_SCORES`, and the counts behind them.

    `samples` holds each score of each resample, drawn as in `AurocIntervals.macro_samples`.
    """

    scores: dict[str, Interval]
    confusion: Int[np.ndarray, "truth prediction"]
    samples: dict[str, Float[np.ndarray, "resample"]]


def macro_auroc(
    scores: Float[np.ndarray, "record class"], labels: Bool[np.ndarray, "record class"]
) -> tuple[float, Float[np.ndarray, "class"]]:
    """Mean over classes of the one-against-rest AUROC, and the AUROC of each class.

    A class without positives or without negatives is nan and left out of the mean; the mean is nan when no class is
    left. Raises MetsError for scores that are not finite or shapes that differ.
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
    drawn = _resamples(groups, len(scores), samples=samples, seed=seed, level=level, drawn_from=drawn_from)
    for rows, weights in drawn:
        for column, plan in plans.items():
            per_class[rows, column] = _weighted_auroc(weights, *plan)
    macro_samples = _mean_of_defined(per_class)
    return AurocIntervals(
        macro=_interval(macro, macro_samples, level),
        per_class=tuple(_interval(float(value), per_class[:, column], level) for column, value in enumerate(values)),
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
    return _interval(one.macro.value - other.macro.value, one.macro_samples - other.macro_samples, level)


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
    return _interval(float(drawn.mean()) if samples else float("nan"), drawn, level)


def balanced_draw(
    labels: Bool[np.ndarray, "record class"], classes: Sequence[str], per_class: int, seed: int
) -> BalancedDraw:
    """Draw as many records of each class as of any other, at most `per_class`, from those with exactly one of them.

    labels: which of `classes`, in this order, each record has; classes that are not drawn from do not count. Each
    class is drawn without replacement by a generator of its own, seeded by (seed, class name): a draw of fewer is part
    of a draw of more, and the order of the classes changes nothing.

    Raises MetsError where `per_class` is below 1, a class stands twice or fewer than 2 are given.
    """
    if labels.shape[1] != len(classes):
        raise MetsError(f"`labels` has {labels.shape[1]} columns for {len(classes)} `classes`")
    if len(set(classes)) != len(classes) or len(classes) < 2:
        raise MetsError(f"`classes` is {list(classes)}", hint="give at least 2 classes, each once")
    if per_class < 1:
        raise MetsError(f"`per_class` is {per_class}", hint="METS draws 200")
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
    """The scores of `SINGLE_LABEL_SCORES` for records with one class each; nan for all where there are no records.

    Precision, recall and F1 are scikit-learn's, averaged over the classes that `truth` holds; the precision of a class
    that is never predicted is 0. `mean_ovr_accuracy` is the mean of the accuracies of "this class or not": with 5
    classes a guesser has 0.68, so it is no accuracy, but it may be what METS printed.
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
    """`single_label_scores` with percentile bootstrap intervals that draw patients (`groups`), each with all records.

    A class that a resample has lost is left out of that resample's means, as in `bootstrap_macro_auroc`.
    Raises MetsError as that does, and where a class number is not in [0, classes).
    """
    values = single_label_scores(truth, predicted, classes)
    drawn = {name: np.full(max(samples, 0), np.nan) for name in SINGLE_LABEL_SCORES}
    # Each record is one of classes² cells, so a resample's weights summed by cell are its confusion matrix.
    of_cell = (truth * classes + predicted)[None, :] == np.arange(classes**2)[:, None]
    for rows, weights in _resamples(groups, len(truth), samples=samples, seed=seed, level=level):
        confusion = (of_cell.astype(np.int64) @ weights).reshape(classes, classes, -1)
        for name, score in zip(SINGLE_LABEL_SCORES, _scores_of_confusions(confusion), strict=True):
            drawn[name][rows] = score
    return SingleLabelIntervals(
        scores={name: _interval(values[name], drawn[name], level) for name in SINGLE_LABEL_SCORES},
        confusion=np.asarray(confusion_matrix(truth, predicted, labels=np.arange(classes)), dtype=np.int64)
        if len(truth)
        else np.zeros((classes, classes), dtype=np.int64),
        samples=drawn,
    )


def recall_at_k(
    queries: Float[np.ndarray, "query dimension"],
    candidates: Float[np.ndarray, "candidate dimension"],
    query_ids: Int[np.ndarray, "query"],
    candidate_ids: Int[np.ndarray, "candidate"],
    ks: Sequence[int] = (1, 5, 10),
) -> dict[int, float]:
    """Share of queries with a candidate of their own id among the k most similar; similarity is the dot product.

    Several candidates may carry a query's id: the best one counts, and the others do not stand in its way. Ties are
    pessimistic: a wrong candidate as similar as the right one stands before it, so a collapsed encoder that gives
    every ECG the same vector scores 0 and not 1. A query without a right candidate is a miss. Similarities are made
    for a few rows at a time, 20,000 x 20,000 never at once.

    Raises MetsError for embeddings that are not finite, no queries, or a k below 1.
    """
    if len(queries) == 0:
        raise MetsError("recall of 0 queries is not defined")
    if any(k < 1 for k in ks):
        raise MetsError(f"`ks` is {tuple(ks)}; each k must be at least 1")
    _require_finite("queries", queries)
    _require_finite("candidates", candidates)
    wrong_before = np.empty(len(queries), dtype=np.int64)
    for start in range(0, len(queries), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        similarity = queries[rows] @ candidates.T
        right = query_ids[rows, None] == candidate_ids[None, :]
        best = np.where(right, similarity, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
        wrong_before[rows] = ((similarity >= best) & ~right).sum(axis=1)
        wrong_before[rows][~right.any(axis=1)] = np.iinfo(np.int64).max
    return {k: float((wrong_before < k).mean()) for k in ks}


def retrieval_recall(
    ecg_embeddings: Float[np.ndarray, "record dimension"],
    text_embeddings: Float[np.ndarray, "record dimension"],
    text_ids: Int[np.ndarray, "record"],
    ks: Sequence[int] = (1, 5, 10),
) -> dict[str, dict[int, float]]:
    """Recall at k both ways between ECGs and the distinct reports: {"ecg_to_text": {k: .}, "text_to_ecg": {k: .}}.

    Row i of both arrays is one pair, and `text_ids[i]` its report's `report.text_id`. Equal reports are one answer and
    one question: of PTB-XL's 1,992 records here 178 share one report, which would otherwise fill whole top tens.
    The values depend on the number of records, which must be told beside them. Errors as in `recall_at_k`.
    """
    distinct, first = np.unique(text_ids, return_index=True)
    texts = text_embeddings[first]
    return {
        "ecg_to_text": recall_at_k(ecg_embeddings, texts, text_ids, distinct, ks),
        "text_to_ecg": recall_at_k(texts, ecg_embeddings, distinct, text_ids, ks),
    }


def _over_classes(
    score: Callable[[Any, Any], float],
    scores: Float[np.ndarray, "record class"],
    labels: Bool[np.ndarray, "record class"],
) -> tuple[float, Float[np.ndarray, "class"]]:
    if scores.shape != labels.shape:
        raise MetsError(f"scores are {scores.shape} and labels {labels.shape}, not the same [record, class]")
    _require_finite("scores", scores)
    values = np.full(scores.shape[1], np.nan)
    for column in range(scores.shape[1]):
        if labels[:, column].any() and not labels[:, column].all():
            values[column] = score(labels[:, column], scores[:, column])
    return float(_mean_of_defined(values[None])[0]), values


def _resamples(
    groups: Shaped[np.ndarray, "record"] | Sequence[str],
    records: int,
    *,
    samples: int,
    seed: int,
    level: float,
    drawn_from: Shaped[np.ndarray, "drawn"] | Sequence[str] | None = None,
) -> Iterator[tuple[slice, Int[np.ndarray, "record resample"]]]:
    """(which resamples, how often each record is in each of them); the same draws for the same seed and groups."""
    if samples < 1:
        raise MetsError(f"`samples` is {samples}", hint="draw at least 1 resample; 1000 is usual")
    if not 0.0 < level < 1.0:
        raise MetsError(f"`level` is {level}, not between 0 and 1", hint="0.95 is usual")
    if len(groups) != records:
        raise MetsError(f"{len(groups)} `groups` for {records} records")
    names = np.unique(np.asarray(groups if drawn_from is None else drawn_from))
    group_of_record = np.searchsorted(names, np.asarray(groups)).clip(max=max(len(names) - 1, 0))
    if records and not np.array_equal(names[group_of_record], np.asarray(groups)):
        raise MetsError("some of `groups` are not in `drawn_from`")
    generator = np.random.default_rng(seed)
    for start in range(0, samples if records else 0, _RESAMPLES_AT_ONCE):
        stop = min(start + _RESAMPLES_AT_ONCE, samples)
        # One resample a column: rows are then gathered whole, and sums run down contiguous memory.
        weights = np.empty((len(names), stop - start), dtype=np.int32)
        for resample in range(stop - start):
            drawn = generator.integers(len(names), size=len(names))
            weights[:, resample] = np.bincount(drawn, minlength=len(names))
        yield slice(start, stop), weights[group_of_record]


def _require_classes(truth: np.ndarray, predicted: np.ndarray, classes: int) -> None:
    for name, numbers in (("truth", truth), ("predicted", predicted)):
        wrong = numbers[(numbers < 0) | (numbers >= classes)]
        if len(wrong):
            raise MetsError(f"`{name}` holds the class number {wrong[0]}, of {classes} classes")


def _mean_ovr_accuracy(accuracy: Any, classes: int) -> Any:
    # A wrong record is wrong for two classes, its own and the predicted one, and right for all others.
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
    macro = [_mean_of_defined(np.where(lost, np.nan, ratio).T) for ratio in ratios]
    return accuracy, _mean_ovr_accuracy(accuracy, classes), *macro


def _require_finite(name: str, array: np.ndarray) -> None:
    # NaN compares as false everywhere: sorted it would rank, and retrieved it would hit, without a word.
    wrong = array.size - int(np.isfinite(array).sum())
    if wrong:
        raise MetsError(f"{wrong} of {array.size} values of `{name}` are not finite")


def _mean_of_defined(values: Float[np.ndarray, "row class"]) -> Float[np.ndarray, "row"]:
    """Mean of each row without its nans; nan for a row of nothing else (numpy's nanmean warns there)."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=1)
    total = np.where(defined, values, 0.0).sum(axis=1)
    mean = np.full(len(values), np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return mean


def _interval(value: float, samples: Float[np.ndarray, "resample"], level: float) -> Interval:
    defined = samples[~np.isnan(samples)]
    if np.isnan(value) or len(defined) == 0:
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(defined, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return Interval(value, float(low), float(high))


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
