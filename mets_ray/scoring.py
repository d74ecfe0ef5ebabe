"""From similarities of one task to its table and its ROC picture."""

import numpy as np
from jaxtyping import Shaped
from sklearn.metrics import roc_curve

from mets_ray.metrics import average_precision, bootstrap_macro_auroc, paired_difference
from mets_ray.pictures import draw_roc
from mets_ray.score_files import TaskSimilarities, paired
from mets_ray.tables import ClassScore, Comparison, TaskScore, interval_text


def score_task(
    scores: TaskSimilarities, *, samples: int, seed: int, drawn_from: Shaped[np.ndarray, "drawn"] | None = None
) -> TaskScore:
    """Macro AUROC and that of each class, with intervals that draw patients: see `bootstrap_macro_auroc`."""
    similarity, truth, patients = scores.similarity, scores.truth, scores.patients
    intervals = bootstrap_macro_auroc(similarity, truth, patients, samples=samples, seed=seed, drawn_from=drawn_from)
    _, precisions = average_precision(similarity, truth)
    classes = tuple(
        ClassScore(
            name,
            intervals.per_class[column],
            float(precisions[column]),
            positives=int(truth[:, column].sum()),
            patients=len(np.unique(patients[truth[:, column]])),
            records=len(truth),
        )
        for column, name in enumerate(scores.classes)
    )
    return TaskScore(scores.task, intervals.macro, classes, len(truth), intervals.macro_samples)


def compare(first: TaskSimilarities, second: TaskSimilarities, *, samples: int, seed: int) -> Comparison:
    """The paired difference of two results of one task, on the records that both scored.

    Raises DatasetError as `score_files.paired`.
    """
    one, other = paired(first, second)
    difference = paired_difference(
        one.similarity, other.similarity, one.truth, one.patients, samples=samples, seed=seed
    )
    return Comparison(first.task, difference, len(one.record_ids))


def roc_picture(score: TaskScore, scores: TaskSimilarities, *, synthetic: bool) -> bytes:
    """A PNG with one curve for each class that can be scored."""
    curves = {}
    for column, row in enumerate(score.classes):
        if row.scored:
            false_positive, true_positive, _ = roc_curve(scores.truth[:, column], scores.similarity[:, column])
            curves[row.name] = (false_positive, true_positive, row.auroc.value)
    suffix = " (SYNTHETIC data)" if synthetic else ""
    return draw_roc(curves, f"{score.task}: zero-shot, macro AUROC {interval_text(score.macro)}{suffix}")
