"""Which records are for training, validation and testing: by fold, and by patient within a fold."""

import hashlib
from dataclasses import dataclass

import numpy as np

from mets_ray.config.settings import parse_validation


@dataclass(frozen=True)
class Selection:
    """Records of `folds` with a patient hash in [low, high), a part of [0, 1); and of these `patients`, if given."""

    folds: tuple[int, ...]
    low: float = 0.0
    high: float = 1.0
    patients: frozenset[str] | None = None

    def mask(self, fold: np.ndarray, patient_id: list[str]) -> np.ndarray:
        """True for each selected record; `fold` and `patient_id` are aligned."""
        selected = np.isin(fold, np.asarray(self.folds, dtype=np.int64))
        if (patients := self.patients) is not None:
            selected &= np.fromiter((patient in patients for patient in patient_id), np.bool_, len(patient_id))
        if (self.low, self.high) == (0.0, 1.0):
            return selected
        for position in np.flatnonzero(selected):
            selected[position] = self.low <= patient_hash(patient_id[position]) < self.high
        return selected


def listed(folds: tuple[int, ...]) -> str:
    """Folds as listed in messages: `1, 2, 3`."""
    return ", ".join(map(str, folds))


def patient_hash(patient_id: str) -> float:
    """A fixed number in [0, 1) for a patient, the same in every run and on every machine."""
    return int.from_bytes(hashlib.sha256(patient_id.encode()).digest()[:6], "big") / 2**48


def selections(
    train: tuple[int, ...], validation: tuple[int, ...] | str, test: tuple[int, ...] | None
) -> tuple[Selection, Selection, Selection]:
    """Train, validation and test selections; they share no record, and `hash:` never splits a patient's records."""
    share = parse_validation(validation)
    if share is None:
        assert not isinstance(validation, str)
        return Selection(train), Selection(validation), Selection(test or ())
    return Selection(train, low=share), Selection(train, high=share), Selection(test or ())
