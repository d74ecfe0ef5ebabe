"""Probabilities and decisions from cosine similarities, fitted on validation records only.

A cosine only ranks records within a class: it is not a probability, and no value of it means "yes". Probabilities and
decisions need labels, so they are not zero-shot, and a report must say so. Both hold only where classes are as frequent
as in validation.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from mets_ray.console import counted
from mets_ray.errors import MetsError
from mets_ray.metrics.platt import Covariance, PlattFit, PlattFits, fit_platt
from mets_ray.metrics.reliability import CalibrationErrors, Reliability, calibration_errors, reliability
from mets_ray.metrics.similarities import TaskSimilarities
from mets_ray.metrics.thresholds import OperatingPoint, ThresholdRule, choose_threshold

LEAST_PATIENTS = 10
"""With fewer patients of either kind, a class is fitted for the report and not calibrated for use."""


@dataclass(frozen=True)
class PromptVersion:
    """The words that a calibration is for: a prompt set by name, version and the hash of its file."""

    name: str
    version: int
    sha256: str


@dataclass(frozen=True)
class ClassCalibration:
    """One class: its probability, and the threshold from which it is reported as present.

    `fit` and `point` are None if validation had no positives or no negatives. A negative slope means that validation
    records with the class were less similar to its prompts than those without; the threshold rule is not reversed in
    that case. `patients_with`, `patients_without`: patients with at least one such record.
    """

    name: str
    fit: PlattFit | None
    point: OperatingPoint | None
    positives: int
    patients_with: int
    patients_without: int

    @property
    def fitted(self) -> bool:
        return self.fit is not None

    @property
    def slope(self) -> float:
        return math.nan if self.fit is None else self.fit.slope

    @property
    def threshold(self) -> float:
        """A cosine; nan if the class was not fitted."""
        return math.nan if self.point is None else self.point.threshold

    @property
    def fault(self) -> tuple[str, str] | None:
        """Why the class must not be used as calibrated, as (reason, message); None if it may be."""
        few = min(self.patients_with, self.patients_without)
        if few < LEAST_PATIENTS:
            kind = "with" if self.patients_with == few else "without"
            return (
                "few_patients",
                f"validation had {counted(few, 'patient')} {kind} this class, and {LEAST_PATIENTS} are needed",
            )
        if not self.slope > 0.0:
            return "turned", "validation records with this class were not more similar to its words than others"
        return None


@dataclass(frozen=True)
class Calibration:
    """The result of `fit_calibration` on `records` validation records; valid for these prompts only."""

    prompts: PromptVersion
    rule: ThresholdRule
    records: int
    patients: int
    classes: tuple[ClassCalibration, ...]

    def probabilities(self, similarity: Float[np.ndarray, "record class"]) -> Float[np.ndarray, "record class"]:
        """Probability of each class, float64; nan for all records where the class was not fitted.

        Raises MetsError for another number of classes and for similarities that are not finite.
        """
        return PlattFits.of([row.fit for row in self.classes]).probability(self._cosines(similarity))

    def decisions(self, similarity: Float[np.ndarray, "record class"]) -> Bool[np.ndarray, "record class"]:
        """Which classes reach their threshold; one that was not fitted never does. Errors as in `probabilities`."""
        reached: np.ndarray = self._cosines(similarity) >= np.array([row.threshold for row in self.classes])
        return reached

    def to_json(self) -> dict[str, Any]:
        """The calibration in JSON types; what was not fitted is None."""
        return {
            "prompt_set": asdict(self.prompts),
            "fitted_on": "validation",
            "threshold_rule": asdict(self.rule),
            "records": self.records,
            "patients": self.patients,
            "classes": {
                row.name: {key: value for key, value in asdict(row).items() if key != "name"} for row in self.classes
            },
        }

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> "Calibration":
        """The calibration that `to_json` wrote. Raises MetsError if a part is missing or has the wrong type."""
        try:
            prompts, rule = state["prompt_set"], state["threshold_rule"]
            return cls(
                prompts=PromptVersion(str(prompts["name"]), int(prompts["version"]), str(prompts["sha256"])),
                rule=ThresholdRule(rule["kind"], float(rule["share"])),
                records=int(state["records"]),
                patients=int(state["patients"]),
                classes=tuple(_class_from_json(name, row) for name, row in state["classes"].items()),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise MetsError(f"this is not a calibration: {error!r}") from error

    def _cosines(self, similarity: Float[np.ndarray, "record class"]) -> Float[np.ndarray, "record class"]:
        if similarity.shape[1] != len(self.classes):
            raise MetsError(
                f"the calibration has {len(self.classes)} classes and was given {similarity.shape[1]} columns"
            )
        return _finite(similarity)


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
    """A calibration and its performance on test records.

    `before`, `after`: errors of the scores and of the probabilities, over the fitted classes.
    """

    calibration: Calibration
    decisions: tuple[DecisionScore, ...]
    reliability: Reliability
    before: CalibrationErrors
    after: CalibrationErrors


def score_calibration(
    calibration: Calibration, of: TaskSimilarities, scores: Float[np.ndarray, "record class"]
) -> Calibrated:
    """Score a calibration's decisions and reliability on TEST records. Errors as in `fit_calibration`.

    scores: in [0, 1], of the same records and classes before the calibration, each class by itself.
    """
    decisions = score_decisions(calibration, of.similarity, of.truth)
    probabilities = calibration.probabilities(of.similarity)
    before = calibration_errors(np.where(np.isnan(probabilities), np.nan, scores), of.truth)
    binned = reliability(probabilities, of.truth)
    after = calibration_errors(probabilities, of.truth, binned)
    return Calibrated(calibration, decisions, binned, before, after)


def fit_calibration(of: TaskSimilarities, prompts: PromptVersion, rule: ThresholdRule | None = None) -> Calibration:
    """Fit each class separately on VALIDATION records: `fit_platt` on its cosine, and a threshold by `rule` (best F1).

    Raises MetsError if there are no records, or a similarity is not finite.
    """
    if not len(of.truth):
        raise MetsError(f"no validation record has a label of `{of.task}`")
    rule = ThresholdRule() if rule is None else rule
    cosines = _finite(of.similarity)
    fitted = (
        _fit_class(name, cosines[:, column], of.truth[:, column], of.patients, rule)
        for column, name in enumerate(of.classes)
    )
    return Calibration(prompts, rule, len(of.truth), len(np.unique(of.patients)), tuple(fitted))


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


def _fit_class(
    name: str, cosine: np.ndarray, present: np.ndarray, patients: np.ndarray, rule: ThresholdRule
) -> ClassCalibration:
    counts = int(present.sum()), len(np.unique(patients[present])), len(np.unique(patients[~present]))
    if present.all() or not present.any():
        return ClassCalibration(name, None, None, *counts)
    return ClassCalibration(
        name, fit_platt(cosine, present, patients), choose_threshold(rule, cosine, present), *counts
    )


def _class_from_json(name: str, row: Mapping[str, Any]) -> ClassCalibration:
    fit, point = row["fit"], row["point"]
    if fit is not None:
        by_record, by_patient = _covariance(fit["by_record"]), _covariance(fit["by_patient"])
        fit = PlattFit(float(fit["slope"]), float(fit["intercept"]), by_record, by_patient, float(fit["quantile"]))
    if point is not None:
        point = OperatingPoint(*(float(point[key]) for key in ("threshold", "f1", "sensitivity", "specificity")))
    counts = (int(row[key]) for key in ("positives", "patients_with", "patients_without"))
    return ClassCalibration(name, fit, point, *counts)


def _covariance(numbers: Sequence[Any]) -> Covariance:
    intercept, covariance, slope = map(float, numbers)
    return intercept, covariance, slope


def _finite(similarity: Float[np.ndarray, "record class"]) -> Float[np.ndarray, "record class"]:
    """`similarity` in float64. Raises MetsError if a value is not finite."""
    wrong = similarity.size - int(np.isfinite(similarity).sum())
    if wrong:
        raise MetsError(f"{wrong} of {similarity.size} values of `similarity` are not finite")
    return similarity.astype(np.float64)
