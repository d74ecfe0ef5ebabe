"""Philips Sierra XML: `SierraECG` 1.03 and `PhilipsECG` 1.04 to 1.04.02, as PageWriter and HeartStart write them.

After Philips' schemas, https://github.com/sixlettervariables/sierra-ecg-tools (jsierraecg/src/org/sierraecg/schema):
all amplitudes are in microvolts, durations in milliseconds, frequencies in Hz. `xli` has the compression.
Own code: ecgdatakit 2.0.3 takes a path, takes ten times as long, unpacks without a bound, and rounds the limb leads of
compressed files the wrong way (`xli.restore_limb_leads`).
"""

import xml.etree.ElementTree as ET
from datetime import date, time

import numpy as np
from jaxtyping import Float, Shaped

from mets_ray.ecg.ecg import LEADS, Ecg, EcgMeta, to_millivolts
from mets_ray.ecg.formats import xli
from mets_ray.ecg.formats.facts import age_years, plausible_age, recorded_at
from mets_ray.ecg.formats.limits import check_samples
from mets_ray.ecg.formats.xml_tree import attribute_of, base64_of, number_of, numbers_of, parse, root_name, text_of
from mets_ray.ecg.leads import standard_lead
from mets_ray.errors import RecordError

FORMAT = "sierra"

_VERSIONS = ("1.03", "1.04", "1.04.01", "1.04.02")
_STANDARD = ("STD-12", "10-WIRE")  # acquisition types whose leads are the 12, in the usual order
_YEARS = {"years": 1.0, "months": 1 / 12, "weeks": 7 / 365.25, "days": 1 / 365.25, "hours": 1 / 8766}
_CALIBRATION_UV = 1000.0
_TOLERANCE_UV = 5.0  # a step


def recognises(head: bytes) -> bool:
    return root_name(head) == "restingecgdata"


def read(data: bytes) -> Ecg:
    """The rhythm (`parsedwaveforms`) with its leads in the file's order; representative beats are never read.

    A 1 mV calibration mark at the end of all leads, and the zeros about it, are NaN: no heart made them.
    Raises RecordError `unreadable_file`, `no_ecg_lead`, `unsupported_format`, `header_mismatch`, `truncated_file`,
    `missing_unit`, `missing_lead_names`, `missing_sampling_rate` and `too_large`.
    """
    root = parse(data)
    version = text_of(root, "documentinfo/documentversion")
    if version not in _VERSIONS:
        raise RecordError(
            "unsupported_format", f"the Philips file has version {version[:20]!r}, not {', '.join(_VERSIONS)}"
        )
    waveform = root.find("waveforms/parsedwaveforms")
    if waveform is None or not (waveform.text or "").strip():
        raise RecordError(
            "no_ecg_lead",
            "the file has no `parsedwaveforms`: its samples are in another file, or lead by lead",
            hint="export it with its waveforms",
        )
    facts = _Facts(root, waveform)
    rate = number_of(facts.stated("samplespersecond", "samplingrate"))
    if not rate or rate <= 0:
        raise RecordError("missing_sampling_rate", "the file has neither `samplespersecond` nor `samplingrate`")
    leads = _leads(facts)
    duration_ms = number_of(waveform.get("durationperchannel", ""))
    if not duration_ms or duration_ms < 0:
        raise RecordError("header_mismatch", "the file has no `durationperchannel`")
    num_samples = round(min(duration_ms * rate / 1000, 1e12))
    check_samples(len(leads), num_samples, len(data))
    signal_uv = _samples(facts, leads, num_samples)
    resolution_uv = number_of(facts.stated("resolution", "resolution", "signalresolution"))
    if not resolution_uv or resolution_uv < 0:
        raise RecordError("missing_unit", "the file states no resolution, so its samples have no unit")
    signal_uv -= number_of(facts.stated("signaloffset", "signaloffset")) or 0.0
    signal_uv *= resolution_uv
    signal_uv[:, _calibration_start(signal_uv) :] = np.nan
    return Ecg(to_millivolts(signal_uv, "uV"), leads, rate, meta=_meta(root, facts))


class _Facts:
    """What describes the samples: the attributes of the waveform, which say how it was changed after the acquisition,
    before the elements of `signalcharacteristics`, which 1.03 has alone."""

    def __init__(self, root: ET.Element, waveform: ET.Element) -> None:
        self.waveform = waveform
        self._acquired = root.find("dataacquisition/signalcharacteristics")

    def stated(self, attribute: str, *elements: str) -> str:
        values = (self.waveform.get(attribute, "").strip(), *(text_of(self._acquired, name) for name in elements))
        return next(filter(None, values), "")


def _leads(facts: _Facts) -> tuple[str, ...]:
    count = int(number_of(facts.stated("numberofleads", "numberchannelsallocated", "numberchannelsvalid")) or 0)
    named = tuple(facts.stated("leadlabels").split())
    if named:
        if not 0 < count <= len(named):
            raise RecordError("header_mismatch", f"the file has {count} leads and {len(named)} names")
        return named[:count]
    kind = facts.stated("acquisitiontype", "acquisitiontype", "leadset")
    if kind not in _STANDARD or not 0 < count <= len(LEADS):
        raise RecordError("missing_lead_names", f"the file names no leads, and has {count} of the type `{kind[:20]}`")
    return LEADS[:count]


def _samples(facts: _Facts, leads: tuple[str, ...], num_samples: int) -> Float[np.ndarray, "lead sample"]:
    """All samples of one lead, then those of the next; as integers of the file."""
    text, compression = facts.waveform.text or "", _compression(facts.waveform)
    if compression == "XLI":
        check_samples(
            len(leads), num_samples, 0
        )  # codes say nothing of what they unpack to: seconds of an ECG, no more
        rows = xli.decode(_bytes(text, facts.waveform.get("dataencoding", "")), len(leads), num_samples)
        if _has_limb_leads(leads):
            xli.restore_limb_leads(rows)
        return rows
    if compression:
        raise RecordError("unsupported_format", f"the samples are compressed as `{compression[:20]}`")
    if facts.waveform.get("dataencoding") == "Plain":
        flat: Shaped[np.ndarray, " sample"] = numbers_of(text)
    else:
        flat = _whole_numbers(_bytes(text, facts.waveform.get("dataencoding", "")), facts)
    if len(flat) < len(leads) * num_samples:
        raise RecordError("truncated_file", f"{len(flat)} samples of {len(leads)} leads of {num_samples}")
    if num_samples and len(flat) % num_samples:  # more leads may be stored than are named, but no part of one
        raise RecordError(
            "header_mismatch",
            f"{len(flat)} samples are no whole number of leads of the {num_samples} that the file says",
        )
    return flat[: len(leads) * num_samples].reshape(len(leads), num_samples).astype(np.float64)


def _has_limb_leads(leads: tuple[str, ...]) -> bool:
    """Whether the six limb leads come first, under whatever name, so that four of them are stored as remainders.

    Raises RecordError `unsupported_format` where one of the four stands elsewhere: of what it is the remainder is not
    known then.
    """
    names = tuple(map(standard_lead, leads))
    if names[:6] == LEADS[:6]:
        return True
    if stray := [lead for lead, name in zip(leads, names, strict=True) if name in LEADS[2:6]]:
        raise RecordError(
            "unsupported_format",
            f"XLI stores only remainders of {', '.join(stray)}, and how to restore them is known only where the leads "
            f"begin with {', '.join(LEADS[:6])}; here they begin with {', '.join(leads[:6])}",
            hint="export the file without compression",
        )
    return False


def _compression(waveform: ET.Element) -> str:
    """`compression` in 1.04, `compressflag` and `compressmethod` in 1.03; "" for none."""
    method = (waveform.get("compression") or waveform.get("compressmethod") or "").strip().upper()
    return "" if waveform.get("compressflag", "").lower() == "false" or method in ("UNCOMPRESSED", "NONE") else method


def _bytes(text: str, encoding: str) -> bytes:
    if encoding == "Base64":
        return base64_of(text)
    if encoding == "Hex":
        try:
            return bytes.fromhex(text)
        except ValueError:
            raise RecordError("unreadable_file", "the samples are not hexadecimal numbers") from None
    raise RecordError("unsupported_format", f"the samples are encoded as `{encoding[:20]}`")


def _whole_numbers(samples: bytes, facts: _Facts) -> Shaped[np.ndarray, " sample"]:
    bits = facts.waveform.get("nbitspersample", "").strip() or facts.stated("bitspersample", "bitspersample")
    if bits not in ("16", "32"):
        raise RecordError("unsupported_format", f"the samples have `{bits[:20]}` bits, not 16 or 32")
    kind = "u" if facts.stated("signalsigned", "signalsigned").lower() == "false" else "i"
    size = int(bits) // 8
    return np.frombuffer(samples[: len(samples) // size * size], f"<{kind}{size}")


def _calibration_start(signal_uv: Float[np.ndarray, "lead sample"]) -> int:
    """Where the calibration mark and its zeros begin; the signal's length where there is none.

    PageWriter and HeartStart end an 11 s record with it. All leads are equal there, and Einthoven's law (III = II − I)
    leaves no heart that could do that, except at zero: so only an end with the 1 mV is a mark.
    """
    length = int(signal_uv.shape[1])
    if len(signal_uv) < 2:
        return length
    first = signal_uv[0]
    is_high = np.abs(first - _CALIBRATION_UV) < _TOLERANCE_UV
    is_mark = (signal_uv == first).all(axis=0) & ((first == 0) | is_high)
    ends = np.flatnonzero(~is_mark)
    start = int(ends[-1]) + 1 if len(ends) else 0
    return start if bool(is_high[start:].any()) else length


def _meta(root: ET.Element, facts: _Facts) -> EcgMeta:
    acquired, person = root.find("dataacquisition"), root.find("patient/generalpatientdata")
    day = _day(attribute_of(acquired, ".", "date"))
    highpass, lowpass = facts.stated("hipass", "hipass"), facts.stated("lowpass", "lowpass")
    if not (highpass or lowpass):
        highpass, _, lowpass = facts.stated("", "signalbandwidth").partition("-")  # 1.03: `0.05-150`
    notches = facts.stated("notchfilterfreqs", "notchfilterfreqs").split()
    machine = text_of(acquired, "machine")
    maker = attribute_of(acquired, "machine", "detaildescription").partition(":")[0].strip()
    interpretation = root.find("interpretations/interpretation")
    return EcgMeta(
        format=FORMAT,
        statements=_statements(interpretation),
        language=root.get("lang", "").strip() or None,
        record_id=text_of(root, "documentinfo/documentname").removesuffix(".xml") or None,
        patient_id=_filled(text_of(person, "patientid")) or _filled(text_of(person, "MRN")),
        age=_age(person, day),
        sex={"male": "male", "female": "female"}.get(text_of(person, "sex").lower()),
        device=" ".join(filter(None, (maker, machine))) or None,
        recorded_at=recorded_at(day, _clock(attribute_of(acquired, ".", "time"))),
        highpass_hz=number_of(highpass) or None,
        lowpass_hz=number_of(lowpass) or None,
        notch_hz=(number_of(notches[0]) or None) if notches else None,
    )


def _filled(text: str) -> str | None:
    return text if text.strip("- ") else None  # Philips writes `---` for nothing


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def _clock(text: str) -> time | None:
    try:
        return time.fromisoformat(text)
    except ValueError:
        return None


def _age(person: ET.Element | None, day: date | None) -> float | None:
    for name, years in _YEARS.items():
        if (number := number_of(text_of(person, f"age/{name}"))) is not None:
            return plausible_age(number * years)
    return age_years(_day(text_of(person, "age/dateofbirth")), day)


def _statements(interpretation: ET.Element | None) -> tuple[str, ...]:
    """The findings, in the left column of the print; the right one has the criteria (`QRSd > 115 mS`). The severity
    (`- ABNORMAL ECG -`) is a finding too."""
    if interpretation is None:
        return ()
    lines = [text_of(one, "leftstatement") for one in interpretation.findall("statement")]
    severity = text_of(interpretation, "severity").strip("- ")
    return tuple(filter(_filled, [*lines, severity]))
