"""Pictures of distributions as PNG bytes: histograms beside each other, and a range for each lead."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from mets_ray.errors import MetsError
from mets_ray.pictures.figure import COLOURS, INK, SCREEN_DPI, figure_titled, plain, png_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BARS = "#9fb6c3"
_MOST_BESIDE = 3
_MOST_TICKS = 9


@dataclass(frozen=True)
class Histogram:
    """Counts by bin; `bound` is drawn as a line. The axis is logarithmic if the edges are."""

    label: str
    counts: Int[np.ndarray, " bin"]
    edges: Float[np.ndarray, " edge"]
    bound: float | None = None


def draw_histograms(panels: Sequence[Histogram], title: str) -> bytes:
    """The panels beside each other, up to three in a row, each with the bins that hold something and its bound.

    Raises MetsError without a panel.
    """
    if not panels:
        raise MetsError("there is no distribution to draw")
    columns = min(_MOST_BESIDE, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = figure_titled(8.6, 0.7 + 2.3 * rows, title)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw_panel(axes, panel)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    return png_bytes(figure, SCREEN_DPI)


def _draw_panel(axes: "Axes", panel: Histogram) -> None:
    used = np.flatnonzero(panel.counts)
    axes.bar(panel.edges[:-1], panel.counts, np.diff(panel.edges), align="edge", color=_BARS)
    if len(used):
        low, high = float(panel.edges[used[0]]), float(panel.edges[used[-1] + 1])
        if panel.bound is not None:
            axes.axvline(panel.bound, color=COLOURS[1], linestyle="--", linewidth=1.2)
            low, high = min(low, panel.bound * 0.8), max(high, panel.bound * 1.25)
        if panel.edges[0] > 0:
            middle = math.sqrt(low * high)
            _logarithmic(axes, min(low, middle / 3), max(high, middle * 3))
        else:
            axes.set_xlim(low, high)
    axes.set_xlabel(panel.label, fontsize=9)
    axes.set_ylabel("Records", fontsize=9)
    axes.tick_params(labelsize=8)
    plain(axes)


def _logarithmic(axes: "Axes", low: float, high: float) -> None:
    """A logarithmic axis with plain numbers: at each decade, and between them where there are few."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    decades = math.log10(high / low)
    steps = (1.0, 2.0, 5.0) if decades < 2 else (1.0,)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(LogLocator(subs=steps, numticks=_MOST_TICKS))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def draw_lead_ranges(panels: Mapping[str, Mapping[str, Sequence[float]]], title: str) -> bytes:
    """For each panel and lead a range, {label: {lead: (1%, 25%, 50%, 75%, 99%)}}, on logarithmic axes side by side.

    A lead of nan has an empty row. Raises MetsError without a panel.
    """
    if not panels:
        raise MetsError("there is no distribution to draw")
    leads = list(next(iter(panels.values())))
    figure = figure_titled(8.6, 1.1 + 0.24 * len(leads), title)
    for axes, (label, ranges) in zip(
        figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels.items(), strict=True
    ):
        for row, lead in enumerate(leads):
            low, lower, middle, upper, high = ranges[lead]
            axes.plot([low, high], [row, row], color=COLOURS[0], linewidth=1.2, alpha=0.6)
            axes.plot([lower, upper], [row, row], color=COLOURS[0], linewidth=5.0, alpha=0.6, solid_capstyle="butt")
            axes.plot(middle, row, "o", color=INK, markersize=3.5)
        ends = [value for values in ranges.values() for value in values if math.isfinite(value)]
        if ends:
            _logarithmic(axes, min(ends) / 1.2, max(ends) * 1.2)
        axes.set(xlabel=label, ylim=(len(leads) - 0.4, -0.6))
        axes.set_yticks(range(len(leads)), leads, fontsize=9)
        axes.tick_params(axis="y", length=0)
        plain(axes)
        axes.spines["left"].set_visible(False)
    return png_bytes(figure, SCREEN_DPI)
