"""One WFDB record (`.hea` with its `.dat` or `.mat`) as an `Ecg`, from any storage.

Formats: https://physionet.org/physiotools/wag/header-5.htm and signal-5.htm. Samples are decoded by wfdb (4 ms for a
PTB-XL record at 100 Hz). The header is parsed here as well, because wfdb fills in what is not there (mV for a missing
unit, 200 for a missing gain) and reads headers as ASCII with the rest dropped, which turns µV into V.
"""

import math
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from mets_ray import storage
from mets_ray.ecg.ecg import Ecg, check_sampling_rate, to_millivolts
from mets_ray.errors import RecordError

# The reasons of every RecordError that `read_wfdb` raises, besides `to_millivolts`' missing_unit and unknown_unit.
REASONS = (
    "missing_file",  # no header, or no signal file that the header names
    "unreadable_header",  # not in the format of header(5), or without a sampling rate
    "header_mismatch",  # signal lines, file size or checksums disagree with the header
    "truncated_file",  # fewer samples than the header says
    "unsupported_format",  # several segments, several samples per frame, skewed signals, or an unknown format
)

# Bits that one sample takes in a signal file: signal(5). The FLAC formats (508, 516, 524) have no fixed size.
_SAMPLE_BITS = {
    "8": 8,
    "80": 8,
    "16": 16,
    "61": 16,
    "160": 16,
    "24": 24,
    "32": 32,
    "212": 12,
    "310": 32 / 3,
    "311": 32 / 3,
}

_PACKED = {"212": 3, "310": 4, "311": 4}  # bytes in the groups that files of these formats consist of

_FLAC = ("508", "516", "524")

_MAX_SIGNALS = 64  # of a record that anybody may have sent

_MAX_HEADER_BYTES = 256 * 1024  # the same; comments count

_STORAGE = re.compile(r"(?P<format>\d+)(x(?P<per_frame>\d+))?(:(?P<skew>\d+))?(\+(?P<offset>\d+))?")
_GAIN = re.compile(r"(?P<gain>[-+]?[\d.]+([eE][-+]?\d+)?)(\((?P<baseline>-?\d+)\))?(/(?P<unit>\S+))?")


@dataclass(frozen=True)
class _Signal:
    """One signal line."""

    file_name: str
    format: str
    byte_offset: int
    gain: float
    baseline: int
    initial: int
    unit: str
    checksum: int | None
    name: str


@dataclass(frozen=True)
class _Header:
    sampling_rate_hz: float
    num_samples: int | None
    signals: tuple[_Signal, ...]


@dataclass(frozen=True)
class HeaderFacts:
    """What a manifest needs of a header: lead names, length, and the `#` lines without their `#`."""

    leads: tuple[str, ...]
    num_samples: int | None
    sampling_rate_hz: float
    comments: tuple[str, ...]
    data: bytes


def read_header(record_uri: str, *, unstated_unit: str | None = None) -> HeaderFacts:
    """The header of a record, without its samples; arguments and errors as `read_wfdb`."""
    stem = record_uri.removesuffix(".hea")
    try:
        data = _read(f"{stem}.hea")
        header = _parse_header(data, unstated_unit=unstated_unit)
    except RecordError as error:
        error.where = error.where or record_uri
        raise
    lines = [line.strip() for line in data.decode("utf-8", errors="replace").splitlines()]
    return HeaderFacts(
        leads=tuple(signal.name for signal in header.signals),
        num_samples=header.num_samples,
        sampling_rate_hz=header.sampling_rate_hz,
        comments=tuple(line.lstrip("#").strip() for line in lines if line.startswith("#")),
        data=data,
    )


def read_wfdb(record_uri: str, *, unstated_unit: str | None = None) -> Ecg:
    """Read a record; `record_uri` is its path with or without `.hea`. All leads, the whole length.

    Samples that are marked invalid become NaN. Sizes and checksums of the header are verified.
    `unstated_unit` is for a database that gives the unit in its documentation and not in its headers; without it,
    such a header is refused.
    Raises RecordError with one of `REASONS`, `missing_unit` or `unknown_unit`; DatasetError where the store itself
    fails.
    """
    stem = record_uri.removesuffix(".hea")
    folder = stem.rpartition("/")[0]
    try:
        header_bytes = _read(f"{stem}.hea")
        header = _parse_header(header_bytes, unstated_unit=unstated_unit)
        files = {
            name: _read(storage.join(folder, name) if folder else name)
            for name in dict.fromkeys(signal.file_name for signal in header.signals)
        }
        for name, data in files.items():
            _check_size(name, len(data), header)
        return _ecg(header, *_decode(stem, header, files | {f"{stem.rpartition('/')[2]}.hea": header_bytes}))
    except RecordError as error:
        error.where = error.where or record_uri
        raise


def decode_wfdb(header_name: str, files: dict[str, bytes], *, max_samples: int, max_duration_s: float) -> Ecg:
    """The same for a record that anybody may have sent: its `files` in memory, by name, the header among them.

    Sizes are checked before anything is decoded, because wfdb needs 25 bytes of memory per sample: at most
    `max_samples` of all leads together, and `max_duration_s`. FLAC, which unpacks to any size, is refused.
    Raises RecordError as `read_wfdb`, `too_long` and `implausible_sampling_rate`.
    """
    try:
        if len(files[header_name]) > _MAX_HEADER_BYTES:
            raise RecordError("unsupported_format", f"the header has {len(files[header_name])} bytes")
        header = _parse_header(files[header_name], max_signals=_MAX_SIGNALS)
        signal_files = {signal.file_name: files.get(signal.file_name) for signal in header.signals}
        for name, data in signal_files.items():
            if data is None or name == header_name:
                raise RecordError("missing_file", f"the header names `{name[:80]}`, which is not there")
            _check_size(name, len(data), header)
        if any(signal.format in _FLAC for signal in header.signals):
            raise RecordError("unsupported_format", "the samples are FLAC", hint="write them as format 16")
        _check_length(
            header, {name: len(data or b"") for name, data in signal_files.items()}, max_samples, max_duration_s
        )
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "r.hea").write_text(_plain_header(header, list(signal_files)))
            for number, data in enumerate(signal_files.values()):
                (Path(folder) / f"{number}.dat").write_bytes(data or b"")
            digital, invalid = _decode_local(Path(folder) / "r", header)
        return _ecg(header, digital, invalid)
    # Numbers of 5,000 digits, for example. No OSError: a full disk is the server's fault.
    except (ValueError, TypeError, ArithmeticError) as error:
        raise RecordError("unreadable_header", "the header holds a number that cannot be") from error


def _plain_header(header: _Header, file_names: list[str]) -> str:
    """A header for wfdb that holds what was checked and nothing else. wfdb's own reading could differ: it drops what is
    not ASCII. Rate, gain and unit do not matter to the samples."""
    lines = [f"r {len(header.signals)} 100 {'' if header.num_samples is None else header.num_samples}"]
    for signal in header.signals:
        name = f"{file_names.index(signal.file_name)}.dat"
        lines.append(f"{name} {signal.format}+{signal.byte_offset} 1(0)/mV 16 0 {signal.initial} 0 0 s")
    return "\n".join(lines) + "\n"


def _read(uri: str) -> bytes:
    try:
        return storage.read_bytes(uri)
    except storage.MissingFileError as error:
        raise RecordError("missing_file", f"`{uri.rpartition('/')[2]}` does not exist") from error


def _parse_header(data: bytes, max_signals: int | None = None, unstated_unit: str | None = None) -> _Header:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")  # old headers write µ as one byte
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    record = lines[0].split() if lines else []
    if len(record) < 2 or not record[1].isdigit():
        raise RecordError("unreadable_header", f"the record line is `{lines[0][:80] if lines else ''}`")
    if "/" in record[0]:
        raise RecordError("unsupported_format", "the record has several segments", hint="write it as one with wfdb")
    rate = re.match(r"[\d.]+(e[-+]?\d+)?", record[2]) if len(record) > 2 else None
    if rate is None:
        raise RecordError("unreadable_header", "the record line gives no sampling rate")
    count = int(record[1])
    if max_signals is not None and max(count, len(lines) - 1) > max_signals:
        raise RecordError("unsupported_format", f"the record has {max(count, len(lines) - 1)} signals")
    if count == 0 or len(lines) - 1 != count:
        raise RecordError("header_mismatch", f"the record line says {count} signals, {len(lines) - 1} lines follow")
    try:
        num_samples = int(record[3]) if len(record) > 3 else 0
        signals = tuple(_parse_signal(line, number, unstated_unit) for number, line in enumerate(lines[1:]))
        return _Header(float(rate[0]), num_samples or None, signals)
    except ValueError as error:
        raise RecordError("unreadable_header", f"a number in the header cannot be read: {error}") from error


def _parse_signal(line: str, number: int, unstated_unit: str | None) -> _Signal:
    # FILE FORMAT[xN][:SKEW][+OFFSET] GAIN[(BASELINE)][/UNIT] RESOLUTION ZERO INITIAL CHECKSUM BLOCK DESCRIPTION
    fields = line.split(maxsplit=8)
    stored = _STORAGE.fullmatch(fields[1]) if len(fields) > 1 else None
    if stored is None:
        raise RecordError("unreadable_header", f"a signal line is `{line[:80]}`")
    sample_format = stored["format"]
    if sample_format not in _SAMPLE_BITS and sample_format not in _FLAC:
        raise RecordError("unsupported_format", f"signal {number} has format {sample_format}")
    if int(stored["per_frame"] or 1) != 1 or int(stored["skew"] or 0) != 0:
        raise RecordError("unsupported_format", f"signal {number} has another rate than the record, or a skew")
    name = fields[8] if len(fields) > 8 else f"signal {number}"
    scale = _GAIN.fullmatch(fields[2]) if len(fields) > 2 else None
    if len(fields) > 2 and scale is None:
        raise RecordError("unreadable_header", f"the gain of {name} is `{fields[2]}`")
    if scale is None or float(scale["gain"]) == 0.0:
        raise RecordError("missing_unit", f"the header gives no gain for {name}, so its samples have no unit")
    unit = scale["unit"] or unstated_unit
    if unit is None:
        raise RecordError("missing_unit", f"the header gives no unit for {name}", hint="write gain/mV, if it is mV")
    if fault := storage.path_fault(fields[0]) or ("it has a slash" if "/" in fields[0] else ""):
        raise RecordError(
            "unreadable_header", f"signal file {fields[0][:80]!r} is not one in the header's own folder: {fault}"
        )
    adc_zero = int(fields[4]) if len(fields) > 4 else 0
    return _Signal(
        file_name=fields[0],
        format=sample_format,
        byte_offset=int(stored["offset"] or 0),
        gain=float(scale["gain"]),
        baseline=int(scale["baseline"]) if scale["baseline"] else adc_zero,
        initial=int(fields[5]) if sample_format == "8" and len(fields) > 5 else 0,
        unit=unit,
        checksum=int(fields[6]) if len(fields) > 6 else None,
        name=name,
    )


def _check_size(name: str, size: int, header: _Header) -> None:
    stored = [signal for signal in header.signals if signal.file_name == name]
    if len({(signal.format, signal.byte_offset) for signal in stored}) > 1:
        raise RecordError("header_mismatch", f"the signal lines of `{name}` give it several formats or offsets")
    bits = _SAMPLE_BITS.get(stored[0].format)
    if bits is None:
        return
    if header.num_samples is None:
        frame = len(stored) * bits / 8
        if stored[0].format not in _PACKED and (size - stored[0].byte_offset) % frame:
            raise RecordError("truncated_file", f"`{name}` ends inside a frame of {len(stored)} samples")
        return
    expected = stored[0].byte_offset + math.ceil(header.num_samples * len(stored) * bits / 8)
    if size < expected:
        raise RecordError("truncated_file", f"`{name}` has {size} bytes of the {expected} that the header says")
    if size >= expected + _PACKED.get(stored[0].format, 1):
        raise RecordError("header_mismatch", f"`{name}` has {size} bytes, the header says {expected}")


def _check_length(header: _Header, sizes: dict[str, int], max_samples: int, max_duration_s: float) -> None:
    """`sizes` in bytes by signal file; without a number of samples in the header the largest file gives it."""
    rate = header.sampling_rate_hz
    check_sampling_rate(rate)  # 1e9 Hz would make any record short
    length = header.num_samples or 0
    if header.num_samples is None:
        for signal in header.signals:
            together = sum(other.file_name == signal.file_name for other in header.signals)
            length = max(length, int(sizes[signal.file_name] * 8 / (_SAMPLE_BITS[signal.format] * together)))
    if length > max_duration_s * rate or length * len(header.signals) > max_samples:
        raise RecordError(
            "too_long",
            f"{length} samples of {len(header.signals)} leads at {rate:g} Hz, {length / rate:.1f} s, of the "
            f"{max_duration_s:g} s and {max_samples} samples allowed",
            hint="send a shorter part",
        )


def _decode(
    stem: str, header: _Header, files: dict[str, bytes]
) -> tuple[Int[np.ndarray, "lead sample"], Bool[np.ndarray, "lead sample"]]:
    """Digital samples and a mask of the invalid ones; wfdb opens local files only, so others are copied first."""
    if storage.is_local(stem):
        return _decode_local(Path(stem.removeprefix("file://")), header)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / stem.rpartition("/")[2]
        for name, data in files.items():
            (path.parent / name).write_bytes(data)
        return _decode_local(path, header)


def _decode_local(
    path: Path, header: _Header
) -> tuple[Int[np.ndarray, "lead sample"], Bool[np.ndarray, "lead sample"]]:
    import wfdb  # takes a second, which readers of synthetic records save

    try:
        record = wfdb.rdrecord(str(path), physical=False)
        digital = record.d_signal.T.astype(np.int64)
        invalid = np.isnan(record.dac().T)
    except Exception as error:  # wfdb raises many kinds of exception for bytes that it cannot decode
        raise RecordError("truncated_file", f"wfdb cannot decode the signals: {error}") from error
    if header.num_samples is not None and digital.shape[1] != header.num_samples:
        raise RecordError("truncated_file", f"{digital.shape[1]} samples of {header.num_samples}")
    return digital, invalid


def _ecg(header: _Header, digital: Int[np.ndarray, "lead sample"], invalid: Bool[np.ndarray, "lead sample"]) -> Ecg:
    _check_checksums(digital, header)
    leads = tuple(signal.name for signal in header.signals)
    return Ecg(_to_physical(digital, invalid, header), leads, header.sampling_rate_hz)


def _check_checksums(digital: Integer[np.ndarray, "lead sample"], header: _Header) -> None:
    """header(5): the 16-bit sum of all samples of a signal."""
    sums = digital.sum(axis=1)
    wrong = [
        signal.name
        for signal, total in zip(header.signals, sums, strict=True)
        if signal.checksum is not None and (int(total) - signal.checksum) % 65536
    ]
    if wrong:
        raise RecordError(
            "header_mismatch", f"the samples of {', '.join(wrong)} do not add up to the header's checksum"
        )


def _to_physical(
    digital: Integer[np.ndarray, "lead sample"], invalid: np.ndarray, header: _Header
) -> Float[np.ndarray, "lead sample"]:
    baseline = np.array([signal.baseline for signal in header.signals], dtype=np.float64)[:, None]
    gain = np.array([signal.gain for signal in header.signals])[:, None]
    physical = (digital - baseline) / gain
    physical[invalid] = np.nan
    units = {signal.unit for signal in header.signals}
    if len(units) == 1:
        return to_millivolts(physical, units.pop())
    return np.stack([to_millivolts(row, s.unit) for row, s in zip(physical, header.signals, strict=True)])
