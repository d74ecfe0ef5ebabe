"""Which labels are drawn when there are only a few of each class."""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from mets_ray.errors import MetsError


def draw_labels(
    truth: Bool[np.ndarray, "record class"], record_ids: Sequence[str], per_class: int | None, seed: int
) -> Int[np.ndarray, "drawn"]:
    """Row numbers, ascending, of records with at least `per_class` labels of each class; all labelled ones for None.

    A class with fewer gives all that it has. Records are looked at in the order of a hash of (seed, record id), and one
    is drawn if any of its classes has fewer than `per_class` so far. So the draw does not depend on the order of
    records, and for the same seed fewer labels are a subset of more. A record with several classes counts for each, so
    frequent companions of a rare class may have more than `per_class`. Records without any class are never drawn.

    Raises MetsError for a negative number.
    """
    labelled = np.flatnonzero(truth.any(axis=1))
    if per_class is None:
        return labelled
    if per_class < 0:
        raise MetsError(f"`per_class` is {per_class}", hint="use 0 or more labels of each class, or None for all")
    counts = np.zeros(truth.shape[1], dtype=np.int64)
    drawn = []
    for row in sorted(labelled.tolist(), key=lambda row: _place(seed, record_ids[row])):
        if (counts[truth[row]] < per_class).any():
            counts += truth[row]
            drawn.append(row)
    return np.asarray(sorted(drawn), dtype=np.int64)


def _place(seed: int, record_id: str) -> bytes:
    return hashlib.sha256(f"{seed}:{record_id}".encode()).digest()
