"""What the header of an EDF file says beside its signals. Only EDF+ has fields for it: in plain EDF a free text holds
person and recording, which is not read, because a name may stand in it."""

import re
from collections.abc import Set
from datetime import date

from mets_ray.ecg.ecg import EcgMeta
from mets_ray.ecg.formats.facts import age_years, day_of, recorded_at, time_of

_PATIENT, _RECORDING, _DAY, _TIME = slice(8, 88), slice(88, 168), slice(168, 176), slice(176, 184)
_RESERVED = slice(192, 236)
_UNKNOWN = "X"
_SEXES = {"M": "male", "F": "female"}
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_NUMBERS = re.compile(r"(\d{1,2})\D(\d{1,2})\D(\d{1,2})")
_FIRST_YEAR = 85  # of the two digits: 85 to 99 are in the last century


def text(field: bytes) -> str:
    """A field without its padding; µ may be written in UTF-8 or Latin-1."""
    try:
        return field.decode("utf-8").strip(" \0")
    except UnicodeDecodeError:
        return field.decode("latin-1").strip(" \0")


def meta(header: bytes, filters: Set[str], name: str) -> EcgMeta:
    """header: the fixed part. filters: what the leads say of their own; used where all say the same."""
    is_plus = text(header[_RESERVED]).startswith(("EDF+", "BDF+"))
    patient = [*text(header[_PATIENT]).split(), *[_UNKNOWN] * 4][:4] if is_plus else [_UNKNOWN] * 4
    recording = text(header[_RECORDING]).split() if is_plus else []
    recording = [*recording, *[_UNKNOWN] * 5][:5] if recording[:1] == ["Startdate"] else [_UNKNOWN] * 5
    # The first of January 1985 is what the header has where EDF+ writes X: the day was taken out.
    day = _long_day(recording[1]) or (None if is_plus else _short_day(text(header[_DAY])))
    clock = _NUMBERS.fullmatch(text(header[_TIME]))
    said = filters if len(filters) == 1 else {""}
    return EcgMeta(
        format=name,
        patient_id=_stated(patient[0]),
        age=age_years(_long_day(patient[2]), day),
        sex=_SEXES.get(patient[1].upper()),
        device=_stated(recording[4]),
        recorded_at=recorded_at(day, time_of(*(int(part) for part in clock.groups())) if clock else None),
        highpass_hz=_filter_hz("HP", *said),
        lowpass_hz=_filter_hz("LP", *said),
        notch_hz=_filter_hz("N(?:OTCH)?", *said),
    )


def _stated(field: str) -> str | None:
    return None if field == _UNKNOWN else field.replace("_", " ")


def _long_day(field: str) -> date | None:
    """`02-MAY-1951`"""
    day, _, rest = field.partition("-")
    month, _, year = rest.upper().partition("-")
    if month not in _MONTHS or not (day + year).isdecimal():
        return None
    return day_of(int(year), _MONTHS.index(month) + 1, int(day))


def _short_day(field: str) -> date | None:
    """`02.05.51`"""
    parts = _NUMBERS.fullmatch(field)
    if parts is None:
        return None
    day, month, year = (int(part) for part in parts.groups())
    return day_of(year + (1900 if year >= _FIRST_YEAR else 2000), month, day)


def _filter_hz(kind: str, said: str) -> float | None:
    found = re.search(rf"(?<![A-Z]){kind}[:\s]*(\d+(?:\.\d+)?|\.\d+)\s*HZ", said.upper())
    return (float(found[1]) or None) if found else None
