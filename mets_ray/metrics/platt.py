"""Platt scaling of one class's cosine, and how sure its probabilities are.

Source of the scaling: Platt 1999, "Probabilistic outputs for support vector machines".

Interval: the delta method on the log odds, whose variance at a cosine c is that of `intercept + slope × c`. It is the
larger of two: that of independent records (the inverse Fisher information), and that of independent patients (the
cluster-robust sandwich of Liang & Zeger 1986, "Longitudinal data analysis using generalized linear models",
Biometrika 73, with the factor G/(G-1) for G patients). Either can be too small with few patients; the larger of both is
the advice of Angrist & Pischke 2009, "Mostly harmless econometrics", section 8.2. Its quantile is Student's with the
number of patients of the rarer kind, less one (Cameron & Miller 2015, "A practitioner's guide to cluster-robust
inference", J. Human Resources 50), so that few positives widen it twice. In simulations with 19 to 190 positive
patients, 93 to 97 % of these intervals held the true probability, and 90 to 93 % of a percentile bootstrap over
patients (`tests/metrics/test_calibration.py` has a small one).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped

_MOST_ITERATIONS = 1000
_WEAKEST_PENALTY = 1e4  # scikit-learn's C, the inverse
_LEVEL = 0.95

Covariance = tuple[float, float, float]
"""Variance of the intercept, covariance of both, variance of the slope."""


@dataclass(frozen=True)
class PlattFit:
    """Log odds of a class: `slope` × cosine + `intercept`.

    `by_record`, `by_patient`: covariance of both for independent records and for independent patients. `quantile`: how
    many standard errors the 95 % interval has to each side.
    """

    slope: float
    intercept: float
    by_record: Covariance
    by_patient: Covariance
    quantile: float

    def probability(self, cosine: Float[np.ndarray, "record"]) -> Float[np.ndarray, "record"]:
        """Probability of the class, float64."""
        found: np.ndarray = PlattFits.of([self]).probability(cosine[:, None])[:, 0]
        return found

    def interval(
        self, cosine: Float[np.ndarray, "record"]
    ) -> tuple[Float[np.ndarray, "record"], Float[np.ndarray, "record"]]:
        """(low, high) of the 95 % interval of the probability: of the fit, not of what a record turns out to be."""
        low, high = PlattFits.of([self]).interval(cosine[:, None])
        return low[:, 0], high[:, 0]


@dataclass(frozen=True)
class PlattFits:
    """The fits of several classes side by side; all is nan for a class without one. Fields as in `PlattFit`."""

    slope: Float[np.ndarray, "class"]
    intercept: Float[np.ndarray, "class"]
    by_record: Float[np.ndarray, "3 class"]
    by_patient: Float[np.ndarray, "3 class"]
    quantile: Float[np.ndarray, "class"]

    @classmethod
    def of(cls, fits: Sequence[PlattFit | None]) -> "PlattFits":
        none = PlattFit(math.nan, math.nan, (math.nan,) * 3, (math.nan,) * 3, math.nan)
        rows = [none if fit is None else fit for fit in fits]
        return cls(
            np.array([row.slope for row in rows]),
            np.array([row.intercept for row in rows]),
            np.array([row.by_record for row in rows]).reshape(-1, 3).T,
            np.array([row.by_patient for row in rows]).reshape(-1, 3).T,
            np.array([row.quantile for row in rows]),
        )

    def probability(self, cosine: Float[np.ndarray, "record class"]) -> Float[np.ndarray, "record class"]:
        """Probability of each class, float64."""
        return _logistic(cosine * self.slope + self.intercept)

    def interval(
        self, cosine: Float[np.ndarray, "record class"]
    ) -> tuple[Float[np.ndarray, "record class"], Float[np.ndarray, "record class"]]:
        """(low, high) of the 95 % interval of each probability."""
        variance = np.maximum(
            *(
                intercept + 2.0 * covariance * cosine + slope * cosine * cosine
                for intercept, covariance, slope in (self.by_record, self.by_patient)
            )
        )
        margin = self.quantile * np.sqrt(np.maximum(variance, 0.0))
        log_odds = cosine * self.slope + self.intercept
        return _logistic(log_odds - margin), _logistic(log_odds + margin)


def fit_platt(
    cosine: Float[np.ndarray, "record"],
    present: Bool[np.ndarray, "record"],
    patients: Shaped[np.ndarray, "record"],
    *,
    softened: bool = True,
) -> PlattFit:
    """Unpenalised logistic regression on softened labels, (n₊+1)/(n₊+2) for a positive and 1/(n₋+2) for a negative.

    With labels of 1 and 0, the slope would grow without bound for a class that the cosine separates. But softened
    labels make it smaller, the more so the fewer positives there are: where it is compared with another one, they are
    left as they are (`softened=False`), and a penalty so small that it matters for separated classes alone bounds it.
    There must be records with the class and without it.
    """
    from scipy.special import stdtrit  # who uses a fit, as serving does, needs neither of these
    from sklearn.linear_model import LogisticRegression

    positives, negatives = int(present.sum()), int((~present).sum())
    # Cosines of one class differ by a few hundredths only; without standardisation, L-BFGS stops far from the optimum.
    # If all are equal, rounding can move the mean away from them and the standard deviation away from 0.
    centre, scale = (float(cosine.mean()), float(cosine.std())) if np.ptp(cosine) > 0.0 else (float(cosine[0]), 1.0)
    standard = (cosine - centre) / scale
    # Each record is used twice, as a positive and as a negative, weighted by its label.
    soft = np.where(present, (positives + 1.0) / (positives + 2.0), 1.0 / (negatives + 2.0))
    label = soft if softened else present.astype(np.float64)
    strength = math.inf if softened else _WEAKEST_PENALTY
    model = LogisticRegression(C=strength, solver="lbfgs", max_iter=_MOST_ITERATIONS, tol=1e-8)
    weights = np.concatenate([label, 1.0 - label])
    model.fit(np.tile(standard, 2)[:, None], np.repeat([True, False], len(cosine)), sample_weight=weights)
    intercept, slope = float(model.intercept_[0]), float(model.coef_[0, 0])
    predicted = _logistic(intercept + slope * standard)
    by_record, by_patient = _covariances(standard, predicted, present, patients)
    # From the standardised cosine back to the cosine itself.
    back = np.array([[1.0, -centre / scale], [0.0, 1.0 / scale]])
    rarer = min(len(np.unique(patients[present])), len(np.unique(patients[~present])))
    return PlattFit(
        slope / scale,
        intercept - slope * centre / scale,
        _triple(back @ by_record @ back.T),
        _triple(back @ by_patient @ back.T),
        float(stdtrit(max(rarer - 1, 1), 0.5 + _LEVEL / 2.0)),
    )


def _covariances(
    standard: Float[np.ndarray, "record"],
    predicted: Float[np.ndarray, "record"],
    present: Bool[np.ndarray, "record"],
    patients: Shaped[np.ndarray, "record"],
) -> tuple[Float[np.ndarray, "2 2"], Float[np.ndarray, "2 2"]]:
    """Covariance of intercept and slope, for independent records and for independent patients."""
    design = np.stack([np.ones_like(standard), standard], axis=1)
    information = (design * (predicted * (1.0 - predicted))[:, None]).T @ design
    by_record = np.linalg.pinv(information)  # it has no inverse if all cosines are equal
    _, of_patient = np.unique(patients, return_inverse=True)
    residuals = design * (present - predicted)[:, None]
    sums = np.stack([np.bincount(of_patient, weights=column) for column in residuals.T], axis=1)
    groups = len(sums)
    by_patient = by_record @ (sums.T @ sums) @ by_record * (groups / max(groups - 1, 1))
    return by_record, by_patient


def _triple(covariance: Float[np.ndarray, "2 2"]) -> Covariance:
    return float(covariance[0, 0]), float(covariance[0, 1]), float(covariance[1, 1])


def _logistic(log_odds: np.ndarray) -> np.ndarray:
    # Written as a hyperbolic tangent, which cannot overflow.
    values: np.ndarray = 0.5 * (1.0 + np.tanh(0.5 * log_odds))
    return values
