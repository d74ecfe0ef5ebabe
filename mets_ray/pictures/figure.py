"""What all pictures share: colours, a figure with its title, and its PNG bytes.

Drawn with matplotlib's objects and never with pyplot, whose global state is not safe in actors and replicas.
"""

import io
import math
import textwrap
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

INK, GREY, GRID = "#111111", "#666666", "#e5e5e5"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe & Ito's colours without yellow and black: colour-blind readers tell them apart. Line styles multiply them."""

STYLES = ("-", "--", ":", "-.")
SCREEN_DPI = 120.0


def figure_titled(width_inch: float, height_inch: float, title: str) -> "Figure":
    """A white figure whose parts are laid out when it is drawn; a long title is wrapped, then cut with an ellipsis."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08)
    figure = Figure(figsize=(width_inch, height_inch), dpi=SCREEN_DPI, layout=layout, facecolor="white")
    lines = textwrap.wrap(title, int(width_inch * 11), max_lines=3, placeholder=" …")
    figure.suptitle("\n".join(lines), fontsize=12, parse_math=False)
    return figure


def plain(axes: "Axes") -> None:
    """A pale grid behind the curves, and no frame above and right of them."""
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def number_text(value: float) -> str:
    """Three decimals; for nan a dash as wide as them, of figure spaces."""
    return "\u2007\u2007–\u2007\u2007" if math.isnan(value) else f"{value:.3f}"


def png_bytes(figure: "Figure", dpi: float) -> bytes:
    figure.dpi = dpi
    buffer = io.BytesIO()
    _drawn(figure).save(buffer, "PNG", dpi=(dpi, dpi))
    return buffer.getvalue()


def palette_png(png: bytes) -> bytes:
    """The same picture in 128 colours, a third of the bytes: for a page with dozens of them."""
    from PIL import Image

    return _in_few_colours(Image.open(io.BytesIO(png)))


def palette_png_bytes(figure: "Figure") -> bytes:
    """`palette_png` of `png_bytes`, without the PNG between them."""
    return _in_few_colours(_drawn(figure))


def _drawn(figure: "Figure") -> "Image":
    """Drawn once: matplotlib's `print_figure` lays the parts out a second time."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba()))


def _in_few_colours(picture: "Image") -> bytes:
    from PIL.Image import Dither

    buffer = io.BytesIO()
    # Not `optimize`: it takes six times as long for a fifteenth of the bytes.
    picture.convert("RGB").quantize(128, dither=Dither.NONE).save(buffer, "PNG")
    return buffer.getvalue()
