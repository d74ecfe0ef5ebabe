"""How well ECGs are recognised with fewer leads: macro AUROC of each set of leads, and what it loses."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped

from mets_ray.metrics.auroc import AurocIntervals, bootstrap_macro_auroc
from mets_ray.metrics.intervals import Interval, percentile_interval
from mets_ray.metrics.similarities import TaskSimilarities

_LEVEL = 0.95


@dataclass(frozen=True)
class LeadSetScore:
    """One set of leads. `macro` is the mean of the tasks' macro AUROCs; `loss` is that of all leads minus this one, on
    the same resampled patients; both with 95% intervals. `tasks` and `losses` are by task."""

    name: str
    leads: tuple[str, ...]
    macro: Interval
    loss: Interval
    tasks: Mapping[str, Interval]
    losses: Mapping[str, Interval]
    records: int


def score_lead_sets(
    similarities: Mapping[str, Mapping[str, TaskSimilarities]],
    leads: Mapping[str, tuple[str, ...]],
    *,
    samples: int,
    seed: int,
    drawn_from: Shaped[np.ndarray, " drawn"],
) -> tuple[LeadSetScore, ...]:
    """Scores of the same records with each set of leads.

    similarities: by set and task; the first set has every lead. leads: those of each set. drawn_from: the patients of
    all records, so that tasks share their resamples. A task that no record can be scored on is left out of the means.
    Errors as `bootstrap_macro_auroc`.
    """
    scored: dict[str, dict[str, AurocIntervals]] = {}
    for name, tasks in similarities.items():
        intervals = {
            task: bootstrap_macro_auroc(
                of.similarity, of.truth, of.patients, samples=samples, seed=seed, drawn_from=drawn_from
            )
            for task, of in tasks.items()
        }
        scored[name] = {task: of for task, of in intervals.items() if not np.isnan(of.macro.value)}
    if not next(iter(scored.values()), {}):
        return ()
    whole = next(iter(scored.values()))
    records = max(len(of.truth) for of in next(iter(similarities.values())).values())
    return tuple(
        LeadSetScore(
            name,
            leads[name],
            macro=_mean(list(tasks.values())),
            loss=_mean([_less(whole[task], of) for task, of in tasks.items()]),
            tasks={task: of.macro for task, of in tasks.items()},
            losses={task: _less(whole[task], of).macro for task, of in tasks.items()},
            records=records,
        )
        for name, tasks in scored.items()
    )


def _mean(tasks: list[AurocIntervals]) -> Interval:
    value = float(np.mean([of.macro.value for of in tasks]))
    return percentile_interval(value, np.mean([of.macro_samples for of in tasks], axis=0), _LEVEL)


def _less(first: AurocIntervals, second: AurocIntervals) -> AurocIntervals:
    samples = first.macro_samples - second.macro_samples
    difference = percentile_interval(first.macro.value - second.macro.value, samples, _LEVEL)
    return AurocIntervals(difference, (), samples)
