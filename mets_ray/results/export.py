"""Evaluation results as JSON and CSV; published numbers are kept separate. For the readable form see `sections`."""

import csv
import io
import math
from typing import Any

from mets_ray.metrics.balanced import BalancedScore
from mets_ray.metrics.calibration import Calibrated
from mets_ray.metrics.intervals import interval_json, number_json
from mets_ray.metrics.lead_set_scores import LeadSetScore
from mets_ray.metrics.single_label import SingleLabelIntervals, recalls
from mets_ray.metrics.task_scores import TaskScore
from mets_ray.results.published import PublishedAuroc, published
from mets_ray.results.values import BaselineScore, Evaluated, Retrieval

# The columns of the METS paper, which has no mean one-vs-rest accuracy.
PAPERS_COLUMNS = {"accuracy": "accuracy", "macro_precision": "precision", "macro_recall": "recall", "macro_f1": "f1"}


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
        "standardised": {
            levels: {name: interval_json(interval) for name, interval in of.scores.items()}
            for levels, of in score.standardised.items()
        },
        "recalls": recalls_json(score, score),
        "recalls_standardised": {levels: recalls_json(score, of) for levels, of in score.standardised.items()},
    }


def recalls_json(score: BalancedScore, of: BalancedScore | SingleLabelIntervals) -> dict[str, float | None]:
    """The recall of each class of a balanced set. of: the score itself, or one of its standardised ones."""
    return dict(zip(score.set.classes, map(number_json, recalls(of.confusion).tolist()), strict=True))


def measured(score: BalancedScore) -> dict[str, BalancedScore | SingleLabelIntervals]:
    """What one balanced table has, by how the class was predicted, as the table names it."""
    standardised = {f"this bundle, standardised by {levels}": of for levels, of in score.standardised.items()}
    return {"this bundle": score, **standardised}


def published_json(result: Evaluated) -> dict[str, Any]:
    """Published rows to compare `result` with, and their sources; nothing here was measured."""
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
        "auroc": [row.model_dump() for row in published_auroc(result)],
    }


def auroc_csv(result: Evaluated) -> str:
    """One row per task and class, class `macro` for the whole task; `origin` is measured, baseline or published."""
    header = ["origin", "system", "task", "class", "auroc", "low", "high", "average_precision", "positives", "patients",
              "records", "source"]  # fmt: skip
    rows: list[list[Any]] = []
    for task in result.tasks:
        rows.append(["measured", "this bundle", task.task, "macro", *map(cell, task.macro), "", "", "", task.records])
        rows += [
            ["measured", "this bundle", task.task, row.name, *map(cell, row.auroc), cell(row.average_precision),
             row.positives, row.patients, row.records]
            for row in task.classes
        ]  # fmt: skip
    rows += [
        ["baseline", row.name, row.task, "macro", *map(cell, row.macro), "", "", "", "", row.note]
        for row in result.baselines
    ]
    rows += [
        ["published", row.system, name, "macro", cell(value), "", "", "", "", "", "", f"{row.reading}: {row.source}"]
        for row in published_auroc(result)
        for name, value in row.macro.items()
    ]
    return csv_text(header, rows)


def balanced_csv(result: Evaluated) -> str:
    """One row per balanced table and score; `origin` is measured or published."""
    facts = published()
    header = ["origin", "method", "table", "per_class", "score", "value", "low", "high", "source"]
    rows: list[list[Any]] = []
    for score in result.balanced:
        name = score.set.name
        rows += [
            ["measured", method, name, score.per_class, key, *map(cell, interval)]
            for method, of in measured(score).items()
            for key, interval in of.scores.items()
        ]
        rows += [
            ["measured", method, name, score.per_class, f"recall {class_name}", cell(value), "", "", ""]
            for method, of in measured(score).items()
            for class_name, value in zip(score.set.classes, recalls(of.confusion).tolist(), strict=True)
        ]
        rows += [
            ["published", row.name, name, facts.balanced_per_class[name], key, getattr(row, column), "", "",
             facts.balanced_source]
            for row in facts.balanced.get(name, ())
            for key, column in PAPERS_COLUMNS.items()
        ]  # fmt: skip
    return csv_text(header, rows)


def baseline_json(row: BaselineScore) -> dict[str, Any]:
    """A baseline's part of `metrics.json`."""
    what = {"baseline": row.baseline, "task": row.task, "label_share": row.label_share, "note": row.note}
    return what | interval_json(row.macro)


def calibrated_json(found: Calibrated) -> dict[str, Any]:
    """A calibration (readable by `calibration.Calibration.from_json`) and its performance on the test records."""
    return {
        "calibration": found.calibration.to_json(),
        "test_expected_calibration_error": number_json(found.after.expected_calibration_error),
        "test_brier": number_json(found.after.brier),
        "test_before": {
            "expected_calibration_error": number_json(found.before.expected_calibration_error),
            "brier": number_json(found.before.brier),
        },
        "test": {
            row.name: {
                "precision": number_json(row.precision),
                "recall": number_json(row.recall),
                "f1": number_json(row.f1),
                "positives": row.positives,
                "decided": row.decided,
            }
            for row in found.decisions
        },
    }


def lead_set_json(score: LeadSetScore) -> dict[str, Any]:
    """A set of leads in `metrics.json`; `loss` is the macro AUROC with all leads minus that with these."""
    return {
        "leads": list(score.leads),
        **interval_json(score.macro),
        "loss": interval_json(score.loss),
        "tasks": {
            task: {**interval_json(interval), "loss": interval_json(score.losses[task])}
            for task, interval in score.tasks.items()
        },
        "records": score.records,
    }


def retrieval_json(found: Retrieval) -> dict[str, Any]:
    """The retrieval's part of `metrics.json`."""
    return {
        "records": found.records,
        "texts": found.texts,
        "ecg_to_text": {f"recall_at_{k}": value for k, value in found.ecg_to_text.items()},
        "text_to_ecg": {f"recall_at_{k}": value for k, value in found.text_to_ecg.items()},
    }


def wordings_csv(result: Evaluated) -> str:
    """One row per task, class and wording, with the AUROC of that wording alone."""
    return csv_text(
        ["task", "class", "prompt", "auroc"],
        [
            [task, name, prompt, cell(auroc)]
            for task, classes in result.wordings.items()
            for name, found in classes.items()
            for prompt, auroc in zip(found.prompts, found.sensitivity.auroc, strict=True)
        ],
    )


def published_auroc(result: Evaluated) -> tuple[PublishedAuroc, ...]:
    """Systems with a value for a task that was scored here."""
    here = {task.task for task in result.tasks}
    return tuple(row for row in published().auroc if here & set(row.macro))


def cell(value: float) -> str:
    """A number of a CSV; empty for nan."""
    return "" if math.isnan(value) else f"{value:.6g}"


def csv_text(header: list[str], rows: list[list[Any]]) -> str:
    """A CSV; rows may be shorter than the header."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([header, *([*row, *[""] * (len(header) - len(row))] for row in rows)])
    return out.getvalue()
