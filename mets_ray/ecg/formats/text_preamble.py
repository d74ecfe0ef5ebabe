"""What the lines above a table say of all of it, as `Sample Rate,512 hertz`, to be compared with what is stated."""

import re
from collections.abc import Iterable

from mets_ray.ecg.formats.stated import Stated
from mets_ray.ecg.formats.text_columns import MOST_CHARACTERS, unit_of
from mets_ray.ecg.leads import standard_lead

_BETWEEN = r"[\s,;:=\"']+"
_RATE = re.compile(
    rf"\W*(?:sampl\w*[\s_-]*(?:rate|freq\w*)|fs)(?:[\s_]*[\[(]?hz[\])]?)?{_BETWEEN}"
    r"(?P<value>\d+(?:\.\d+)?)\s*(?P<unit>khz|hz|hertz)?\W*",
    re.IGNORECASE,
)
_UNIT = re.compile(rf"\W*units?{_BETWEEN}(?P<value>[^\s,;:=\"']+)\W*", re.IGNORECASE)
_LEAD = re.compile(rf"\W*leads?{_BETWEEN}(?P<value>[^,;:=\"']+?)\W*", re.IGNORECASE)


def said_above(lines: Iterable[str]) -> Stated:
    """Rate, unit and the one lead that lines before the table name; None for what none of them names."""
    rate, unit, lead = None, None, None
    for line in lines:
        if len(line) > MOST_CHARACTERS:
            continue
        if found := _RATE.fullmatch(line):
            rate = float(found["value"]) * (1000 if (found["unit"] or "").lower() == "khz" else 1)
        elif found := _UNIT.fullmatch(line):
            unit = unit_of(found["value"])
        elif found := _LEAD.fullmatch(line):
            lead = standard_lead(found["value"])
    return Stated(rate, unit, None if lead is None else (lead,))
