"""What a cell of a table or a comment of a header means: missing values, ids, numbers, times, age and sex.

What a record can do without is unknown where it cannot be read, and is counted; nothing is guessed.
"""

import ast
import json
import math
import re
import string
from collections import Counter
from collections.abc import Mapping
from datetime import date, datetime
from typing import TypeVar, cast

from mets_ray.console import counted
from mets_ray.ecg.formats.facts import SEXES
from mets_ray.errors import RecordError

_Kind = TypeVar("_Kind")

# In lower case: what pandas.read_csv takes for missing (`na_values`), what databases and statistics programs write, and
# bare punctuation.
_MISSING = frozenset(
    {"", "nan", "-nan", "na", "n/a", "#n/a", "#na", "#n/a n/a", "<na>", "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan"}
    | {"none", "null", "<null>", "(null)", "nil", "nat", "missing", "\\n", "-", "--", "---", ".", "?"}
)

FIRST_OF_FILLED = frozenset(string.ascii_letters + string.digits + string.punctuation) - {
    letter for word in _MISSING for letter in (word[:1], word[:1].upper())
}
"""A cell that begins with one of these is never missing: known in a third of the time of `is_missing`."""

_LONGEST_MISSING = max(map(len, _MISSING))

_UNKNOWN = frozenset({"unknown", "unk", "u"})

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?", re.IGNORECASE | re.ASCII)
_WHOLE = re.compile(r"([-+]?\d+)\.0+", re.ASCII)
_DICOM_AGE = re.compile(r"(\d{3})([DWMY])", re.ASCII)  # Age String: three digits and days, weeks, months or years
_PLAIN_LIST = re.compile(r"\['[^'\\\x00-\x1f]*'(?:, '[^'\\\x00-\x1f]*')*\]")  # of texts, as Python writes it
_PER_YEAR = {"D": 365.25, "W": 365.25 / 7, "M": 12.0, "Y": 1.0}
_OLDEST_YEARS = 130.0  # above the oldest person known, 122; some sources write 300 for "above 89"
_MOST_SHOWN = 3
_DIGIT = re.compile(r"\d")
_DIGITS_OF_NO_DATE = 3


class Blanks:
    """Cells that could not be read and were written as unknown, counted by column."""

    def __init__(self) -> None:
        self._cells: dict[str, Counter[str]] = {}

    def add(self, column: str, value: str) -> None:
        """Count one cell, by its form alone where it may be a date: the notes of a card are for everybody."""
        shown = _DIGIT.sub("9", value[:12]) if len(_DIGIT.findall(value)) > _DIGITS_OF_NO_DATE else value[:12]
        self._cells.setdefault(column, Counter())[shown] += 1

    def notes(self) -> tuple[str, ...]:
        """A sentence for the card for each column, with the most frequent values."""
        return tuple(
            f"{counted(counts.total(), 'cell')} of `{column}` could not be read, so it is unknown there: "
            + ", ".join(f"`{value}` ({count})" for value, count in counts.most_common(_MOST_SHOWN))
            + (", …" if len(counts) > _MOST_SHOWN else "")
            for column, counts in sorted(self._cells.items())
        )


def is_missing(text: str) -> bool:
    """Whether a cell stands for a missing value: empty, or a word such as `nan`, `NULL` or `<NA>`, in any case."""
    text = text.strip()
    return len(text) <= _LONGEST_MISSING and text.lower() in _MISSING


def identifier(text: str) -> str:
    """An id without the `.0` that a whole number gets from pandas where its column has a missing value."""
    match = _WHOLE.fullmatch(text.strip())
    return match[1] if match else text.strip()


def number(text: str) -> float | None:
    """A finite number with a decimal point; None for every other text."""
    value = float(text) if _NUMBER.fullmatch(text.strip()) else math.nan
    return value if math.isfinite(value) else None


def whole_number(text: str, column: str) -> int:
    """`3` of `3` and `3.0`. Raises RecordError `unreadable_cell` for what is no whole number of 32 bits."""
    if len(text) < 10 and text.isascii() and text.isdigit():
        return int(text)  # as nearly all: 2^31 has ten digits
    value = number(text)
    if value is None or not value.is_integer() or abs(value) >= 2**31:
        raise unreadable(column, text)
    return int(value)


def age_years(text: str, blanks: Blanks) -> float | None:
    """An age in years, from 0 to 130, or in DICOM's way (`057Y`, `006M`). Others, such as `> 89`, 300 and `old`, are
    unknown and counted."""
    text = text.strip()
    if is_missing(text) or text.lower() in _UNKNOWN:
        return None
    if match := _DICOM_AGE.fullmatch(text):
        value: float | None = int(match[1]) / _PER_YEAR[match[2]]
    else:
        value = number(text)
    if value is None or not 0 <= value <= _OLDEST_YEARS:
        blanks.add("age", text)
        return None
    return value


def sex(text: str, blanks: Blanks, codes: Mapping[str, str] = SEXES) -> str | None:
    """`male` or `female` by `codes` (keys in lower case). Others, such as `other`, `O` and `2`, are unknown and
    counted."""
    word = identifier(text).lower()
    if is_missing(word) or word in _UNKNOWN:
        return None
    if word not in codes:
        blanks.add("sex", text.strip())
    return codes.get(word)


def recorded_at(text: str, blanks: Blanks) -> str | None:
    """When an ECG was recorded, in ISO 8601 as it was written, with a `T`; other texts are unknown and counted."""
    bare = text.strip()
    if is_missing(bare):
        return None
    try:
        return (date if len(bare) <= len("2026-01-31") else datetime).fromisoformat(bare).isoformat()
    except ValueError:
        blanks.add("recorded_at", bare)
        return None


def literal(text: str, column: str, kind: type[_Kind]) -> _Kind:
    """A Python literal, such as the dict `{'NORM': 100.0}`. Raises RecordError `unreadable_cell` for all else."""
    bare = text.strip()
    if kind is list and _PLAIN_LIST.fullmatch(bare):
        return cast(_Kind, bare[2:-2].split("', '"))  # in a twentieth of the time
    try:
        value = ast.literal_eval(bare)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        value = None
    if not isinstance(value, kind):
        raise unreadable(column, text)
    return value


def parts(text: str, separator: str) -> list[str]:
    """What a cell lists: a list as Python (and so pandas) or JSON writes it, or else the text between `separator`s, of
    which a line feed stands for every kind of line end."""
    if (listed := _list_of(text.strip())) is not None:
        return listed
    return text.splitlines() if separator == "\n" else text.split(separator)


def codes(text: str) -> tuple[str, ...]:
    """The labels in a cell: a list, or codes between semicolons, the same with and without `.0`; missing ones left
    out."""
    return tuple(code for part in parts(text, ";") if not is_missing(code := identifier(part)))


def _list_of(text: str) -> list[str] | None:
    if not (text.startswith("[") and text.endswith("]")):
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(text)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
        # Python also joins the texts of `['a' 'b']`, as numpy writes two of them: such a cell is no list of one.
        if isinstance(value, list) and all(isinstance(one, str | int) for one in value):
            if any("\ud800" <= one <= "\udfff" for text_ in value for one in str(text_)):
                return None  # half characters, which JSON may name, cannot be written
            return list(map(str, value)) if read is json.loads or repr(value) == text else None
    return None


def unreadable(column: str, text: str) -> RecordError:
    """The rejection of a record for a cell that it cannot do without."""
    fact = f"`{column}` is `{text[:40]}`" if text else f"`{column}` is empty"
    return RecordError("unreadable_cell", fact)
