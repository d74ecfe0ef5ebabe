"""A score with its bootstrap interval, and the resampling of patients."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from mets_ray.errors import MetsError

# Resamples per block of weights: with 2,000 records one block is 1 MB and stays in cache.
_RESAMPLES_AT_ONCE = 128


class Interval(NamedTuple):
    """A score and its bootstrap interval; all three are nan if the score is undefined."""

    value: float
    low: float
    high: float


def resamples(
    groups: Shaped[np.ndarray, "record"] | Sequence[str],
    records: int,
    *,
    samples: int,
    seed: int,
    level: float,
    drawn_from: Shaped[np.ndarray, "drawn"] | Sequence[str] | None = None,
) -> Iterator[tuple[slice, Int[np.ndarray, "record resample"]]]:
    """(slice of resamples, count of each record in each of them); reproducible for the same seed and groups.

    Raises MetsError as `bootstrap_macro_auroc`.
    """
    if samples < 1:
        raise MetsError(f"`samples` is {samples}", hint="use at least 1 resample; 1000 is usual")
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
        # One resample per column: rows are gathered whole, and sums run over contiguous memory.
        weights = np.empty((len(names), stop - start), dtype=np.int32)
        for resample in range(stop - start):
            drawn = generator.integers(len(names), size=len(names))
            weights[:, resample] = np.bincount(drawn, minlength=len(names))
        yield slice(start, stop), weights[group_of_record]


def require_finite(name: str, array: np.ndarray) -> None:
    # Comparisons with NaN are always false, so a NaN would silently get a rank or count as a retrieval hit.
    wrong = array.size - int(np.isfinite(array).sum())
    if wrong:
        raise MetsError(f"{wrong} of {array.size} values of `{name}` are not finite")


def mean_of_defined(values: Float[np.ndarray, "row class"]) -> Float[np.ndarray, "row"]:
    """Mean of each row ignoring nans; nan for a row of only nans (where numpy's nanmean would warn)."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=1)
    total = np.where(defined, values, 0.0).sum(axis=1)
    mean = np.full(len(values), np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return mean


def percentile_interval(value: float, samples: Float[np.ndarray, "resample"], level: float) -> Interval:
    defined = samples[~np.isnan(samples)]
    if np.isnan(value) or len(defined) == 0:
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(defined, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return Interval(value, float(low), float(high))


def interval_json(interval: Interval) -> dict[str, float | None]:
    """{value, lo, hi}; None where undefined."""
    return {"value": number_json(interval.value), "lo": number_json(interval.low), "hi": number_json(interval.high)}


def number_json(value: float) -> float | None:
    """The value as a float; None for nan, which JSON lacks."""
    return None if math.isnan(value) else float(value)


def interval_text(interval: Interval) -> str:
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
