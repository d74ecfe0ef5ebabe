"""A linear probe on frozen ECG features: what some labels would achieve, for comparison with zero-shot.

Source: the linear evaluation of CLIP (Radford et al. 2021, section 3.2: L-BFGS logistic regression, penalty chosen on
validation) at MERL's 1, 10 and 100% of the training labels (Liu et al. 2024, ICML). MERL trains its head with Adam
(batch size 16, learning rate 1e-3, 100 epochs), samples its shares by record and reports the highest test AUROC of any
epoch. Here shares are of patients and the test set is not used for selection, so values are lower and not comparable
with MERL's.
"""

import hashlib
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from mets_ray.errors import MetsError
from mets_ray.metrics.auroc import macro_auroc

LABEL_SHARES = (0.01, 0.1, 1.0)
"""Shares of the training patients that are commonly reported."""

INVERSE_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""scikit-learn's C, dimensionless: weight of the summed loss relative to half the squared norm of the coefficients."""

_MOST_ITERATIONS = 1000  # 512 features of 4,000 records took at most 88 with these penalties


@dataclass(frozen=True)
class LinearProbe:
    """One logistic regression per class on standardised features, and details of the fit.

    mean, scale: of each feature over the train rows. coefficients, intercepts: log odds; 0 for an untrained class.
    inverse_penalty: C of all classes; nan if no class could be trained. If it is the smallest or largest value tried,
    try a wider range. validation_macro_auroc: for each C tried; C was selected on it, so the highest value is not a
    valid result. untrained_classes: columns without a positive or without a negative train row. unconverged_classes:
    columns where the fit at the chosen C stopped early.
    """

    mean: Float[np.ndarray, "feature"]
    scale: Float[np.ndarray, "feature"]
    coefficients: Float[np.ndarray, "class feature"]
    intercepts: Float[np.ndarray, "class"]
    inverse_penalty: float
    validation_macro_auroc: dict[float, float]
    untrained_classes: tuple[int, ...]
    unconverged_classes: tuple[int, ...]

    def scores(self, features: Float[np.ndarray, "record feature"]) -> Float[np.ndarray, "record class"]:
        """Log odds of each class, float64; they rank records within a class, not classes.

        An untrained class scores 0 for every record. That gives AUROC 0.5 and not nan, because excluding the class from
        a mean would reward having no labels. Raises MetsError for another number of features or non-finite ones.
        """
        if features.shape[1] != len(self.mean):
            raise MetsError(f"the probe takes {len(self.mean)} features and was given {features.shape[1]}")
        return _log_odds((_finite("features", features) - self.mean) / self.scale, self.coefficients, self.intercepts)


def with_both_kinds(truth: Bool[np.ndarray, "record class"]) -> Bool[np.ndarray, "class"]:
    """Which classes have a positive and a negative: only these can be trained or scored."""
    both: np.ndarray = np.logical_and(truth.any(axis=0), ~truth.all(axis=0))
    return both


def label_subset(
    truth: Bool[np.ndarray, "record class"],
    groups: Shaped[np.ndarray, "record"] | Sequence[str],
    share: float,
    seed: int,
) -> Int[np.ndarray, "drawn"]:
    """Row numbers, ascending, of a share of the patients in `groups`, each with all their labelled records.

    Records without any class are excluded, as are patients without other records. Patients are taken in the order of
    a hash of (seed, patient): the selection does not depend on the order of records, and for the same seed a smaller
    share is a subset of a larger one. At least one patient is selected.

    The selection ignores classes, so a rare class may have no positives. The probe then lists it in
    `untrained_classes` and its AUROC counts as 0.5, which lowers the mean. Sampling until each class has a positive
    would use labels that are not part of the share.

    Raises MetsError if `share` is not in (0, 1], `groups` has another length, or no record has a class.
    """
    if not 0.0 < share <= 1.0:
        raise MetsError(
            f"`share` is {share}, not in (0, 1]", hint=f"usual values are {', '.join(map(str, LABEL_SHARES))}"
        )
    patients = np.asarray(groups).astype(str)
    if len(patients) != len(truth):
        raise MetsError(f"{len(patients)} `groups` for {len(truth)} records")
    labelled = truth.any(axis=1)
    ordered = sorted(set(patients[labelled].tolist()), key=lambda patient: _draw_key(seed, patient))
    if not ordered:
        raise MetsError(f"none of {len(truth)} records has a class of this task")
    drawn = ordered[: max(1, round(share * len(ordered)))]
    return np.flatnonzero(labelled & np.isin(patients, drawn))


def fit_linear_probe(
    features_train: Float[np.ndarray, "train feature"],
    truth_train: Bool[np.ndarray, "train class"],
    features_validation: Float[np.ndarray, "validation feature"],
    truth_validation: Bool[np.ndarray, "validation class"],
    *,
    inverse_penalties: Sequence[float] = INVERSE_PENALTIES,
) -> LinearProbe:
    """Fit one logistic regression per class at each C; keep the C with the highest validation macro AUROC.

    All classes share one C, because rare classes have too few validation positives for a separate choice. Ties go to
    the smallest C. Validation rows are used to choose C only.

    Raises MetsError for features that are not finite, truth of another length, no rows, missing or non-positive
    penalties, and if no class has both positives and negatives in validation, which C is chosen on.
    """
    penalties = sorted(set(map(float, inverse_penalties)))
    if not penalties or not all(0.0 < penalty < math.inf for penalty in penalties):
        raise MetsError(f"`inverse_penalties` is {tuple(inverse_penalties)}, not one or more positive numbers")
    _require_like("train", features_train, truth_train)
    _require_like("validation", features_validation, truth_validation)
    if not with_both_kinds(truth_validation).any():
        raise MetsError(
            f"no class has both positives and negatives among {len(truth_validation)} validation records",
            hint="use more validation records to choose C",
        )
    train = _finite("features_train", features_train)
    scaler = StandardScaler().fit(train)
    train = scaler.transform(train)
    validation = scaler.transform(_finite("features_validation", features_validation))

    trained = with_both_kinds(truth_train)
    coefficients = np.zeros((len(penalties), truth_train.shape[1], train.shape[1]))
    intercepts = np.zeros(coefficients.shape[:2])
    converged = np.ones(coefficients.shape[:2], dtype=np.bool_)
    for column in np.flatnonzero(trained):
        # In ascending order of C each fit starts from the previous solution, which saves most iterations.
        model = LogisticRegression(solver="lbfgs", max_iter=_MOST_ITERATIONS, warm_start=True)
        for row, penalty in enumerate(penalties):
            converged[row, column] = _fit(model.set_params(C=penalty), train, truth_train[:, column])
            coefficients[row, column], intercepts[row, column] = model.coef_[0], model.intercept_[0]

    found = [
        macro_auroc(_log_odds(validation, *weights), truth_validation)[0]
        for weights in zip(coefficients, intercepts, strict=True)
    ]
    best = int(np.argmax(found))
    return LinearProbe(
        mean=scaler.mean_,
        scale=scaler.scale_,
        coefficients=coefficients[best],
        intercepts=intercepts[best],
        inverse_penalty=penalties[best] if trained.any() else math.nan,
        validation_macro_auroc=dict(zip(penalties, found, strict=True)),
        untrained_classes=tuple(np.flatnonzero(~trained).tolist()),
        unconverged_classes=tuple(np.flatnonzero(~converged[best]).tolist()),
    )


def _fit(model: LogisticRegression, features: np.ndarray, truth: np.ndarray) -> bool:
    """Fit the model; returns whether it converged. Unrelated warnings are passed on to the caller."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(features, truth)
    about_fit = [issubclass(warning.category, (ConvergenceWarning, RuntimeWarning)) for warning in caught]
    for warning, known in zip(caught, about_fit, strict=True):
        if not known:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return not any(about_fit)


def _draw_key(seed: int, patient: str) -> bytes:
    return hashlib.sha256(f"{seed}:{patient}".encode()).digest()


def _log_odds(
    standardised: Float[np.ndarray, "record feature"],
    coefficients: Float[np.ndarray, "class feature"],
    intercepts: Float[np.ndarray, "class"],
) -> Float[np.ndarray, "record class"]:
    log_odds: np.ndarray = standardised @ coefficients.T + intercepts
    return log_odds


def _finite(name: str, features: Float[np.ndarray, "record feature"]) -> Float[np.ndarray, "record feature"]:
    """`features` in float64. Raises MetsError if a value is not finite."""
    wrong = features.size - int(np.isfinite(features).sum())
    if wrong:
        raise MetsError(f"{wrong} of {features.size} values of `{name}` are not finite")
    return features.astype(np.float64)


def _require_like(name: str, features: np.ndarray, truth: np.ndarray) -> None:
    if len(features) != len(truth) or len(features) == 0:
        raise MetsError(
            f"{len(features)} rows of {name} features for {len(truth)} of {name} truth; "
            "the counts must be equal and not 0"
        )
