"""What an MFER file says beside its samples: person, device, time and filters."""

import re
from collections.abc import Mapping, Sequence
from datetime import date

from mets_ray.ecg.ecg import EcgMeta
from mets_ray.ecg.formats import mfer_definitions as tags
from mets_ray.ecg.formats.facts import age_years, day_of, plausible_age, recorded_at, time_of
from mets_ray.ecg.formats.mfer_definitions import Order

_SEXES = {1: "male", 2: "female"}


def meta(facts: Mapping[int, tuple[bytes, Order]], filters: Sequence[bytes], characters: str, name: str) -> EcgMeta:
    """facts: by tag their value and the byte order at that time."""
    none: tuple[bytes, Order] = (b"", "big")
    maker, patient = (
        facts.get(tag, none)[0].decode(characters, errors="replace").split("^") for tag in (tags.MAKER, tags.PATIENT_ID)
    )
    device = " ".join(part.strip("\0 ") for part in maker[:2] if part.strip("\0 "))
    when, order = facts.get(tags.TIME, none)
    day = _day(when, order)
    age, age_order = facts.get(tags.AGE, none)
    days = int.from_bytes(age[1:3], age_order)  # of a person younger than one year
    years = float(age[0]) if age[:1].strip(b"\0") else round(days / 365.25, 2)
    sex = facts.get(tags.SEX, none)[0]
    said = [text.decode(characters, errors="replace") for text in filters]
    return EcgMeta(
        format=name,
        patient_id=patient[0].strip("\0 ") or None,
        age=plausible_age(years) if years else age_years(_day(age[3:], age_order), day),
        sex=_SEXES.get(sex[0]) if sex else None,
        device=device or None,
        recorded_at=recorded_at(day, time_of(*when[4:7]) if len(when) >= 7 else None),
        highpass_hz=_filter_hz(said, "HPF"),
        lowpass_hz=_filter_hz(said, "LPF"),
        notch_hz=_filter_hz(said, "BEF"),
    )


def _day(value: bytes, order: Order) -> date | None:
    return day_of(int.from_bytes(value[:2], order), value[2], value[3]) if len(value) >= 4 else None


def _filter_hz(said: Sequence[str], kind: str) -> float | None:
    """`HPF=0.05`, `BEF=50^hum filter`; None where there is none, or several differ."""
    found = [re.match(rf"{kind}\s*=\s*(\d+(?:\.\d+)?)", text, re.IGNORECASE) for text in said]
    values = {float(one[1]) for one in found if one}
    return values.pop() or None if len(values) == 1 else None
