"""One WFDB record (`.hea` with its `.dat` or `.mat`) as an `Ecg`, from any storage.

`wfdb_header` reads the header, `wfdb_signals` the samples: a record of PTB-XL at 100 Hz takes 0.2 ms.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer

from mets_ray import storage
from mets_ray.ecg import wfdb_signals
from mets_ray.ecg.ecg import Ecg, check_sampling_rate, to_millivolts
from mets_ray.ecg.wfdb_header import Header, Signal, parse_header
from mets_ray.errors import RecordError

# The reasons of every RecordError that `read_wfdb` raises, besides `to_millivolts`' missing_unit and unknown_unit.
REASONS = (
    "missing_file",  # no header, or no signal file that the header names
    "unreadable_header",  # not in the format of header(5), or without a sampling rate
    "header_mismatch",  # signal lines, file size or checksums disagree with the header
    "truncated_file",  # fewer samples than the header says
    "unsupported_format",  # several segments, several samples per frame, skewed signals, or an unknown format
)

_MAX_SIGNALS = 64  # of a record that anybody may have sent

_MAX_HEADER_BYTES = 256 * 1024  # the same; comments count


@dataclass(frozen=True)
class HeaderFacts:
    """What a manifest needs of a header: names of the ECG's signals, length, and the `#` lines without their `#`."""

    leads: tuple[str, ...]
    num_samples: int | None
    sampling_rate_hz: float
    comments: tuple[str, ...]
    data: bytes


def read_header(record_uri: str) -> HeaderFacts:
    """The header of a record, without its samples; errors as `read_wfdb`."""
    stem = record_uri.removesuffix(".hea")
    try:
        data = _read(f"{stem}.hea")
        header = parse_header(data)
    except RecordError as error:
        error.where = error.where or record_uri
        raise
    return HeaderFacts(
        leads=tuple(signal.name for signal in header.signals if signal.is_ecg),
        num_samples=header.num_samples,
        sampling_rate_hz=header.sampling_rate_hz,
        comments=header.comments,
        data=data,
    )


def read_wfdb(record_uri: str) -> Ecg:
    """Read a record; `record_uri` is its path with or without `.hea`. All leads, the whole length.

    Samples that are marked invalid become NaN. Sizes and checksums of the header are verified. Signals that are no ECG
    are left out, and named in `Ecg.other_signals`.
    Raises RecordError with one of `REASONS`, `missing_unit` or `unknown_unit`; DatasetError where the store itself
    fails.
    """
    stem = record_uri.removesuffix(".hea")
    folder = stem.rpartition("/")[0]
    try:
        header = parse_header(_read(f"{stem}.hea"))
        files = {
            name: _read(storage.join(folder, name) if folder else name)
            for name in dict.fromkeys(signal.file_name for signal in header.signals)
        }
        for name, data in files.items():
            header.check_size(name, len(data))
        return _ecg(header, files)
    except RecordError as error:
        error.where = error.where or record_uri
        raise


def decode_wfdb(header_name: str, files: dict[str, bytes], *, max_samples: int, max_duration_s: float) -> Ecg:
    """The same for a record that anybody may have sent: its `files` in memory, by name, the header among them.

    Sizes are checked before anything is decoded: at most `max_samples` of all leads together, and `max_duration_s`.
    FLAC, which unpacks to any size, is refused.
    Raises RecordError as `read_wfdb`, `too_long` and `implausible_sampling_rate`.
    """
    try:
        if len(files[header_name]) > _MAX_HEADER_BYTES:
            raise RecordError("unsupported_format", f"the header has {len(files[header_name])} bytes")
        header = parse_header(files[header_name], max_signals=_MAX_SIGNALS)
        signal_files: dict[str, bytes] = {}
        for name in dict.fromkeys(signal.file_name for signal in header.signals):
            if name not in files or name == header_name:
                raise RecordError("missing_file", f"the header names `{name[:80]}`, which is not there")
            signal_files[name] = files[name]
            header.check_size(name, len(files[name]))
        if any(signal.format in wfdb_signals.FLAC for signal in header.signals):
            raise RecordError("unsupported_format", "the samples are FLAC", hint="write them as format 16")
        _check_length(header, {name: len(data) for name, data in signal_files.items()}, max_samples, max_duration_s)
        return _ecg(header, signal_files)
    except (ValueError, TypeError, ArithmeticError) as error:  # numbers of 5,000 digits, for example
        raise RecordError("unreadable_header", "the header holds a number that cannot be") from error


def _read(uri: str) -> bytes:
    try:
        return storage.read_bytes(uri)
    except storage.MissingFileError as error:
        raise RecordError("missing_file", f"`{uri.rpartition('/')[2]}` does not exist") from error


def _check_length(header: Header, sizes: dict[str, int], max_samples: int, max_duration_s: float) -> None:
    """`sizes` in bytes by signal file; without a number of samples in the header the largest file gives it."""
    rate = header.sampling_rate_hz
    check_sampling_rate(rate)  # 1e9 Hz would make any record short
    length = header.num_samples or 0
    if header.num_samples is None:
        for signal in header.signals:
            together = len(header.in_file(signal.file_name))
            length = max(length, wfdb_signals.length_of(signal.format, sizes[signal.file_name], together))
    # A rate some millionths below a round one makes the last sample begin after the limit.
    if length >= max_duration_s * rate + 1 or length * len(header.signals) > max_samples:
        raise RecordError(
            "too_long",
            f"{length} samples of {len(header.signals)} leads at {rate:g} Hz, {length / rate:.1f} s, of the "
            f"{max_duration_s:g} s and {max_samples} samples allowed",
            hint="send a shorter part",
        )


def _ecg(header: Header, files: dict[str, bytes]) -> Ecg:
    rows: dict[int, Float[np.ndarray, " sample"]] = {}
    for name, data in files.items():
        stored = header.in_file(name)
        samples = wfdb_signals.decode(
            stored[0].format,
            data,
            num_samples=header.num_samples,
            offset=stored[0].byte_offset,
            initial=tuple(signal.initial for signal in stored),
        )
        _check_checksums(samples, stored)
        positions = [number for number, signal in enumerate(header.signals) if signal.file_name == name]
        kept = [number for number, signal in enumerate(stored) if signal.is_ecg]
        physical = _to_millivolts(samples[kept], [stored[number] for number in kept])
        rows |= {positions[number]: row for number, row in zip(kept, physical, strict=True)}
    if len({len(row) for row in rows.values()}) > 1:
        raise RecordError("header_mismatch", "the signal files hold different numbers of samples")
    return Ecg(
        np.stack([rows[number] for number in sorted(rows)]) if rows else np.empty((0, header.num_samples or 0)),
        tuple(signal.name for signal in header.signals if signal.is_ecg),
        header.sampling_rate_hz,
        other_signals=tuple(signal.name for signal in header.signals if not signal.is_ecg),
    )


def _check_checksums(samples: Integer[np.ndarray, "signal sample"], signals: list[Signal]) -> None:
    """header(5): the 16-bit sum of all samples of a signal."""
    sums = samples.sum(axis=1, dtype=np.int64).tolist()
    wrong = [
        signal.name
        for signal, total in zip(signals, sums, strict=True)
        if signal.checksum is not None and (total - signal.checksum) % 65536
    ]
    if wrong:
        raise RecordError(
            "header_mismatch", f"the samples of {', '.join(wrong)} do not add up to the header's checksum"
        )


def _to_millivolts(
    samples: Integer[np.ndarray, "signal sample"], signals: list[Signal]
) -> Float[np.ndarray, "signal sample"]:
    if not signals:
        return np.empty(samples.shape)
    physical = samples.astype(np.float64)
    physical -= np.array([signal.baseline for signal in signals], dtype=np.float64)[:, None]
    physical /= np.array([signal.gain for signal in signals])[:, None]
    physical[wfdb_signals.invalid(signals[0].format, samples)] = np.nan
    units = {signal.unit for signal in signals}
    if len(units) == 1:
        return to_millivolts(physical, units.pop())
    return np.stack([to_millivolts(row, signal.unit) for row, signal in zip(physical, signals, strict=True)])
