"""Leads that begin at different times, on one time line."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Shaped

from mets_ray.ecg.formats.limits import check_samples


def place(rows: Sequence[tuple[int, Shaped[np.ndarray, "_"]]], num_bytes: int) -> Float[np.ndarray, "lead sample"]:
    """One row for each lead, from the first sample of any to the last; NaN where a lead is not recorded.

    rows: the sample number at which a lead begins, and its samples. num_bytes: of the file, which a gap must not exceed
    by far. Raises RecordError `too_large`.
    """
    first = min((start for start, _ in rows), default=0)
    length = max((start + len(samples) for start, samples in rows), default=0) - first
    check_samples(len(rows), length, num_bytes)
    placed = np.full((len(rows), length), np.nan)
    for row, (start, samples) in zip(placed, rows, strict=True):
        row[start - first : start - first + len(samples)] = samples
    return placed
