"""Whether ECGs look like those that a model was made with: their features one by one, and their embeddings together.

Compared are counts by bin and first moments, which add up over shards and over time and hold nothing of a single ECG.

- A feature's bins are cut at the deciles of the reference, and what could not be measured is a bin of its own. The
  distances are the population stability index, Σ (p − q) ln(p / q), and the largest difference of the cumulated shares
  (Kolmogorov & Smirnov's, over the bins).
- Embeddings are compared along the reference's principal axes, each divided by its standard deviation there. The
  distance is Fréchet's between the two normal distributions, squared (Heusel et al. 2017, arXiv:1706.08500); its first
  part is Mahalanobis's between the means.

What is more than chance is known from random halves of the reference (`input_thresholds`). Without a drift all of these
distances grow with 1/n + 1/m for n and m patients (for the PSI: Yurdakul 2018, "Statistical properties of population
stability index"), which takes the threshold to other sizes. With very many new ECGs a difference that nobody needs to
care for would be beyond it too, so n counts as m at most: what two samples of the reference's own size may differ by is
not called drift.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from mets_ray.errors import MetsError
from mets_ray.metrics.input_reference import FeatureReference, InputReference

LEAST_PATIENTS = 50
"""With fewer, there is neither a reference nor a comparison."""

PATIENTS_PER_AXIS = 5
"""With fewer, the covariance of embeddings along the axes says nothing."""

_SMOOTHING = 0.5  # of a count, so that an empty bin has a logarithm


class InputCounts(NamedTuple):
    """What is known of new ECGs, for one reference: counts by feature and bin, and the sums of their places along the
    axes and of these' products. Sums of two are those of both together."""

    records: int
    patients: int
    features: tuple[Int[np.ndarray, " _"], ...]
    places: Float[np.ndarray, " axis"]
    products: Float[np.ndarray, "axis axis"]

    @classmethod
    def of(
        cls,
        reference: InputReference,
        names: Sequence[str],
        features: Float[np.ndarray, "record feature"],
        embeddings: Float[np.ndarray, "record dimension"],
        patients: Shaped[np.ndarray, " record"],
    ) -> "InputCounts":
        """Raises MetsError for a feature of the reference that is not in `names`, and embeddings of another size."""
        unknown = [row.name for row in reference.features if row.name not in names]
        if unknown:
            raise MetsError(
                f"the reference has the feature `{unknown[0]}`, which is not measured here",
                hint="evaluate the bundle again with this version of mets_ray: it rewrites the reference",
            )
        counts = tuple(bin_counts(features[:, names.index(row.name)], row.edges) for row in reference.features)
        axes = reference.embeddings
        if axes is not None and embeddings.shape[1] != axes.mean.shape[0]:
            raise MetsError(f"embeddings have {embeddings.shape[1]} numbers, those of the reference {len(axes.mean)}")
        placed = np.empty((len(embeddings), 0)) if axes is None else axes.project(embeddings)
        distinct = len(np.unique(patients))
        return cls(len(features), distinct, counts, placed.sum(axis=0), placed.T @ placed)

    def plus(self, other: "InputCounts") -> "InputCounts":
        """Of both; a patient with ECGs in both counts twice, so who knows the patients counts them anew."""
        features = tuple(one + two for one, two in zip(self.features, other.features, strict=True))
        return InputCounts(
            self.records + other.records,
            self.patients + other.patients,
            features,
            self.places + other.places,
            self.products + other.products,
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "records": self.records,
            "patients": self.patients,
            "features": [counts.tolist() for counts in self.features],
            "places": self.places.tolist(),
            "products": self.products.tolist(),
        }

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> "InputCounts":
        axes = len(state["places"])
        return cls(
            int(state["records"]),
            int(state["patients"]),
            tuple(np.asarray(counts, dtype=np.int64) for counts in state["features"]),
            np.asarray(state["places"], dtype=np.float64),
            np.asarray(state["products"], dtype=np.float64).reshape(axes, axes),
        )


@dataclass(frozen=True)
class Distance:
    """How far something is from its reference, and from where on that is more than chance."""

    name: str
    value: float
    threshold: float

    @property
    def ratio(self) -> float:
        """How many times its threshold; infinite where that is 0, as the embeddings' is if all are the same."""
        if self.threshold == 0.0:
            return math.inf if self.value > 0.0 else 0.0
        return self.value / self.threshold

    @property
    def has_drifted(self) -> bool:
        return self.value > self.threshold


@dataclass(frozen=True)
class FeatureDrift(Distance):
    """The value is the PSI; `ks` is Kolmogorov & Smirnov's, over what was measured. `shares` of all new ECGs and
    `reference_shares` of those of the reference are by bin, between the inner `edges`; the last is not measured."""

    ks: float
    edges: tuple[float, ...]
    shares: tuple[float, ...]
    reference_shares: tuple[float, ...]


@dataclass(frozen=True)
class InputDrift:
    """All distances of `records` new ECGs of `patients`; `embeddings` is None where they cannot be told. `shift`: of
    the embeddings, the distance between the means in standard deviations."""

    records: int
    patients: int
    features: tuple[FeatureDrift, ...]
    embeddings: Distance | None
    shift: float

    @property
    def distances(self) -> tuple[Distance, ...]:
        return (*self.features, *([] if self.embeddings is None else [self.embeddings]))

    @property
    def drifted(self) -> tuple[Distance, ...]:
        """The farthest first."""
        return tuple(sorted((one for one in self.distances if one.has_drifted), key=lambda one: -one.ratio))


def find_drift(reference: InputReference, counts: InputCounts) -> InputDrift:
    """The distances of new ECGs from the reference. Raises MetsError for fewer than `LEAST_PATIENTS` of them."""
    if counts.patients < LEAST_PATIENTS:
        raise MetsError(
            f"{counts.patients} patients are too few to tell whether inputs have drifted: {LEAST_PATIENTS} are needed"
        )
    scale = _scale(counts.patients, reference.patients)
    features = tuple(
        _feature_drift(row, found, scale) for row, found in zip(reference.features, counts.features, strict=True)
    )
    axes, embeddings, shift = reference.embeddings, None, math.nan
    if axes is not None and counts.patients >= PATIENTS_PER_AXIS * len(axes.variances):
        mean, covariance = moments(counts.records, counts.places, counts.products)
        whole = np.zeros_like(mean), np.eye(len(mean))
        distance = float(frechet(whole[0], whole[1], mean, covariance))
        embeddings = Distance("embeddings", distance, axes.threshold * _scale(counts.patients, axes.patients))
        shift = float(np.linalg.norm(mean))
    return InputDrift(counts.records, counts.patients, features, embeddings, shift)


def _scale(new: int, of_reference: int) -> float:
    return 1.0 / min(new, of_reference) + 1.0 / of_reference


def _feature_drift(row: FeatureReference, counts: Int[np.ndarray, " bin"], scale: float) -> FeatureDrift:
    before = np.asarray(row.counts, dtype=np.float64)
    measured = [np.cumsum(part[:-1]) / max(float(part[:-1].sum()), 1.0) for part in (before, counts)]
    return FeatureDrift(
        row.name,
        float(psi(before, counts)),
        row.threshold * scale,
        ks=float(np.abs(measured[1] - measured[0]).max(initial=0.0)),
        edges=row.edges,
        shares=tuple((counts / counts.sum()).tolist()),
        reference_shares=tuple((before / before.sum()).tolist()),
    )


def psi(before: Float[np.ndarray, "*rows bin"], after: Shaped[np.ndarray, "*rows bin"]) -> Any:
    """The population stability index of two distributions, or of many pairs [*rows], from counts by bin."""
    shares = [(counts + _SMOOTHING) / (counts + _SMOOTHING).sum(axis=-1, keepdims=True) for counts in (before, after)]
    return ((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum(axis=-1)


def bin_numbers(values: Float[np.ndarray, " record"], edges: Sequence[float]) -> Int[np.ndarray, " record"]:
    known = np.isfinite(values)
    return np.where(
        known, np.searchsorted(np.asarray(edges), np.where(known, values, 0.0), side="left"), len(edges) + 1
    )


def bin_counts(values: Float[np.ndarray, " record"], edges: Sequence[float]) -> Int[np.ndarray, " bin"]:
    return np.bincount(bin_numbers(values, edges), minlength=len(edges) + 2).astype(np.int64)


def moments(count: Any, sums: np.ndarray, products: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and covariances of vectors, from their number, sum, and sum of outer products; of many sets at once."""
    count = np.asarray(count, dtype=np.float64)
    means = sums / count[..., None]
    return means, products / count[..., None, None] - means[..., :, None] * means[..., None, :]


def frechet(mean: np.ndarray, covariance: np.ndarray, other_mean: np.ndarray, other_covariance: np.ndarray) -> Any:
    """Squared Fréchet distances of pairs of normal distributions."""
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(values.clip(min=0.0))[..., None, :]) @ np.swapaxes(vectors, -1, -2)
    mixed = np.linalg.eigvalsh(root @ other_covariance @ root).clip(min=0.0)
    traces = np.trace(covariance, axis1=-2, axis2=-1) + np.trace(other_covariance, axis1=-2, axis2=-1)
    return np.square(mean - other_mean).sum(axis=-1) + traces - 2.0 * np.sqrt(mixed).sum(axis=-1)
