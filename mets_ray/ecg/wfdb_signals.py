"""Signal files of WFDB: bytes become digital samples. https://physionet.org/physiotools/wag/signal-5.htm

numpy decodes all formats but FLAC, in a fiftieth of the time of wfdb.rdrecord, which reads the header a second time
with pandas. The tests compare every format with wfdb.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Integer

from mets_ray.errors import RecordError

# Bits that one sample takes in a signal file. The FLAC formats have no fixed size.
SAMPLE_BITS = {
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

PACKED = {"212": 3, "310": 4, "311": 4}
"""Bytes in the groups that files of these formats consist of."""

FLAC = ("508", "516", "524")

# A sample that the recorder marked as invalid: the lowest value of the format. Format 8 holds differences and has none.
_INVALID = {
    "80": -(2**7),
    "508": -(2**7),
    "310": -(2**9),
    "311": -(2**9),
    "212": -(2**11),
    "16": -(2**15),
    "61": -(2**15),
    "160": -(2**15),
    "516": -(2**15),
    "24": -(2**23),
    "524": -(2**23),
    "32": -(2**31),
}


def length_of(sample_format: str, size: int, num_signals: int) -> int:
    """Samples of each of `num_signals` signals in `size` bytes; not for FLAC."""
    return int(size * 8 / (SAMPLE_BITS[sample_format] * num_signals))


def decode(
    sample_format: str, data: bytes, *, num_samples: int | None, offset: int, initial: tuple[int, ...]
) -> Integer[np.ndarray, "signal sample"]:
    """The samples of one signal file, whose signals take turns.

    offset: where they begin, in bytes (FLAC: in samples). initial: the value before the first sample of each signal,
    which only format 8 needs. num_samples: of each signal, or None for as many as there are.
    Raises RecordError `truncated_file`.
    """
    signals = len(initial)
    if sample_format in FLAC:
        return _flac(sample_format, data, num_samples, offset, signals)
    if num_samples is None:
        num_samples = length_of(sample_format, len(data) - offset, signals)
    if num_samples < 1:
        raise RecordError("truncated_file", "the signal file holds no samples")
    count = num_samples * signals
    if dtype := _WHOLE_NUMBERS.get(sample_format):
        flat = np.frombuffer(data, dtype, count, offset)
    else:
        flat = _PACKED_DECODERS[sample_format](np.frombuffer(data, np.uint8, offset=offset), count)
    samples = np.ascontiguousarray(flat.reshape(num_samples, signals).T)
    if sample_format == "8":
        return samples.cumsum(axis=1, dtype=np.int32) + np.array(initial, dtype=np.int32)[:, None]
    if zero := {"80": 128, "160": 32768}.get(sample_format):
        return samples.astype(np.int32) - zero
    return samples


def invalid(sample_format: str, samples: Integer[np.ndarray, "signal sample"]) -> Bool[np.ndarray, "signal sample"]:
    """Which samples the recorder marked as invalid."""
    mark = _INVALID.get(sample_format)
    return np.zeros(samples.shape, dtype=bool) if mark is None else samples == mark


def _groups(data: np.ndarray, size: int, count: int, per_group: int) -> np.ndarray:
    """The bytes of `count` samples as [byte of the group, group], int32; the last group may lack its end."""
    groups = -(-count // per_group)
    data = data[: groups * size]
    return np.pad(data, (0, groups * size - len(data))).reshape(groups, size).T.astype(np.int32)


def _signed(samples: np.ndarray, bits: int, count: int) -> np.ndarray:
    """[sample of the group, group] of unsigned `bits` → flat, in two's complement."""
    sign = 1 << (bits - 1)
    return ((samples ^ sign) - sign).T.ravel()[:count].astype(np.int32)


def _decode_24(data: np.ndarray, count: int) -> np.ndarray:
    low, middle, high = _groups(data, 3, count, 1)
    return _signed((low | middle << 8 | high << 16)[None], 24, count)


def _decode_212(data: np.ndarray, count: int) -> np.ndarray:
    first, both, second = _groups(data, 3, count, 2)
    return _signed(np.stack([first | (both & 0x0F) << 8, second | (both & 0xF0) << 4]), 12, count)


def _decode_310(data: np.ndarray, count: int) -> np.ndarray:
    a, b, c, d = _groups(data, 4, count, 3)
    return _signed(np.stack([a >> 1 | (b & 7) << 7, c >> 1 | (d & 7) << 7, b >> 3 | (d >> 3) << 5]), 10, count)


def _decode_311(data: np.ndarray, count: int) -> np.ndarray:
    a, b, c, d = _groups(data, 4, count, 3)
    return _signed(np.stack([a | (b & 3) << 8, b >> 2 | (c & 15) << 6, c >> 4 | (d & 63) << 4]), 10, count)


_WHOLE_NUMBERS = {"8": "i1", "80": "u1", "16": "<i2", "61": ">i2", "160": "<u2", "32": "<i4"}

_PACKED_DECODERS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "24": _decode_24,
    "212": _decode_212,
    "310": _decode_310,
    "311": _decode_311,
}


def _flac(
    sample_format: str, data: bytes, num_samples: int | None, offset: int, signals: int
) -> Integer[np.ndarray, "signal sample"]:
    """FLAC through wfdb, which opens local files only and gets a header that holds what matters and nothing else."""
    import wfdb  # takes a second

    lines = [f"r {signals} 100 {'' if num_samples is None else num_samples}"]
    lines += [f"r.dat {sample_format}+{offset} 1(0)/mV 16 0 0 0 0 s{number}" for number in range(signals)]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "r.hea").write_text("\n".join(lines) + "\n")
        (Path(folder) / "r.dat").write_bytes(data)
        try:
            samples: np.ndarray = wfdb.rdrecord(str(Path(folder) / "r"), physical=False).d_signal.T
        except Exception as error:  # wfdb raises many kinds of exception for bytes that it cannot decode
            raise RecordError("truncated_file", f"wfdb cannot decode the signals: {error}") from error
    if num_samples is not None and samples.shape[1] != num_samples:
        raise RecordError("truncated_file", f"{samples.shape[1]} samples of {num_samples}")
    return samples
