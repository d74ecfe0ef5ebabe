"""Pictures of an evaluation as PNG bytes: precision and recall, scores by class, confusions, reliability, a map."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_curve

from mets_ray.errors import MetsError
from mets_ray.metrics.calibration import Reliability
from mets_ray.metrics.intervals import interval_text
from mets_ray.metrics.similarities import TaskSimilarities
from mets_ray.metrics.task_scores import TaskScore
from mets_ray.pictures.figure import COLOURS, INK, SCREEN_DPI, STYLES, figure_titled, png_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_MAP_RECORDS = 2000
"""`embedding_map` takes no more: time grows faster than the number of records."""

MOST_MAP_GROUPS = 12
"""Groups of `draw_embedding_map` with a colour of their own."""

_MOST_CURVES_TOGETHER = 6
_GREY, _GRID = "#666666", "#e5e5e5"
_MARKERS = ("o", "^")
_FEW_ENTRIES = 20
_FEWEST_FOR_TSNE = 10
_COLLAPSED = 1e-9


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
        label = f"{_number(curve.average_precision)}  {name}"
        axes.plot(*_without_spike(curve), color=colour, linewidth=1.5, drawstyle="steps-post", label=label)
        axes.axhline(curve.prevalence, color=colour, linewidth=1.0, linestyle=(0, (1, 2)))
    axes.set(xlabel="Recall", ylabel="Precision", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.set_aspect("equal")
    _plain(axes)
    legend = axes.legend(
        loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0.0, frameon=False, fontsize=9,
        title="Average precision  class\n(dotted: prevalence)", alignment="left", title_fontsize=9,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
    return png_bytes(figure, SCREEN_DPI)


def draw_class_bars(
    rows: Mapping[str, tuple[float, float, float]], title: str, *, label: str = "AUROC", chance: float | None = 0.5
) -> bytes:
    """A dot and its interval by name, {name: (value, low, high)}, best first, with the numbers beside it.

    An interval of nan is not drawn; a value of nan comes last, as not scored. `chance` None draws no chance line.
    Raises MetsError without any row.
    """
    if not rows:
        raise MetsError("there is no class to draw")
    order = sorted(rows, key=lambda name: (-np.nan_to_num(rows[name][0], nan=-math.inf), name))
    figure = figure_titled(8.0, 1.5 + 0.24 * len(order), title)
    axes = figure.subplots()
    drawn = [number for row in rows.values() for number in row if math.isfinite(number)]
    lowest = min([*drawn, 1.0 if chance is None else chance])
    left, right = lowest - 0.04, max([*drawn, 0.6]) + 0.02
    if chance is not None:
        axes.axvline(chance, color="#888888", linestyle="--", linewidth=1.0, zorder=1)
        place = ("data", "axes fraction")
        axes.annotate("chance", (chance, 1.0), (3, 2), xycoords=place, textcoords="offset points", color=_GREY, size=8)
    for place_down, name in enumerate(order):
        value, low, high = rows[name]
        if math.isfinite(low) and math.isfinite(high):
            axes.plot([low, high], [place_down, place_down], color=COLOURS[0], linewidth=1.6, alpha=0.6)
        if math.isfinite(value):
            axes.plot(value, place_down, "o", color=COLOURS[0], markersize=5)
        axes.annotate(
            _interval_text(value, low, high), (1.02, place_down), xycoords=("axes fraction", "data"), va="center",
            fontsize=9, color=INK if math.isfinite(value) else _GREY,
        )  # fmt: skip
    axes.set(xlabel=f"{label}, 95% interval", xlim=(left, right), ylim=(len(order) - 0.4, -0.6))
    axes.set_yticks(range(len(order)), order, fontsize=9, parse_math=False)
    axes.tick_params(axis="y", length=0)
    _plain(axes)
    axes.spines["left"].set_visible(False)
    return png_bytes(figure, SCREEN_DPI)


def draw_confusion(confusion: Int[np.ndarray, "truth prediction"], classes: Sequence[str], title: str) -> bytes:
    """Counts of truth by prediction, shaded by share of the true class; cells of 0 are left blank.

    Up to 12 classes the share stands below the count; the picture grows with more. A true class without records has
    a blank row. Raises MetsError where the matrix does not fit the classes, or there are none.
    """
    size = len(classes)
    if confusion.shape != (size, size) or size == 0:
        raise MetsError(f"a confusion of {confusion.shape} for {size} classes")
    few = size <= 12
    side = max(4.6, size * (0.78 if few else 0.3) + 1.6)
    figure = figure_titled(side + 0.9, side, title)
    axes = figure.subplots()
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(share, cmap="Blues", vmin=0.0, vmax=1.0)
    for row, column in zip(*np.nonzero(confusion), strict=True):
        count = int(confusion[row, column])
        axes.text(
            column, row, f"{count:,}\n{share[row, column]:.0%}" if few else f"{count}", ha="center", va="center",
            fontsize=9 if few else 6, color="white" if share[row, column] > 0.55 else INK,
        )  # fmt: skip
    font_size = 9 if few else 8
    axes.set_xticks(range(size), classes, rotation=0 if size <= 6 else 90, parse_math=False, fontsize=font_size)
    axes.set_yticks(range(size), classes, parse_math=False, fontsize=font_size)
    axes.set(xlabel="Predicted", ylabel="Truth")
    axes.set_xticks(np.arange(-0.5, size), minor=True)
    axes.set_yticks(np.arange(-0.5, size), minor=True)
    axes.grid(which="minor", color=_GRID, linewidth=0.6)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=30, pad=0.02)
    bar.set_label("Share of the true class", fontsize=9)
    bar.outline.set_visible(False)
    return png_bytes(figure, SCREEN_DPI)


def draw_reliability(found: Reliability, title: str) -> bytes:
    """Observed share over mean probability by bin, and below it the bins' counts on a logarithmic scale.

    Hollow marks rest on fewer than 20 entries. No intervals: entries of one record, and of one patient, go together.
    Without any entry the panels are empty and say so.
    """
    figure = figure_titled(5.8, 6.4, title)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1.0))
    above.plot([0.0, 1.0], [0.0, 1.0], color="#888888", linestyle="--", linewidth=1.0)
    filled = found.count > 0
    above.plot(found.mean_predicted[filled], found.observed_share[filled], color=COLOURS[0], linewidth=1.2, alpha=0.6)
    for rows, colour in ((filled & (found.count < _FEW_ENTRIES), "white"), (found.count >= _FEW_ENTRIES, COLOURS[0])):
        above.plot(
            found.mean_predicted[rows], found.observed_share[rows], "o", color=COLOURS[0], markerfacecolor=colour
        )
    error = found.expected_calibration_error
    said = f"expected calibration error {error:.3f}" if filled.any() else "no calibrated class"
    above.text(0.03, 0.96, said, transform=above.transAxes, va="top", color=INK)
    above.set(ylabel="Observed share", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    below.bar(found.edges[:-1], found.count, np.diff(found.edges), align="edge", color="#9fb6c3", edgecolor="white")
    if filled.any():
        below.set_yscale("log")
        below.set_ylim(0.7, found.count.max() * 2.5)
    below.set(xlabel="Mean predicted probability", ylabel="Entries")
    for axes in (above, below):
        _plain(axes)
    return png_bytes(figure, SCREEN_DPI)


def map_rows(records: int, seed: int) -> Int[np.ndarray, "drawn"]:
    """Rows, ascending, for `embedding_map`: all, or `MOST_MAP_RECORDS` of them drawn by `seed`."""
    if records <= MOST_MAP_RECORDS:
        return np.arange(records)
    return np.sort(np.random.default_rng(seed).choice(records, MOST_MAP_RECORDS, replace=False))


def embedding_map(embeddings: Float[np.ndarray, "record dimension"], seed: int) -> Float[np.ndarray, "record 2"]:
    """t-SNE in 2 dimensions, after principal components down to 50; the same for the same embeddings and seed.

    Neighbours mean something, distances between groups and sizes of groups nothing. Distances are Euclidean, which for
    embeddings of length 1 rank as cosines do. Below 10 records the map is the first two principal components instead,
    and equal embeddings, as of a collapsed encoder, all lie at 0.

    Raises MetsError for more than `MOST_MAP_RECORDS` records, none, and embeddings that are not finite.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    records = len(embeddings)
    if not 0 < records <= MOST_MAP_RECORDS:
        raise MetsError(f"a map of {records} records, not 1 to {MOST_MAP_RECORDS}", hint="draw some with `map_rows`")
    if not np.isfinite(embeddings).all():
        raise MetsError(f"{int((~np.isfinite(embeddings)).sum())} values of `embeddings` are not finite")
    if np.ptp(embeddings, axis=0).max(initial=0.0) < _COLLAPSED:  # t-SNE divides by their deviation, and fails
        return np.zeros((records, 2))
    components = min(50, *embeddings.shape)
    reduced = PCA(components, svd_solver="full").fit_transform(embeddings.astype(np.float64))
    if components < 2:
        reduced = np.pad(reduced, ((0, 0), (0, 2 - components)))
    if records < _FEWEST_FOR_TSNE:
        return np.asarray(reduced[:, :2])
    # One thread: the order of its sums, and with it the map, would follow from the number of cores.
    model = TSNE(perplexity=min(30.0, (records - 1) / 3), init="pca", random_state=seed, n_jobs=1)
    return np.asarray(model.fit_transform(reduced), dtype=np.float64)


def draw_embedding_map(
    points: Float[np.ndarray, "record 2"], groups: Sequence[str], title: str, *, muted: Sequence[str] = ()
) -> bytes:
    """Records as points coloured by group, the most frequent group first in the legend, rare ones drawn on top.

    The 12 most frequent groups have a colour and mark of their own; all others are grey: nobody can tell 38 colours
    apart. Groups in `muted` are grey rings, below all others.
    Raises MetsError where there is no point, or another number of groups.
    """
    if len(points) != len(groups) or len(points) == 0:
        raise MetsError(f"{len(points)} points for {len(groups)} groups; both need the same number, not 0")
    figure = figure_titled(8.6, 6.2, title)
    axes = figure.subplots()
    of_record = np.array(groups, dtype=object)
    counts = Counter(groups)
    frequency = sorted(
        ((name, count) for name, count in counts.items() if name not in muted), key=lambda item: (-item[1], item[0])
    )
    others = [name for name, _ in frequency[MOST_MAP_GROUPS:]]
    size = float(np.clip(28000.0 / len(points), 14.0, 40.0))
    for name, colour in zip([name for name in muted if name in counts], ("#8a8a8a", "#c4c4c4"), strict=False):
        rows = of_record == name
        axes.scatter(
            points[rows, 0], points[rows, 1], s=size * 0.7, facecolors="none", edgecolors=colour, linewidths=0.9,
            label=f"{_count(counts[name])}  {name}",
        )  # fmt: skip
    quiet = len(axes.collections)
    if others:
        rows = np.isin(of_record, others)
        label = f"{_count(int(rows.sum()))}  other ({len(others)} groups)"
        axes.scatter(points[rows, 0], points[rows, 1], s=size * 0.7, color="#bbbbbb", linewidths=0, label=label)
    for position, (name, count) in enumerate(frequency[:MOST_MAP_GROUPS]):
        rows = of_record == name
        colour, marker = COLOURS[position % len(COLOURS)], _MARKERS[position // len(COLOURS)]
        axes.scatter(
            points[rows, 0], points[rows, 1], s=size, color=colour, marker=marker, alpha=0.75, linewidths=0,
            label=f"{_count(count)}  {name}",
        )  # fmt: skip
    handles, labels = axes.get_legend_handles_labels()
    quiet += bool(others)  # drawn first, below all, and named last
    handles, labels = [*handles[quiet:], *handles[:quiet][::-1]], [*labels[quiet:], *labels[:quiet][::-1]]
    legend = axes.legend(
        handles, labels, loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0.0, frameon=False, fontsize=9,
        title="Records  group", alignment="left", markerscale=1.6,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
    axes.set(xticks=[], yticks=[])
    axes.set_aspect("equal", adjustable="datalim")
    axes.spines[:].set_color("#cccccc")
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
        axes.axhline(curve.prevalence, color=_GREY, linewidth=1.0, linestyle=(0, (1, 2)))
        short = name if len(name) <= 16 else name[:15] + "…"
        axes.set_title(f"{short}  {_number(curve.average_precision)}", fontsize=9, loc="left", parse_math=False)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        axes.set_xticklabels(["0", "0.5", "1"])
        axes.set_yticklabels(["0", "0.5", "1"])
        axes.tick_params(labelsize=8, labelbottom=position + columns >= len(order))
        _plain(axes)
    figure.supxlabel("Recall      (number: average precision; dotted: prevalence)", fontsize=9)
    figure.supylabel("Precision", fontsize=9)
    return png_bytes(figure, SCREEN_DPI)


def _without_spike(curve: PrecisionRecall) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision; without the points of recall 0, which would be a meaningless line along the axis."""
    found = curve.recall > 0.0
    recall, precision = curve.recall[found], curve.precision[found]
    return np.append(recall, np.zeros(min(len(recall), 1))), np.append(precision, precision[-1:])


def _plain(axes: "Axes") -> None:
    axes.grid(color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _number(value: float) -> str:
    # Figure spaces: as wide as the five characters of a number.
    return "\u2007\u2007–\u2007\u2007" if math.isnan(value) else f"{value:.3f}"


def _count(number: int) -> str:
    return f"{number:>5,}".replace(" ", "\u2007")  # figure spaces: as wide as a digit


def _interval_text(value: float, low: float, high: float) -> str:
    if math.isnan(value):
        return "not scored"
    return f"{value:.3f}" + ("" if math.isnan(low) or math.isnan(high) else f"  [{low:.3f}, {high:.3f}]")


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
            label=f"{_number(auroc)}  {name}",
        )
    axes.set(xlabel="False positive rate", ylabel="True positive rate", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.set_aspect("equal")
    axes.grid(color="#e5e5e5", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
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
    suffix = " (SYNTHETIC data)" if synthetic else ""
    return draw_roc(curves, f"{score.task}: zero-shot, macro AUROC {interval_text(score.macro)}{suffix}")
