"""The records that a bundle ranks best and worst, for manual review."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import rankdata

from mets_ray.metrics.similarities import TaskSimilarities


@dataclass(frozen=True)
class Example:
    """A record that has a class; `outranked` is the share of records without it that are less similar to its prompt."""

    task: str
    kind: Literal["best", "worst"]
    record_id: str
    patient: str
    class_name: str
    outranked: float
    similarity: float
    classes: tuple[str, ...]


def choose_examples(scores: TaskSimilarities, each: int = 2) -> tuple[Example, ...]:
    """The `each` best and `each` worst pairs of a record and one of its classes; each record appears once.

    A class appears at most once among the best and once among the worst. Pairs are ordered by `Example.outranked`,
    where ties count half; of equal pairs, the more extreme one within its class comes first. Classes without positives
    or without negatives are skipped.
    """
    pairs = []
    for column in range(len(scores.classes)):
        present, similarity = scores.truth[:, column], scores.similarity[:, column]
        if not present.any() or present.all():
            continue
        # Rank among all minus rank among positives is the number of negatives below (a Mann-Whitney count per record).
        below = rankdata(similarity)[present] - rankdata(similarity[present])
        standard = (similarity[present] - similarity.mean()) / max(float(similarity.std()), 1e-12)
        rows_of_class = np.flatnonzero(present).tolist()
        for row, share, height in zip(rows_of_class, below / (~present).sum(), standard, strict=True):
            pairs.append((float(share), float(height), int(row), column))
    chosen: list[Example] = []
    for kind in ("best", "worst"):
        rows: set[int] = set()
        columns: set[int] = set()
        for outranked, _, row, column in sorted(pairs, reverse=kind == "best"):
            if len(rows) == each:
                break
            if (
                row in rows
                or column in columns
                or any(example.record_id == scores.record_ids[row] for example in chosen)
            ):
                continue
            rows.add(row)
            columns.add(column)
            names = tuple(name for name, has in zip(scores.classes, scores.truth[row], strict=True) if has)
            chosen.append(
                Example(
                    scores.task,
                    "best" if kind == "best" else "worst",
                    scores.record_ids[row],
                    str(scores.patients[row]),
                    scores.classes[column],
                    outranked,
                    float(scores.similarity[row, column]),
                    names,
                )
            )
    return tuple(chosen)
