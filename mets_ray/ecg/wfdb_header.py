"""Headers of WFDB records. https://physionet.org/physiotools/wag/header-5.htm

Parsed here and not by wfdb, which refuses sound records for a date that nothing uses, fills in a gain that is not
there, and reads headers as ASCII with the rest dropped, which turns µV into V.
"""

import math
import re
from dataclasses import dataclass

from mets_ray import storage
from mets_ray.ecg.leads import is_ecg_signal
from mets_ray.ecg.wfdb_signals import FLAC, PACKED, SAMPLE_BITS
from mets_ray.errors import RecordError

UNSTATED_UNIT = "mV"
"""header(5): "If the units field is absent, the physical unit may be assumed to be 1 millivolt"."""

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
# A rate may be followed by a counter frequency and the counter's first value.
_RATE = re.compile(rf"(?P<rate>{_NUMBER})(?:/{_NUMBER}(?:\({_NUMBER}\))?)?")
_STORAGE = re.compile(r"(?P<format>\d+)(x(?P<per_frame>\d+))?(:(?P<skew>\d+))?(\+(?P<offset>\d+))?")
_GAIN = re.compile(rf"(?P<gain>{_NUMBER})(\((?P<baseline>[-+]?\d+)\))?(/(?P<unit>\S+))?")


@dataclass(frozen=True)
class Signal:
    """One signal line. `gain` is in steps per `unit`; both mean nothing unless `is_ecg`."""

    file_name: str
    format: str
    byte_offset: int
    gain: float
    baseline: int
    initial: int
    unit: str
    checksum: int | None
    name: str
    is_ecg: bool


@dataclass(frozen=True)
class Header:
    """The record line, its signal lines, and the comment lines without their `#`. `num_samples` is None if unstated."""

    sampling_rate_hz: float
    num_samples: int | None
    signals: tuple[Signal, ...]
    comments: tuple[str, ...]

    def in_file(self, name: str) -> list[Signal]:
        """The signals of one signal file, in the order in which their samples take turns."""
        return [signal for signal in self.signals if signal.file_name == name]

    def check_size(self, name: str, size: int) -> None:
        """Raise RecordError `header_mismatch` or `truncated_file` for a signal file whose `size` in bytes is wrong."""
        stored = self.in_file(name)
        sample_format, offset = stored[0].format, stored[0].byte_offset
        if len({(signal.format, signal.byte_offset) for signal in stored}) > 1:
            raise RecordError("header_mismatch", f"the signal lines of `{name}` give it several formats or offsets")
        bits = SAMPLE_BITS.get(sample_format)
        if bits is None:
            return
        if self.num_samples is None:
            frame = len(stored) * bits / 8
            if sample_format not in PACKED and (size - offset) % frame:
                raise RecordError("truncated_file", f"`{name}` ends inside a frame of {len(stored)} samples")
            return
        expected = offset + math.ceil(self.num_samples * len(stored) * bits / 8)
        if size < expected:
            raise RecordError("truncated_file", f"`{name}` has {size} bytes of the {expected} that the header says")
        if size >= expected + PACKED.get(sample_format, 1):
            raise RecordError("header_mismatch", f"`{name}` has {size} bytes, the header says {expected}")


def parse_header(data: bytes, max_signals: int | None = None) -> Header:
    """The header in `data`, UTF-8 or Latin-1. Base time, base date and everything else that is not in `Header` is
    optional and not read. A gain without a unit is in mV; a gain of 0, or none, is no calibration.

    Raises RecordError `unreadable_header`, `unsupported_format`, `header_mismatch` and `missing_unit`.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")  # old headers write µ as one byte
    # Not splitlines, which takes bytes of Latin-1 and Windows in a comment for the ends of lines.
    lines = [line.strip() for line in text.split("\n")]
    comments = tuple(line.lstrip("#").strip() for line in lines if line.startswith("#"))
    lines = [line for line in lines if line and not line.startswith("#")]
    record = lines[0].split() if lines else []
    if len(record) < 2 or not record[1].isdecimal():
        raise RecordError("unreadable_header", f"the record line is `{lines[0][:80] if lines else ''}`")
    if "/" in record[0]:
        raise RecordError("unsupported_format", "the record has several segments", hint="write it as one with wfdb")
    rate = _RATE.fullmatch(record[2]) if len(record) > 2 else None
    if rate is None:
        raise RecordError("unreadable_header", "the record line gives no sampling rate")
    count = int(record[1])
    if max_signals is not None and max(count, len(lines) - 1) > max_signals:
        raise RecordError("unsupported_format", f"the record has {max(count, len(lines) - 1)} signals")
    if count == 0 or len(lines) - 1 != count:
        raise RecordError("header_mismatch", f"the record line says {count} signals, {len(lines) - 1} lines follow")
    try:
        num_samples = int(record[3]) if len(record) > 3 else 0
        signals = tuple(_parse_signal(line, number) for number, line in enumerate(lines[1:]))
        return Header(float(rate["rate"]), num_samples or None, signals, comments)
    except ValueError as error:
        raise RecordError("unreadable_header", f"a number in the header cannot be read: {error}") from error


def _parse_signal(line: str, number: int) -> Signal:
    # FILE FORMAT[xN][:SKEW][+OFFSET] GAIN[(BASELINE)][/UNIT] RESOLUTION ZERO INITIAL CHECKSUM BLOCK DESCRIPTION
    fields = line.split(maxsplit=8)
    stored = _STORAGE.fullmatch(fields[1]) if len(fields) > 1 else None
    if stored is None:
        raise RecordError("unreadable_header", f"a signal line is `{line[:80]}`")
    sample_format = stored["format"]
    if sample_format not in SAMPLE_BITS and sample_format not in FLAC:
        raise RecordError("unsupported_format", f"signal {number} has format {sample_format}")
    if int(stored["per_frame"] or 1) != 1 or int(stored["skew"] or 0) != 0:
        raise RecordError("unsupported_format", f"signal {number} has another rate than the record, or a skew")
    if fault := storage.path_fault(fields[0]) or ("it is a folder" if "/" in fields[0] or fields[0] == "." else ""):
        raise RecordError(
            "unreadable_header", f"signal file {fields[0][:80]!r} is not one in the header's own folder: {fault}"
        )
    name = fields[8] if len(fields) > 8 else f"signal {number}"
    gain, baseline, unit, is_ecg = _calibration(fields[2] if len(fields) > 2 else None, name)

    def level(position: int, otherwise: int = 0) -> int:
        return int(fields[position]) if len(fields) > position else otherwise

    return Signal(
        file_name=fields[0],
        format=sample_format,
        byte_offset=int(stored["offset"] or 0),
        gain=gain,
        baseline=level(4) if baseline is None else baseline,  # the ADC's zero
        initial=level(5, level(4)) if sample_format == "8" else 0,
        unit=unit,
        checksum=int(fields[6]) if len(fields) > 6 else None,
        name=name,
        is_ecg=is_ecg,
    )


def _calibration(field: str | None, name: str) -> tuple[float, int | None, str, bool]:
    """Gain, baseline, unit, and whether the signal can be an ECG; what is none needs no calibration."""
    scale = _GAIN.fullmatch(field) if field is not None else None
    if not is_ecg_signal(name, scale["unit"] if scale else None):
        return 1.0, None, "", False
    if field is not None and scale is None:
        raise RecordError("unreadable_header", f"the gain of {name} is `{field}`")
    gain = float(scale["gain"]) if scale else 0.0
    if gain == 0.0 or scale is None:
        raise RecordError("missing_unit", f"the header gives no gain for {name}, so its samples have no unit")
    if not math.isfinite(gain):
        raise RecordError("unreadable_header", f"the gain of {name} is `{field}`")
    return gain, int(scale["baseline"]) if scale["baseline"] else None, scale["unit"] or UNSTATED_UNIT, True
