"""HL7 annotated ECG (aECG). ANSI/HL7 V3 ECG R1-2004, PORT_MT020001; the FDA's implementation guide, Brown and Badilini
2005, https://www.hl7.org/documentcenter/public/wg/rcrim/annecg/aECG%20Implementation%20Guide%202005-03-21%20final%203.pdf

Own code: ecgdatakit 2.0.3 takes a path, rounds the sampling rate to a whole number of Hz, and bounds nothing; it gives
the same values in three times the time.
"""

import re
import xml.etree.ElementTree as ET
from datetime import date, time, timedelta, timezone, tzinfo

import numpy as np
from jaxtyping import Float

from mets_ray.ecg.ecg import Ecg, EcgMeta, check_sampling_rate, to_millivolts
from mets_ray.ecg.formats.facts import age_years, day_of, plausible_age, recorded_at, time_of
from mets_ray.ecg.formats.limits import check_samples
from mets_ray.ecg.formats.xml_tree import attribute_of, number_of, numbers_of, parse, root_name, text_of
from mets_ray.ecg.leads import standard_lead
from mets_ray.errors import RecordError

FORMAT = "aecg"

_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "min": 60.0}
_HERTZ = {"Hz": 1.0, "kHz": 1e3, "": 1.0}
_YEARS = {"a": 1.0, "mo": 1 / 12, "wk": 7 / 365.25, "d": 1 / 365.25, "h": 1 / 8766}

_TIMESTAMP = re.compile(r"(\d{4})(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\d\d)?(?:\.\d*)?(?:([+-])(\d\d)(\d\d))?")

_SUBJECT = "componentOf/timepointEvent/componentOf/subjectAssignment/subject/trialSubject"
_REPORTED_AGE = "21612-7"  # LOINC
_FINDINGS = {"MDC_ECG_RHY", "MDC_ECG_INTERPRETATION_STATEMENT", "MDC_ECG_INTERPRETATION_SUMMARY"}


def recognises(head: bytes) -> bool:
    return root_name(head) == "AnnotatedECG"


def read(data: bytes) -> Ecg:
    """The first rhythm series: its leads as recorded, `origin + scale × digits`, in the file's order.

    A representative beat is an average and never read. Further rhythm series and sets of sequences are named in
    `Ecg.other_signals`. Raises RecordError `unreadable_file`, `no_ecg_lead`, `header_mismatch`, `missing_unit`,
    `unknown_unit`, `missing_sampling_rate`, `implausible_sampling_rate` and `too_large`.
    """
    root = parse(data)
    series = [one for one in root.findall("component/series") if _code(one) != "REPRESENTATIVE_BEAT"]
    sets = [
        (number, one, found)
        for number, one in enumerate(series, 1)
        for found in one.findall("component/sequenceSet")
        if any(_is_lead(_code(sequence)) for sequence in found.findall("component/sequence"))
    ]
    if not sets:
        raise RecordError("no_ecg_lead", "the aECG has no rhythm series with an ECG lead")
    _, rhythm, chosen = sets[0]
    sequences = chosen.findall("component/sequence")
    leads, signal_mv = _signal([one for one in sequences if _is_lead(_code(one))], len(data))
    others = [_code(one) for one in sequences if not _is_lead(_code(one)) and not _code(one).startswith("TIME_")]
    return Ecg(
        signal_mv,
        leads,
        _rate_hz(sequences),
        other_signals=(*others, *(f"rhythm series {number}" for number, _, _ in sets[1:])),
        meta=_meta(root, rhythm),
    )


def _code(element: ET.Element) -> str:
    return attribute_of(element, "code", "code")


def _is_lead(code: str) -> bool:
    return "_ECG_LEAD_" in code.upper()  # MDC_ECG_LEAD_V1; makers have leads of their own: MINDRAY_ECG_LEAD_...


def _lead_name(code: str) -> str:
    name = code.upper().partition("_ECG_LEAD_")[2]
    if name.startswith("D"):  # dI is lead I as computed from other electrodes, not lead I itself
        return f"derived {name[1:]}"
    return standard_lead(name) or {"AVRNEG": "-aVR"}.get(name, name)


def _signal(sequences: list[ET.Element], num_bytes: int) -> tuple[tuple[str, ...], Float[np.ndarray, "lead sample"]]:
    leads = tuple(_lead_name(_code(one)) for one in sequences)
    check_samples(len(leads), 1, num_bytes)
    rows = [_row_mv(one, lead) for one, lead in zip(sequences, leads, strict=True)]
    lengths = sorted({len(row) for row in rows})
    if len(lengths) > 1:
        raise RecordError("header_mismatch", f"the leads have between {lengths[0]} and {lengths[-1]} samples")
    check_samples(len(rows), lengths[0], num_bytes)
    return leads, np.stack(rows)


def _row_mv(sequence: ET.Element, lead: str) -> Float[np.ndarray, " sample"]:
    value = sequence.find("value")
    digits = None if value is None else value.find("digits")
    if value is None or digits is None:
        raise RecordError("unreadable_file", f"lead {lead} has no `digits`: its value is no SLIST_PQ")
    scale = number_of(attribute_of(value, "scale", "value"))
    if scale is None:
        raise RecordError("missing_unit", f"lead {lead} has no scale")
    with np.errstate(over="ignore"):  # what is infinite then, `preprocess` rejects
        scaled: np.ndarray = to_millivolts(numbers_of(digits.text or "") * scale, attribute_of(value, "scale", "unit"))
    origin = number_of(attribute_of(value, "origin", "value"))
    if origin:
        scaled += to_millivolts(np.array([origin]), attribute_of(value, "origin", "unit"))
    return scaled


def _rate_hz(sequences: list[ET.Element]) -> float:
    """From the sequence TIME_ABSOLUTE or TIME_RELATIVE, a GLIST whose increment is the time between two samples."""
    for sequence in sequences:
        if _code(sequence).startswith("TIME_"):
            unit = attribute_of(sequence, "value/increment", "unit")
            step = number_of(attribute_of(sequence, "value/increment", "value"))
            seconds = (step or 0.0) * _SECONDS.get(unit, 0.0)
            if seconds:  # 0 as well where a tiny step underflows
                rate: float = 1 / seconds
                check_sampling_rate(rate)
                return rate
    raise RecordError(
        "missing_sampling_rate",
        f"the aECG has no time sequence with an increment in {', '.join(_SECONDS)}",
    )


def _meta(root: ET.Element, rhythm: ET.Element) -> EcgMeta:
    subject = root.find(_SUBJECT)
    person = None if subject is None else subject.find("subjectDemographicPerson")
    moment = next(
        (
            found
            for element in (root, rhythm)
            for edge in ("low", "center")
            if (found := attribute_of(element, f"effectiveTime/{edge}", "value"))
        ),
        "",
    )
    day, clock, zone = _timestamp(moment)
    born, _, _ = _timestamp(attribute_of(person, "birthTime", "value"))
    author = rhythm.find("author/seriesAuthor")
    maker = text_of(author, "manufacturerOrganization/name")
    statements, language = _statements(rhythm)
    return EcgMeta(
        format=FORMAT,
        statements=statements,
        language=language or attribute_of(root, "languageCode", "code") or root.get("lang") or None,
        record_id=attribute_of(root, "id", "extension") or attribute_of(root, "id", "root") or None,
        patient_id=attribute_of(subject, "id", "extension") or text_of(person, "PatientID") or None,
        age=_age(root) or age_years(born, day),
        sex={"M": "male", "F": "female"}.get(attribute_of(person, "administrativeGenderCode", "code").upper()),
        device=f"{maker} {text_of(author, 'manufacturedSeriesDevice/manufacturerModelName')}".strip() or None,
        recorded_at=recorded_at(day, clock, zone),
        highpass_hz=_cutoff_hz(rhythm, "HIGH_PASS"),
        lowpass_hz=_cutoff_hz(rhythm, "LOW_PASS"),
        notch_hz=_cutoff_hz(rhythm, "NOTCH"),
    )


def _timestamp(text: str) -> tuple[date | None, time | None, tzinfo | None]:
    """HL7's TS, `YYYYMMDDHHMMSS.UUUU+ZZzz`, which may end after any part."""
    found = _TIMESTAMP.fullmatch(text)
    if found is None or found[3] is None:
        return None, None, None
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
    zone = None
    if found[7]:
        away = timedelta(hours=int(found[8]), minutes=int(found[9]))
        if away < timedelta(days=1):
            zone = timezone(away if found[7] == "+" else -away)
    return day_of(year, month, day), None if found[5] is None else time_of(hour, minute, second), zone


def _age(root: ET.Element) -> float | None:
    for observation in root.findall("controlVariable/relatedObservation"):
        if _code(observation) == _REPORTED_AGE:
            years = _YEARS.get(attribute_of(observation, "value", "unit") or "a")
            age = number_of(attribute_of(observation, "value", "value"))
            return None if age is None or years is None else plausible_age(age * years)
    return None


def _cutoff_hz(rhythm: ET.Element, kind: str) -> float | None:
    for control in rhythm.findall("controlVariable/controlVariable"):
        if _code(control).endswith(f"_FILTER_{kind}"):
            for part in control.findall("component/controlVariable"):
                if _code(part).endswith(("_CUTOFF_FREQ", "_NOTCH_FREQ")):
                    frequency = number_of(attribute_of(part, "value", "value"))
                    factor = _HERTZ.get(attribute_of(part, "value", "unit"))
                    return frequency * factor if frequency and factor else None
    return None


def _statements(rhythm: ET.Element) -> tuple[tuple[str, ...], str | None]:
    """What a person wrote, or else what the device did; and the language, where the file names it."""
    by_person: dict[str, str] = {}
    by_device: dict[str, str] = {}
    for annotations in [
        *rhythm.findall("subjectOf/annotationSet"),
        *rhythm.findall("derivation/derivedSeries/subjectOf/annotationSet"),
    ]:
        person = annotations.find("author/assignedEntity/assignedAuthorType/assignedPerson")
        kept = by_device if person is None else by_person
        language = attribute_of(annotations, "languageCode", "code")
        for annotation in annotations.iter("annotation"):
            if _code(annotation).upper() in _FINDINGS and (words := _words(annotation)):
                value = annotation.find("value")
                stated = "" if value is None else value.get("language", value.get("lang", ""))
                kept.setdefault(words, stated or language)
    chosen = by_person or by_device
    return tuple(chosen), next((language for language in chosen.values() if language), None)


def _words(annotation: ET.Element) -> str:
    """ST and ED hold text, CE a code with a name."""
    return text_of(annotation, "value") or attribute_of(annotation, "value", "displayName")
