"""Probabilities and decisions from cosine similarities, fitted on validation records only.

A cosine only ranks records within a class: it is not a probability, and no value of it means "yes". Probabilities and
decisions need labels, so they are not zero-shot, and a report must say so. Both hold only where classes are as frequent
as in validation.

Source: Platt 1999, "Probabilistic outputs for support vector machines"; Guo et al. 2017, "On calibration of modern
neural networks" (ICML), for the expected calibration error.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.linear_model import LogisticRegression

from mets_ray.errors import MetsError

_MOST_ITERATIONS = 1000


@dataclass(frozen=True)
class ClassCalibration:
    """One class: its log odds are `slope` × cosine + `intercept`; it is reported as present at or above `threshold`.

    `threshold` is a cosine. `validation_f1` is the F1 at the threshold; it is optimistic, because the threshold was
    chosen to maximise it. All four are nan if validation had no positives or no negatives. A negative slope means that
    validation records with the class were less similar to its prompts than those without; the threshold rule is not
    reversed in that case.
    """

    name: str
    slope: float
    intercept: float
    threshold: float
    validation_f1: float
    positives: int

    @property
    def fitted(self) -> bool:
        return not math.isnan(self.slope)


@dataclass(frozen=True)
class Calibration:
    """The result of `fit_calibration` on `records` validation records; valid for this prompt set only."""

    prompt_set: str
    prompt_set_version: int
    prompt_set_sha256: str
    records: int
    classes: tuple[ClassCalibration, ...]

    def probabilities(self, similarity: Float[np.ndarray, "record class"]) -> Float[np.ndarray, "record class"]:
        """Probability of each class, float64; nan for all records where the class was not fitted.

        Raises MetsError for another number of classes and for similarities that are not finite.
        """
        cosines = self._cosines(similarity)
        slopes, intercepts = (np.array([getattr(row, key) for row in self.classes]) for key in ("slope", "intercept"))
        # The logistic function written as a hyperbolic tangent, which cannot overflow.
        probabilities: np.ndarray = 0.5 * (1.0 + np.tanh(0.5 * (cosines * slopes + intercepts)))
        return probabilities

    def decisions(self, similarity: Float[np.ndarray, "record class"]) -> Bool[np.ndarray, "record class"]:
        """Which classes reach their threshold; one that was not fitted never does. Errors as in `probabilities`."""
        reached: np.ndarray = self._cosines(similarity) >= np.array([row.threshold for row in self.classes])
        return reached

    def to_json(self) -> dict[str, Any]:
        """The calibration in JSON types; nan becomes None."""
        return {
            "prompt_set": {
                "name": self.prompt_set,
                "version": self.prompt_set_version,
                "sha256": self.prompt_set_sha256,
            },
            "fitted_on": "validation",
            "records": self.records,
            "classes": {
                row.name: {
                    **{key: None if math.isnan(value := getattr(row, key)) else value for key in _NUMBERS},
                    "positives": row.positives,
                }
                for row in self.classes
            },
        }

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> "Calibration":
        """The calibration that `to_json` wrote. Raises MetsError if a part is missing or has the wrong type."""
        try:
            prompts = state["prompt_set"]
            return cls(
                prompt_set=str(prompts["name"]),
                prompt_set_version=int(prompts["version"]),
                prompt_set_sha256=str(prompts["sha256"]),
                records=int(state["records"]),
                classes=tuple(
                    ClassCalibration(
                        name=name,
                        positives=int(row["positives"]),
                        **{key: math.nan if row[key] is None else float(row[key]) for key in _NUMBERS},
                    )
                    for name, row in state["classes"].items()
                ),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise MetsError(f"this is no calibration: {error!r}") from error

    def _cosines(self, similarity: Float[np.ndarray, "record class"]) -> Float[np.ndarray, "record class"]:
        if similarity.shape[1] != len(self.classes):
            raise MetsError(
                f"the calibration has {len(self.classes)} classes and was given {similarity.shape[1]} columns"
            )
        return _finite(similarity)


_NUMBERS = ("slope", "intercept", "threshold", "validation_f1")


@dataclass(frozen=True)
class Reliability:
    """Observed share of positives by predicted probability, in bins of equal width from 0 to 1.

    A bin includes its lower edge, the last bin also 1. Mean and share are nan in an empty bin. The expected calibration
    error is the mean of |mean − share| over bins, weighted by count; nan if all bins are empty.
    """

    edges: Float[np.ndarray, "edge"]
    mean_predicted: Float[np.ndarray, "bin"]
    observed_share: Float[np.ndarray, "bin"]
    count: Int[np.ndarray, "bin"]
    expected_calibration_error: float


@dataclass(frozen=True)
class DecisionScore:
    """The decisions for one class, scored against its labels.

    All three scores are nan if the class was not fitted; recall and F1 also if no record has the class. Precision is 0
    if the class was never reported, as in `single_label_scores`.
    """

    name: str
    precision: float
    recall: float
    f1: float
    positives: int
    decided: int
    records: int


@dataclass(frozen=True)
class Calibrated:
    """A calibration and its performance on test records."""

    calibration: Calibration
    decisions: tuple[DecisionScore, ...]
    reliability: Reliability


def score_calibration(
    calibration: Calibration, similarity: Float[np.ndarray, "record class"], truth: Bool[np.ndarray, "record class"]
) -> Calibrated:
    """Score a calibration's decisions and reliability on TEST records. Errors as in `fit_calibration`."""
    decisions = score_decisions(calibration, similarity, truth)
    return Calibrated(calibration, decisions, reliability(calibration.probabilities(similarity), truth))


def fit_calibration(
    similarity: Float[np.ndarray, "record class"],
    truth: Bool[np.ndarray, "record class"],
    classes: Sequence[str],
    *,
    prompt_set: str,
    prompt_set_version: int,
    prompt_set_sha256: str,
) -> Calibration:
    """Fit each class separately on VALIDATION records: Platt's logistic regression on its cosine, and a threshold.

    Regression: unpenalised, on Platt's softened labels, (n₊+1)/(n₊+2) for a positive and 1/(n₋+2) for a negative. With
    labels of 1 and 0, the slope would grow without bound for a class that the cosine separates.
    Threshold: the validation cosine that maximises F1 for decisions at or above it. Ties go to the lowest cosine, hence
    the highest recall: a reader can dismiss a false positive but cannot see a false negative.

    similarity, truth: of the same records, with columns in the order of `classes`.
    Raises MetsError if shapes do not fit, there are no records, or a similarity is not finite.
    """
    if similarity.shape != truth.shape or truth.shape[1] != len(classes) or len(truth) == 0:
        raise MetsError(f"similarity {similarity.shape} and truth {truth.shape} of {len(classes)} classes do not fit")
    cosines = _finite(similarity)
    return Calibration(
        prompt_set=prompt_set,
        prompt_set_version=prompt_set_version,
        prompt_set_sha256=prompt_set_sha256,
        records=len(truth),
        classes=tuple(_fit_class(name, cosines[:, column], truth[:, column]) for column, name in enumerate(classes)),
    )


def reliability(
    probabilities: Float[np.ndarray, "record class"], truth: Bool[np.ndarray, "record class"], bins: int = 10
) -> Reliability:
    """Predicted against observed, pooled over all classes; pass one column for one class. Columns of nan are skipped.

    Bins have equal width, as in Guo et al. 2017, so that the error is comparable. If most classes are rare, most
    entries fall into the first bin and dominate the error, so check the counts as well.

    Raises MetsError if shapes differ, `bins` is below 1, or a probability is outside [0, 1].
    """
    if probabilities.shape != truth.shape or bins < 1:
        raise MetsError(f"probabilities {probabilities.shape} and truth {truth.shape} do not fit {bins} bins")
    known = ~np.isnan(probabilities)
    predicted, present = probabilities[known].astype(np.float64), truth[known]
    if ((predicted < 0.0) | (predicted > 1.0)).any():
        raise MetsError(f"probabilities range from {predicted.min():.3g} to {predicted.max():.3g}, not in [0, 1]")
    edges = np.linspace(0.0, 1.0, bins + 1)
    of_bin = np.searchsorted(edges[1:-1], predicted, side="right")
    count = np.bincount(of_bin, minlength=bins)
    mean, share = np.full(bins, np.nan), np.full(bins, np.nan)
    for sums, weights in ((mean, predicted), (share, present.astype(np.float64))):
        np.divide(np.bincount(of_bin, weights=weights, minlength=bins), count, out=sums, where=count > 0)
    filled = count > 0
    gaps = np.abs(mean[filled] - share[filled])
    error = float(np.average(gaps, weights=count[filled])) if filled.any() else math.nan
    return Reliability(edges, mean, share, count, error)


def score_decisions(
    calibration: Calibration, similarity: Float[np.ndarray, "record class"], truth: Bool[np.ndarray, "record class"]
) -> tuple[DecisionScore, ...]:
    """Precision, recall and F1 of each class at its threshold, on TEST records. Errors as in `fit_calibration`."""
    if similarity.shape != truth.shape:
        raise MetsError(f"similarity is {similarity.shape} and truth {truth.shape}, not the same [record, class]")
    decided = calibration.decisions(similarity)
    return tuple(
        _score_class(row, decided[:, column], truth[:, column]) for column, row in enumerate(calibration.classes)
    )


def _score_class(
    row: ClassCalibration, decided: Bool[np.ndarray, "record"], present: Bool[np.ndarray, "record"]
) -> DecisionScore:
    right, positives, reported = (int(rows.sum()) for rows in (decided & present, present, decided))
    precision = right / max(reported, 1) if row.fitted else math.nan
    recall = right / positives if row.fitted and positives else math.nan
    f1 = 2.0 * right / (positives + reported) if row.fitted and positives else math.nan
    return DecisionScore(row.name, precision, recall, f1, positives, reported, len(present))


def _fit_class(name: str, cosine: Float[np.ndarray, "record"], present: Bool[np.ndarray, "record"]) -> ClassCalibration:
    positives = int(present.sum())
    negatives = len(present) - positives
    if not positives or not negatives:
        return ClassCalibration(name, math.nan, math.nan, math.nan, math.nan, positives)
    # Cosines of one class differ by a few hundredths only; without standardisation, L-BFGS stops far from the optimum.
    # If all are equal, rounding can move the mean away from them and the standard deviation away from 0.
    centre, scale = (float(cosine.mean()), float(cosine.std())) if np.ptp(cosine) > 0.0 else (float(cosine[0]), 1.0)
    features = np.tile((cosine - centre) / scale, 2)[:, None]
    # Each record is used twice, as a positive and as a negative, weighted by its softened label.
    softened = np.where(present, (positives + 1.0) / (positives + 2.0), 1.0 / (negatives + 2.0))
    labels = np.repeat([True, False], len(cosine))
    model = LogisticRegression(C=math.inf, solver="lbfgs", max_iter=_MOST_ITERATIONS, tol=1e-8)
    model.fit(features, labels, sample_weight=np.concatenate([softened, 1.0 - softened]))
    slope = float(model.coef_[0, 0]) / scale
    threshold, f1 = _best_threshold(cosine, present)
    return ClassCalibration(name, slope, float(model.intercept_[0]) - slope * centre, threshold, f1, positives)


def _best_threshold(cosine: Float[np.ndarray, "record"], present: Bool[np.ndarray, "record"]) -> tuple[float, float]:
    """The lowest cosine threshold that maximises F1, and that F1."""
    candidates = np.unique(cosine)
    reported = len(cosine) - np.searchsorted(np.sort(cosine), candidates, side="left")
    right = present.sum() - np.searchsorted(np.sort(cosine[present]), candidates, side="left")
    f1 = 2.0 * right / (reported + present.sum())
    best = int(np.argmax(f1))
    return float(candidates[best]), float(f1[best])


def _finite(similarity: Float[np.ndarray, "record class"]) -> Float[np.ndarray, "record class"]:
    """`similarity` in float64. Raises MetsError if a value is not finite."""
    wrong = similarity.size - int(np.isfinite(similarity).sum())
    if wrong:
        raise MetsError(f"{wrong} of {similarity.size} values of `similarity` are not finite")
    return similarity.astype(np.float64)
