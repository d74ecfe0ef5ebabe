"""EDF, EDF+ and BDF: https://www.edfplus.info/specs/edf.html, .../edfplus.html, https://www.biosemi.com/faq/file_format.htm

Read here and not by edfio, which joins the parts of an interrupted recording (EDF+D) without their gaps, takes a file
that was cut off for a shorter one, and reads µ as an unknown letter. Its values are the same otherwise; the tests
compare.
"""

import math
import re
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer

from mets_ray.ecg.ecg import UNITS, Ecg, check_sampling_rate, to_millivolts
from mets_ray.ecg.formats import edf_meta
from mets_ray.ecg.formats.facts import refuse_damaged
from mets_ray.ecg.formats.limits import check_samples
from mets_ray.ecg.leads import is_other_lead, standard_lead
from mets_ray.errors import RecordError

FORMAT = "edf"

_EDF, _BDF = b"0       ", b"\xffBIOSEMI"
_FIXED_BYTES = _BYTES_PER_SIGNAL = 256
_FIELDS = {"label": 16, "transducer": 80, "unit": 8, "physical_min": 8, "physical_max": 8, "digital_min": 8}
_FIELDS |= {"digital_max": 8, "filters": 80, "samples": 8, "reserved": 32}
_ANNOTATIONS = ("EDF Annotations", "BDF Annotations")
_MAX_SIGNALS = 512  # EEG beside the ECG
_MAX_TIMED_RECORDS = 1_000_000  # a day of a tenth of a second each

_NAMED_ECG = re.compile(r"(?:ECG|EKG)(?![A-Z])", re.IGNORECASE)
# Electrodes of the EEG (10-20 system and its extensions), and those of them that are the chest's as well.
_EEG = re.compile(r"(?:Fp|AF|F|FC|FT|C|CP|T|TP|P|PO|O|A|M)(?:z|\d{1,2})", re.IGNORECASE)
_EEG_OR_CHEST = re.compile(r"C[1-6]", re.IGNORECASE)
_ONSET = re.compile(rb"([+-]\d+(?:\.\d*)?)(?:\x15\d+(?:\.\d*)?)?\x14")


@dataclass(frozen=True)
class _Signal:
    """`at` is the number of its first sample in a data record, `count` its samples in one."""

    label: str
    unit: str
    gain: float
    offset: float
    filters: str
    at: int
    count: int


@dataclass(frozen=True)
class _Header:
    sample_bytes: int
    reserved: str
    record_s: float
    signals: tuple[_Signal, ...]

    @property
    def size(self) -> int:
        return _FIXED_BYTES + _BYTES_PER_SIGNAL * len(self.signals)

    @property
    def record_samples(self) -> int:
        return sum(signal.count for signal in self.signals)

    def rate_hz(self, signal: _Signal) -> float:
        return signal.count / self.record_s if self.record_s > 0 else 0.0


def recognises(head: bytes) -> bool:
    """Version 0 and a number of signals where it must be; or BioSemi's first eight bytes."""
    return head[:8] == _BDF or (head[:8] == _EDF and head[252:256].strip(b" \0").isdigit())


def read(data: bytes) -> Ecg:
    """The signals whose label says ECG; all others are left out, and named in `other_signals`.

    A recording that was interrupted (EDF+D) has NaN in its gaps. Raises RecordError `no_ecg_lead` (sleep studies, files
    of annotations only), `unreadable_file`, `truncated_file`, `header_mismatch`, `unsupported_format`, `too_large`,
    `missing_unit`, `unknown_unit` and `implausible_sampling_rate`.
    """
    with refuse_damaged("EDF"):
        header = _header(data)
        leads = _ecg_signals(header)
        others = [one.label for one in header.signals if one not in leads and one.label not in _ANNOTATIONS]
        if not leads:
            named = ", ".join(f"`{label}`" for label in others[:8]) or "annotations only"
            raise RecordError("no_ecg_lead", f"no signal is labelled as an ECG lead: {named}")
        rates = {header.rate_hz(one) for one in leads}
        for rate in rates:
            check_sampling_rate(rate)
        if len(rates) > 1:
            raise RecordError("unsupported_format", f"its leads have {len(rates)} sampling rates")
        records = _records(data, header)
        check_samples(len(leads), len(records) * leads[0].count, len(data))
        starts = _starts(records, header, leads[0])
        signal_mv = np.stack([_millivolts(records, header, one) for one in leads])
        return Ecg(
            signal_mv if starts is None else _with_gaps(signal_mv, starts, len(data)),
            tuple(one.label for one in leads),
            rates.pop(),
            other_signals=tuple(others),
            meta=edf_meta.meta(data[:_FIXED_BYTES], {one.filters for one in leads}, FORMAT),
        )


def _header(data: bytes) -> _Header:
    num_signals = int(data[252:256])
    if not 1 <= num_signals <= _MAX_SIGNALS:
        raise RecordError("unsupported_format", f"the EDF header says {num_signals} signals")
    if len(data) < _FIXED_BYTES + _BYTES_PER_SIGNAL * num_signals:
        raise RecordError("truncated_file", f"the EDF file ends in its header of {num_signals} signals")
    columns: dict[str, list[str]] = {}
    at = _FIXED_BYTES
    for name, width in _FIELDS.items():
        cells = [data[at + number * width : at + (number + 1) * width] for number in range(num_signals)]
        columns[name] = [edf_meta.text(cell) for cell in cells]
        at += width * num_signals
    signals, first = [], 0
    for number in range(num_signals):
        signal = _signal({name: cells[number] for name, cells in columns.items()}, first)
        signals.append(signal)
        first += signal.count
    return _Header(
        sample_bytes=3 if data[:1] == _BDF[:1] else 2,
        reserved=edf_meta.text(data[192:236]),
        record_s=float(data[244:252]),
        signals=tuple(signals),
    )


def _signal(fields: dict[str, str], at: int) -> _Signal:
    count = int(fields["samples"])
    if count < 1:
        raise RecordError("unreadable_file", f"a signal of the EDF file has {count} samples in a data record")
    if fields["label"] in _ANNOTATIONS:
        return _Signal(fields["label"], "", 1.0, 0.0, "", at, count)
    lowest, highest = float(fields["digital_min"]), float(fields["digital_max"])
    minimum, maximum = float(fields["physical_min"]), float(fields["physical_max"])
    # Equal limits are no calibration; what needs one is refused later.
    gain = (maximum - minimum) / (highest - lowest) if highest != lowest else 0.0
    offset = minimum - gain * lowest
    if not math.isfinite(offset):
        raise RecordError("unreadable_file", f"the limits of {fields['label']} are no finite numbers")
    return _Signal(fields["label"], fields["unit"], gain, offset, fields["filters"], at, count)


def _ecg_signals(header: _Header) -> list[_Signal]:
    """Those with the name of a lead; where there is none, those that are called ECG, so that an error names them.

    C1 to C6 are the chest's only where the limb leads are named as briefly (I and II, not "ECG II") and nothing else is
    of the EEG.
    """
    standard = [one for one in header.signals if standard_lead(one.label)]
    labels = {one.label for one in header.signals}
    is_eeg = any(_EEG.fullmatch(label) and not _EEG_OR_CHEST.fullmatch(label) for label in labels)
    if is_eeg or not {"I", "II"} <= labels:
        standard = [one for one in standard if not _EEG_OR_CHEST.fullmatch(one.label)]
    if standard:
        beside = [one for one in header.signals if is_other_lead(one.label) and one.unit in UNITS]
        return [one for one in header.signals if one in standard or one in beside]
    return [one for one in header.signals if _NAMED_ECG.match(one.label)]


def _records(data: bytes, header: _Header) -> Integer[np.ndarray, "record byte"]:
    """The data records, as bytes."""
    size = header.record_samples * header.sample_bytes
    there, rest = divmod(len(data) - header.size, size)
    said = int(data[236:244])  # -1 where the recorder was not closed
    if said > there or (said < 0 and not there):
        raise RecordError("truncated_file", f"the EDF file holds {there} of the {said} data records that it says")
    if 0 <= said < there:
        raise RecordError("header_mismatch", f"the EDF file holds {there} data records and says {said}")
    if not there:
        raise RecordError("truncated_file", "the EDF file holds no data record")
    return np.frombuffer(data, np.uint8, len(data) - header.size - rest, header.size).reshape(there, size)


def _part(
    records: Integer[np.ndarray, "record byte"], header: _Header, signal: _Signal
) -> Integer[np.ndarray, "record part"]:
    return records[:, signal.at * header.sample_bytes : (signal.at + signal.count) * header.sample_bytes]


def _millivolts(
    records: Integer[np.ndarray, "record byte"], header: _Header, signal: _Signal
) -> Float[np.ndarray, " sample"]:
    if not signal.gain:
        raise RecordError("missing_unit", f"{signal.label} has no calibration: two of its limits are equal")
    part = np.ascontiguousarray(_part(records, header, signal))
    if header.sample_bytes == 2:
        stored = part.view("<i2").reshape(-1)
    else:
        wide = np.zeros((*part.shape[:1], signal.count, 4), np.uint8)
        wide[..., 1:] = part.reshape(len(part), signal.count, 3)
        stored = wide.view("<i4").reshape(-1) >> 8  # with the sign of the third byte
    return to_millivolts(stored * signal.gain + signal.offset, signal.unit)


def _starts(
    records: Integer[np.ndarray, "record byte"], header: _Header, lead: _Signal
) -> Integer[np.ndarray, " record"] | None:
    """The sample number at which each data record begins; None for a recording without interruption."""
    if not header.reserved.startswith(("EDF+D", "BDF+D")):
        return None
    clock = next((one for one in header.signals if one.label in _ANNOTATIONS), None)
    if clock is None:
        raise RecordError("unreadable_file", "the EDF+D file does not say when its data records begin")
    if len(records) > _MAX_TIMED_RECORDS:
        raise RecordError("too_large", f"the EDF+D file has {len(records)} data records")
    onsets = [_ONSET.match(row.tobytes()) for row in _part(records, header, clock)]
    if None in onsets:
        raise RecordError("unreadable_file", "a data record of the EDF+D file does not say when it begins")
    seconds = np.array([float(onset[1]) for onset in onsets if onset])
    starts = np.round((seconds - seconds[0]) * header.rate_hz(lead)).astype(np.int64)
    if (np.diff(starts) < lead.count).any():
        raise RecordError("unreadable_file", "the data records of the EDF+D file overlap in time")
    return None if (np.diff(starts) == lead.count).all() else starts


def _with_gaps(
    signal_mv: Float[np.ndarray, "lead stored"], starts: Integer[np.ndarray, " record"], num_bytes: int
) -> Float[np.ndarray, "lead sample"]:
    count = signal_mv.shape[1] // len(starts)
    check_samples(len(signal_mv), int(starts[-1]) + count, num_bytes)
    placed = np.full((len(signal_mv), int(starts[-1]) + count), np.nan)
    placed[:, (starts[:, None] + np.arange(count)).reshape(-1)] = signal_mv
    return placed
