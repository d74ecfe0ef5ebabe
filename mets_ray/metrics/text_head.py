"""A linear head that begins at zero-shot: what some labels add to the words of the classes.

The logit of a class is its zero-shot logit plus a linear function of the embedding, which is 0 at the start and whose
squared norm is penalised. Without labels it is zero-shot; with many it comes near a linear probe. Such a penalty,
which pulls a probe towards the texts of the classes, is that of CLAP (Silva-Rodriguez et al., CVPR 2024). Its strength
is chosen on validation, as in `linear_probe`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import minimize
from sklearn.preprocessing import StandardScaler

from mets_ray.errors import MetsError
from mets_ray.metrics.auroc import macro_auroc
from mets_ray.metrics.intervals import require_finite
from mets_ray.metrics.linear_probe import with_both_kinds

INVERSE_PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""As in `linear_probe`; 0, which stays at zero-shot, is tried as well."""

_MOST_ITERATIONS = 500


@dataclass(frozen=True)
class TextHead:
    """What is added to the zero-shot logits, by class; 0 for a class without positives or negatives in training.

    coefficients, intercepts: of the features as they are. inverse_penalty: C of all classes; 0 stayed at zero-shot.
    validation_macro_auroc: for each C tried, 0 among them; C was selected on it. untrained_classes: columns without a
    positive or without a negative train row.
    """

    coefficients: Float[np.ndarray, "class feature"]
    intercepts: Float[np.ndarray, "class"]
    inverse_penalty: float
    validation_macro_auroc: dict[float, float]
    untrained_classes: tuple[int, ...]

    def scores(
        self, features: Float[np.ndarray, "record feature"], zero_shot: Float[np.ndarray, "record class"]
    ) -> Float[np.ndarray, "record class"]:
        """Log odds of each class, float64. zero_shot: its zero-shot logits."""
        found: np.ndarray = zero_shot + features.astype(np.float64) @ self.coefficients.T + self.intercepts
        return found


@dataclass(frozen=True)
class Learnable:
    """Records to learn from: what the encoder makes of them, their zero-shot logits, and which classes they have."""

    features: Float[np.ndarray, "record feature"]
    zero_shot: Float[np.ndarray, "record class"]
    truth: Bool[np.ndarray, "record class"]


def fit_text_head(
    train: Learnable, validation: Learnable, *, inverse_penalties: Sequence[float] = INVERSE_PENALTIES
) -> TextHead:
    """Fit each class at each C, and keep the C with the highest validation macro AUROC; ties go to the smallest.

    Validation records are used to choose C only. Without train records the head is zero-shot. Raises MetsError for
    values that are not finite, and if no class has both positives and negatives in validation.
    """
    if not with_both_kinds(validation.truth).any():
        raise MetsError(
            f"no class has both positives and negatives among {len(validation.truth)} validation records",
            hint="use more validation records to choose C",
        )
    for name, of in (("train", train), ("validation", validation)):
        require_finite(f"{name} features", of.features)
        require_finite(f"{name} zero-shot logits", of.zero_shot)
    classes, features = train.truth.shape[1], train.features.shape[1]
    trained = with_both_kinds(train.truth) if len(train.truth) else np.zeros(classes, dtype=np.bool_)
    penalties = (0.0, *sorted(inverse_penalties)) if trained.any() else (0.0,)
    coefficients, intercepts = np.zeros((len(penalties), classes, features)), np.zeros((len(penalties), classes))
    if trained.any():
        scaler = StandardScaler().fit(train.features.astype(np.float64))
        standardised = scaler.transform(train.features.astype(np.float64))
        for column in np.flatnonzero(trained):
            start = np.zeros(features + 1)
            for row, penalty in enumerate(penalties[1:], start=1):
                start = _fit(standardised, train.zero_shot[:, column], train.truth[:, column], penalty, start)
                coefficients[row, column] = start[:-1] / scaler.scale_
                intercepts[row, column] = start[-1] - coefficients[row, column] @ scaler.mean_
    heads = [TextHead(weights, biases, 0.0, {}, ()) for weights, biases in zip(coefficients, intercepts, strict=True)]
    found = [macro_auroc(head.scores(validation.features, validation.zero_shot), validation.truth)[0] for head in heads]
    best = int(np.argmax(found))
    return TextHead(
        coefficients[best],
        intercepts[best],
        penalties[best],
        dict(zip(penalties, found, strict=True)),
        tuple(np.flatnonzero(~trained).tolist()),
    )


def _fit(
    features: Float[np.ndarray, "record feature"],
    offset: Float[np.ndarray, "record"],
    truth: Bool[np.ndarray, "record"],
    inverse_penalty: float,
    start: Float[np.ndarray, "parameter"],
) -> Float[np.ndarray, "parameter"]:
    """Weights and, last, the intercept: logistic regression beside a fixed `offset`, which scikit-learn's has not."""
    sign = np.where(truth, 1.0, -1.0)
    # Divided by C and the number of records, so that the solver's tolerance means the same for each.
    penalty = 1.0 / (inverse_penalty * len(truth))

    def loss_and_gradient(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weights = parameters[:-1]
        margin = sign * (offset + features @ weights + parameters[-1])
        # The derivative of log(1 + exp(-margin)), without overflow.
        slope = -0.5 * sign * (1.0 - np.tanh(0.5 * margin)) / len(truth)
        loss = np.logaddexp(0.0, -margin).mean() + 0.5 * penalty * weights @ weights
        return float(loss), np.append(slope @ features + penalty * weights, slope.sum())

    found: np.ndarray = minimize(
        loss_and_gradient, start, jac=True, method="L-BFGS-B", options={"maxiter": _MOST_ITERATIONS}
    ).x
    return found
