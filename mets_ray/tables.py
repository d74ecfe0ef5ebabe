"""What an evaluation found, as Markdown for people, JSON and CSV for programs; published numbers stand apart in all."""

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mets_ray.balanced import BalancedScore
from mets_ray.metrics import SINGLE_LABEL_SCORES, Interval
from mets_ray.published import PublishedAuroc, published

FEW_PATIENTS = 10
"""Below this many patients with a class, its AUROC rests on single people, and its interval is too narrow as well."""

FEW_PER_CLASS = 50
"""At this k, 5 classes and an accuracy of 0.7, the 95% interval is 6 points wide to each side; below, wider."""

WHY_NOT_ACCURACY = (
    "Do not compare accuracy with the paper: on a balanced set with one label each it equals macro recall, and the "
    "paper's does not (super 0.842 against 0.626), nor is it the mean one-vs-rest accuracy in all of its tables. "
    "Compare precision, recall and F1, as far as other records, another draw and another k allow."
)

# The paper's columns; it has no mean one-vs-rest accuracy.
_PAPERS = {"accuracy": "accuracy", "macro_precision": "precision", "macro_recall": "recall", "macro_f1": "f1"}


@dataclass(frozen=True)
class ClassScore:
    """One row of a task's table; the AUROC is nan where the class has no positives or no negatives.

    `patients` have at least one of the `positives`.
    """

    name: str
    auroc: Interval
    average_precision: float
    positives: int
    patients: int
    records: int

    @property
    def scored(self) -> bool:
        return not math.isnan(self.auroc.value)


@dataclass(frozen=True)
class TaskScore:
    """One task: its macro AUROC with a 95% interval over patients, and its classes."""

    task: str
    macro: Interval
    classes: tuple[ClassScore, ...]
    records: int


@dataclass(frozen=True)
class BaselineScore:
    """One baseline's macro AUROC of a task; `note` says what it learnt from."""

    baseline: str
    task: str
    macro: Interval
    note: str


@dataclass(frozen=True)
class Comparison:
    """A task's macro AUROC less that of another result on the same `records`, with its paired 95% interval."""

    task: str
    difference: Interval
    records: int


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation leaves behind. `macro_auroc` is the mean of the tasks' macro AUROCs.

    `alarms` are notices without which the scores would deceive.
    """

    result_uri: str
    macro_auroc: float
    over: str
    tasks: tuple[TaskScore, ...]
    balanced: tuple[BalancedScore, ...]
    notices: tuple[str, ...]
    pictures: tuple[str, ...]
    alarms: tuple[str, ...] = ()
    baselines: tuple[BaselineScore, ...] = ()
    compared_to: str = ""
    comparisons: tuple[Comparison, ...] = ()


def markdown(result: Evaluated, prompt_set: str, seed: int) -> str:
    """The result for people: a table per task, METS's balanced tables, and what others published."""
    lines = [f"# Zero-shot AUROC, prompt set `{prompt_set}`", ""]
    lines += [*(f"**ALARM: {alarm}**" for alarm in result.alarms), *(f"**{notice}**" for notice in result.notices), ""]
    for task in result.tasks:
        lines += [*_auroc_lines(task), ""]
    lines += [f"Mean over tasks: {result.macro_auroc:.3f} ({result.over})", ""]
    lines += [*_baseline_lines(result), *_comparison_lines(result)]
    lines += _published_auroc_lines(result)
    if result.balanced:
        lines += ["# METS's balanced tables: one label each, the highest similarity decides", "", WHY_NOT_ACCURACY, ""]
        for score in result.balanced:
            lines += [*_balanced_lines(score, seed), ""]
    return "\n".join(lines).rstrip() + "\n"


def task_json(task: TaskScore) -> dict[str, Any]:
    """A task's part of `metrics.json`."""
    return {
        **interval_json(task.macro),
        "records": task.records,
        "classes": {
            row.name: {
                **interval_json(row.auroc),
                "average_precision": number_json(row.average_precision),
                "positives": row.positives,
                "patients": row.patients,
                "scored": row.scored,
            }
            for row in task.classes
        },
    }


def balanced_json(score: BalancedScore) -> dict[str, Any]:
    """A balanced table's part of `metrics.json`; rows of `confusion` are true classes, columns predicted ones."""
    return {
        "task": score.set.task,
        "classes": list(score.set.classes),
        "per_class": score.per_class,
        "available": dict(zip(score.set.classes, score.available, strict=True)),
        "patients": score.patients,
        "scores": {name: interval_json(interval) for name, interval in score.scores.items()},
        "confusion": score.confusion.tolist(),
    }


def published_json(result: Evaluated) -> dict[str, Any]:
    """The published rows that stand beside `result`, with their sources: nothing in here was measured."""
    facts = published()
    return {
        "balanced": {
            "source": facts.balanced_source,
            "per_class": facts.balanced_per_class,
            "tables": {
                score.set.name: [row.model_dump() for row in facts.balanced.get(score.set.name, ())]
                for score in result.balanced
            },
        },
        "auroc": [row.model_dump() for row in _published_auroc(result)],
    }


def auroc_csv(result: Evaluated) -> str:
    """One row per task and class, `macro` for the task; `origin` says measured, baseline or published."""
    header = ["origin", "system", "task", "class", "auroc", "low", "high", "average_precision", "positives", "patients",
              "records", "source"]  # fmt: skip
    rows: list[list[Any]] = []
    for task in result.tasks:
        rows.append(["measured", "this bundle", task.task, "macro", *map(_cell, task.macro), "", "", "", task.records])
        rows += [
            ["measured", "this bundle", task.task, row.name, *map(_cell, row.auroc), _cell(row.average_precision),
             row.positives, row.patients, row.records]
            for row in task.classes
        ]  # fmt: skip
    rows += [
        ["baseline", row.baseline, row.task, "macro", *map(_cell, row.macro), "", "", "", "", row.note]
        for row in result.baselines
    ]
    rows += [
        ["published", row.system, name, "macro", _cell(value), "", "", "", "", "", "", f"{row.reading}: {row.source}"]
        for row in _published_auroc(result)
        for name, value in row.macro.items()
    ]
    return _csv(header, rows)


def balanced_csv(result: Evaluated) -> str:
    """One row per balanced table and score; `origin` says measured or published."""
    facts = published()
    header = ["origin", "method", "table", "per_class", "score", "value", "low", "high", "source"]
    rows: list[list[Any]] = []
    for score in result.balanced:
        name = score.set.name
        rows += [
            ["measured", "this bundle", name, score.per_class, key, *map(_cell, interval)]
            for key, interval in score.scores.items()
        ]
        rows += [
            ["published", row.name, name, facts.balanced_per_class[name], key, getattr(row, column), "", "",
             facts.balanced_source]
            for row in facts.balanced.get(name, ())
            for key, column in _PAPERS.items()
        ]  # fmt: skip
    return _csv(header, rows)


def interval_json(interval: Interval) -> dict[str, float | None]:
    """{value, lo, hi}, None where not defined."""
    return {"value": number_json(interval.value), "lo": number_json(interval.low), "hi": number_json(interval.high)}


def number_json(value: float) -> float | None:
    """JSON knows no nan."""
    return None if math.isnan(value) else float(value)


def interval_text(interval: Interval) -> str:
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _auroc_lines(task: TaskScore) -> Iterator[str]:
    yield f"## {task.task}: macro AUROC {interval_text(task.macro)}, {task.records} records"
    yield ""
    yield "| class | AUROC [95% interval] | average precision | positives | patients |"
    yield "| --- | --- | --- | --- | --- |"
    scored = [row for row in task.classes if row.scored]
    for row in scored:
        mark = " †" if row.patients < FEW_PATIENTS else ""
        yield (
            f"| {row.name}{mark} | {interval_text(row.auroc)} | {row.average_precision:.3f} | {row.positives} | "
            f"{row.patients} |"
        )
    if any(row.patients < FEW_PATIENTS for row in scored):
        yield ""
        yield f"† fewer than {FEW_PATIENTS} patients have this class: neither value nor interval proves anything."
    unscored = [f"{row.name} ({row.positives} positives)" for row in task.classes if not row.scored]
    if unscored:
        yield ""
        yield f"Not scored (no positives or no negatives): {', '.join(unscored)}"


def _baseline_lines(result: Evaluated) -> Iterator[str]:
    if not result.baselines:
        return
    yield "# Baselines on the same records"
    yield ""
    yield "| task | what | macro AUROC [95% interval] | learnt from |"
    yield "| --- | --- | --- | --- |"
    for task in result.tasks:
        yield f"| {task.task} | **this bundle, zero-shot** | {interval_text(task.macro)} | reports, no label |"
        for row in result.baselines:
            if row.task == task.task:
                yield f"| {task.task} | {row.baseline} | {interval_text(row.macro)} | {row.note} |"
    yield ""


def _comparison_lines(result: Evaluated) -> Iterator[str]:
    if not result.comparisons:
        return
    yield f"# Difference to `{result.compared_to}`"
    yield ""
    yield "Macro AUROC here less the other's, both on the same resampled patients: a difference where 0 is outside."
    yield ""
    yield "| task | difference [95% interval] | records |"
    yield "| --- | --- | --- |"
    for row in result.comparisons:
        cell = f"{row.difference.value:+.3f} [{row.difference.low:+.3f}, {row.difference.high:+.3f}]"
        yield f"| {row.task} | {cell} | {row.records} |"
    yield ""


def _published_auroc_lines(result: Evaluated) -> list[str]:
    rows = _published_auroc(result)
    if not rows:
        return []
    measured = {task.task: interval_text(task.macro) for task in result.tasks}
    columns = list(dict.fromkeys([*measured, *(name for row in rows for name in row.macro)]))

    def row_of(name: str, cells: dict[str, str], mean: str, source: str) -> str:
        return f"| {name} | {' | '.join(cells.get(column, '–') for column in columns)} | {mean} | {source} |"

    return [
        "# Zero-shot macro AUROC beside published ones",
        "",
        "Only the first row was measured here. The others are printed as published: trained on other data, scored on "
        "fold 10 of PTB-XL. `mean` is over the six sets of the literature, which were not all scored here.",
        "",
        f"| system | {' | '.join(columns)} | mean | source |",
        f"| {' | '.join(['---'] * (len(columns) + 3))} |",
        row_of("**measured: this bundle**", measured, "–", "this run"),
        *(
            row_of(
                f"published: {row.system}",
                {name: f"{value:.3f}" for name, value in row.macro.items()},
                "–" if row.mean is None else f"{row.mean:.3f}",
                f"{row.reading}: {row.source}{f' ({row.note})' if row.note else ''}",
            )
            for row in rows
        ),
        "",
    ]


def _balanced_lines(score: BalancedScore, seed: int) -> Iterator[str]:
    facts, name, classes = published(), score.set.name, score.set.classes
    rows = facts.balanced.get(name, ())
    of_paper = f" (the paper: {facts.balanced_per_class[name]})" if rows else ""
    drawn = f"{score.per_class * len(classes)} records of {score.patients} patients, drawn with seed {seed}"
    yield f"## {name}: k = {score.per_class} of each of {', '.join(classes)}{of_paper}; {drawn}"
    yield ""
    available = ", ".join(f"{class_name} {count}" for class_name, count in zip(classes, score.available, strict=True))
    yield f"Records with exactly one of these classes: {available}."
    if score.per_class == 0:
        yield "**Not scored: a class has no such record, and a balanced set needs all.**"
    elif score.per_class < FEW_PER_CLASS:
        yield f"**k is only {score.per_class}: the intervals say how little this proves.**"
    yield ""
    yield "| from | accuracy | mean one-vs-rest accuracy | macro precision | macro recall | macro F1 |"
    yield "| --- | --- | --- | --- | --- | --- |"
    cells = " | ".join(interval_text(score.scores[key]) if score.per_class else "–" for key in SINGLE_LABEL_SCORES)
    yield f"| **measured: this bundle** | {cells} |"
    for row in rows:
        cells = " | ".join(
            f"{getattr(row, _PAPERS[key]):.3f}" if key in _PAPERS else "–" for key in SINGLE_LABEL_SCORES
        )
        yield f"| published: {row.name} | {cells} |"
    if rows:
        yield ""
        yield f"Published rows: {facts.balanced_source}."


def _published_auroc(result: Evaluated) -> tuple[PublishedAuroc, ...]:
    """Systems with a value for a task that was scored here."""
    here = {task.task for task in result.tasks}
    return tuple(row for row in published().auroc if here & set(row.macro))


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"


def _csv(header: list[str], rows: list[list[Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([header, *([*row, *[""] * (len(header) - len(row))] for row in rows)])
    return out.getvalue()
