"""Two distributions over the same bins beside each other, as PNG bytes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mets_ray.errors import MetsError
from mets_ray.pictures.figure import COLOURS, SCREEN_DPI, figure_titled, plain, png_bytes

_BESIDE = 3
_MOST_TICKS = 5


@dataclass(frozen=True)
class BinShares:
    """One panel. The bins are below, between and above the inner `edges`, and the last is not measured; `shares` and
    `reference` are the parts of 1 in each."""

    label: str
    edges: Sequence[float]
    shares: Sequence[float]
    reference: Sequence[float]


def draw_bin_shares(panels: Sequence[BinShares], title: str) -> bytes:
    """Bars of the shares, and dashes of the reference. Raises MetsError without any panel."""
    if not panels:
        raise MetsError("there is no feature to draw")
    columns = min(_BESIDE, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = figure_titled(3.1 * columns + 0.4, 2.0 * rows + 0.9, title)
    cells = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in cells[len(panels) :]:
        axes.set_axis_off()
    for axes, panel in zip(cells, panels, strict=False):
        places = np.arange(len(panel.shares))
        axes.bar(places, panel.shares, 0.8, color=COLOURS[1], alpha=0.75, label="here")
        axes.plot(places, panel.reference, "_", color=COLOURS[0], markersize=14, markeredgewidth=2.5, label="reference")
        # Between two bins stands the edge that divides them.
        step = max(1, math.ceil(len(panel.edges) / _MOST_TICKS))
        ticks = [(place + 0.5, f"{edge:.3g}") for place, edge in enumerate(panel.edges)][::step]
        ticks.append((len(panel.shares) - 1.0, "n"))
        axes.set_xticks([place for place, _ in ticks], [text for _, text in ticks], fontsize=8)
        axes.set_title(panel.label, fontsize=9, loc="left", parse_math=False)
        axes.tick_params(labelsize=8)
        plain(axes)
        axes.grid(axis="x", visible=False)
    cells[0].legend(frameon=False, fontsize=8)
    figure.supylabel("Share of the ECGs", fontsize=9)
    return png_bytes(figure, SCREEN_DPI)
