"""Which side a finding is on: a language model hardly tells left from right.

Of all statements, "Left ventricular hypertrophy" is nearest to "Right ventricular hypertrophy", and sixty times as many
of PTB-XL's reports mention it. A prompt must not be drawn to statements of the other side (`Mets.embed_prompt`).
"""

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int8

LEFT, NEITHER, RIGHT = -1, 0, 1

_LEFT = re.compile(r"\b(?:left(?:ward)?|lvh?|lbbb)\b", re.IGNORECASE)
_RIGHT = re.compile(r"\b(?:right(?:ward)?|rvh?|rbbb)\b", re.IGNORECASE)


def side_of(text: str) -> int:
    """LEFT, RIGHT, or NEITHER for a text that names no side, or both."""
    return RIGHT * bool(_RIGHT.search(text)) + LEFT * bool(_LEFT.search(text))


def sides_of(texts: Sequence[str]) -> Int8[np.ndarray, "text"]:
    """`side_of` each text. The product of two sides is negative where they are opposite."""
    return np.fromiter((side_of(text) for text in texts), np.int8, len(texts))
