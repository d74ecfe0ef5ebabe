"""The curve by labels per class as a section of the evaluation page, as CSV and as JSON."""

from collections.abc import Sequence
from typing import Any

from mets_ray.metrics.intervals import interval_json, interval_text
from mets_ray.metrics.label_curve import DRAWS, CurvePoint
from mets_ray.results.export import cell, csv_text
from mets_ray.results.page import Cell, Section, Table

CSV_NAME, PICTURE_NAME = "label_curve.csv", "label_curve.png"


def label_curve_section(points: Sequence[CurvePoint]) -> Section:
    """Macro AUROC by number of labels per class, one table for each task."""
    text = (
        f"Macro AUROC on the test records: the mean over {DRAWS} draws of so many labels of each class, with a 95% "
        "interval over patients and draws. Records of folds.train are drawn, each with all its labels, so frequent "
        "classes have more. Penalties, and the epoch of a supervised model, are chosen on all labels of "
        "folds.validation: with few labels in all, a curve would be lower."
    )
    short = [
        f"{task}: {', '.join(names)} have fewer than {number} labels, all of which are used."
        for (task, number), names in {(one.task, one.labels_per_class): one.short for one in points}.items()
        if names
    ]
    tables = [_table(task, points) for task in dict.fromkeys(point.task for point in points)]
    return Section("Few labels", "\n\n".join([text, *short]), tables)


def label_curve_csv(points: Sequence[CurvePoint]) -> str:
    """One row per point; `labels_per_class` is a number or `all`, `ecgs` the mean over draws."""
    header = ["task", "method", "labels_per_class", "macro_auroc", "low", "high", "draws", "ecgs", "short_classes"]
    return csv_text(
        header,
        [
            [
                one.task,
                one.method,
                _number(one),
                *map(cell, one.macro),
                one.draws,
                cell(one.records),
                ";".join(one.short),
            ]
            for one in points
        ],
    )


def curve_point_json(point: CurvePoint) -> dict[str, Any]:
    """A point's part of `metrics.json`."""
    return {
        "task": point.task,
        "method": point.method,
        "labels_per_class": point.labels_per_class,
        **interval_json(point.macro),
        "draws": point.draws,
        "ecgs": point.records,
        "short_classes": list(point.short),
    }


def _table(task: str, points: Sequence[CurvePoint]) -> Table:
    of_task = [point for point in points if point.task == task]
    numbers = list(dict.fromkeys(_number(point) for point in sorted(of_task, key=_order)))
    methods = list(dict.fromkeys(point.method for point in of_task))
    rows: list[Sequence[Cell]] = []
    for method in methods:
        found = {_number(one): interval_text(one.macro) for one in of_task if one.method == method}
        rows.append((method, *(found.get(number) for number in numbers)))
    ecgs = {_number(one): f"{one.records:,.0f}" for one in of_task}
    rows.append(("labelled ECGs", *(ecgs[number] for number in numbers)))
    return Table(task, ("labels per class", *numbers), rows)


def _number(point: CurvePoint) -> str:
    return "all" if point.labels_per_class is None else str(point.labels_per_class)


def _order(point: CurvePoint) -> float:
    return float("inf") if point.labels_per_class is None else point.labels_per_class
