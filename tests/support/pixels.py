"""What lies in the pixels of a PNG."""

import io

import numpy as np
from matplotlib.image import imread


def picture(png: bytes) -> np.ndarray:
    """[row, column, colour], 0 to 1."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    return imread(io.BytesIO(png))[..., :3]


def pixels(png: bytes) -> np.ndarray:
    """[row, column, colour], 0 to 255."""
    return np.round(picture(png) * 255).astype(int)


def places(png: bytes, colour: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pixels that have exactly this colour, #rrggbb."""
    wanted = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    rows, columns = np.nonzero((pixels(png) == wanted).all(axis=-1))
    return rows, columns


def colour_count(png: bytes, colour: str) -> int:
    """How many pixels have exactly this colour, #rrggbb."""
    return len(places(png, colour)[0])
