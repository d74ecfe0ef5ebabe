"""Scores by group as a section of the evaluation page, its pictures, a CSV and JSON."""

import csv
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from mets_ray.metrics.intervals import Interval, interval_json, number_json
from mets_ray.metrics.subgroups import LEAST_PATIENTS, SIGNIFICANT, Subgroups, SubgroupScore
from mets_ray.metrics.task_scores import TaskScore
from mets_ray.pictures.figure import palette_png
from mets_ray.pictures.forest import ForestRow, draw_forest
from mets_ray.results.page import Cell, Picture, Section, Table

SUBGROUPS_NAME = "subgroups.csv"
_HEADER = ("task", "attribute", "group", "records", "patients", "positives", "classes", "auroc", "low", "high",
           "others_auroc", "difference", "difference_low", "difference_high", "p_value", "adjusted_p", "differs",
           "reason")  # fmt: skip


def subgroups_section(found: Subgroups) -> Section:
    """How well each group is recognised beside all others, by task."""
    tasks = dict.fromkeys(row.task for row in found.scores)
    notes = _notes(found)
    tables = tuple(_table(task, [row for row in found.scores if row.task == task], notes) for task in tasks)
    return Section("For whom it works", "\n\n".join(_paragraphs(found)), tables)


def with_pictures(section: Section, found: Subgroups, tasks: Mapping[str, TaskScore], suffix: str) -> Section:
    """The section with a forest plot of each task. suffix: of the titles."""
    pictures = []
    for task in dict.fromkeys(row.task for row in found.scores):
        rows = [_forest_row(row) for row in found.scores if row.task == task]
        whole = tasks[task].macro.value
        png = draw_forest(rows, f"{task}: macro AUROC by group{suffix}", label="macro AUROC, 95% interval", whole=whole)
        alt = f"Forest plot of the macro AUROC of {task} in each group; the numbers are in the table of {task}"
        caption = (
            "Each group has classes of its own (those with enough patients), so its value may lie off the line for "
            "all: the table has the same classes among all others. Orange diamonds differ after Holm's correction."
        )
        pictures.append(Picture(palette_png(png), alt, caption))
    return replace(section, pictures=tuple(pictures))


def subgroups_csv(found: Subgroups) -> str:
    """One row per task, attribute and group; what could not be scored has its reason."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_HEADER)
    for row in found.scores:
        numbers = (*row.auroc, row.others.value, *row.difference, row.p_value, row.adjusted_p)
        counts = (row.records, row.patients, row.positives, " ".join(row.classes))
        shown = ("" if math.isnan(number) else f"{number:.6g}" for number in numbers)
        is_said = "yes" if row.differs else "no"
        writer.writerow((row.task, row.attribute, row.group, *counts, *shown, is_said, row.reason))
    return out.getvalue()


def subgroups_json(found: Subgroups) -> dict[str, Any]:
    """The groups' part of `metrics.json`."""
    return {
        "compared": found.compared,
        "correction": "Holm",
        "significant_below": SIGNIFICANT,
        "absent": dict(found.absent),
        "unknown_records": dict(found.unknown),
        "groups": [
            {
                "task": row.task,
                "attribute": row.attribute,
                "group": row.group,
                "records": row.records,
                "patients": row.patients,
                "positives": row.positives,
                "classes": list(row.classes),
                **interval_json(row.auroc),
                "others": interval_json(row.others),
                "difference": interval_json(row.difference),
                "p_value": number_json(row.p_value),
                "adjusted_p": number_json(row.adjusted_p),
                "differs": row.differs,
                "reason": row.reason or None,
            }
            for row in found.scores
        ],
    }


def _paragraphs(found: Subgroups) -> Iterator[str]:
    differing = [row for row in found.scores if row.differs]
    yield (
        f"{found.compared} differences were tested, so one in twenty would lie beyond its 95% interval by chance "
        f"alone. A difference is marked ‡ where its p value, after Holm's correction for all of them, is below "
        f"{SIGNIFICANT:g}: {len(differing) or 'none'} here."
        + "".join(f" {row.task}, {row.attribute} {row.group}: {_signed(row.difference)}." for row in differing)
        + " That no difference is found does not mean that there is none: look at the width of the intervals. And one "
        "that is found may lie in the patients, where their findings are harder to tell, and not in the model."
    )
    yield (
        "Macro AUROC of each group, and of all other records, over the classes that have at least "
        f"{LEAST_PATIENTS} patients with and {LEAST_PATIENTS} without them on both sides. The difference is the group "
        "minus the others, on the same resampled patients. Where the others are too few for any class, the group is "
        "scored on the classes that it has enough of itself, without a difference. Without these it is only counted."
    )
    if found.absent:
        reasons = dict.fromkeys(found.absent.values())
        yield " ".join(
            f"{_listed([name for name, own in found.absent.items() if own == reason])}: {reason}." for reason in reasons
        )
    if found.unknown:
        told = _listed([f"{name} of {count:,}" for name, count in found.unknown.items()])
        yield f"Not known, and in no group: {told} records."

    if notes := _notes(found):
        yield "\n".join(f"{mark} {reason[0].upper()}{reason[1:]}." for reason, mark in notes.items())


def _notes(found: Subgroups) -> dict[str, str]:
    """The mark of each reason why something is not there: a column of sentences would leave the numbers no room."""
    reasons = dict.fromkeys(row.reason for row in found.scores if row.reason)
    return {reason: f"[{number}]" for number, reason in enumerate(reasons, start=1)}


def _listed(names: list[str]) -> str:
    return ", ".join(names)


def _table(task: str, rows: list[SubgroupScore], notes: Mapping[str, str]) -> Table:
    header = ("group", "records", "patients", "positives", "classes", "AUROC [95% interval]", "others",
              "difference [95% interval]", "adjusted p")  # fmt: skip
    return Table(task, header, [_cells(row, notes) for row in rows])


def _cells(row: SubgroupScore, notes: Mapping[str, str]) -> tuple[Cell, ...]:
    return (
        f"{row.attribute}: {row.group} {notes.get(row.reason, '')}".rstrip(),
        row.records,
        row.patients,
        row.positives,
        len(row.classes),
        _unsigned(row.auroc),
        row.others.value,
        None if row.difference.value != row.difference.value else _signed(row.difference) + (" ‡" * row.differs),
        row.adjusted_p,
    )


def _forest_row(row: SubgroupScore) -> ForestRow:
    count = f"{row.records:,} ECGs, {row.positives:,} positives"
    return ForestRow(
        row.attribute,
        row.group,
        *row.auroc,
        note=count if row.scored else f"{row.records:,} ECGs, too few to score",
        marked=row.differs,
    )


def _unsigned(interval: Interval) -> str | None:
    if interval.value != interval.value:
        return None
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _signed(interval: Interval) -> str:
    return f"{interval.value:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"
