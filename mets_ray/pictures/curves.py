"""Pictures of thresholds as PNG bytes: ROC curves, and precision over recall."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_curve

from mets_ray.errors import MetsError
from mets_ray.metrics.intervals import interval_text
from mets_ray.metrics.similarities import TaskSimilarities
from mets_ray.metrics.task_scores import TaskScore
from mets_ray.pictures.figure import (
    COLOURS,
    GREY,
    SCREEN_DPI,
    STYLES,
    figure_titled,
    number_text,
    plain,
    png_bytes,
)

_MOST_CURVES_TOGETHER = 6


def draw_roc(curves: Mapping[str, tuple[Float[np.ndarray, "_"], Float[np.ndarray, "_"], float]], title: str) -> bytes:
    """ROC curves of all classes, {class: (false positive rate, true positive rate, AUROC)}; best first in the legend.

    Readable up to 24 classes: 6 colours times 4 line styles. A class whose AUROC is nan is in the legend only.
    Raises MetsError without any class.
    """
    if not curves:
        raise MetsError("there is no class to draw")
    figure = figure_titled(8.6, 6.2, title)
    axes = figure.subplots()
    axes.plot([0.0, 1.0], [0.0, 1.0], color="#888888", linewidth=1.0, linestyle=(0, (1, 3)))
    order = sorted(curves, key=lambda name: -math.inf if math.isnan(curves[name][2]) else curves[name][2], reverse=True)
    for position, name in enumerate(order):
        false_positive_rate, true_positive_rate, auroc = curves[name]
        missing = math.isnan(auroc)
        axes.plot(
            [] if missing else false_positive_rate,
            [] if missing else true_positive_rate,
            color=COLOURS[position % len(COLOURS)],
            linestyle=STYLES[position // len(COLOURS) % len(STYLES)],
            linewidth=1.5,
            # A leading underscore hides a label from matplotlib's legend, and PTB-XL has the class _AVB.
            label=f"{number_text(auroc)}  {name}",
        )
    axes.set(xlabel="False positive rate", ylabel="True positive rate", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.set_aspect("equal")
    plain(axes)
    legend = axes.legend(
        loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0.0, frameon=False, fontsize=9, handlelength=3.0,
        title="AUROC  class", alignment="left",
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
    return png_bytes(figure, SCREEN_DPI)


def roc_picture(score: TaskScore, scores: TaskSimilarities, *, synthetic: bool) -> bytes:
    """A PNG with one curve for each class that can be scored."""
    curves = {}
    for column, row in enumerate(score.classes):
        if row.scored:
            false_positive, true_positive, _ = roc_curve(scores.truth[:, column], scores.similarity[:, column])
            curves[row.name] = (false_positive, true_positive, row.auroc.value)
    macro = f"macro AUROC {interval_text(score.macro)}"
    if not curves:  # then the legend names them all
        macro = "no class has ECGs with and without it"
        curves = {row.name: (np.zeros(0), np.zeros(0), math.nan) for row in score.classes}
    suffix = " (SYNTHETIC data)" if synthetic else ""
    return draw_roc(curves, f"{score.task}: zero-shot, {macro}{suffix}")


class PrecisionRecall(NamedTuple):
    """One class's curve as scikit-learn gives it, recall descending; `prevalence` is the precision of a guess."""

    recall: Float[np.ndarray, "point"]
    precision: Float[np.ndarray, "point"]
    average_precision: float
    prevalence: float


def precision_recall_curves(
    scores: Float[np.ndarray, "record class"], truth: Bool[np.ndarray, "record class"], classes: Sequence[str]
) -> dict[str, PrecisionRecall]:
    """For `draw_precision_recall`. A class without positives or negatives has no points, and nan for its numbers."""
    curves = {}
    for name, score, present in zip(classes, scores.T, truth.T, strict=True):
        if present.any() and not present.all():
            precision, recall, _ = precision_recall_curve(present, score)
            average = float(average_precision_score(present, score))
            curves[name] = PrecisionRecall(recall, precision, average, float(present.mean()))
        else:
            curves[name] = PrecisionRecall(np.zeros(0), np.zeros(0), math.nan, math.nan)
    return curves


def draw_precision_recall(curves: Mapping[str, PrecisionRecall], title: str) -> bytes:
    """Precision over recall by class, highest average precision first; dotted: precision of a guess, the prevalence.

    Up to 6 classes share one panel. More have a small panel each, since each class has its own chance line and so
    many curves in one panel cannot be told apart. A class whose average precision is nan is named and has no curve.
    Raises MetsError without any class.
    """
    if not curves:
        raise MetsError("there is no class to draw")
    order = sorted(curves, key=lambda name: (-np.nan_to_num(curves[name].average_precision, nan=-1.0), name))
    if len(order) > _MOST_CURVES_TOGETHER:
        return _precision_recall_panels(curves, order, title)
    figure = figure_titled(8.6, 5.6, title)
    axes = figure.subplots()
    for name, colour in zip(order, COLOURS, strict=False):
        curve = curves[name]
        # A leading underscore hides a label from matplotlib's legend, and PTB-XL has the class _AVB.
        label = f"{number_text(curve.average_precision)}  {name}"
        axes.plot(*_without_spike(curve), color=colour, linewidth=1.5, drawstyle="steps-post", label=label)
        axes.axhline(curve.prevalence, color=colour, linewidth=1.0, linestyle=(0, (1, 2)))
    axes.set(xlabel="Recall", ylabel="Precision", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.set_aspect("equal")
    plain(axes)
    legend = axes.legend(
        loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0.0, frameon=False, fontsize=9,
        title="Average precision  class\n(dotted: prevalence)", alignment="left", title_fontsize=9,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
    return png_bytes(figure, SCREEN_DPI)


def _precision_recall_panels(curves: Mapping[str, PrecisionRecall], order: Sequence[str], title: str) -> bytes:
    columns = 6 if len(order) > 12 else 4
    rows = math.ceil(len(order) / columns)
    figure = figure_titled(1.75 * columns, 0.9 + 1.75 * rows, title)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes in panels[len(order) :]:
        axes.set_axis_off()
    for position, (axes, name) in enumerate(zip(panels, order, strict=False)):
        curve = curves[name]
        axes.plot(*_without_spike(curve), color=COLOURS[0], linewidth=1.3, drawstyle="steps-post")
        axes.axhline(curve.prevalence, color=GREY, linewidth=1.0, linestyle=(0, (1, 2)))
        short = name if len(name) <= 16 else name[:15] + "…"
        axes.set_title(f"{short}  {number_text(curve.average_precision)}", fontsize=9, loc="left", parse_math=False)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        axes.set_xticklabels(["0", "0.5", "1"])
        axes.set_yticklabels(["0", "0.5", "1"])
        axes.tick_params(labelsize=8, labelbottom=position + columns >= len(order))
        plain(axes)
    figure.supxlabel("Recall      (number: average precision; dotted: prevalence)", fontsize=9)
    figure.supylabel("Precision", fontsize=9)
    return png_bytes(figure, SCREEN_DPI)


def _without_spike(curve: PrecisionRecall) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision; without the points of recall 0, which would be a meaningless line along the axis."""
    found = curve.recall > 0.0
    recall, precision = curve.recall[found], curve.precision[found]
    return np.append(recall, np.zeros(min(len(recall), 1))), np.append(precision, precision[-1:])
