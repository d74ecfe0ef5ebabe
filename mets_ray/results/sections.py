"""Evaluation results as sections of a page, which `results.page` renders as HTML and Markdown."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from mets_ray.metrics.balanced import BalancedScore
from mets_ray.metrics.calibration import LEAST_PATIENTS, Calibrated
from mets_ray.metrics.intervals import Interval, interval_text
from mets_ray.metrics.lead_set_scores import LeadSetScore
from mets_ray.metrics.single_label import SINGLE_LABEL_SCORES
from mets_ray.metrics.task_scores import TaskScore, mean_of_tasks
from mets_ray.results.export import PAPERS_COLUMNS, measured, published_auroc, recalls_json
from mets_ray.results.page import Cell, Section, Table
from mets_ray.results.published import published
from mets_ray.results.values import ClassWordings, Evaluated, Retrieval

FEW_PATIENTS = 10
"""With fewer patients of a class, its AUROC depends on individual patients, and its interval is too narrow as well."""

FEW_PER_CLASS = 50
"""At this k, with 5 classes and an accuracy of 0.7, the 95% interval is ±6 points; with a smaller k it is wider."""

WHY_NOT_ACCURACY = (
    "Do not compare accuracy with the paper: on a balanced set with one label per record it equals macro recall, but "
    "the paper's does not (super: 0.842 against 0.626), nor does it match the mean one-vs-rest accuracy in all of its "
    "tables. Compare precision, recall and F1 instead, bearing in mind that the records, the sample and k differ."
)
STANDARDISED = (
    "Standardised: each class's similarity less its mean over other ECGs, divided by its standard deviation there, "
    "because the cosines of a class have a level of their own. No label is used, but those ECGs are, which METS's rows "
    "do without."
)
NOT_ZERO_SHOT = (
    "Not zero-shot: these numbers were fitted on the labels of validation records. They apply to this version of this "
    "prompt set only, and hold where classes are as frequent as in validation."
)


def overview(result: Evaluated) -> Iterator[Section]:
    """The scores alongside baselines, another result, and published results."""
    yield _summary(result)
    if result.comparisons:
        yield _comparison(result)
    if published_auroc(result):
        yield _published(result)


def task_section(task: TaskScore) -> Section:
    """The scores of one task, by class."""
    scored = [row for row in task.classes if row.scored]
    rows = [
        (
            row.name + (" †" if row.patients < FEW_PATIENTS else ""),
            interval_text(row.auroc),
            row.average_precision,
            row.positives,
            row.patients,
        )
        for row in scored
    ]
    notes = [f"Macro AUROC {interval_text(task.macro)}, {task.records:,} records."]
    if any(row.patients < FEW_PATIENTS for row in scored):
        notes.append(
            f"† fewer than {FEW_PATIENTS} patients have this class: neither the value nor the interval is reliable."
        )
    unscored = [f"{row.name} ({row.positives} positives)" for row in task.classes if not row.scored]
    if unscored:
        notes.append(f"Not scored (no positives or no negatives): {', '.join(unscored)}")
    header = ("class", "AUROC [95% interval]", "average precision", "positives", "patients")
    return Section(task.task, "\n\n".join(notes), (Table("", header, rows),))


def balanced_sections(balanced: Iterable[BalancedScore], seed: int) -> Iterator[Section]:
    """METS's balanced tables; the first section explains why accuracy must not be compared."""
    for number, score in enumerate(balanced):
        section = _balanced(score, seed)
        yield section if number else replace(section, text=f"{WHY_NOT_ACCURACY}\n\n{section.text}")


def calibration_section(task: str, found: Calibrated) -> Section:
    """The threshold of each class, fitted on validation, and the resulting decisions on the test records."""
    fitted, decisions = found.calibration, found.decisions
    rows = [
        (
            row.name,
            None if row.point is None else row.point.threshold,
            row.positives,
            *((None, None, None) if (point := row.point) is None else (point.f1, point.sensitivity, point.specificity)),
            test.precision,
            test.recall,
            test.f1,
            test.positives,
        )
        for row, test in zip(fitted.classes, decisions, strict=True)
    ]
    header = ("class", "threshold (cosine)", "validation positives", "validation F1", "validation sensitivity",
              "validation specificity", "test precision", "test recall", "test F1", "test positives")  # fmt: skip
    prompts = fitted.prompts
    notes = [
        NOT_ZERO_SHOT,
        f"Prompt set {prompts.name} version {prompts.version}, {fitted.records:,} validation records of "
        f"{fitted.patients:,} patients, threshold by {fitted.rule}. "
        f"Test records, scores before and probabilities after: expected calibration error "
        f"{found.before.expected_calibration_error:.3f} and {found.after.expected_calibration_error:.3f}, Brier score "
        f"{found.before.brier:.4f} and {found.after.brier:.4f}. "
        "The validation scores are optimistic, because the threshold was chosen on these records.",
    ]
    turned = [row.name for row in fitted.classes if row.slope < 0.0]
    if turned:
        notes.append(
            f"For {', '.join(turned)}, validation records with the class were LESS similar to its prompts than those "
            "without: do not use these thresholds."
        )
    few = [row.name for row in fitted.classes if row.fault is not None and row.fault[0] == "few_patients"]
    if few:
        notes.append(
            f"Served, scored and returned in Python as not calibrated, because fewer than {LEAST_PATIENTS} validation "
            f"patients are with the class or without it: {', '.join(few)}."
        )
    return Section(f"{task}: calibrated decisions", "\n\n".join(notes), (Table("", header, rows),))


def wording_section(task: str, classes: dict[str, ClassWordings]) -> Section:
    """How the AUROC of each class depends on its wording."""
    rows = []
    for name, found in classes.items():
        scored = found.sensitivity.spread == found.sensitivity.spread  # not nan
        best = int(found.sensitivity.auroc.argmax()) if scored else 0
        rows.append(
            (
                name,
                len(found.prompts),
                found.sensitivity.lowest,
                found.sensitivity.highest,
                found.sensitivity.spread,
                found.prompts[best] if scored else None,
            )
        )
    text = (
        "AUROC of each prompt alone, from the chosen prompt set and from those stored in the bundle. The best wording "
        "shows how much the wording matters. It was selected on these test records, so its AUROC is not a valid result."
    )
    header = ("class", "wordings", "lowest", "highest", "spread", "best wording")
    return Section(f"{task}: sensitivity to wording", text, (Table("", header, rows),), collapsed=True)


def retrieval_section(found: Retrieval) -> Section:
    """Retrieval in both directions, with chance levels."""
    rows = [
        (
            f"recall at {k}",
            found.ecg_to_text[k],
            min(k / found.texts, 1.0),
            found.text_to_ecg[k],
            found.chance_text_to_ecg[k],
        )
        for k in found.ecg_to_text
    ]
    text = (
        f"{found.records:,} ECGs and their {found.texts:,} distinct reports; identical reports count as one. Recall "
        "falls as the number of candidates grows, so compare only results on the same test records."
    )
    header = ("", "ECG → report", "chance", "report → ECG", "chance")
    shown = [(name, *(f"{value:.3f}" for value in values)) for name, *values in rows]
    return Section("Retrieval", text, (Table("", header, shown),))


def lead_sets_section(scores: Sequence[LeadSetScore]) -> Section:
    """Macro AUROC of the same records with fewer leads; the first of `scores` has all."""
    tasks = list(scores[0].tasks)
    several = len(tasks) > 1
    rows = [
        (
            score.name,
            *([interval_text(score.macro)] if several else ()),
            "" if score is scores[0] else _signed(Interval(-score.loss.value, -score.loss.high, -score.loss.low)),
            *(interval_text(score.tasks[task]) if task in score.tasks else None for task in tasks),
        )
        for score in scores
    ]
    text = (
        f"Macro AUROC of the same {scores[0].records:,} records with the other leads left out, as from a device that "
        "does not record them. Differences are paired: on the same resampled patients."
    )
    header = ("leads", *(["mean"] if several else ()), "difference from all", *tasks)
    return Section("Fewer leads", text, (Table("", header, rows),))


def _summary(result: Evaluated) -> Section:
    tasks = [task.task for task in result.tasks]
    own: tuple[Cell, ...] = ("this bundle, zero-shot", *(interval_text(task.macro) for task in result.tasks))
    mean = [interval_text(mean_of_tasks(result.tasks))] if len(tasks) > 1 else []
    rows: list[Sequence[Cell]] = [(*own, *mean)]
    compared = [task.task for task in result.tasks if not math.isnan(task.macro.value)]
    for name in dict.fromkeys(row.name for row in result.baselines):
        of = {row.task: row.macro for row in result.baselines if row.name == name}
        cells = [interval_text(of[task]) if task in of else None for task in tasks]
        values = [of[task].value if task in of else math.nan for task in compared]
        # A head has one task: a mean over fewer than the bundle's could not be compared with it.
        rows.append((name, *cells, *([None if math.isnan(sum(values)) else f"{np.mean(values):.3f}"] if mean else ())))
    header = ("scored by", *tasks, *(["mean"] if mean else ()))
    text = f"Mean over tasks: {result.macro_auroc:.3f} ({result.over})"
    if result.baselines:
        text += "\n\nThe other rows are baselines on the same records; auroc.csv says what each was trained on."
    return Section("Macro AUROC", text, (Table("", header, rows),))


def _comparison(result: Evaluated) -> Section:
    text = (
        "Macro AUROC of this result minus that of the other, both on the same resampled patients. A difference is "
        "significant where the interval excludes 0."
    )
    rows = [(row.task, _signed(row.difference), row.records) for row in result.comparisons]
    header = ("task", "difference [95% interval]", "records")
    return Section(f"Difference from {result.compared_to}", text, (Table("", header, rows),))


def _published(result: Evaluated) -> Section:
    rows = published_auroc(result)
    measured = {task.task: interval_text(task.macro) for task in result.tasks}
    columns = list(dict.fromkeys([*measured, *(name for row in rows for name in row.macro)]))
    cells: list[Sequence[Cell]] = [("measured: this bundle", *(measured.get(column) for column in columns), None)]
    cells += [(f"published: {row.system}", *(row.macro.get(column) for column in columns), row.mean) for row in rows]
    text = (
        "Only the first row was measured here. The others are as published: trained on other data and scored on "
        "fold 10 of PTB-XL. `mean` is over the six data sets of the literature, not all of which were scored here.\n\n"
        "Read in: `paper` is the source itself, `cited` is another text that quotes it, and `recalled` is neither: "
        "check such a value before you quote it."
    )
    sources = [(row.system, row.reading, f"{row.source}{f' ({row.note})' if row.note else ''}") for row in rows]
    return Section(
        "Comparison with published zero-shot results",
        text,
        (Table("", ("system", *columns, "mean"), cells), Table("", ("system", "read in", "source"), sources)),
    )


def _balanced(score: BalancedScore, seed: int) -> Section:
    facts, name, classes = published(), score.set.name, score.set.classes
    rows = facts.balanced.get(name, ())
    of_paper = f" (the paper: {facts.balanced_per_class[name]})" if rows else ""
    drawn = f"{score.per_class * len(classes)} records of {score.patients} patients, sampled with seed {seed}"
    available = ", ".join(f"{class_name} {count}" for class_name, count in zip(classes, score.available, strict=True))
    notes = [
        f"k = {score.per_class} of each of {', '.join(classes)}{of_paper}; {drawn}. Each record has one label; the "
        "class with the highest similarity is predicted.",
        f"Records with exactly one of these classes: {available}.",
    ]
    if score.per_class == 0:
        notes.append("Not scored: a class has no such record, and a balanced set needs records of every class.")
    elif score.per_class < FEW_PER_CLASS:
        notes.append(f"k is only {score.per_class}: the evidence is weak, as the wide intervals show.")
    if rows:
        notes.append(f"Published rows: {facts.balanced_source}.")
    if score.standardised:
        notes.append(STANDARDISED)
    cells: list[Sequence[Cell]] = [
        (
            f"measured: {method}",
            *(interval_text(of.scores[key]) if score.per_class else None for key in SINGLE_LABEL_SCORES),
        )
        for method, of in measured(score).items()
    ]
    cells += [
        (
            f"published: {row.name}",
            *(getattr(row, PAPERS_COLUMNS[key]) if key in PAPERS_COLUMNS else None for key in SINGLE_LABEL_SCORES),
        )
        for row in rows
    ]
    header = ("from", "accuracy", "mean one-vs-rest accuracy", "macro precision", "macro recall", "macro F1")
    of_classes = [(f"measured: {method}", *recalls_json(score, of).values()) for method, of in measured(score).items()]
    found = (Table("", header, cells), Table("Recall of each class", ("from", *classes), of_classes))
    return Section(f"METS's balanced table: {name}", "\n\n".join(notes), found)


def _signed(interval: Interval) -> str:
    return f"{interval.value:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"
