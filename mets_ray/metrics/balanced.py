"""METS's tables: balanced sets with one label each, decided by the highest similarity."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from mets_ray.metrics.intervals import Interval
from mets_ray.metrics.similarities import TaskSimilarities
from mets_ray.metrics.single_label import balanced_draw, bootstrap_single_label


@dataclass(frozen=True)
class BalancedSet:
    """Classes of one task between which METS decides."""

    name: str
    task: str
    classes: tuple[str, ...]


# The paper's figure 4; its MIT-BIH set is of beats. AAMI's classes are EC57's, not the paper's.
BALANCED_SETS = (
    BalancedSet("super", "ptbxl_super", ("NORM", "CD", "MI", "HYP", "STTC")),
    BalancedSet("form", "ptbxl_form", ("NDT", "NST_", "ABQRS", "PVC", "STD_")),
    BalancedSet("rhythm", "ptbxl_rhythm", ("SR", "AFIB", "STACH", "SARRH", "SBRAD")),
    BalancedSet("mitbih", "mitbih", ("N", "L", "R", "A", "V")),
    BalancedSet("mitbih AAMI", "mitbih_aami", ("N", "S", "V", "F", "Q")),
    BalancedSet("synthetic rhythm", "synthetic", ("SR", "AFIB", "STACH", "SBRAD")),
)


@dataclass(frozen=True)
class BalancedScore:
    """One measured table; scores are nan where `per_class` is 0, because some class has no record of its own."""

    set: BalancedSet
    per_class: int
    available: tuple[int, ...]
    patients: int
    scores: dict[str, Interval]
    confusion: Int[np.ndarray, "truth prediction"]


def sets_of_task(task: str) -> Iterable[BalancedSet]:
    """The balanced sets that are drawn from a task."""
    return (balanced for balanced in BALANCED_SETS if balanced.task == task)


def score_balanced(
    balanced: BalancedSet, scores: TaskSimilarities, *, per_class: int, samples: int, seed: int
) -> BalancedScore:
    """Draw records with exactly one of the set's classes, as many of each, and let the highest similarity decide.

    scores: of the set's task; classes outside the set neither compete nor exclude a record. per_class: records of
    each class at most. samples, seed: of the resampled patients.
    """
    patients = scores.patients
    chosen = [scores.classes.index(name) for name in balanced.classes]
    draw = balanced_draw(scores.truth[:, chosen], balanced.classes, per_class, seed)
    predicted = scores.similarity[draw.rows][:, chosen].argmax(axis=1)
    found = bootstrap_single_label(draw.truth, predicted, len(chosen), patients[draw.rows], samples=samples, seed=seed)
    return BalancedScore(
        set=balanced,
        per_class=draw.per_class,
        available=draw.available,
        patients=len(set(patients[draw.rows].tolist())),
        scores=found.scores,
        confusion=found.confusion,
    )
