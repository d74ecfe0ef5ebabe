"""The picture of an ECG on millimetre paper, as PNG bytes."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int16

from mets_ray.errors import MetsError
from mets_ray.pictures.figure import COLOURS, INK, palette_png_bytes, png_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

PIXELS_PER_MM = 8
"""Usual scale of `draw_ecg`; the PNG says so (203.2 dpi), so that it prints at true size."""

_MM_PER_S = 25.0
_MM_PER_MV = 10.0
_COLUMNS = (("I", "II", "III"), ("aVR", "aVL", "aVF"), ("V1", "V2", "V3"), ("V4", "V5", "V6"))
_COLUMN_S = 2.5
_STRIP_LEAD = "II"
_ROWS = 4

# All in millimetres, and grid edges on whole multiples of 5, so that grid lines fall on whole pixels.
_ROW_MM = 30.0
_HEADROOM_MM = 30.0
_BELOW_STRIP_MM = 15.0
_SIDE_MM = 5.0
_FOOTER_MM = 10.0
_HEADER_MM = 15.0
_LEAD_IN_MM = 10.0
_GRID_WIDTH_MM = _LEAD_IN_MM + len(_COLUMNS) * _COLUMN_S * _MM_PER_S + 5.0
_GRID_HEIGHT_MM = _HEADROOM_MM + (_ROWS - 1) * _ROW_MM + _BELOW_STRIP_MM
ECG_WIDTH_MM = _GRID_WIDTH_MM + 2 * _SIDE_MM
ECG_HEIGHT_MM = _FOOTER_MM + _GRID_HEIGHT_MM + _HEADER_MM

_LEFT_MM, _RIGHT_MM = _SIDE_MM, _SIDE_MM + _GRID_WIDTH_MM

_BOTTOM_MM, _TOP_MM = _FOOTER_MM, _FOOTER_MM + _GRID_HEIGHT_MM

_START_MM = _LEFT_MM + _LEAD_IN_MM  # where the traces begin

_PAPER, _FINE_LINE, _BOLD_LINE = "#fffafa", "#f8d3d3", "#eb9d9d"

_FOR, _AGAINST = COLOURS[:2]
_BAND_MM = 12.0  # above and below the base line
_DARKEST, _FAINTEST = 0.6, 0.06  # opacity of the largest drop; the share of it below which a drop is noise


@dataclass(frozen=True)
class Shading:
    """What speaks for a class (blue) and against it (orange), by lead and segment of the ECG.

    `drops`: by lead, how far the class's similarity falls without each segment. Segment i begins at i * `segment_s`.
    """

    drops: Mapping[str, Float[np.ndarray, " segment"]]
    segment_s: float

    @property
    def largest(self) -> float:
        """The largest drop or rise of all; the shading is relative to it."""
        return max((float(np.abs(row).max()) for row in self.drops.values()), default=0.0)


def draw_ecg(
    signal_uv: Int16[np.ndarray, "lead sample"],
    leads: Sequence[str],
    sampling_rate_hz: float | int,
    title: str,
    *,
    pixels_per_mm: int = PIXELS_PER_MM,
    in_few_colours: bool = False,
    shading: Shading | None = None,
) -> bytes:
    """A 12-lead ECG as on paper: 25 mm/s, 10 mm/mV, 1 mm and 5 mm grid, 3 rows of 2.5 s columns and 10 s of lead II.

    Columns follow each other in time (I at 0-2.5 s, aVR at 2.5-5 s, ...). Each lead's median lies on its row's base
    line, as from a machine, whose inputs pass no direct current; nothing is filtered or scaled. A lead that is absent
    leaves its place empty; without lead II the first lead makes the strip; of more than 10 s the first 10 are drawn.

    Deflections that leave the grid are cut at its edge (above the first row: 3 mV). in_few_colours: a third of the
    bytes, for a page of many. shading: drawn under the traces; its largest value stands below them.

    Raises MetsError where `leads` does not fit the signal, there are no samples, or the rate is not positive.
    """
    if len(leads) != len(signal_uv) or len(leads) == 0:
        raise MetsError(f"{len(leads)} lead names for a signal of {len(signal_uv)} leads")
    if not sampling_rate_hz > 0 or signal_uv.shape[1] == 0:
        raise MetsError(f"{signal_uv.shape[1]} samples at `sampling_rate_hz` {sampling_rate_hz} cannot be drawn")
    sheet = _Sheet(float(sampling_rate_hz), pixels_per_mm * 25.4)
    sheet.draw_grid()
    for row in range(_ROWS):
        sheet.draw_calibration(row)
    drawn = {name.upper(): signal / 1000.0 for name, signal in zip(leads, signal_uv, strict=True)}
    for column, names in enumerate(_COLUMNS):
        begin_s = column * _COLUMN_S
        for row, name in enumerate(names):
            if column:
                sheet.draw_column_mark(row, begin_s)
            if name.upper() in drawn:
                sheet.shade(shading, name, row, begin_s, begin_s + _COLUMN_S)
                sheet.draw_lead(drawn[name.upper()], row, begin_s, begin_s + _COLUMN_S, name)
    strip = next((name for name in leads if name.upper() == _STRIP_LEAD), leads[0])
    sheet.shade(shading, strip, _ROWS - 1, 0.0, len(_COLUMNS) * _COLUMN_S)
    sheet.draw_lead(drawn[strip.upper()], _ROWS - 1, 0.0, len(_COLUMNS) * _COLUMN_S, strip)
    facts = f"{signal_uv.shape[1] / sampling_rate_hz:.4g} s at {sampling_rate_hz:g} Hz"
    sheet.draw_footer(facts if shading is None else f"strongest shading: {shading.largest:.3f}   {facts}")
    _fitted_title(sheet.figure, sheet.axes, title, _LEFT_MM, _TOP_MM + _HEADER_MM / 2, _GRID_WIDTH_MM)
    return palette_png_bytes(sheet.figure) if in_few_colours else png_bytes(sheet.figure, sheet.figure.dpi)


class _Sheet:
    """ECG paper, whose axes count millimetres from its lower left corner."""

    def __init__(self, sampling_rate_hz: float, dpi: float) -> None:
        from matplotlib.figure import Figure

        size_inch = (ECG_WIDTH_MM / 25.4, ECG_HEIGHT_MM / 25.4)
        self.figure = Figure(figsize=size_inch, dpi=dpi, facecolor="white")
        self.axes = self.figure.add_axes((0.0, 0.0, 1.0, 1.0), xlim=(0.0, ECG_WIDTH_MM), ylim=(0.0, ECG_HEIGHT_MM))
        self.axes.set_axis_off()
        self._sampling_rate_hz = sampling_rate_hz

    def draw_grid(self) -> None:
        from matplotlib.collections import LineCollection

        self.axes.add_patch(self._paper(facecolor=_PAPER, edgecolor="none"))
        for step_mm, colour, width in ((1.0, _FINE_LINE, 0.35), (5.0, _BOLD_LINE, 0.7)):
            lines = [[(x, _BOTTOM_MM), (x, _TOP_MM)] for x in np.arange(_LEFT_MM, _RIGHT_MM + 0.5, step_mm)]
            lines += [[(_LEFT_MM, y), (_RIGHT_MM, y)] for y in np.arange(_BOTTOM_MM, _TOP_MM + 0.5, step_mm)]
            self.axes.add_collection(LineCollection(lines, colors=colour, linewidths=width, zorder=1))

    def draw_calibration(self, row: int) -> None:
        """A pulse of 1 mV and 0.2 s before the traces of a row."""
        x_mm = _LEFT_MM + np.array([1.0, 2.5, 2.5, 7.5, 7.5, 9.0])
        self._trace(x_mm, _base_mm(row) + np.array([0.0, 0.0, 1.0, 1.0, 0.0, 0.0]) * _MM_PER_MV)

    def draw_column_mark(self, row: int, at_s: float) -> None:
        """A short stroke where one lead ends and the next begins."""
        x_mm, base_mm = _START_MM + at_s * _MM_PER_S, _base_mm(row)
        self.axes.plot([x_mm, x_mm], [base_mm - 4.0, base_mm + 4.0], color=INK, linewidth=0.6, alpha=0.5)

    def draw_lead(
        self, signal_mv: Float[np.ndarray, "sample"], row: int, begin_s: float, end_s: float, label: str
    ) -> None:
        """A stretch of a lead with its name; nothing where the record ends before it."""
        from matplotlib.patheffects import withStroke

        rate = self._sampling_rate_hz
        first, last = (math.ceil(second * rate) for second in (begin_s, end_s))
        visible = signal_mv[first : last + 1]
        if len(visible) == 0:
            return
        time_s = (first + np.arange(len(visible))) / rate
        base_mm = _base_mm(row)
        self._trace(_START_MM + time_s * _MM_PER_S, base_mm + (visible - np.median(signal_mv)) * _MM_PER_MV)
        # Below the traces: a label may be crossed, but hides nothing.
        halo = [withStroke(linewidth=3.0, foreground=_PAPER)]
        place = (_START_MM + begin_s * _MM_PER_S + 1.0, base_mm + 12.0)
        self.axes.text(
            *place, label, va="center", fontsize=10, fontweight="bold", color=INK, path_effects=halo, zorder=1.5
        )

    def shade(self, shading: Shading | None, lead: str, row: int, begin_s: float, end_s: float) -> None:
        """The part of a lead's shading between two times."""
        from matplotlib.patches import Rectangle

        if shading is None or shading.largest == 0.0:
            return
        of_lead = next((drops for name, drops in shading.drops.items() if name.upper() == lead.upper()), ())
        for place, share in enumerate(np.asarray(of_lead) / shading.largest):
            from_s, to_s = max(place * shading.segment_s, begin_s), min((place + 1) * shading.segment_s, end_s)
            if to_s <= from_s or abs(share) < _FAINTEST:
                continue
            corner = (_START_MM + from_s * _MM_PER_S, _base_mm(row) - _BAND_MM)
            size = ((to_s - from_s) * _MM_PER_S, 2 * _BAND_MM)
            colour = _FOR if share > 0 else _AGAINST
            band = Rectangle(corner, *size, facecolor=colour, alpha=_DARKEST * abs(share), linewidth=0, zorder=1.2)
            self.axes.add_patch(band)

    def draw_footer(self, facts: str) -> None:
        """The scale on the left, `facts` on the right."""
        style: dict[str, Any] = {"va": "center", "fontsize": 9, "color": INK}
        self.axes.text(_LEFT_MM, _FOOTER_MM / 2, "25 mm/s   10 mm/mV", ha="left", **style)
        self.axes.text(_RIGHT_MM, _FOOTER_MM / 2, facts, ha="right", **style)

    def _trace(self, x_mm: Float[np.ndarray, "point"], y_mm: Float[np.ndarray, "point"]) -> None:
        (line,) = self.axes.plot(x_mm, y_mm, color=INK, linewidth=0.8, solid_joinstyle="round", solid_capstyle="butt")
        line.set_clip_path(self._paper(transform=self.axes.transData))

    def _paper(self, **style: Any) -> "Rectangle":
        from matplotlib.patches import Rectangle

        return Rectangle((_LEFT_MM, _BOTTOM_MM), _GRID_WIDTH_MM, _GRID_HEIGHT_MM, **style)


def _base_mm(row: int) -> float:
    """The height of a row's base line."""
    return _TOP_MM - _HEADROOM_MM - row * _ROW_MM


def _fitted_title(figure: "Figure", axes: "Axes", title: str, x_mm: float, y_mm: float, width_mm: float) -> None:
    """One or two lines, never wider than the grid: long titles are set smaller, then cut with an ellipsis."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    lines = textwrap.wrap(" ".join(title.split()), 110, max_lines=2, placeholder=" …", break_on_hyphens=False)
    text = axes.text(
        x_mm,
        y_mm,
        "\n".join(lines),
        ha="left",
        va="center",
        fontsize=12,
        color=INK,
        parse_math=False,
        linespacing=1.15,
    )
    drawn_mm = text.get_window_extent(FigureCanvasAgg(figure).get_renderer()).width / figure.dpi * 25.4
    if drawn_mm > width_mm:
        text.set_fontsize(12 * width_mm / drawn_mm * 0.98)
