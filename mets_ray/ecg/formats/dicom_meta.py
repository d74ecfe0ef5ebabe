"""What a DICOM file says beside its waveform: statements, person, device, time, filters. PS3.3 C.7.1.1, C.7.5.1, C.10.9
and C.10.10."""

import re
from collections.abc import Sequence
from typing import Any

from mets_ray.ecg.ecg import EcgMeta
from mets_ray.ecg.formats.facts import age_years, day_of, plausible_age, recorded_at, time_of

KEYWORDS = (
    "SpecificCharacterSet",
    "SOPInstanceUID",
    "PatientID",
    "PatientAge",
    "PatientBirthDate",
    "PatientSex",
    "Manufacturer",
    "ManufacturerModelName",
    "TimezoneOffsetFromUTC",
    "AcquisitionDateTime",
    "AcquisitionDate",
    "AcquisitionTime",
    "ContentDate",
    "ContentTime",
    "StudyDate",
    "StudyTime",
    "LanguageCodeSequence",
    "WaveformAnnotationSequence",
)
"""The elements of the file that are read; names of persons are not among them."""

_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
_SEXES = {"M": "male", "F": "female"}
_IN_TIME = ("ReferencedSamplePositions", "ReferencedTimeOffsets", "ReferencedDateTime")
_MEASURED = ("NumericValue", "MeasurementUnitsCodeSequence")
_DATE = re.compile(r"(\d{4})\.?(\d\d)\.?(\d\d)")
_TIME = re.compile(r"(\d\d):?(\d\d)?:?(\d\d)?(\.\d+)?")
_ZONE = re.compile(r"[+-]\d{4}$")


def meta(dataset: Any, definitions: Sequence[Any], name: str) -> EcgMeta:
    """Of the whole file; `definitions` are those of the leads that are read."""
    when = _when(dataset)
    language = dataset.get("LanguageCodeSequence")
    device = " ".join(filter(None, (_text(dataset, "Manufacturer"), _text(dataset, "ManufacturerModelName"))))
    return EcgMeta(
        format=name,
        statements=_statements(dataset),
        language=str(language[0].CodeValue) if language else None,
        record_id=_text(dataset, "SOPInstanceUID"),
        patient_id=_text(dataset, "PatientID"),
        age=_age(dataset, when),
        sex=_SEXES.get(_text(dataset, "PatientSex") or ""),
        device=device or None,
        recorded_at=when,
        highpass_hz=_filter_hz(definitions, "FilterLowFrequency"),
        lowpass_hz=_filter_hz(definitions, "FilterHighFrequency"),
        notch_hz=_filter_hz(definitions, "NotchFilterFrequency"),
    )


def _text(dataset: Any, keyword: str) -> str | None:
    value = dataset.get(keyword)
    return str(value).strip("\0 ") or None if value is not None else None


def _statements(dataset: Any) -> tuple[str, ...]:
    """Annotations in words that stand for the whole recording: no measurements, and nothing that marks a time."""
    found = []
    for item in dataset.get("WaveformAnnotationSequence") or []:
        if any(keyword in item for keyword in (*_IN_TIME, *_MEASURED)):
            continue
        text = str(item.get("UnformattedTextValue") or "")
        for keyword in ("ConceptCodeSequence", "ConceptNameCodeSequence"):
            codes = item.get(keyword)
            if not text and codes:
                text = str(codes[0].get("CodeMeaning") or "")
        found += [line.strip() for line in text.splitlines() if line.strip()]
    return tuple(found)


def _when(dataset: Any) -> str | None:
    """ISO 8601, from the most exact element that the file has."""
    zone = _text(dataset, "TimezoneOffsetFromUTC")
    moment = _text(dataset, "AcquisitionDateTime") or ""
    if found := _ZONE.search(moment):
        zone, moment = found[0], moment[: found.start()]
    pairs: list[tuple[str | None, str | None]] = [(moment[:8], moment[8:])]
    pairs += [(_text(dataset, f"{of}Date"), _text(dataset, f"{of}Time")) for of in ("Acquisition", "Content", "Study")]
    for day_text, time_text in pairs:
        day = _DATE.match(day_text or "")
        clock = _TIME.match(time_text or "")
        if day and (date := day_of(*(int(part) for part in day.groups()))):
            seconds = time_of(*(int(part or 0) for part in clock.groups()[:3])) if clock else None
            zone = f"{zone[:3]}:{zone[3:]}" if zone and _ZONE.fullmatch(zone) and seconds else ""
            return f"{recorded_at(date, seconds)}{zone}"
    return None


def _age(dataset: Any, when: str | None) -> float | None:
    age = re.fullmatch(r"(\d{1,3})([YMWD])", _text(dataset, "PatientAge") or "")
    if age:
        return plausible_age(round(int(age[1]) * _YEARS[age[2]], 2))
    born = _DATE.match(_text(dataset, "PatientBirthDate") or "")
    on = re.match(r"(\d{4})-(\d\d)-(\d\d)", when or "")
    if not (born and on):
        return None
    return age_years(day_of(*(int(part) for part in born.groups())), day_of(*(int(part) for part in on.groups())))


def _filter_hz(definitions: Sequence[Any], keyword: str) -> float | None:
    """None where the leads differ, or have no such filter: 0 says that it was off."""
    values = {float(definition.get(keyword) or 0) for definition in definitions}
    return values.pop() or None if len(values) == 1 else None
