"""Whether a calibration still holds: its probabilities against the labels of records that it was not fitted on.

Two figures by class, as in Van Calster et al. 2019 (doi:10.1186/s12916-019-1466-7): calibration-in-the-large (the
observed rate minus the mean probability; above 0 the class is more frequent than was said), and the slope of the
observed log odds on those that were said (below 1 the probabilities are too extreme). Both intervals are of independent
patients, and hold the uncertainty of the calibration itself as well: one that was fitted on few records may be far off
without anything having changed. Many classes are looked at, so a drift is told by its p value after Holm's correction
over all classes and both figures.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Shaped

from mets_ray.metrics.calibration import LEAST_PATIENTS, Calibration, ClassCalibration
from mets_ray.metrics.intervals import Interval
from mets_ray.metrics.platt import Covariance, PlattFit, fit_platt
from mets_ray.metrics.similarities import TaskSimilarities
from mets_ray.metrics.subgroups import SIGNIFICANT, holm

_LEVEL = 0.95
_NO_INTERVAL = Interval(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class ClassDrift:
    """One class on the new records. `expected`: the mean probability, `observed`: the rate of the class; `difference`:
    the second minus the first; `slope`: see above; both with 95 % intervals. `difference_p`, `slope_p`: adjusted p
    values for 0 and for 1. `reason`: why it was not checked; "" if it was."""

    name: str
    records: int
    positives: int
    expected: float = math.nan
    observed: float = math.nan
    difference: Interval = _NO_INTERVAL
    slope: Interval = _NO_INTERVAL
    difference_p: float = math.nan
    slope_p: float = math.nan
    reason: str = ""

    @property
    def has_drifted(self) -> bool:
        return min(_or_one(self.difference_p), _or_one(self.slope_p)) < SIGNIFICANT


@dataclass(frozen=True)
class CalibrationDrift:
    """The classes of one task; `about` says which calibration was checked."""

    task: str
    about: str
    classes: tuple[ClassDrift, ...]


def check_calibrations(
    checked: Mapping[str, tuple[Calibration, TaskSimilarities, str]],
) -> tuple[CalibrationDrift, ...]:
    """The drift of each task's calibration on new records, whose similarities are given; the text becomes `about`.

    Raises MetsError for similarities that are not finite or have other classes than the calibration.
    """
    found = {task: _check(calibration, of) for task, (calibration, of, _) in checked.items()}
    rows = [row for of_task in found.values() for row in of_task]
    adjusted = holm([row.difference_p for row in rows] + [row.slope_p for row in rows])
    told = iter(zip(adjusted[: len(rows)], adjusted[len(rows) :], strict=True))
    return tuple(
        CalibrationDrift(task, checked[task][2], tuple(_with_p(row, *next(told)) for row in of_task))
        for task, of_task in found.items()
    )


def _with_p(row: ClassDrift, difference_p: float, slope_p: float) -> ClassDrift:
    return replace(row, difference_p=difference_p, slope_p=slope_p)


def _check(calibration: Calibration, of: TaskSimilarities) -> list[ClassDrift]:
    probabilities = calibration.probabilities(of.similarity)
    return [
        _check_class(row, of.similarity[:, column], probabilities[:, column], of.truth[:, column], of.patients)
        for column, row in enumerate(calibration.classes)
    ]


def _check_class(
    row: ClassCalibration, cosine: np.ndarray, expected: np.ndarray, present: np.ndarray, patients: np.ndarray
) -> ClassDrift:
    told = ClassDrift(row.name, len(present), int(present.sum()))
    if row.fit is None or row.fault is not None:
        return replace(told, reason="not calibrated for use")
    rarer = min(len(np.unique(patients[present])), len(np.unique(patients[~present])))
    if rarer < LEAST_PATIENTS:
        return replace(told, reason=f"fewer than {LEAST_PATIENTS} patients with this class, or without it")
    freedom = min(rarer, row.patients_with, row.patients_without) - 1
    difference, difference_p = _in_the_large(row.fit, cosine, expected, present, patients, freedom)
    slope, slope_p = _slope(row.fit, cosine, present, patients, freedom)
    return replace(
        told,
        expected=float(expected.mean()),
        observed=float(present.mean()),
        difference=difference,
        slope=slope,
        difference_p=difference_p,
        slope_p=slope_p,
    )


def _in_the_large(
    fit: PlattFit,
    cosine: Float[np.ndarray, " record"],
    expected: Float[np.ndarray, " record"],
    present: Bool[np.ndarray, " record"],
    patients: Shaped[np.ndarray, " record"],
    freedom: int,
) -> tuple[Interval, float]:
    residuals = present - expected
    value = float(residuals.mean())
    _, patient = np.unique(patients, return_inverse=True)
    sums = np.bincount(patient, weights=residuals - value)
    of_records = float((sums**2).sum()) / len(residuals) ** 2 * len(sums) / max(len(sums) - 1, 1)
    # How the mean probability moves with the intercept and the slope of the fit.
    moves = expected * (1.0 - expected)
    gradient = np.array([moves.mean(), (moves * cosine).mean()])
    return _tested(value, 0.0, of_records + _largest(fit, gradient), freedom)


def _slope(
    fit: PlattFit,
    cosine: Float[np.ndarray, " record"],
    present: Bool[np.ndarray, " record"],
    patients: Shaped[np.ndarray, " record"],
    freedom: int,
) -> tuple[Interval, float]:
    log_odds = fit.slope * cosine + fit.intercept
    own = fit_platt(log_odds, present, patients, softened=False)
    of_fit = _largest(fit, np.array([0.0, 1.0])) * (own.slope / fit.slope) ** 2
    return _tested(own.slope, 1.0, _largest(own, np.array([0.0, 1.0])) + of_fit, freedom)


def _largest(fit: PlattFit, gradient: Float[np.ndarray, " two"]) -> float:
    """The variance of what moves by `gradient` with the fit: for independent records or patients, the larger one."""

    def variance(covariance: Covariance) -> float:
        intercept, both, slope = covariance
        return float(gradient @ np.array([[intercept, both], [both, slope]]) @ gradient)

    return max(variance(fit.by_record), variance(fit.by_patient), 0.0)


def _tested(value: float, expected: float, variance: float, freedom: int) -> tuple[Interval, float]:
    """The value with its interval, and the p value for `expected`, by Student's t."""
    from scipy.special import stdtr, stdtrit  # metrics are imported where nobody asks for it

    error = math.sqrt(variance)
    margin = float(stdtrit(freedom, 0.5 + _LEVEL / 2.0)) * error
    p_value = float(2.0 * stdtr(freedom, -abs(value - expected) / error)) if error > 0.0 else math.nan
    return Interval(value, value - margin, value + margin), p_value


def _or_one(value: float) -> float:
    return 1.0 if math.isnan(value) else value


def drifted(checks: Sequence[CalibrationDrift]) -> tuple[tuple[str, ClassDrift], ...]:
    """All classes that have drifted, with their task."""
    return tuple((of.task, row) for of in checks for row in of.classes if row.has_drifted)
