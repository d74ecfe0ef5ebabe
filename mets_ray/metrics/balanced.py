"""METS's balanced tables: one label per record, and the class with the highest similarity is predicted."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from mets_ray.metrics.intervals import Interval
from mets_ray.metrics.levels import Levels
from mets_ray.metrics.similarities import TaskSimilarities
from mets_ray.metrics.single_label import SingleLabelIntervals, balanced_draw, bootstrap_single_label


@dataclass(frozen=True)
class BalancedSet:
    """The classes of one task that METS's balanced table covers."""

    name: str
    task: str
    classes: tuple[str, ...]


# From figure 4 of the paper, where the MIT-BIH set consists of beats. The AAMI classes are from EC57, not the paper.
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
    """One measured table; scores are nan if `per_class` is 0, because a class has no record with that class alone.

    `standardised`: the same where the class with the highest standardised similarity is predicted, by the ECGs whose
    levels were taken.
    """

    set: BalancedSet
    per_class: int
    available: tuple[int, ...]
    patients: int
    scores: dict[str, Interval]
    confusion: Int[np.ndarray, "truth prediction"]
    standardised: Mapping[str, SingleLabelIntervals]


def sets_of_task(task: str) -> Iterable[BalancedSet]:
    """The balanced sets of a task."""
    return (balanced for balanced in BALANCED_SETS if balanced.task == task)


def score_balanced(
    balanced: BalancedSet,
    scores: TaskSimilarities,
    *,
    per_class: int,
    samples: int,
    seed: int,
    levels: Mapping[str, Levels] | None = None,
) -> BalancedScore:
    """Sample equally many records per class, each with exactly one of the set's classes, and predict by similarity.

    The class with the highest similarity is predicted. scores: of the set's task; classes outside the set are ignored
    and do not exclude a record. per_class: maximum number of records per class. samples: number of bootstrap resamples
    of patients. seed: for sampling records and for the bootstrap. levels: of the task's classes, by the ECGs that they
    were measured on.
    """
    patients = scores.patients
    chosen = [scores.classes.index(name) for name in balanced.classes]
    draw = balanced_draw(scores.truth[:, chosen], balanced.classes, per_class, seed)

    def predicting(similarity: np.ndarray) -> SingleLabelIntervals:
        predicted = similarity[draw.rows][:, chosen].argmax(axis=1)
        return bootstrap_single_label(
            draw.truth, predicted, len(chosen), patients[draw.rows], samples=samples, seed=seed
        )

    found = predicting(scores.similarity)
    return BalancedScore(
        set=balanced,
        per_class=draw.per_class,
        available=draw.available,
        patients=len(set(patients[draw.rows].tolist())),
        scores=found.scores,
        confusion=found.confusion,
        standardised={name: predicting(of.standardise(scores.similarity)) for name, of in (levels or {}).items()},
    )
