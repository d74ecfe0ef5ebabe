"""Heads on frozen features, fitted in the driver: linear, or beginning at the words of the classes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float
from torch import Tensor

from mets_ray.adaptation.examples import Examples
from mets_ray.metrics.linear_probe import fit_linear_probe
from mets_ray.metrics.text_head import Learnable, fit_text_head
from mets_ray.model.predictor import Predictor


@dataclass(frozen=True)
class Fitted:
    """Arrays of a head, as in `model.heads.Head`, for some columns of the task's classes.

    validation_macro_auroc: where the head has an encoder of its own; others are scored on what is known.
    """

    columns: tuple[int, ...]
    input: Literal["features", "embedding"]
    weight: Float[np.ndarray, "class input"]
    bias: Float[np.ndarray, " class"]
    inverse_penalty: float | None = None
    own_model: Mapping[str, Tensor] = field(default_factory=dict)
    validation_macro_auroc: float | None = None


def fit_linear(train: Examples, validation: Examples) -> Fitted:
    """A linear probe. Classes without positives or without negatives are left out: nothing can be said of them."""
    probe = fit_linear_probe(train.features, train.truth, validation.features, validation.truth)
    columns = tuple(column for column in range(train.truth.shape[1]) if column not in probe.untrained_classes)
    weight = probe.coefficients / probe.scale
    bias = probe.intercepts - weight @ probe.mean
    chosen = list(columns)
    return Fitted(columns, "features", single(weight[chosen]), single(bias[chosen]), probe.inverse_penalty)


def fit_text(
    train: Examples, validation: Examples, class_vectors: Float[np.ndarray, "class dimension"], predictor: Predictor
) -> Fitted:
    """A probe that begins at zero-shot with `class_vectors`; a class that cannot be trained stays there."""
    fitted = fit_text_head(
        *(
            Learnable(of.embeddings, predictor.logits(of.embeddings @ class_vectors.T), of.truth)
            for of in (train, validation)
        )
    )
    weight = predictor.logit_scale * class_vectors.astype(np.float64) + fitted.coefficients
    bias = predictor.logit_bias + fitted.intercepts
    columns = tuple(range(train.truth.shape[1]))
    return Fitted(columns, "embedding", single(weight), single(bias), fitted.inverse_penalty)


def single(values: np.ndarray) -> np.ndarray:
    """In the precision that heads are kept in."""
    return values.astype(np.float32)
