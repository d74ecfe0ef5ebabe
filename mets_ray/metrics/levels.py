"""Levels of classes: how similar the ECGs of a data set are to each class, whatever findings they have.

Cosines rank the ECGs of one class. To choose among classes they must be comparable, and they are not: each class has a
level and a spread of its own. Less its mean, over its standard deviation, a class's similarity says how unusual it is.
Levels need ECGs and no labels.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

# All ECGs have the same similarity, but for the rounding of cosines: then it says nothing, whatever its level.
_NO_SPREAD = 1e-6


@dataclass(frozen=True)
class Levels:
    """The mean and the standard deviation of the similarity to each class: [class], or [record, class] where each
    record has others."""

    mean: Float[np.ndarray, "*record class"]
    deviation: Float[np.ndarray, "*record class"]

    def standardise(self, similarity: Float[np.ndarray, "*record class"]) -> Float[np.ndarray, "*record class"]:
        """In standard deviations above the mean; 0 for a class without spread."""
        spread = np.where(self.deviation > _NO_SPREAD, self.deviation, np.inf)
        found: np.ndarray = (similarity - self.mean) / spread
        return found


def levels_of_others(
    similarity: Float[np.ndarray, "record class"], patients: Shaped[np.ndarray, "record"]
) -> Levels | None:
    """For each record, the levels over the records of all other patients, so that none is measured by itself.

    None if there are fewer than three patients: each of two would be measured by the other one alone.
    """
    _, of_record = np.unique(patients, return_inverse=True)
    if of_record.max(initial=-1) < 2:
        return None
    centred = similarity.astype(np.float64) - similarity.mean(axis=0)  # so that the squares keep their digits
    count = len(similarity) - np.bincount(of_record)[of_record, None]

    def of_others(values: np.ndarray) -> np.ndarray:
        mean: np.ndarray = (values.sum(axis=0) - _sums(values, of_record)[of_record]) / count
        return mean

    mean = of_others(centred)
    variance = of_others(centred**2) - mean**2
    return Levels(mean + similarity.mean(axis=0), np.sqrt(np.maximum(variance, 0.0)))


def levels_of_others_and_own(
    similarity: Float[np.ndarray, "record class"], patients: Shaped[np.ndarray, "record"]
) -> Levels | None:
    """As `levels_of_others`, but halfway between their mean and that of the patient's own records.

    For many ECGs of each patient, such as the beats of a recording. What all of them show, for example a bundle branch
    block, then counts half as much as what only some do, for example a premature beat in it. A patient with a single
    ECG keeps the order of the classes.
    """
    others = levels_of_others(similarity, patients)
    if others is None:
        return None
    _, of_record = np.unique(patients, return_inverse=True)
    own = _sums(similarity, of_record) / np.bincount(of_record)[:, None]
    return Levels((others.mean + own[of_record]) / 2, others.deviation)


def _sums(
    values: Float[np.ndarray, "record class"], of_record: Int[np.ndarray, "record"]
) -> Float[np.ndarray, "patient class"]:
    """Over the records of each patient. of_record: the number of each one's patient."""
    return np.stack([np.bincount(of_record, weights=column) for column in values.T], axis=1)
