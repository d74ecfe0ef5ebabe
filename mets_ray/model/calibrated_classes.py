"""Probabilities and decisions for one list of classes, by the calibration of each, and why a class has none."""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from mets_ray.metrics.calibration import ClassCalibration
from mets_ray.metrics.platt import PlattFits
from mets_ray.model.calibrations import Calibrations, Reason, TaskCalibration, wordings_sha256

PLAIN_LABELS: Reason = (
    "plain_labels",
    "calibrations belong to the words of a prompt set, and these classes are words of the request",
)
SEVERAL_WINDOWS: Reason = (
    "several_windows",
    "calibrations are for ECGs of one window, and this recording has several",
)
OVER_TIME: Reason = ("over_time", "calibrations are for ECGs of one window, and these are windows of a recording")
LEADS_MISSING: Reason = ("leads_missing", "calibrations are for whole ECGs, and this one lacks leads")


class Judged(NamedTuple):
    """What a calibration says of one class of one ECG."""

    probability: float
    interval: tuple[float, float]
    present: bool
    threshold: float


class CalibratedClasses:
    """The calibrations of a list of classes, in its order.

    `fault`: why no class is calibrated; None if at least one is. `faults`: the same by class.
    `thresholds`: the probability from which each is reported as present; nan where there is none.
    """

    def __init__(self, classes: Sequence[ClassCalibration | Reason]) -> None:
        self.faults = tuple(None if isinstance(one, ClassCalibration) else one for one in classes)
        self.fault = self.faults[0] if self.faults and None not in self.faults else None
        known = [one if isinstance(one, ClassCalibration) else None for one in classes]
        self._fits = PlattFits.of([None if one is None else one.fit for one in known])
        self._thresholds = np.array([np.nan if one is None else one.threshold for one in known])
        self.thresholds: Float[np.ndarray, " class"] = self._fits.probability(self._thresholds[None])[0]

    @classmethod
    def of(
        cls, calibrations: Calibrations, name: str, version: int, classes: Mapping[str, tuple[str, ...]]
    ) -> "CalibratedClasses":
        """For the wordings of `classes`. name: of a prompt set, or `set:task`."""
        found, reason = calibrations.find(name, version)
        if found is None:
            return uncalibrated(reason, len(classes))
        return cls([_of_class(found, class_name, wordings) for class_name, wordings in classes.items()])

    def probabilities(
        self, similarity: Float[np.ndarray, "ecg class"]
    ) -> tuple[Float[np.ndarray, "ecg class"], Float[np.ndarray, "ecg class"], Float[np.ndarray, "ecg class"]]:
        """(probability, low and high of its 95 % interval); nan for a class without calibration."""
        cosines = similarity.astype(np.float64)
        return self._fits.probability(cosines), *self._fits.interval(cosines)

    def decisions(self, similarity: Float[np.ndarray, "ecg class"]) -> Bool[np.ndarray, "ecg class"]:
        """Whether each class reaches its threshold; False for a class without calibration."""
        reached: np.ndarray = similarity.astype(np.float64) >= self._thresholds
        return reached

    def judge(self, similarity: Float[np.ndarray, " class"]) -> list[Judged | None]:
        """What the calibrations say of one ECG, by class; None for a class without calibration."""
        if self.fault is not None:
            return [None] * len(self.faults)
        columns = (*self.probabilities(similarity[None]), self.decisions(similarity[None]), self.thresholds[None])
        rows = zip(*(column[0].tolist() for column in columns), self.faults, strict=True)
        return [
            Judged(probability, (low, high), present, threshold) if fault is None else None
            for probability, low, high, present, threshold, fault in rows
        ]


@functools.lru_cache(maxsize=256)  # most requests have classes without a calibration
def uncalibrated(reason: Reason, classes: int) -> CalibratedClasses:
    """A list of so many classes, none of which is calibrated, for one reason."""
    return CalibratedClasses([reason] * classes)


def _of_class(task: TaskCalibration, name: str, wordings: tuple[str, ...]) -> ClassCalibration | Reason:
    known = {row.name: row for row in task.calibration.classes}.get(name)
    if known is None:
        return "no_calibration", f"the calibration has no class {name!r}"
    if task.wordings_sha256.get(name) != wordings_sha256(wordings):
        return "other_words", "the calibration is for other words of this class"
    return known.fault or known
