"""The check of a calibration on new labels as a section of the evaluation page, its pictures, and JSON."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mets_ray.metrics.calibration_drift import CalibrationDrift, ClassDrift, drifted
from mets_ray.metrics.intervals import Interval, interval_json, number_json
from mets_ray.metrics.subgroups import SIGNIFICANT
from mets_ray.pictures.figure import palette_png
from mets_ray.pictures.forest import ForestRow, draw_forest
from mets_ray.results.page import Cell, Picture, Section, Table


def calibration_drift_section(checks: Sequence[CalibrationDrift]) -> Section:
    """Mean probability beside the observed rate, and the slope, by class."""
    found = drifted(checks)
    of_test = sum(not row.reason for of in checks for row in of.classes)
    text = (
        f"Probabilities beside the labels of the test records, for {of_test} classes. Marked ‡: the difference or the "
        f"slope is not what it should be, with a p value below {SIGNIFICANT:g} after Holm's correction for all of "
        f"them: {len(found) or 'none'} here."
        + "".join(f" {task}, {row.name}: {_what(row)}." for task, row in found)
        + "\n\nDifference: the observed rate minus the mean probability; above 0 the class is more frequent than was "
        "said. Slope: 1 is right, below it probabilities are too extreme, above it not enough. Intervals are over "
        "patients and hold what the calibration itself is unsure of. Where a class has drifted, calibrate on records "
        "of the place where the model is used.\n\n"
        + "\n".join(f"{of.task}: {of.about}.{_left_out(of)}" for of in checks)
    )
    header = ("class", "positives", "mean probability", "observed rate", "difference [95% interval]", "adjusted p",
              "slope [95% interval]", "adjusted p")  # fmt: skip
    rows = {of.task: [_cells(row) for row in of.classes if not row.reason] for of in checks}
    tables = tuple(Table(task, header, of_task) for task, of_task in rows.items() if of_task)
    return Section("Calibration drift", text, tables)


def with_pictures(section: Section, checks: Sequence[CalibrationDrift], suffix: str) -> Section:
    """The section with the differences of all tasks in one picture. suffix: of its title."""
    rows = [
        ForestRow(of.task, row.name, *row.difference, note=f"{row.positives:,} positives", marked=row.has_drifted)
        for of in checks
        for row in of.classes
        if not row.reason
    ]
    if not rows:
        return section
    title = f"Observed rate minus mean probability{suffix}"
    picture = draw_forest(rows, title, label="difference, 95% interval; 0 is right", whole=0.0, whole_name="0")
    alt = "Forest plot of the observed rate minus the mean probability of each class, as in the tables"
    return replace(section, pictures=(Picture(palette_png(picture), alt),))


def calibration_drift_json(checks: Sequence[CalibrationDrift]) -> dict[str, Any]:
    """Its part of `metrics.json`, by task and class."""
    return {
        of.task: {
            "about": of.about,
            "classes": {
                row.name: {
                    "records": row.records,
                    "positives": row.positives,
                    "expected": number_json(row.expected),
                    "observed": number_json(row.observed),
                    "difference": interval_json(row.difference) | {"adjusted_p": number_json(row.difference_p)},
                    "slope": interval_json(row.slope) | {"adjusted_p": number_json(row.slope_p)},
                    "drifted": row.has_drifted,
                    "reason": row.reason or None,
                }
                for row in of.classes
            },
        }
        for of in checks
    }


def drift_notice(checks: Sequence[CalibrationDrift]) -> tuple[str, ...]:
    """One line for the top of the page; none where nothing has drifted."""
    found = drifted(checks)
    if not found:
        return ()
    names = ", ".join(f"{row.name} ({task})" for task, row in found)
    return (f"Calibration drift: the probabilities of {names} do not agree with the labels of these test records.",)


def _left_out(of: CalibrationDrift) -> str:
    """The classes that were not checked, by reason."""
    reasons = dict.fromkeys(row.reason for row in of.classes if row.reason)
    named = {reason: ", ".join(row.name for row in of.classes if row.reason == reason) for reason in reasons}
    return "".join(f" Not checked, {reason}: {names}." for reason, names in named.items())


def _what(row: ClassDrift) -> str:
    return f"said {row.expected:.3f}, observed {row.observed:.3f}, slope {row.slope.value:.2f}"


def _cells(row: ClassDrift) -> tuple[Cell, ...]:
    mark = " ‡" * row.has_drifted
    return (
        row.name,
        row.positives,
        row.expected,
        row.observed,
        _interval(row.difference, "+.3f") and f"{_interval(row.difference, '+.3f')}{mark}",
        row.difference_p,
        _interval(row.slope, ".2f"),
        row.slope_p,
    )


def _interval(interval: Interval, form: str) -> str | None:
    if interval.value != interval.value:
        return None
    return f"{interval.value:{form}} [{interval.low:{form}}, {interval.high:{form}}]"
