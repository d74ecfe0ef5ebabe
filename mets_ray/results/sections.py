"""What an evaluation found, for people: sections of a page, which `report_page` shows as HTML and as Markdown."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from mets_ray.metrics.balanced import BalancedScore
from mets_ray.metrics.calibration import Calibrated
from mets_ray.metrics.intervals import Interval, interval_text
from mets_ray.metrics.single_label import SINGLE_LABEL_SCORES
from mets_ray.metrics.task_scores import TaskScore, mean_of_tasks
from mets_ray.results.export import PAPERS_COLUMNS, published_auroc
from mets_ray.results.page import Cell, Section, Table
from mets_ray.results.published import published
from mets_ray.results.values import ClassWordings, Evaluated, Retrieval

FEW_PATIENTS = 10
"""Below this many patients with a class, its AUROC rests on single people, and its interval is too narrow as well."""

FEW_PER_CLASS = 50
"""At this k, 5 classes and an accuracy of 0.7, the 95% interval is 6 points wide to each side; below, wider."""

WHY_NOT_ACCURACY = (
    "Do not compare accuracy with the paper: on a balanced set with one label each it equals macro recall, and the "
    "paper's does not (super 0.842 against 0.626), nor is it the mean one-vs-rest accuracy in all of its tables. "
    "Compare precision, recall and F1, as far as other records, another draw and another k allow."
)
NOT_ZERO_SHOT = (
    "Not zero-shot: these numbers were fitted on the labels of validation records. They belong to this prompt set in "
    "this version, and hold where classes are as frequent as in validation."
)


def overview(result: Evaluated) -> Iterator[Section]:
    """The scores beside baselines, another result, and what others published."""
    yield _summary(result)
    if result.comparisons:
        yield _comparison(result)
    if published_auroc(result):
        yield _published(result)


def task_section(task: TaskScore) -> Section:
    """One task's classes."""
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
            f"† fewer than {FEW_PATIENTS} patients have this class: neither value nor interval proves anything."
        )
    unscored = [f"{row.name} ({row.positives} positives)" for row in task.classes if not row.scored]
    if unscored:
        notes.append(f"Not scored (no positives or no negatives): {', '.join(unscored)}")
    header = ("class", "AUROC [95% interval]", "average precision", "positives", "patients")
    return Section(task.task, "\n\n".join(notes), (Table("", header, rows),))


def balanced_sections(balanced: Iterable[BalancedScore], seed: int) -> Iterator[Section]:
    """METS's tables; the first says why accuracy is not to be compared."""
    for number, score in enumerate(balanced):
        section = _balanced(score, seed)
        yield section if number else replace(section, text=f"{WHY_NOT_ACCURACY}\n\n{section.text}")


def calibration_section(task: str, found: Calibrated) -> Section:
    """Thresholds of each class, fitted on validation, and what they decide on the test records."""
    fitted, decisions = found.calibration, found.decisions
    rows = [
        (
            row.name,
            row.threshold,
            row.positives,
            row.validation_f1,
            test.precision,
            test.recall,
            test.f1,
            test.positives,
        )
        for row, test in zip(fitted.classes, decisions, strict=True)
    ]
    header = ("class", "threshold (cosine)", "validation positives", "validation F1", "test precision", "test recall",
              "test F1", "test positives")  # fmt: skip
    notes = [
        NOT_ZERO_SHOT,
        f"Prompt set {fitted.prompt_set} version {fitted.prompt_set_version}, {fitted.records:,} validation records. "
        f"Expected calibration error on the test records: {found.reliability.expected_calibration_error:.3f}. "
        "Validation F1 is too high for a result: the threshold was chosen by it.",
    ]
    turned = [row.name for row in fitted.classes if row.slope < 0.0]
    if turned:
        notes.append(
            f"Of {', '.join(turned)}, validation records with the class were LESS similar to its prompts than those "
            "without: do not use these thresholds."
        )
    return Section(f"{task}: calibrated decisions", "\n\n".join(notes), (Table("", header, rows),))


def wording_section(task: str, classes: dict[str, ClassWordings]) -> Section:
    """How the AUROC of each class hangs on its words."""
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
        "AUROC of each prompt alone, of the chosen prompt set and of those that the bundle holds. The best wording is "
        "named to show what the words do: one that is chosen by these test records is no result."
    )
    header = ("class", "wordings", "lowest", "highest", "spread", "best wording")
    return Section(f"{task}: how much hangs on the words", text, (Table("", header, rows),), collapsed=True)


def retrieval_section(found: Retrieval) -> Section:
    """Retrieval both ways, with what chance would give."""
    rows = [
        (f"recall at {k}", found.ecg_to_text[k], k / found.texts, found.text_to_ecg[k], found.chance_text_to_ecg[k])
        for k in found.ecg_to_text
    ]
    text = (
        f"{found.records:,} ECGs and their {found.texts:,} distinct reports; equal reports are one. The values fall as "
        "there are more to choose from, so they compare only with others of the same test records."
    )
    header = ("", "ECG → report", "chance", "report → ECG", "chance")
    shown = [(name, *(f"{value:.3f}" for value in values)) for name, *values in rows]
    return Section("Retrieval", text, (Table("", header, shown),))


def _summary(result: Evaluated) -> Section:
    tasks = [task.task for task in result.tasks]
    own: tuple[Cell, ...] = ("this bundle, zero-shot", *(interval_text(task.macro) for task in result.tasks))
    mean = [interval_text(mean_of_tasks(result.tasks))] if len(tasks) > 1 else []
    rows: list[Sequence[Cell]] = [(*own, *mean)]
    for name in dict.fromkeys(row.name for row in result.baselines):
        of = {row.task: row.macro for row in result.baselines if row.name == name}
        cells = [interval_text(of[task]) if task in of else None for task in tasks]
        values = [interval.value for interval in of.values() if interval.value == interval.value]
        rows.append((name, *cells, *([f"{sum(values) / len(values):.3f}" if values else None] if mean else ())))
    header = ("scored by", *tasks, *(["mean"] if mean else ()))
    text = f"Mean over tasks: {result.macro_auroc:.3f} ({result.over})"
    if result.baselines:
        text += "\n\nBelow this bundle: baselines on the same records, with what each learnt from in auroc.csv."
    return Section("Macro AUROC", text, (Table("", header, rows),))


def _comparison(result: Evaluated) -> Section:
    text = "Macro AUROC here less the other's, both on the same resampled patients: a difference where 0 is outside."
    rows = [(row.task, _signed(row.difference), row.records) for row in result.comparisons]
    header = ("task", "difference [95% interval]", "records")
    return Section(f"Difference to {result.compared_to}", text, (Table("", header, rows),))


def _published(result: Evaluated) -> Section:
    rows = published_auroc(result)
    measured = {task.task: interval_text(task.macro) for task in result.tasks}
    columns = list(dict.fromkeys([*measured, *(name for row in rows for name in row.macro)]))
    cells: list[Sequence[Cell]] = [("measured: this bundle", *(measured.get(column) for column in columns), None)]
    cells += [(f"published: {row.system}", *(row.macro.get(column) for column in columns), row.mean) for row in rows]
    text = (
        "Only the first row was measured here. The others are printed as published: trained on other data, scored on "
        "fold 10 of PTB-XL. `mean` is over the six sets of the literature, which were not all scored here.\n\n"
        "Read in: `paper` the source itself, `cited` another text that quotes it, `recalled` neither: check it before "
        "you quote it."
    )
    sources = [(row.system, row.reading, f"{row.source}{f' ({row.note})' if row.note else ''}") for row in rows]
    return Section(
        "Beside published zero-shot results",
        text,
        (Table("", ("system", *columns, "mean"), cells), Table("", ("system", "read in", "source"), sources)),
    )


def _balanced(score: BalancedScore, seed: int) -> Section:
    facts, name, classes = published(), score.set.name, score.set.classes
    rows = facts.balanced.get(name, ())
    of_paper = f" (the paper: {facts.balanced_per_class[name]})" if rows else ""
    drawn = f"{score.per_class * len(classes)} records of {score.patients} patients, drawn with seed {seed}"
    available = ", ".join(f"{class_name} {count}" for class_name, count in zip(classes, score.available, strict=True))
    notes = [
        f"k = {score.per_class} of each of {', '.join(classes)}{of_paper}; {drawn}. One label each, the highest "
        "similarity decides.",
        f"Records with exactly one of these classes: {available}.",
    ]
    if score.per_class == 0:
        notes.append("Not scored: a class has no such record, and a balanced set needs all.")
    elif score.per_class < FEW_PER_CLASS:
        notes.append(f"k is only {score.per_class}: the intervals say how little this proves.")
    if rows:
        notes.append(f"Published rows: {facts.balanced_source}.")
    cells: list[Sequence[Cell]] = [
        (
            "measured: this bundle",
            *(interval_text(score.scores[key]) if score.per_class else None for key in SINGLE_LABEL_SCORES),
        )
    ]
    cells += [
        (
            f"published: {row.name}",
            *(getattr(row, PAPERS_COLUMNS[key]) if key in PAPERS_COLUMNS else None for key in SINGLE_LABEL_SCORES),
        )
        for row in rows
    ]
    header = ("from", "accuracy", "mean one-vs-rest accuracy", "macro precision", "macro recall", "macro F1")
    return Section(f"METS's balanced table: {name}", "\n\n".join(notes), (Table("", header, cells),))


def _signed(interval: Interval) -> str:
    return f"{interval.value:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"
