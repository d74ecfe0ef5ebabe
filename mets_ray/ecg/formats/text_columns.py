"""What the lines above a table of numbers say of its columns: their names, and the units behind or below them."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from mets_ray.ecg.ecg import UNITS
from mets_ray.ecg.formats.stated import Stated
from mets_ray.ecg.leads import standard_lead
from mets_ray.errors import RecordError

# Words for units. `MV` is not one: it may be a megavolt.
_WORDS = {"volt": "V", "millivolt": "mV", "microvolt": "uV", "nanovolt": "nV"}
_WORDS |= {f"{word}s": unit for word, unit in _WORDS.items()}

# `II (mV)`, `II [uV]`, `II_uV`, `II uV`, `II/uV`; a V without brackets is the name of a lead.
_IN_BRACKETS = re.compile(r"(?P<name>.*?)[\s_]*[\[(]\s*(?P<unit>[^\[\]()]*?)\s*[\])]")
_BARE = re.compile(rf"(?P<name>.*?)[\s_/]+(?P<unit>{'|'.join(unit for unit in UNITS if unit != 'V')})")

# What says that the numbers are in something else than one of UNITS: `I (counts)`, `I (0.1 mV)`, `I (uV/bit)`.
_OTHER_UNIT = re.compile(
    r"(?:[\d.,]+\s*)?(?:[a-z\u00b5\u03bc]{0,2}v|[a-z]*volts?|adu|adc|counts?|lsb|bits?|steps?|[an]\.?u\.?|"
    r"dimensionless)(?:\s*/\s*\w+)?",
    re.IGNORECASE,
)
_OF_TIME = re.compile(r"s|ms|us|sec|msec|seconds|milliseconds|hh:mm:ss(?:\.m+)?", re.IGNORECASE)

MOST_CHARACTERS = 100
"""Longest name that is examined: the time it takes grows with the square of the length."""


class Column(NamedTuple):
    """name: without its unit. unit: one of `ecg.UNITS`, None where the header names none. other_unit: another one
    that it names, which cannot be read."""

    name: str
    unit: str | None = None
    other_unit: str | None = None

    def required_unit(self, stated: Stated) -> str:
        """Its own unit, or else what is stated. Raises RecordError `unknown_unit` and `missing_unit`."""
        if self.other_unit is not None:
            raise RecordError(
                "unknown_unit",
                f"the header of the table gives `{self.other_unit[:20]}` for the unit of `{self.name[:20]}`",
                hint=f"write the values in one of {', '.join(UNITS)} and name it there: I (mV); or name no unit in the "
                "header, and state it",
            )
        return self.unit or stated.required_unit()


def column_of(name: str) -> Column:
    """The column that a header calls `II (mV)`, `II_uV` or `II`."""
    if len(name) > MOST_CHARACTERS:
        return Column(name)
    if bare := _BARE.fullmatch(name):
        return Column(bare["name"], bare["unit"])
    found = _IN_BRACKETS.fullmatch(name)
    if found is None:
        return Column(name)
    if unit := unit_of(found["unit"]):
        return Column(found["name"], unit)
    return Column(found["name"], None, found["unit"]) if _OTHER_UNIT.fullmatch(found["unit"]) else Column(name)


def names_of(above: Sequence[Sequence[str]], first_row: Sequence[str]) -> tuple[str, ...] | None:
    """The names of all columns, from the cells of the one or two lines above the first row of numbers; None where these
    lines are no header. "" is the name of a column beside the leads: an index, or one behind a separator at the end.

    A line of units below or above the names gives each name its unit.
    """
    lines = [[_unquoted(cell) for cell in cells] for cells in above]
    if not lines or not any(lines[-1]):
        return None
    if len(lines) > 1 and _are_units(lines[-2]) and len(lines[-2]) == len(lines[-1]) == len(first_row):
        lines.reverse()
    if _are_units(lines[-1]) and len(lines[-1]) == len(first_row):
        names = _named_above(lines[-2] if len(lines) > 1 else [], lines[-1])
        units = (unit.strip("[]() ") for unit in lines[-1])
        return tuple(f"{name} ({unit})" if unit else name for name, unit in zip(names, units, strict=True))
    if len(lines[-1]) == len(first_row):
        return tuple(lines[-1])
    if len(lines[-1]) == len(first_row) - 1 and any(standard_lead(column_of(cell).name) for cell in lines[-1]):
        return ("", *lines[-1]) if first_row[-1] else (*lines[-1], "")
    return None


def unit_of(text: str) -> str | None:
    """The one of `ecg.UNITS` that a word means; None for another word."""
    return text if text in UNITS else _WORDS.get(text.lower())


def _unquoted(cell: str) -> str:
    """PhysioNet's tables have names in single quotes."""
    return cell[1:-1] if len(cell) > 1 and cell[0] == cell[-1] == "'" else cell


def _are_units(cells: Sequence[str]) -> bool:
    bare = [cell.strip("[]() ") for cell in cells]
    return any(unit_of(cell) for cell in bare) and all(
        not cell or unit_of(cell) or _OTHER_UNIT.fullmatch(cell) or _OF_TIME.fullmatch(cell) for cell in bare
    )


def _named_above(cells: list[str], units: Sequence[str]) -> list[str]:
    """The names in the line above that of the units; the columns' numbers where there are fewer or more. rdsamp writes
    `Elapsed time` as two words between blanks."""
    if len(cells) == len(units):
        return cells
    is_time = [_OF_TIME.fullmatch(unit.strip("[]() ")) is not None for unit in units]
    if is_time[0] and 1 < len(units) < len(cells):
        return ["time", *cells[1 - len(units) :]]
    return ["time" if of_time else f"column {number}" for number, of_time in enumerate(is_time, start=1)]
