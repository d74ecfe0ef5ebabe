"""GE MUSE XML (`RestingECG`, restecg.dtd), as MUSE exports it.

The file names of GE's documentation; HighPassFilter is in hundredths of a Hz. MUSE stores 8 leads, I, II and V1 to V6:
`ecg.derived` has the arithmetic of the other four.
Own code: ecgdatakit 2.0.3 takes a path, bounds nothing, rounds the sampling rate, and reads a wrong checksum.
"""

import re
import xml.etree.ElementTree as ET
import zlib

import numpy as np
from jaxtyping import Float

from mets_ray.ecg.ecg import Ecg, EcgMeta, to_millivolts
from mets_ray.ecg.formats.facts import age_years, day_of, plausible_age, recorded_at, time_of
from mets_ray.ecg.formats.limits import check_samples
from mets_ray.ecg.formats.xml_tree import base64_of, number_of, parse, root_name, text_of
from mets_ray.errors import RecordError

FORMAT = "muse"

_UNITS = {"NANOVOLTS": "nV", "MICROVOLTS": "uV", "MILLIVOLTS": "mV", "VOLTS": "V"}
_YEARS = {"YEARS": 1.0, "MONTHS": 1 / 12, "WEEKS": 7 / 365.25, "DAYS": 1 / 365.25, "HOURS": 1 / 8766}
_DATE = re.compile(r"(\d\d?)[-/](\d\d?)[-/](\d{4})")
_TIME = re.compile(r"(\d\d?):(\d\d)(?::(\d\d))?")


def recognises(head: bytes) -> bool:
    return root_name(head) == "RestingECG"


def read(data: bytes) -> Ecg:
    """The leads that the first rhythm waveform stores; the median beat is an average and never read.

    Further rhythm waveforms are named in `Ecg.other_signals`. Raises RecordError `unreadable_file`, `no_ecg_lead`,
    `header_mismatch` (counts or checksums), `unsupported_format`, `missing_unit`, `unknown_unit`,
    `missing_sampling_rate` and `too_large`.
    """
    root = parse(data)
    waveforms = [one for one in root.findall("Waveform") if text_of(one, "WaveformType").lower() != "median"]
    if not waveforms or waveforms[0].find("LeadData") is None:
        raise RecordError("no_ecg_lead", "the file has no rhythm waveform")
    stored = waveforms[0].findall("LeadData")
    check_samples(len(stored), 1, len(data))
    rows = [_row_mv(one) for one in stored]
    lengths = {len(row) for row in rows}
    starts = {(text_of(one, "LeadTimeOffset") or "0", text_of(one, "LeadOffsetFirstSample") or "0") for one in stored}
    if len(lengths) > 1 or len(starts) > 1:
        raise RecordError(
            "unsupported_format", "the leads do not begin and end together", hint="export a continuous rhythm"
        )
    check_samples(len(rows), lengths.pop(), len(data))
    return Ecg(
        np.stack(rows),
        tuple(_lead(one) for one in stored),
        _rate_hz(waveforms[0]),
        other_signals=tuple(f"rhythm waveform {number}" for number in range(2, len(waveforms) + 1)),
        meta=_meta(root, waveforms[0]),
    )


def _lead(stored: ET.Element) -> str:
    return text_of(stored, "LeadID") or "unnamed lead"


def _row_mv(stored: ET.Element) -> Float[np.ndarray, " sample"]:
    lead = _lead(stored)
    unit = text_of(stored, "LeadAmplitudeUnits")
    units_per_bit = number_of(text_of(stored, "LeadAmplitudeUnitsPerBit"))
    if units_per_bit is None:
        raise RecordError("missing_unit", f"lead {lead} has no LeadAmplitudeUnitsPerBit")
    size = int(number_of(text_of(stored, "LeadSampleSize")) or 2)
    samples = base64_of(stored.findtext("WaveFormData") or "")
    if size not in (1, 2, 4) or len(samples) % size:
        raise RecordError("header_mismatch", f"lead {lead} has {len(samples)} bytes, in samples of {size}")
    _check(stored, samples, size)
    # FirstSampleBaseline is not added: what it means is not documented, and an ECG's offset has no meaning.
    return to_millivolts(np.frombuffer(samples, f"<i{size}") * units_per_bit, _UNITS.get(unit.upper(), unit))


def _check(stored: ET.Element, samples: bytes, size: int) -> None:
    """Raise RecordError `header_mismatch` where the file states other counts, or another checksum."""
    stated = {
        "LeadByteCountTotal": len(samples),
        "LeadSampleCountTotal": len(samples) // size,
        "LeadDataCRC32": zlib.crc32(samples),
    }
    for name, found in stated.items():
        number = number_of(text_of(stored, name))
        if number and int(number) != found:
            raise RecordError("header_mismatch", f"lead {_lead(stored)} has {name} {number:.0f}, and {found} is found")


def _rate_hz(waveform: ET.Element) -> float:
    base, exponent = (number_of(text_of(waveform, name)) for name in ("SampleBase", "SampleExponent"))
    if not base or abs(exponent or 0) > 6:
        raise RecordError("missing_sampling_rate", "the rhythm waveform has no SampleBase")
    return base * 10.0 ** (exponent or 0)


def _meta(root: ET.Element, waveform: ET.Element) -> EcgMeta:
    person, test = root.find("PatientDemographics"), root.find("TestDemographics")
    found = _DATE.fullmatch(text_of(test, "AcquisitionDate"))
    clock = _TIME.fullmatch(text_of(test, "AcquisitionTime"))
    day = day_of(int(found[3]), int(found[1]), int(found[2])) if found else None  # MM-DD-YYYY
    born = _DATE.fullmatch(text_of(person, "DateofBirth"))
    age = number_of(text_of(person, "PatientAge"))
    years = _YEARS.get(text_of(person, "AgeUnits").upper())
    highpass = number_of(text_of(waveform, "HighPassFilter"))
    return EcgMeta(
        format=FORMAT,
        statements=_statements(root.find("Diagnosis")) or _statements(root.find("OriginalDiagnosis")),
        patient_id=text_of(person, "PatientID") or None,
        age=plausible_age(age * years)
        if age is not None and years
        else age_years(day_of(int(born[3]), int(born[1]), int(born[2])) if born else None, day),
        sex={"M": "male", "MALE": "male", "F": "female", "FEMALE": "female"}.get(text_of(person, "Gender").upper()),
        device=text_of(test, "AcquisitionDevice") or None,
        recorded_at=recorded_at(day, time_of(int(clock[1]), int(clock[2]), int(clock[3] or 0)) if clock else None),
        highpass_hz=highpass / 100 if highpass else None,
        lowpass_hz=number_of(text_of(waveform, "LowPassFilter")) or None,
        notch_hz=number_of(text_of(waveform, "ACFilter")) or None,
    )


def _statements(diagnosis: ET.Element | None) -> tuple[str, ...]:
    """The lines as MUSE prints them: parts up to the one with the flag ENDSLINE are one statement."""
    lines: list[str] = []
    parts: list[str] = []
    stored = [] if diagnosis is None else diagnosis.findall("DiagnosisStatement")
    flagged = [any((flag.text or "").strip() == "ENDSLINE" for flag in one.iter("StmtFlag")) for one in stored]
    for one, ends in zip(stored, flagged, strict=True):
        parts.append(text_of(one, "StmtText"))
        if ends or not any(flagged):
            lines.append(" ".join(filter(None, parts)))
            parts = []
    lines.append(" ".join(filter(None, parts)))
    return tuple(filter(None, lines))
