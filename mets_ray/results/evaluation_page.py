"""The evaluation page: its sections and pictures, in the order in which a reader needs them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float

from mets_ray.metrics.extremes import Example
from mets_ray.metrics.similarities import TaskSimilarities
from mets_ray.metrics.task_scores import TaskScore
from mets_ray.pictures.classes import draw_class_bars, draw_confusion, draw_reliability
from mets_ray.pictures.curves import draw_precision_recall, precision_recall_curves
from mets_ray.pictures.ecg import Shading, draw_ecg
from mets_ray.pictures.embedding_map import draw_embedding_map
from mets_ray.pictures.figure import palette_png
from mets_ray.pictures.label_curve import draw_label_curve
from mets_ray.results import calibration_drift_section, subgroup_section
from mets_ray.results.label_curve import label_curve_section
from mets_ray.results.page import Page, Picture, Section, Table
from mets_ray.results.sections import (
    balanced_sections,
    calibration_section,
    lead_sets_section,
    overview,
    retrieval_section,
    task_section,
    wording_section,
)
from mets_ray.results.values import Evaluated

_SEVERAL, _NONE = "several of these", "none of these"


@dataclass(frozen=True)
class Drawn:
    """Data for the pictures: similarities and ROC curves by task, an embedding map, and example ECGs.

    `map_rows` are row numbers in `record_ids`, `map_points` their positions on the map. `signals_uv` holds
    [lead, sample] in µV by record id, `shadings` what carries the class of an example, by task and record id.
    `label_curve`: from `draw_curve`.
    """

    scores: Mapping[str, TaskSimilarities]
    roc_pictures: Mapping[str, bytes]
    record_ids: Sequence[str]
    map_rows: np.ndarray
    map_points: Float[np.ndarray, "drawn 2"]
    examples: Sequence[Example]
    signals_uv: Mapping[str, np.ndarray]
    leads: Sequence[str]
    sampling_rate_hz: int
    synthetic: bool
    shadings: Mapping[tuple[str, str], Shading] = field(default_factory=dict)
    label_curve: bytes | None = None


def tables_page(result: Evaluated, title: str, seed: int, data_notes: Sequence[str] = ()) -> Page:
    """The tables only, for the terminal. data_notes: how the data were read (`DatasetCard.notes`)."""
    sections = [
        *overview(result),
        *_label_curve(result),
        *map(task_section, result.tasks),
        *balanced_sections(result.balanced, seed),
    ]
    sections += [calibration_section(task, found) for task, found in result.calibrated.items()]
    sections += [*_groups_and_drift(result), *_last_tables(result)]
    return Page(title, result.notices, result.alarms, {}, [*sections, *_data(data_notes)])


def evaluation_page(
    result: Evaluated, drawn: Drawn, title: str, facts: Mapping[str, str], seed: int, data_notes: Sequence[str] = ()
) -> Page:
    """The full page: tables, wordings, examples and pictures."""
    suffix = " (SYNTHETIC data)" if drawn.synthetic else ""
    sections = [*overview(result), *_label_curve(result, drawn.label_curve)]
    for task in result.tasks:
        pictures = _task_pictures(task, drawn, suffix)
        sections.append(replace(task_section(task), pictures=tuple(pictures)))
    for section, score in zip(balanced_sections(result.balanced, seed), result.balanced, strict=True):
        if score.per_class:
            name = score.set.name
            confusion = draw_confusion(score.confusion, score.set.classes, f"Balanced table {name}{suffix}")
            section = replace(
                section, pictures=(_picture(confusion, f"Confusion matrix of the balanced table {name}"),)
            )
        sections.append(section)
    for task_name, found in result.calibrated.items():
        picture = draw_reliability(found.reliability, f"{task_name}: calibrated on validation, test records{suffix}")
        alt = f"Reliability diagram of {task_name}: observed share by predicted probability"
        sections.append(replace(calibration_section(task_name, found), pictures=(_picture(picture, alt),)))
    sections += _groups_and_drift(result, suffix)
    sections += [wording_section(task_name, dict(classes)) for task_name, classes in result.wordings.items()]
    sections += _last_tables(result)
    if drawn.examples:
        sections.append(_examples(drawn, suffix))
    return Page(title, result.notices, result.alarms, facts, [*sections, *_data(data_notes)])


def _groups_and_drift(result: Evaluated, suffix: str | None = None) -> Iterator[Section]:
    """suffix: of the pictures' titles; None for tables only."""
    if result.subgroups.scores:
        section = subgroup_section.subgroups_section(result.subgroups)
        tasks = {task.task: task for task in result.tasks}
        yield section if suffix is None else subgroup_section.with_pictures(section, result.subgroups, tasks, suffix)
    if checks := result.calibration_drift:
        section = calibration_drift_section.calibration_drift_section(checks)
        yield section if suffix is None else calibration_drift_section.with_pictures(section, checks, suffix)


def draw_curve(result: Evaluated, *, synthetic: bool) -> bytes | None:
    """The picture of the curve by labels per class; None where there is none."""
    if not result.label_curve:
        return None
    return draw_label_curve(result.label_curve, f"Zero-shot and few labels{' (SYNTHETIC data)' if synthetic else ''}")


def _label_curve(result: Evaluated, curve: bytes | None = None) -> Iterator[Section]:
    if result.label_curve:
        alt = "Macro AUROC by number of labels per class, for each task and method"
        pictures = () if curve is None else (_picture(curve, alt, "Bars: 95% intervals over patients and draws."),)
        yield replace(label_curve_section(result.label_curve), pictures=pictures)


def _last_tables(result: Evaluated) -> Iterator[Section]:
    if result.lead_sets:
        yield lead_sets_section(result.lead_sets)
    if result.retrieval is not None:
        yield retrieval_section(result.retrieval)


def _picture(png: bytes, alt: str, caption: str = "") -> Picture:
    return Picture(palette_png(png), alt, caption)


def _data(notes: Sequence[str]) -> Iterator[Section]:
    if notes:
        yield Section("How the data were read", "\n".join(f"{note[0].upper()}{note[1:]}." for note in notes))


def map_groups(scores: TaskSimilarities, record_ids: Sequence[str]) -> list[str]:
    """For each record its class, or a label for records with several classes or none."""
    row_of = {name: row for row, name in enumerate(scores.record_ids)}
    groups = []
    for name in record_ids:
        columns = np.flatnonzero(scores.truth[row_of[name]]).tolist() if name in row_of else []
        groups.append(_SEVERAL if len(columns) > 1 else scores.classes[columns[0]] if columns else _NONE)
    return groups


def _task_pictures(task: TaskScore, drawn: Drawn, suffix: str) -> Iterator[Picture]:
    scores, name = drawn.scores[task.task], task.task
    bars = {row.name: (row.auroc.value, row.auroc.low, row.auroc.high) for row in task.classes}
    yield _picture(
        draw_class_bars(bars, f"{name}: AUROC by class{suffix}"), f"AUROC of each class of {name}, best first"
    )
    yield _picture(drawn.roc_pictures[name], f"ROC curves of {name} by class")
    curves = precision_recall_curves(scores.similarity, scores.truth, scores.classes)
    yield _picture(
        draw_precision_recall(curves, f"{name}: precision and recall{suffix}"), f"Precision-recall curves of {name}"
    )
    groups = map_groups(scores, [drawn.record_ids[row] for row in drawn.map_rows])
    yield _picture(
        draw_embedding_map(
            drawn.map_points, groups, muted=(_SEVERAL, _NONE), title=f"ECG embeddings by class of {name}{suffix}"
        ),
        f"Map of ECG embeddings coloured by the classes of {name}",
        f"t-SNE of {len(groups):,} test ECGs. Only neighbourhoods are meaningful; distances between groups and the "
        "sizes of groups are not.",
    )


def _examples(drawn: Drawn, suffix: str) -> Section:
    header = ("ECG", "task", "class", "less similar ECGs without the class", "cosine", "its classes")
    rows, pictures = [], []
    for example in drawn.examples:
        share = f"{100 * example.outranked:.1f}%"
        rows.append(
            (f"{example.kind}: {example.record_id}", example.task, example.class_name, share, example.similarity,
             ", ".join(example.classes))
        )  # fmt: skip
        of = f"{example.record_id}, {example.class_name} ({example.task})"
        title = f"{example.kind}: {of}, above {share} of the ECGs without it{suffix}"
        shading = drawn.shadings.get((example.task, example.record_id))
        signal_uv = drawn.signals_uv[example.record_id]
        picture = draw_ecg(signal_uv, drawn.leads, drawn.sampling_rate_hz, title, shading=shading)
        pictures.append(
            _picture(picture, f"12-lead ECG of record {example.record_id}, {example.kind} of {example.task}")
        )
    text = (
        "For each task, the ECGs that rank highest and lowest against all ECGs without their class. 100% is a perfect "
        "rank; 0% is the worst possible one, and often points to a wrong label. These are patients' ECGs; handle this "
        "page as such."
    )
    if drawn.shadings:
        text += (
            "\n\nBlue parts carry the class: without them the cosine falls. Orange ones speak against it: without them "
            "it rises. Each lead is taken away for half a second at a time (a twentieth of windows above 10 s), alone "
            "and with those that look at the same wall of the heart."
        )
    return Section("The best and the worst ECGs", text, (Table("", header, rows),), pictures)
