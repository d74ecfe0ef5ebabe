"""Pictures of classes as PNG bytes: their scores with intervals, their confusions, and the reliability of both."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int

from mets_ray.errors import MetsError
from mets_ray.metrics.reliability import Reliability
from mets_ray.pictures.figure import COLOURS, GREY, GRID, INK, SCREEN_DPI, figure_titled, plain, png_bytes

_FEW_ENTRIES = 20


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
        axes.annotate("chance", (chance, 1.0), (3, 2), xycoords=place, textcoords="offset points", color=GREY, size=8)
    for place_down, name in enumerate(order):
        value, low, high = rows[name]
        if math.isfinite(low) and math.isfinite(high):
            axes.plot([low, high], [place_down, place_down], color=COLOURS[0], linewidth=1.6, alpha=0.6)
        if math.isfinite(value):
            axes.plot(value, place_down, "o", color=COLOURS[0], markersize=5)
        axes.annotate(
            _interval_text(value, low, high), (1.02, place_down), xycoords=("axes fraction", "data"), va="center",
            fontsize=9, color=INK if math.isfinite(value) else GREY,
        )  # fmt: skip
    axes.set(xlabel=f"{label}, 95% interval", xlim=(left, right), ylim=(len(order) - 0.4, -0.6))
    axes.set_yticks(range(len(order)), order, fontsize=9, parse_math=False)
    axes.tick_params(axis="y", length=0)
    plain(axes)
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
    axes.grid(which="minor", color=GRID, linewidth=0.6)
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
        plain(axes)
    return png_bytes(figure, SCREEN_DPI)


def _interval_text(value: float, low: float, high: float) -> str:
    if math.isnan(value):
        return "not scored"
    return f"{value:.3f}" + ("" if math.isnan(low) or math.isnan(high) else f"  [{low:.3f}, {high:.3f}]")
