"""One ordinary WFDB record: its signal files become the leads that its header names, in millivolts."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer

from mets_ray.ecg import wfdb_signals
from mets_ray.ecg.ecg import UNITS, check_sampling_rate, to_millivolts
from mets_ray.ecg.formats.limits import MAX_SAMPLES
from mets_ray.ecg.wfdb_header import Header, parse_header
from mets_ray.ecg.wfdb_signal_lines import Signal
from mets_ray.errors import RecordError


@dataclass(frozen=True)
class Limits:
    """Of a record that anybody may have sent. max_samples: of all signals together; comments count as header."""

    max_samples: int
    max_duration_s: float
    max_signals: int = 64
    max_header_bytes: int = 256 * 1024
    max_segments: int = 4096


@dataclass(frozen=True)
class Files:
    """The files of a record. read: the bytes of one, by its name. limits: None for one's own records."""

    read: Callable[[str], bytes]
    limits: Limits | None = None

    def header(self, record: str) -> Header:
        """Of a record in the same folder, by its name without `.hea`."""
        data = self.read(f"{record}.hea")
        if self.limits is None:
            return parse_header(data)
        if len(data) > self.limits.max_header_bytes:
            raise RecordError("unsupported_format", f"the header has {len(data)} bytes")
        header = parse_header(data, self.limits.max_signals)
        if len(header.segments) > self.limits.max_segments:
            raise RecordError("unsupported_format", f"the record has {len(header.segments)} segments")
        return header

    def signal_file(self, name: str) -> bytes:
        if name.lower().endswith(".hea"):
            raise RecordError("missing_file", f"the signal file `{name[:80]}` is a header")
        return self.read(name)

    def check_length(self, header: Header, num_frames: int) -> None:
        """Raise RecordError `too_long`, or `implausible_sampling_rate`: 1e9 Hz would make any record short."""
        if self.limits is None:
            return
        rate = header.sampling_rate_hz
        check_sampling_rate(rate)
        samples = num_frames * sum(signal.samples_per_frame for signal in header.signals)
        # A rate some millionths below a round one makes the last sample begin after the limit.
        too_long = num_frames * header.samples_per_frame >= self.limits.max_duration_s * rate + 1
        if too_long or samples > self.limits.max_samples:
            raise RecordError(
                "too_long",
                f"{samples} samples of {len(header.signals)} signals at {rate:g} Hz, "
                f"{num_frames / header.frames_per_s:.1f} s, of the {self.limits.max_duration_s:g} s and "
                f"{self.limits.max_samples} samples allowed",
                hint="send a shorter part",
            )


def check_empty_samples(header: Header, num_frames: int) -> None:
    """Raise RecordError `too_long` where a header asks for more memory than a machine has, and no file holds as many
    bytes: gaps, null signals, and FLAC of a signal that stands still."""
    samples = num_frames * sum(signal.samples_per_frame for signal in header.signals)
    if samples > MAX_SAMPLES:
        raise RecordError("too_long", f"the header asks for {samples} samples, of {MAX_SAMPLES} that are read")


def read_leads(header: Header, files: Files) -> Float[np.ndarray, "lead sample"]:
    """`header.leads` in mV, in their order; NaN where a sample is marked invalid, or was not recorded.

    Sizes and checksums of the header are verified, sizes before anything is decoded.
    """
    data = {name: files.signal_file(name) for name in header.file_names}
    for name, content in data.items():
        header.check_size(name, len(content))
    num_frames = _num_frames(header, data)
    files.check_length(header, num_frames)
    if any(signal.format not in wfdb_signals.SAMPLE_BITS for signal in header.signals):
        check_empty_samples(header, num_frames)
    rows: dict[int, Float[np.ndarray, " sample"]] = {}
    for name, content in data.items():
        stored = header.in_file(name)
        samples = wfdb_signals.decode(
            stored[0].format,
            content,
            num_frames=header.num_frames,
            offset=stored[0].byte_offset,
            initial=tuple(signal.initial for signal in stored),
            samples_per_frame=tuple(signal.samples_per_frame for signal in stored),
        )
        _check_checksums(samples, stored, is_length_stated=header.num_frames is not None)
        positions = header.places_in(name)
        kept = [number for number, signal in enumerate(stored) if signal.is_ecg]
        if kept:
            physical = _to_millivolts(_of(samples, kept), [stored[number] for number in kept])
            rows |= {positions[number]: row for number, row in zip(kept, physical, strict=True)}
    length = num_frames * header.samples_per_frame
    if any(len(row) != length for row in rows.values()):
        raise RecordError("header_mismatch", "the signal files hold different numbers of samples")
    if not header.leads:
        return np.empty((0, length))
    if len(rows) == len(header.signals) and len(data) == 1:
        return physical  # as nearly all records: all leads, from one file
    absent = np.full(length, np.nan)
    return np.stack([rows.get(number, absent) for number, signal in enumerate(header.signals) if signal.is_ecg])


def _num_frames(header: Header, data: dict[str, bytes]) -> int:
    """Without a length in the header the largest file gives it."""
    if header.num_frames is not None:
        return header.num_frames
    lengths = [0]
    for name, content in data.items():
        stored = header.in_file(name)
        in_frame = sum(signal.samples_per_frame for signal in stored)
        lengths.append(wfdb_signals.length_of(stored[0].format, content, stored[0].byte_offset, in_frame))
    return max(lengths)


def _of(samples: wfdb_signals.Samples, rows: list[int]) -> Integer[np.ndarray, "row sample"]:
    if isinstance(samples, np.ndarray):
        return samples if len(rows) == len(samples) else samples[rows]
    return np.stack([samples[row] for row in rows])


def _check_checksums(samples: wfdb_signals.Samples, signals: list[Signal], *, is_length_stated: bool) -> None:
    """header(5): the 16-bit sum of all samples of a signal; 0 is a placeholder where the length is not stated.

    What overflows in the samples' own type, of 16 bits or more, is a multiple of 65536.
    """
    if isinstance(samples, np.ndarray):
        sums = samples.sum(axis=1, dtype=samples.dtype.newbyteorder("=")).tolist()
    else:
        sums = [int(row.sum(dtype=row.dtype.newbyteorder("="))) for row in samples]
    wrong = [
        signal.name
        for signal, total in zip(signals, sums, strict=True)
        if signal.checksum is not None
        and (is_length_stated or signal.checksum != 0)
        and (total - signal.checksum) % 65536
    ]
    if wrong:
        raise RecordError(
            "header_mismatch", f"the samples of {', '.join(wrong)} do not add up to the header's checksum"
        )


def _to_millivolts(
    samples: Integer[np.ndarray, "signal sample"], signals: list[Signal]
) -> Float[np.ndarray, "signal sample"]:
    physical = samples.astype(np.float64)
    if any(signal.baseline for signal in signals):
        physical -= np.array([signal.baseline for signal in signals], dtype=np.float64)[:, None]
    physical /= np.array([signal.gain for signal in signals])[:, None]
    invalid = wfdb_signals.invalid(signals[0].format, samples)
    if invalid.any():
        physical[invalid] = np.nan
    for row, signal in zip(physical, signals, strict=True):
        if skew := min(signal.skew * signal.samples_per_frame, len(row)):
            row[: len(row) - skew] = row[skew:].copy()
            row[len(row) - skew :] = np.nan  # the file ends before the record does
    units = {signal.unit for signal in signals}
    if len(units) == 1:
        unit = units.pop()
        return physical if UNITS.get(unit) == 1.0 else to_millivolts(physical, unit)
    return np.stack([to_millivolts(row, signal.unit) for row, signal in zip(physical, signals, strict=True)])
