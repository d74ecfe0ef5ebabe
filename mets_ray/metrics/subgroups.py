"""For whom a score holds: macro AUROC in each group of records, and its difference from all other records.

A group is compared on the classes that both sides have enough patients of, so that the two means are over the same
classes. Patients are resampled for both at once (the intervals of `bootstrap_macro_auroc`), since one patient's records
may lie in several groups. Many groups are looked at, and one in twenty would differ by chance: a difference counts only
by its p value after Holm 1979 ("A simple sequentially rejective multiple test procedure"), over all groups and tasks.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from mets_ray.errors import MetsError
from mets_ray.metrics.auroc import mann_whitney_plan, share_won, won_and_pairs
from mets_ray.metrics.intervals import Interval, mean_of_defined, percentile_interval, resamples
from mets_ray.metrics.similarities import TaskSimilarities

LEAST_PATIENTS = 10
"""Of a class, with it and without it, in the group and among the others: with fewer, the class is left out."""

SIGNIFICANT = 0.05
_LEVEL = 0.95
_NO_INTERVAL = Interval(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Grouping:
    """One way to divide records: `groups` has the name of each record's group, None where it is not known.

    order: of the groups; those that no record is in are left out. absent: why there is nothing to divide by.
    """

    attribute: str
    groups: tuple[str | None, ...]
    order: tuple[str, ...]
    absent: str = ""


@dataclass(frozen=True)
class SubgroupScore:
    """One group of one task.

    `positives`: labels of the `classes` that are compared; of all classes where none is. `auroc` and `others` are macro
    AUROCs over these classes, `difference` is the first minus the second, all with 95 % intervals; `p_value` is for no
    difference, `adjusted_p` the same after Holm; nan where there is none. `reason`: why it is not scored, or why there
    is no difference; "" where both are there.
    """

    task: str
    attribute: str
    group: str
    records: int
    patients: int
    positives: int
    classes: tuple[str, ...] = ()
    auroc: Interval = _NO_INTERVAL
    others: Interval = _NO_INTERVAL
    difference: Interval = _NO_INTERVAL
    p_value: float = math.nan
    adjusted_p: float = math.nan
    reason: str = ""

    @property
    def scored(self) -> bool:
        return not math.isnan(self.auroc.value)

    @property
    def differs(self) -> bool:
        return self.adjusted_p < SIGNIFICANT


@dataclass(frozen=True)
class Subgroups:
    """All groups, by task and attribute. `absent`: by attribute, why the data set has no groups of it.

    `unknown`: by attribute, how many of the records have no group.
    """

    scores: tuple[SubgroupScore, ...]
    absent: Mapping[str, str]
    unknown: Mapping[str, int]

    @property
    def compared(self) -> int:
        """How many differences were looked at."""
        return sum(not math.isnan(row.p_value) for row in self.scores)


def score_subgroups(
    tasks: Mapping[str, TaskSimilarities],
    groupings: Sequence[Grouping],
    record_ids: Sequence[str],
    *,
    samples: int,
    seed: int,
) -> Subgroups:
    """Scores of each group of each task, and their differences from the others. Errors as `bootstrap_macro_auroc`.

    record_ids: the record that each name in `Grouping.groups` is for; at least those of the tasks. Raises MetsError if
    a grouping has another length.
    """
    for grouping in groupings:
        if not grouping.absent and len(grouping.groups) != len(record_ids):
            raise MetsError(f"`{grouping.attribute}` has {len(grouping.groups)} groups for {len(record_ids)} records")
    known = [grouping for grouping in groupings if not grouping.absent]
    row_of = {name: row for row, name in enumerate(record_ids)}
    scores: list[SubgroupScore] = []
    for of in tasks.values():
        at = [row_of[name] for name in of.record_ids]
        divided = [replace(one, groups=tuple(one.groups[row] for row in at)) for one in known]
        scores += _score_task(of, divided, samples=samples, seed=seed)
    return Subgroups(
        _adjusted(scores),
        {one.attribute: one.absent for one in groupings if one.absent},
        {one.attribute: count for one in known if (count := sum(group is None for group in one.groups))},
    )


class _Side:
    """One side of a comparison: rows, a plan for each class that is compared, and the AUROC of each resample."""

    def __init__(self, of: TaskSimilarities, rows: Int[np.ndarray, " row"], columns: Sequence[int], samples: int):
        self.rows = rows
        similarity, truth = of.similarity[rows], of.truth[rows]
        self._plans = [mann_whitney_plan(similarity[:, column], truth[:, column]) for column in columns]
        once = np.ones((len(rows), 1), dtype=np.int32)
        self.value = float(np.mean([share_won(*won_and_pairs(once, *plan))[0] for plan in self._plans]))
        self.per_class = np.full((samples, len(columns)), np.nan)

    def resample(self, at: slice, weights: Int[np.ndarray, "record resample"]) -> None:
        own = weights[self.rows]
        for column, plan in enumerate(self._plans):
            self.per_class[at, column] = share_won(*won_and_pairs(own, *plan))


def _score_task(
    of: TaskSimilarities, groupings: Sequence[Grouping], *, samples: int, seed: int
) -> Iterator[SubgroupScore]:
    found: list[SubgroupScore] = []
    sides: list[tuple[_Side, _Side | None] | None] = []
    for grouping in groupings:
        groups = np.asarray(grouping.groups, dtype=object)
        for row, mask in _counted(of, grouping.attribute, grouping.order, groups):
            others = np.asarray([group is not None for group in groups]) & ~mask
            row, pair = _sides(of, row, mask, others, samples, is_mirror=_is_mirror(row.group, groups))
            found.append(row)
            sides.append(pair)
    if any(sides):
        drawn = resamples(of.patients, len(of.truth), samples=samples, seed=seed, level=_LEVEL)
        for at, weights in drawn:
            for pair in sides:
                for side in pair or ():
                    if side is not None:
                        side.resample(at, weights)
    for row, pair in zip(found, sides, strict=True):
        yield row if pair is None else _compared(of, row, *pair)


def _counted(
    of: TaskSimilarities, attribute: str, order: Sequence[str], groups: np.ndarray
) -> Iterator[tuple[SubgroupScore, Bool[np.ndarray, " record"]]]:
    for name in order:
        mask = np.asarray(groups == name, dtype=np.bool_)
        if mask.any():
            patients = len(np.unique(of.patients[mask]))
            yield (
                SubgroupScore(of.task, attribute, name, int(mask.sum()), patients, int(of.truth[mask].sum())),
                mask,
            )


def _sides(
    of: TaskSimilarities,
    row: SubgroupScore,
    mask: Bool[np.ndarray, " record"],
    others: Bool[np.ndarray, " record"],
    samples: int,
    *,
    is_mirror: bool,
) -> tuple[SubgroupScore, tuple[_Side, _Side | None] | None]:
    """The row with its classes or why it has none, and what is to be resampled for it."""
    own = _enough(of, mask)
    both = own & _enough(of, others)
    chosen = both if both.any() else own
    columns = np.flatnonzero(chosen).tolist()
    if not columns:
        reason = f"no class has {LEAST_PATIENTS} patients with it and {LEAST_PATIENTS} without it in this group"
        return replace(row, reason=reason), None
    reason = ""
    if not others.any():
        reason = "all records are in this group"
    elif not both.any():
        reason = f"no class has {LEAST_PATIENTS} patients with it and {LEAST_PATIENTS} without it on both sides"
    elif is_mirror:
        reason = "the difference is that of the other group, with the other sign"
    positives = int(of.truth[mask][:, columns].sum())
    row = replace(row, classes=tuple(of.classes[column] for column in columns), positives=positives, reason=reason)
    side = _Side(of, np.flatnonzero(mask), columns, samples)
    return row, (side, None if reason else _Side(of, np.flatnonzero(others), columns, samples))


def _enough(of: TaskSimilarities, mask: Bool[np.ndarray, " record"]) -> Bool[np.ndarray, " class"]:
    """Which classes have enough patients with it and without it among the records of `mask`."""
    _, patient = np.unique(of.patients[mask], return_inverse=True)
    enough = np.zeros(len(of.classes), dtype=np.bool_)
    for column in range(len(of.classes)):
        present = of.truth[mask, column]
        enough[column] = min(len(np.unique(patient[present])), len(np.unique(patient[~present]))) >= LEAST_PATIENTS
    return enough


def _is_mirror(name: str, groups: np.ndarray) -> bool:
    """Of two groups the larger one would tell the difference of the smaller one a second time."""
    counts = Counter(group for group in groups.tolist() if group is not None)
    return len(counts) == 2 and name == max(sorted(counts), key=lambda group: counts[group])


def _compared(of: TaskSimilarities, row: SubgroupScore, side: _Side, other: _Side | None) -> SubgroupScore:
    own = mean_of_defined(side.per_class)
    row = replace(row, auroc=percentile_interval(side.value, own, _LEVEL))
    if other is None:
        return row
    rest = mean_of_defined(other.per_class)
    difference = percentile_interval(side.value - other.value, own - rest, _LEVEL)
    columns = [of.classes.index(name) for name in row.classes]
    rarer = min(
        len(np.unique(of.patients[rows][of.truth[rows][:, columns].any(axis=1)])) for rows in (side.rows, other.rows)
    )
    return replace(
        row,
        others=percentile_interval(other.value, rest, _LEVEL),
        difference=difference,
        p_value=_p_value(difference.value, own - rest, rarer - 1),
    )


def _p_value(difference: float, samples: Float[np.ndarray, " resample"], freedom: int) -> float:
    """Two-sided, by Student's t with the bootstrap's standard error: counting resamples would need thousands of them to
    tell a p value that survives Holm. freedom: patients with a class on the smaller side, less one."""
    from scipy.special import stdtr  # metrics are imported where nobody asks for it

    error = float(np.nanstd(samples, ddof=1)) if np.isfinite(samples).sum() > 1 else math.nan
    if not error > 0.0:
        return 1.0 if difference == 0.0 else math.nan
    return float(2.0 * stdtr(freedom, -abs(difference) / error))


def _adjusted(scores: Sequence[SubgroupScore]) -> tuple[SubgroupScore, ...]:
    values = holm([row.p_value for row in scores])
    return tuple(replace(row, adjusted_p=value) for row, value in zip(scores, values, strict=True))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values after Holm's correction; nan, which was not tested, stays nan and does not count."""
    tested = [place for place, value in enumerate(p_values) if not math.isnan(value)]
    found, largest = [math.nan] * len(p_values), 0.0
    for rank, place in enumerate(sorted(tested, key=lambda place: p_values[place])):
        largest = max(largest, min(1.0, (len(tested) - rank) * p_values[place]))
        found[place] = largest
    return found
