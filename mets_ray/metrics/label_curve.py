"""Macro AUROC by number of labels per class: the mean over several draws of the labels, with its interval."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mets_ray.metrics.auroc import bootstrap_macro_auroc
from mets_ray.metrics.intervals import Interval, percentile_interval
from mets_ray.metrics.similarities import TaskSimilarities

ZERO_SHOT = "zero-shot"
"""The method of the point without labels."""

LABELS_PER_CLASS = (8, 32, 128)
"""Beside 0, which is zero-shot, and all."""

DRAWS = 5
"""Draws of so many labels; all labels and none are a single draw."""


@dataclass(frozen=True)
class CurvePoint:
    """One method with one number of labels per class; None is all of them, and 0 needs no method's training.

    `macro`: the mean over `draws`, on the test records. `records`: the mean number of training ECGs over the draws.
    `short`: classes that have fewer labels than that, which give all that they have.
    """

    task: str
    method: str
    labels_per_class: int | None
    macro: Interval
    draws: int
    records: float
    short: tuple[str, ...] = ()


def mean_macro_auroc(
    of: TaskSimilarities,
    scores_of_draws: Sequence[Float[np.ndarray, "record class"]],
    *,
    samples: int,
    seed: int,
    level: float = 0.95,
) -> Interval:
    """Mean over draws of the macro AUROC on the records of `of`, with a bootstrap interval over patients and draws.

    In each resample all draws are scored on the same resampled patients, and the draws are resampled as well: the
    interval says how far another set of test patients and of draws may be. With one draw it is `bootstrap_macro_auroc`.
    """
    found = [
        bootstrap_macro_auroc(scores, of.truth, of.patients, samples=samples, seed=seed, level=level)
        for scores in scores_of_draws
    ]
    value = float(np.mean([one.macro.value for one in found]))
    resampled = np.stack([one.macro_samples for one in found])
    chosen = np.random.default_rng(seed).integers(len(found), size=resampled.shape)
    return percentile_interval(value, np.take_along_axis(resampled, chosen, axis=0).mean(axis=0), level)
