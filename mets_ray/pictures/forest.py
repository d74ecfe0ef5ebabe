"""A forest plot as PNG bytes: one value with its interval per row, in named blocks, beside a line for the whole."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mets_ray.errors import MetsError
from mets_ray.pictures.figure import COLOURS, GREY, INK, SCREEN_DPI, figure_titled, number_text, plain, png_bytes


@dataclass(frozen=True)
class ForestRow:
    """One row. `block`: the heading that it stands under, as its neighbours do. `note`: beside its numbers. `marked`:
    drawn in another colour and with another mark. A value of nan is not drawn, and its `note` says why."""

    block: str
    name: str
    value: float
    low: float
    high: float
    note: str = ""
    marked: bool = False


def draw_forest(
    rows: Sequence[ForestRow], title: str, *, label: str, whole: float = math.nan, whole_name: str = ""
) -> bytes:
    """whole: a value to compare with, a dashed line with its name; default: `all` and the value.

    Raises MetsError without any row.
    """
    if not rows:
        raise MetsError("there is no group to draw")
    places, headings, place = [], [], 0.0
    for number, row in enumerate(rows):
        if number == 0 or row.block != rows[number - 1].block:
            place += 0.4 if number else 0.0
            headings.append((place, row.block))
            place += 1.0
        places.append(place)
        place += 1.0
    figure = figure_titled(8.6, 1.4 + 0.22 * place, title)
    axes = figure.subplots()
    drawn = [number for row in rows for number in (row.value, row.low, row.high) if math.isfinite(number)]
    drawn += [whole] if math.isfinite(whole) else []
    if math.isfinite(whole):
        axes.axvline(whole, color="#888888", linestyle="--", linewidth=1.0, zorder=1)
        axes.annotate(
            whole_name or f"all {whole:.3f}", (whole, 1.0), (3, 2), xycoords=("data", "axes fraction"),
            textcoords="offset points", color=GREY, size=8,
        )  # fmt: skip
    for row, down in zip(rows, places, strict=True):
        colour, mark = (COLOURS[1], "D") if row.marked else (COLOURS[0], "o")
        if math.isfinite(row.low) and math.isfinite(row.high):
            axes.plot([row.low, row.high], [down, down], color=colour, linewidth=1.6, alpha=0.7)
        if math.isfinite(row.value):
            axes.plot(row.value, down, mark, color=colour, markersize=5)
        axes.annotate(
            _text(row), (1.02, down), xycoords=("axes fraction", "data"), va="center", fontsize=8.5, parse_math=False,
            color=INK if math.isfinite(row.value) else GREY, fontweight="bold" if row.marked else "normal",
        )  # fmt: skip
    low, high = (min(drawn), max(drawn)) if drawn else (0.0, 1.0)
    axes.set(xlabel=label, xlim=(low - 0.02, high + 0.02), ylim=(place - 0.4, -0.8))
    ticks = [(down, f"  {row.name}") for row, down in zip(rows, places, strict=True)] + headings
    axes.set_yticks([down for down, _ in ticks], [name for _, name in ticks], fontsize=9, parse_math=False)
    for tick in axes.get_yticklabels()[len(rows) :]:
        tick.set_fontweight("bold")
    axes.tick_params(axis="y", length=0)
    plain(axes)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    return png_bytes(figure, SCREEN_DPI)


def _text(row: ForestRow) -> str:
    if math.isnan(row.value):
        return row.note
    has_interval = math.isfinite(row.low) and math.isfinite(row.high)
    interval = f"  [{row.low:.3f}, {row.high:.3f}]" if has_interval else ""
    return f"{number_text(row.value)}{interval}  {row.note}".rstrip()
