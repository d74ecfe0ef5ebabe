"""How good a calibration is where no records are left to test it: each part of the patients by a fit on the others."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from mets_ray.metrics.calibration import Calibration, fit_calibration
from mets_ray.metrics.reliability import CalibrationErrors, calibration_errors
from mets_ray.metrics.similarities import TaskSimilarities

_FOLDS = 5


@dataclass(frozen=True)
class CrossFitted:
    """Errors of the scores (`before`) and of the probabilities (`after`), over the classes that may be used.

    The probabilities are of `folds` other fits, each on fewer patients than the calibration has, and so a little worse
    than its own will be on new patients of the same kind.
    """

    folds: int
    before: CalibrationErrors
    after: CalibrationErrors

    def to_json(self) -> dict[str, Any]:
        """In JSON types; None for what is not defined."""
        errors = {
            when: {name: None if math.isnan(value) else value for name, value in vars(of).items()}
            for when, of in (("before", self.before), ("after", self.after))
        }
        return {"folds": self.folds} | errors

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> "CrossFitted":
        """What `to_json` gave. Raises KeyError, TypeError or ValueError for anything else."""
        before, after = (
            CalibrationErrors(**{name: math.nan if value is None else float(value) for name, value in of.items()})
            for of in (state["before"], state["after"])
        )
        return cls(int(state["folds"]), before, after)


def cross_fit(
    calibration: Calibration, of: TaskSimilarities, scores: Float[np.ndarray, "record class"], *, seed: int
) -> CrossFitted:
    """The errors of a calibration's kind on the records that it was fitted on, by patient-wise cross-fitting.

    scores: as of `score_calibration`. Entries without a probability, and classes with a fault, count in neither error.
    """
    patients, patient = np.unique(of.patients, return_inverse=True)
    fold = np.random.default_rng(seed).permutation(len(patients))[patient] % _FOLDS
    probabilities = np.full(of.similarity.shape, np.nan)
    for number in np.unique(fold):
        held_out = fold == number
        if held_out.all():
            break  # a single patient
        rest = replace(
            of,
            record_ids=tuple(name for name, held in zip(of.record_ids, held_out, strict=True) if not held),
            patients=of.patients[~held_out],
            similarity=of.similarity[~held_out],
            truth=of.truth[~held_out],
        )
        fitted = fit_calibration(rest, calibration.prompts, calibration.rule)
        probabilities[held_out] = fitted.probabilities(of.similarity[held_out])
    probabilities[:, [row.fault is not None for row in calibration.classes]] = np.nan
    return CrossFitted(
        _FOLDS,
        calibration_errors(np.where(np.isnan(probabilities), np.nan, scores), of.truth),
        calibration_errors(probabilities, of.truth),
    )
