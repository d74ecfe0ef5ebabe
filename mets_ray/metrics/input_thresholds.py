"""The reference of a model's inputs, and from which distance on new ECGs have drifted (`input_drift`).

How large a distance is by chance is found in the reference itself: its patients are halved at random, again and again,
and the halves are compared. The threshold is set so that a share of `LEVEL` of such halves have any feature beyond it.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from mets_ray.errors import MetsError
from mets_ray.metrics.input_drift import (
    LEAST_PATIENTS,
    PATIENTS_PER_AXIS,
    bin_counts,
    bin_numbers,
    frechet,
    moments,
    psi,
)
from mets_ray.metrics.input_reference import EmbeddingReference, FeatureReference, InputReference

LEVEL = 0.01
_BINS = 10
_HALVES = 1000
_MOST_AXES = 16


class EmbeddedEcgs(NamedTuple):
    """Embeddings and patients of ECGs. held_out: as of `EmbeddingReference`."""

    embeddings: Float[np.ndarray, "record dimension"]
    patients: Shaped[np.ndarray, " record"]
    held_out: bool


def build_reference(
    names: Sequence[str],
    features: Float[np.ndarray, "record feature"],
    patients: Shaped[np.ndarray, " record"],
    embedded: EmbeddedEcgs,
    *,
    fixed_edges: Mapping[str, tuple[float, ...]],
    seed: int,
) -> InputReference:
    """The reference of ECGs, whose embeddings may be of other ECGs than their features.

    fixed_edges: inner edges of features that are counts. Raises MetsError for fewer than `LEAST_PATIENTS` patients.
    """
    _, patient = np.unique(patients, return_inverse=True)
    count = int(patient.max(initial=-1)) + 1
    if count < LEAST_PATIENTS:
        raise MetsError(f"a reference of inputs needs {LEAST_PATIENTS} patients, and there are {count}")
    edges = [
        fixed_edges[name] if name in fixed_edges else _deciles(features[:, column]) for column, name in enumerate(names)
    ]
    counts = [bin_counts(features[:, column], of) for column, of in enumerate(edges)]
    thresholds = _feature_thresholds(
        [_one_hot(features[:, column], of) for column, of in enumerate(edges)], patient, seed
    )
    rows = zip(names, edges, counts, thresholds, strict=True)
    return InputReference(
        tuple(FeatureReference(name, of, tuple(count.tolist()), limit) for name, of, count, limit in rows),
        len(features),
        count,
        _embedding_reference(embedded, seed),
    )


def _deciles(values: Float[np.ndarray, " record"]) -> tuple[float, ...]:
    known = values[np.isfinite(values)].astype(np.float64)
    if not len(known):
        return ()
    return tuple(np.unique(np.quantile(known, np.arange(1, _BINS) / _BINS)).tolist())


def _one_hot(values: Float[np.ndarray, " record"], edges: Sequence[float]) -> Float[np.ndarray, "record bin"]:
    rows: np.ndarray = np.eye(len(edges) + 2, dtype=np.float32)[bin_numbers(values, edges)]
    return rows


def _feature_thresholds(
    one_hot: Sequence[Float[np.ndarray, "record _"]], patient: Int[np.ndarray, " record"], seed: int
) -> list[float]:
    """For each feature, the PSI over 1/n + 1/m that halves of the reference stay below, all features together."""
    from scipy.special import chdtri  # serving compares, and computes no threshold

    halves, scale = _random_halves(int(patient.max()) + 1, seed)
    by_chance = []
    for rows in one_hot:
        of_patients = _sums(rows, patient)
        first = halves @ of_patients
        by_chance.append(psi(first, of_patients.sum(axis=0) - first) / scale)
    # Each feature in units of its own 95 % quantile, so that none decides alone; and no less than that of independent
    # ECGs, which matters where the reference has one value only.
    units = [
        max(float(np.quantile(values, 0.95)), float(chdtri(rows.shape[1] - 1, 0.05)))
        for values, rows in zip(by_chance, one_hot, strict=True)
    ]
    largest = np.max([values / unit for values, unit in zip(by_chance, units, strict=True)], axis=0)
    factor = max(float(np.quantile(largest, 1.0 - LEVEL)), 1.0)
    return [factor * unit for unit in units]


def _embedding_reference(embedded: EmbeddedEcgs, seed: int) -> EmbeddingReference | None:
    embeddings, patients, held_out = embedded
    _, patient = np.unique(patients, return_inverse=True)
    count = int(patient.max(initial=-1)) + 1
    axes = min(_MOST_AXES, embeddings.shape[1], count // (2 * PATIENTS_PER_AXIS))
    if count < LEAST_PATIENTS:
        return None
    values = embeddings.astype(np.float64)
    mean = values.mean(axis=0)
    _, sizes, directions = np.linalg.svd(values - mean, full_matrices=False)
    variances = sizes**2 / len(values)
    axes = max(1, min(axes, int((variances > 1e-9 * max(variances[0], 1e-30)).sum())))
    reference = EmbeddingReference(
        np.round(mean, 7),
        np.round(directions[:axes], 7),
        np.maximum(variances[:axes], 1e-12),
        float(variances[:axes].sum() / max(float(variances.sum()), 1e-30)),
        len(values),
        count,
        held_out,
        threshold=math.nan,
    )
    placed = reference.project(embeddings)
    products = (placed[:, :, None] * placed[:, None, :]).reshape(len(placed), axes * axes)
    sums = _sums(np.concatenate([np.ones((len(placed), 1)), placed, products], axis=1), patient)
    halves, scale = _random_halves(count, seed)
    first = halves.astype(np.float64) @ sums
    parts = [
        moments(part[:, 0], part[:, 1 : 1 + axes], part[:, 1 + axes :].reshape(-1, axes, axes))
        for part in (first, sums.sum(axis=0) - first)
    ]
    by_chance = frechet(*parts[0], *parts[1]) / scale
    return EmbeddingReference(**vars(reference) | {"threshold": float(np.quantile(by_chance, 1.0 - LEVEL))})


def _random_halves(patients: int, seed: int) -> tuple[Float[np.ndarray, "half patient"], float]:
    """Which patients are in each half, and 1/n + 1/m."""
    generator = np.random.default_rng(seed)
    chosen = patients // 2
    halves = np.zeros((_HALVES, patients), dtype=np.float32)
    for row in halves:
        row[generator.permutation(patients)[:chosen]] = 1.0
    return halves, 1.0 / chosen + 1.0 / (patients - chosen)


def _sums(values: Float[np.ndarray, "record column"], patient: Int[np.ndarray, " record"]) -> np.ndarray:
    """The sum of each patient's rows."""
    sums = np.zeros((int(patient.max()) + 1, values.shape[1]), dtype=values.dtype)
    np.add.at(sums, patient, values)
    return sums
