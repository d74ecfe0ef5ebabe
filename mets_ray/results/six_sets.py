"""The six data sets that MERL and later papers report: a row of results, their mean, and the published rows."""

import math
from collections.abc import Sequence
from typing import Any

from mets_ray.metrics.intervals import interval_json, interval_text
from mets_ray.metrics.task_scores import TaskScore, mean_of_tasks
from mets_ray.results.page import Cell, Section, Table
from mets_ray.results.published import published
from mets_ray.results.values import Evaluated

SIX_SETS = ("ptbxl_super", "ptbxl_sub", "ptbxl_form", "ptbxl_rhythm", "cpsc2018", "csn")


def six_sets_section(results: Sequence[Evaluated]) -> Section:
    """Macro AUROC on each of the six data sets, and their mean if all six were scored."""
    found = _of_the_six(results)
    absent = [name for name in SIX_SETS if name not in found]
    mean = None if absent else interval_text(mean_of_tasks(list(found.values())))
    rows: list[Sequence[Cell]] = [
        ("measured: this bundle", *(interval_text(found[name].macro) if name in found else None for name in SIX_SETS),
         mean)
    ]  # fmt: skip
    rows += [(f"published: {row.system}", *(row.macro.get(name) for name in SIX_SETS), row.mean)
             for row in published().auroc]  # fmt: skip
    text = (
        "Only the first row was measured here; the published ones differ in records, splits and training data. `csn` "
        "uses the labels as published; `csn_exact`, in its own table, uses corrected ones."
    )
    if absent:
        text += f"\n\nNo mean, because some were not scored: {', '.join(absent)}. Add the data sets to evaluate.also."
    return Section("The six sets", text, (Table("", ("system", *SIX_SETS, "mean of six"), rows),))


def six_sets_json(results: Sequence[Evaluated]) -> dict[str, Any]:
    """{task: {value, lo, hi}} for the sets that were scored, and `mean`, which is None unless all six were scored."""
    found = _of_the_six(results)
    mean = interval_json(mean_of_tasks(list(found.values()))) if len(found) == len(SIX_SETS) else None
    return {name: interval_json(score.macro) for name, score in found.items()} | {"mean": mean}


def _of_the_six(results: Sequence[Evaluated]) -> dict[str, TaskScore]:
    scores = {task.task: task for result in results for task in result.tasks if not math.isnan(task.macro.value)}
    return {name: scores[name] for name in SIX_SETS if name in scores}
