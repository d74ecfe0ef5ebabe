"""Heads on frozen features, fitted in the driver: linear, or beginning at the words of the classes."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from mets_ray.metrics.linear_probe import fit_linear_probe
from mets_ray.metrics.text_head import Learnable, fit_text_head
from mets_ray.model.predictor import Predictor
from mets_ray.pipelines.embed import EmbeddedRecords


@dataclass(frozen=True)
class Fitted:
    """Arrays of a head, as in `model.heads.Head`, for some columns of the task's classes."""

    columns: tuple[int, ...]
    bias: Float[np.ndarray, " class"]
    weight: Float[np.ndarray, "class feature"]
    class_vectors: Float[np.ndarray, "class dimension"] | None
    inverse_penalty: float


class Examples(NamedTuple):
    """Labelled records and which classes of the task each has."""

    records: EmbeddedRecords
    rows: np.ndarray
    truth: Bool[np.ndarray, "record class"]

    @property
    def features(self) -> Float[np.ndarray, "record feature"]:
        return self.records.features[self.rows]

    @property
    def embeddings(self) -> Float[np.ndarray, "record dimension"]:
        return self.records.embeddings[self.rows]


def fit_linear(train: Examples, validation: Examples) -> Fitted:
    """A linear probe. Classes without positives or without negatives are left out: nothing can be said of them."""
    probe = fit_linear_probe(train.features, train.truth, validation.features, validation.truth)
    columns = tuple(column for column in range(train.truth.shape[1]) if column not in probe.untrained_classes)
    weight = probe.coefficients / probe.scale
    bias = probe.intercepts - weight @ probe.mean
    chosen = list(columns)
    return Fitted(columns, _single(bias[chosen]), _single(weight[chosen]), None, probe.inverse_penalty)


def fit_text(
    train: Examples, validation: Examples, class_vectors: Float[np.ndarray, "class dimension"], predictor: Predictor
) -> Fitted:
    """A probe that begins at zero-shot with `class_vectors`; a class that cannot be trained stays there."""
    fitted = fit_text_head(
        *(
            Learnable(of.features, predictor.logits(of.embeddings @ class_vectors.T), of.truth)
            for of in (train, validation)
        )
    )
    bias = fitted.intercepts + predictor.logit_bias
    columns = tuple(range(train.truth.shape[1]))
    return Fitted(columns, _single(bias), _single(fitted.coefficients), class_vectors, fitted.inverse_penalty)


def _single(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32)
