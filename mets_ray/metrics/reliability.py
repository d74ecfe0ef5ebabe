"""Whether predicted probabilities are met: how often a class is there by how probable it was said to be.

Source: Guo et al. 2017, "On calibration of modern neural networks" (ICML), for the expected calibration error.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from mets_ray.errors import MetsError


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
class CalibrationErrors:
    """How far predicted probabilities are from what was observed, pooled over all classes: lower is better.

    The Brier score is the mean squared difference (Brier 1950, "Verification of forecasts expressed in terms of
    probability"). Both are nan if there is no prediction.
    """

    expected_calibration_error: float
    brier: float


def calibration_errors(
    probabilities: Float[np.ndarray, "record class"],
    truth: Bool[np.ndarray, "record class"],
    binned: Reliability | None = None,
) -> CalibrationErrors:
    """Both errors; columns of nan are skipped. binned: their `reliability`, where it is known. Raises as it does."""
    error = (binned or reliability(probabilities, truth)).expected_calibration_error
    known = ~np.isnan(probabilities)
    squares = (probabilities[known].astype(np.float64) - truth[known]) ** 2
    return CalibrationErrors(error, float(squares.mean()) if len(squares) else math.nan)


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
