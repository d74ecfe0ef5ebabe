"""What a model's inputs looked like when it was made: the reference that new ECGs are compared with (`input_drift`).

It holds counts by bin and the first moments of embeddings, and nothing of a single ECG.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from mets_ray.errors import MetsError
from mets_ray.metrics.levels import Levels


@dataclass(frozen=True)
class FeatureReference:
    """One feature: the inner `edges` of its bins; `counts`, of which the last is of what could not be measured; and
    `threshold`, the PSI over 1/n + 1/m from which on it has drifted."""

    name: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    threshold: float


@dataclass(frozen=True)
class EmbeddingReference:
    """The mean of the embeddings, the axes along which they vary most [axis, dimension], the variance along each, the
    share of the whole variance in these, and the threshold, as of `FeatureReference`. held_out: whether the ECGs are
    none that the model was trained on: those it was trained on, it places differently."""

    mean: Float[np.ndarray, " dimension"]
    axes: Float[np.ndarray, "axis dimension"]
    variances: Float[np.ndarray, " axis"]
    explained: float
    records: int
    patients: int
    held_out: bool
    threshold: float

    def project(self, embeddings: Float[np.ndarray, "record dimension"]) -> Float[np.ndarray, "record axis"]:
        """Along the axes, in standard deviations of the reference."""
        placed: np.ndarray = (embeddings.astype(np.float64) - self.mean) @ self.axes.T / np.sqrt(self.variances)
        return placed

    def levels(self, class_vectors: Float[np.ndarray, "class dimension"]) -> Levels:
        """How similar the reference's ECGs are to the classes with these unit vectors, from its moments alone.

        The variance that is not along the axes counts as equal in all other directions.
        """
        vectors = class_vectors.astype(np.float64)
        along: np.ndarray = (vectors @ self.axes.T) ** 2
        beside = np.maximum(1.0 - along.sum(axis=1), 0.0)
        others = max(len(self.mean) - len(self.axes), 1)
        # 0 of a whole that is 0: the ECGs of a model that embeds all alike have no variance along any axis.
        left_out = 1.0 / self.explained - 1.0 if self.explained > 0.0 else 0.0
        of_each_other = self.variances.sum() * max(left_out, 0.0) / others
        return Levels(vectors @ self.mean, np.sqrt(along @ self.variances + beside * of_each_other))


@dataclass(frozen=True)
class InputReference:
    """What a model's inputs looked like: `records` of `patients`. Without `embeddings` there were too few patients."""

    features: tuple[FeatureReference, ...]
    records: int
    patients: int
    embeddings: EmbeddingReference | None

    def to_json(self) -> dict[str, Any]:
        """In JSON types."""
        of = self.embeddings
        embeddings = None if of is None else {name: _listed(value) for name, value in vars(of).items()}
        features = [{name: _listed(value) for name, value in vars(row).items()} for row in self.features]
        return {"records": self.records, "patients": self.patients, "features": features, "embeddings": embeddings}

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> "InputReference":
        """What `to_json` gave. Raises MetsError if a part is missing or has the wrong type or size."""
        try:
            features = tuple(
                FeatureReference(
                    str(row["name"]),
                    tuple(map(float, row["edges"])),
                    tuple(map(int, row["counts"])),
                    float(row["threshold"]),
                )
                for row in state["features"]
            )
            embeddings = state["embeddings"]
            found = cls(
                features,
                int(state["records"]),
                int(state["patients"]),
                None if embeddings is None else _embeddings_from_json(embeddings),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise MetsError(f"this is no reference of inputs: {error!r}") from error
        for row in features:
            if len(row.counts) != len(row.edges) + 2:
                raise MetsError(
                    f"the reference of `{row.name}` has {len(row.counts)} counts for {len(row.edges)} edges"
                )
        return found


def _embeddings_from_json(state: Mapping[str, Any]) -> EmbeddingReference:
    arrays = {name: np.asarray(state[name], dtype=np.float64) for name in ("mean", "axes", "variances")}
    if arrays["axes"].shape != (len(arrays["variances"]), len(arrays["mean"])):
        raise ValueError(f"axes are {arrays['axes'].shape}")
    if not all(np.isfinite(values).all() for values in arrays.values()) or not (arrays["variances"] > 0.0).all():
        raise ValueError("its numbers are not finite, or a variance is 0")
    return EmbeddingReference(
        **arrays,
        explained=float(state["explained"]),
        records=int(state["records"]),
        patients=int(state["patients"]),
        held_out=bool(state["held_out"]),
        threshold=float(state["threshold"]),
    )


def _listed(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else list(value) if isinstance(value, tuple) else value
