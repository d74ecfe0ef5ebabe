"""The picture of what labels add to zero-shot: macro AUROC by number of labels per class, a panel for each task."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mets_ray.errors import MetsError
from mets_ray.metrics.label_curve import ZERO_SHOT, CurvePoint
from mets_ray.pictures.figure import COLOURS, GREY, INK, SCREEN_DPI, figure_titled, plain, png_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = "osD^v"
_PANELS_IN_A_ROW = 2


def draw_label_curve(points: Sequence[CurvePoint], title: str) -> bytes:
    """One line per method with 95% intervals; dashed: zero-shot, which has no labels. Raises MetsError without points.

    The numbers of labels are equally spaced: they grow about as a power.
    """
    if not points:
        raise MetsError("there is no point to draw")
    tasks = list(dict.fromkeys(point.task for point in points))
    rows, columns = math.ceil(len(tasks) / _PANELS_IN_A_ROW), min(len(tasks), _PANELS_IN_A_ROW)
    figure = figure_titled(6.0 * columns + 0.6, 0.9 + 3.6 * rows, title)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    methods = list(dict.fromkeys(point.method for point in points if point.method != ZERO_SHOT))
    for axes in panels[len(tasks) :]:
        axes.set_axis_off()
    for axes, task in zip(panels, tasks, strict=False):
        _panel(axes, [point for point in points if point.task == task], methods)
        axes.set_title(task, fontsize=10, loc="left", parse_math=False)
    handles = {label: line for axes in panels for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", frameon=False, fontsize=9, ncols=len(handles)
    )
    return png_bytes(figure, SCREEN_DPI)


def _panel(axes: "Axes", points: Sequence[CurvePoint], methods: Sequence[str]) -> None:
    numbers = sorted({point.labels_per_class for point in points}, key=_order)
    place = {number: position for position, number in enumerate(numbers)}
    for point in points:
        if point.method == ZERO_SHOT:
            axes.axhline(point.macro.value, color=GREY, linewidth=1.0, linestyle="--")
            axes.errorbar(
                place[0], point.macro.value, yerr=_bars([point]), color=INK, marker="*", markersize=10, capsize=3,
                linestyle="none", label=ZERO_SHOT,
            )  # fmt: skip
    for position, method in enumerate(methods):
        of = sorted((one for one in points if one.method == method), key=lambda one: _order(one.labels_per_class))
        if not of:
            continue
        # A little apart, so that intervals of several methods do not hide each other.
        x = [place[one.labels_per_class] + 0.08 * (position - (len(methods) - 1) / 2) for one in of]
        axes.errorbar(
            x, [one.macro.value for one in of], yerr=_bars(of), color=COLOURS[position % len(COLOURS)],
            marker=_MARKERS[position % len(_MARKERS)], markersize=5, linewidth=1.5, capsize=3, label=method,
        )  # fmt: skip
    axes.set_xticks(range(len(numbers)), ["all" if number is None else str(number) for number in numbers])
    axes.set(xlabel="Labels per class", ylabel="Macro AUROC", xlim=(-0.4, len(numbers) - 0.6))
    plain(axes)


def _bars(points: Sequence[CurvePoint]) -> list[list[float]]:
    """How far the interval of each point reaches below and above it; 0 where it is not defined."""
    sides = [(one.macro.value - one.macro.low, one.macro.high - one.macro.value) for one in points]
    return [[max(0.0, side) if math.isfinite(side) else 0.0 for side in of] for of in zip(*sides, strict=True)]


def _order(number: int | None) -> float:
    return math.inf if number is None else number
