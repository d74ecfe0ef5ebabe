"""Headers of WFDB records. https://physionet.org/physiotools/wag/header-5.htm

Parsed here and not by wfdb, which refuses sound records for a date that nothing uses, fills in a gain that is not
there, and reads headers as ASCII with the rest dropped, which turns µV into V.
"""

import math
import re
from dataclasses import dataclass

from mets_ray.ecg.wfdb_signal_lines import NUMBER, Signal, check_file_name, parse_signals
from mets_ray.ecg.wfdb_signals import NO_SAMPLES, PACKED, SAMPLE_BITS
from mets_ray.errors import RecordError

GAP = "~"
"""The name of a segment that was not recorded, and of the signal file in a layout segment."""

# A rate may be followed by a counter frequency and the counter's first value.
_RATE = re.compile(rf"(?P<rate>{NUMBER})(?:/{NUMBER}(?:\({NUMBER}\))?)?")


@dataclass(frozen=True)
class Segment:
    """One segment line: the name of a record in the same folder, or `GAP`, and its length in frames."""

    name: str
    num_frames: int


@dataclass(frozen=True)
class Header:
    """The record line, its signal lines or its segment lines, and the comment lines without their `#`.

    A frame holds one sample of each signal, or `samples_per_frame` of them. `num_frames` is None if unstated.
    """

    frames_per_s: float
    num_frames: int | None
    num_signals: int
    signals: tuple[Signal, ...]
    segments: tuple[Segment, ...]
    comments: tuple[str, ...]

    @property
    def layout(self) -> str | None:
        """The record that says which signals a record of a variable layout has: its first segment, of no length."""
        first = self.segments[0] if self.segments else None
        return first.name if first is not None and first.num_frames == 0 and first.name != GAP else None

    @property
    def leads(self) -> tuple[str, ...]:
        return tuple(signal.name for signal in self.signals if signal.is_ecg)

    @property
    def samples_per_frame(self) -> int:
        """Of every ECG lead: `parse_header` refuses leads of several rates."""
        return next((signal.samples_per_frame for signal in self.signals if signal.is_ecg), 1)

    @property
    def sampling_rate_hz(self) -> float:
        return self.frames_per_s * self.samples_per_frame

    @property
    def file_names(self) -> tuple[str, ...]:
        """The signal files, without those of signals that have no samples."""
        return tuple(dict.fromkeys(signal.file_name for signal in self.signals if signal.format != NO_SAMPLES))

    def in_file(self, name: str) -> list[Signal]:
        """The signals of one signal file, in the order in which their samples take turns."""
        return [self.signals[place] for place in self.places_in(name)]

    def places_in(self, name: str) -> list[int]:
        """Where these stand among all signals."""
        return [
            place
            for place, signal in enumerate(self.signals)
            if signal.file_name == name and signal.format != NO_SAMPLES
        ]

    def check_size(self, name: str, size: int) -> None:
        """Raise RecordError `header_mismatch` or `truncated_file` for a signal file whose `size` in bytes is wrong."""
        stored = self.in_file(name)
        sample_format, offset = stored[0].format, stored[0].byte_offset
        if len({(signal.format, signal.byte_offset) for signal in stored}) > 1:
            raise RecordError("header_mismatch", f"the signal lines of `{name}` give it several formats or offsets")
        bits = SAMPLE_BITS.get(sample_format)
        if bits is None:
            return
        in_frame = sum(signal.samples_per_frame for signal in stored)
        if self.num_frames is None:
            if sample_format not in PACKED and (size - offset) % (in_frame * bits / 8):
                raise RecordError("truncated_file", f"`{name}` ends inside a frame of {in_frame} samples")
            return
        expected = offset + math.ceil(self.num_frames * in_frame * bits / 8)
        if size < expected:
            raise RecordError("truncated_file", f"`{name}` has {size} bytes of the {expected} that the header says")
        if size >= expected + PACKED.get(sample_format, 1):
            raise RecordError("header_mismatch", f"`{name}` has {size} bytes, the header says {expected}")


def parse_header(data: bytes, max_signals: int | None = None) -> Header:
    """The header in `data`, UTF-8 or Latin-1. Base time, base date and everything else that is not in `Header` is
    optional and not read. A gain without a unit is in mV; a gain of 0, or none, is no calibration: header(5) lets
    programs assume 200 steps, but calls the amplitude uncalibrated, and a voltage that nobody measured is refused.

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
    rate = _RATE.fullmatch(record[2]) if len(record) > 2 else None
    if rate is None:
        raise RecordError("unreadable_header", "the record line gives no sampling rate")
    _, is_multi, num_segments = record[0].partition("/")
    try:
        count, num_frames = int(record[1]), int(record[3]) if len(record) > 3 else 0
        lines_wanted = int(num_segments) if is_multi else count
        if max_signals is not None and max(count, 0 if is_multi else len(lines) - 1) > max_signals:
            raise RecordError("unsupported_format", f"the record has {max(count, len(lines) - 1)} signals")
        if lines_wanted == 0 or len(lines) - 1 != lines_wanted or num_frames < 0:
            what = f"{lines_wanted} {'segments' if is_multi else 'signals'} of {num_frames} samples"
            raise RecordError("header_mismatch", f"the record line says {what}, {len(lines) - 1} lines follow")
        return Header(
            float(rate["rate"]),
            num_frames or None,
            count,
            () if is_multi else parse_signals(lines[1:]),
            _parse_segments(lines[1:], num_frames) if is_multi else (),
            comments,
        )
    except ValueError as error:
        raise RecordError("unreadable_header", f"a number in the header cannot be read: {error}") from error


def _parse_segments(lines: list[str], num_frames: int) -> tuple[Segment, ...]:
    # RECORD SAMPLES
    segments = []
    for line in lines:
        fields = line.split()
        if len(fields) < 2 or not fields[1].isdecimal():
            raise RecordError("unreadable_header", f"a segment line is `{line[:80]}`")
        if fields[0] != GAP:
            check_file_name("segment", fields[0])
        segments.append(Segment(fields[0], int(fields[1])))
    total = sum(segment.num_frames for segment in segments)
    if num_frames and total != num_frames:
        raise RecordError("header_mismatch", f"the segments have {total} samples, the record line says {num_frames}")
    return tuple(segments)
