"""The picture of a training run: loss and validation AUROC by epoch."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from mets_ray.errors import MetsError
from mets_ray.pictures.figure import COLOURS, INK, SCREEN_DPI, figure_titled, png_bytes


def draw_training(epochs: Sequence[Mapping[str, float | int]], chosen: int, title: str) -> bytes:
    """Loss and validation macro AUROC by epoch, in two panels; the epoch `chosen` is ringed.

    Each item has the keys `epoch`, `loss`, `validation_macro_auroc`, which is nan where it was not evaluated. Raises
    MetsError without any epoch.
    """
    from matplotlib.ticker import MaxNLocator

    if not epochs:
        raise MetsError("there is no epoch to draw")
    figure = figure_titled(10.0, 4.2, title)
    number = np.array([item["epoch"] for item in epochs], dtype=np.float64)
    panels = figure.subplots(1, 2)
    for axes, key, label, colour in (
        (panels[0], "loss", "Training loss", COLOURS[0]),
        (panels[1], "validation_macro_auroc", "Validation macro AUROC", COLOURS[1]),
    ):
        values = np.array([item[key] for item in epochs], dtype=np.float64)
        known = np.isfinite(values)
        # The line runs through the scored epochs, and only these have marks: a gap shows without breaking the line.
        marker = "o" if known.sum() <= 60 else ""
        axes.plot(number[known], values[known], color=colour, marker=marker, markersize=4, linewidth=1.6)
        if not known.any():
            axes.text(0.5, 0.5, "not evaluated", transform=axes.transAxes, ha="center", va="center", color="#666666")
        axes.set(xlabel="Epoch", ylabel=label)
        margin = max(0.5, 0.03 * float(np.ptp(number)))
        axes.set_xlim(number.min() - margin, number.max() + margin)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    scored = [item["validation_macro_auroc"] for item in epochs if math.isfinite(item["validation_macro_auroc"])]
    panels[1].axhline(0.5, color="#888888", linestyle="--", linewidth=1.0)
    panels[1].annotate(
        "chance", (1.0, 0.5), xycoords=("axes fraction", "data"), ha="right", va="bottom", color="#666666"
    )
    panels[1].set_ylim(
        min([0.45, *(value - 0.02 for value in scored)]), min(1.01, max([0.6, *(v + 0.03 for v in scored)]))
    )
    of_bundle = next((item["validation_macro_auroc"] for item in epochs if item["epoch"] == chosen), math.nan)
    if math.isfinite(of_bundle):
        panels[1].plot(chosen, of_bundle, "o", markersize=9, markerfacecolor="none", color=INK)
        panels[1].set_title(f"bundle: {of_bundle:.3f}, epoch {chosen}", fontsize=10)
    return png_bytes(figure, SCREEN_DPI)
