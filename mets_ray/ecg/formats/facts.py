"""Small facts that headers of binary formats give: dates, ages, times; and errors of a damaged file as RecordErrors."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, time, tzinfo

from mets_ray.errors import RecordError

_OLDEST_YEARS = 130
_DAMAGE: tuple[type[Exception], ...] = (struct.error, ValueError, LookupError, ArithmeticError, RecursionError)

SEXES = {"m": "male", "male": "male", "f": "female", "female": "female"}
"""In lower case. Other words and numbers have a meaning only where a source's documentation gives them one."""


@contextmanager
def refuse_damaged(title: str, *errors: type[Exception]) -> Iterator[None]:
    """Raise RecordError `unreadable_file` for what a damaged file does to a reader: numbers that cannot be, offsets
    beyond the end. `errors`: what a library raises besides. The message has no byte of the file: it may be a name."""
    try:
        yield
    except RecordError:
        raise
    except (*_DAMAGE, *errors) as error:
        raise RecordError(
            "unreadable_file",
            f"this {title} file cannot be read: {type(error).__name__} in its header or its samples",
            hint="export it again; if other programs can read the file, please report a bug",
        ) from None


def day_of(year: int, month: int, day: int) -> date | None:
    """None for a day that is not in the calendar: recorders write zeros for an unknown one."""
    try:
        return date(year, month, day)
    except ValueError:
        return None


def time_of(hour: int, minute: int, second: int) -> time | None:
    """None for a time that no clock shows."""
    try:
        return time(hour, minute, second)
    except ValueError:
        return None


def recorded_at(day: date | None, clock: time | None, zone: tzinfo | None = None) -> str | None:
    """ISO 8601; the day alone without a time, None without a day."""
    if day is None:
        return None
    return day.isoformat() if clock is None else datetime.combine(day, clock, zone).isoformat()


def age_years(born: date | None, on: date | None) -> float | None:
    """Whole years between two days; None where one is unknown, or no person has that age."""
    if born is None or on is None:
        return None
    return plausible_age(on.year - born.year - ((on.month, on.day) < (born.month, born.day)))


def plausible_age(years: float | None) -> float | None:
    """`years`, or None for an age that no person has: devices write 0 years before Christ and 999."""
    return float(years) if years is not None and 0 <= years <= _OLDEST_YEARS else None
