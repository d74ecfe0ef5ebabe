"""Signal files of WFDB: bytes become digital samples. https://physionet.org/physiotools/wag/signal-5.htm

numpy decodes all formats but FLAC, in a fiftieth of the time of wfdb.rdrecord, which reads the header a second time
with pandas. libsndfile decodes FLAC. The tests compare every format with wfdb.
"""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Integer

from mets_ray.errors import RecordError

if TYPE_CHECKING:
    import soundfile

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

NO_SAMPLES = "0"
"""The format of a null signal: it has a length, no file, and no sample that was recorded."""

Samples = Integer[np.ndarray, "signal sample"] | list[np.ndarray]
"""Of the signals of one file: rows of one array where all have the same rate."""

# libsndfile reads at most 2^24 samples at once: https://github.com/libsndfile/libsndfile/issues/431
_FLAC_BLOCK = 2**20
_FLAC_BITS = {"PCM_S8": 8, "PCM_16": 16, "PCM_24": 24}

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


def length_of(sample_format: str, data: bytes, offset: int, in_frame: int) -> int:
    """Frames of `in_frame` samples in the signal file `data`, of which `offset` bytes (FLAC: samples) come first."""
    if sample_format not in FLAC:
        return int((len(data) - offset) * 8 / (SAMPLE_BITS[sample_format] * in_frame))
    with _flac_file(data) as file:
        return int((file.frames - offset) * file.channels / in_frame)


def decode(
    sample_format: str,
    data: bytes,
    *,
    num_frames: int | None,
    offset: int,
    initial: tuple[int, ...],
    samples_per_frame: tuple[int, ...],
) -> Samples:
    """The samples of one signal file, whose signals take turns: in each frame, `samples_per_frame` of each.

    offset: where they begin, in bytes (FLAC: in samples). initial: the value before the first sample of each signal,
    which only format 8 needs. num_frames: None for as many as there are. Raises RecordError `truncated_file`.
    """
    in_frame = sum(samples_per_frame)
    if num_frames is None:
        num_frames = length_of(sample_format, data, offset, in_frame)
    if num_frames < 1:
        raise RecordError("truncated_file", "the signal file holds no samples")
    if sample_format in FLAC:
        return _flac(sample_format, data, num_frames, offset, samples_per_frame)
    count = num_frames * in_frame
    if dtype := _WHOLE_NUMBERS.get(sample_format):
        flat = np.frombuffer(data, dtype, count, offset)
    else:
        flat = _PACKED_DECODERS[sample_format](np.frombuffer(data, np.uint8, offset=offset), count)
    samples = _of_signals(flat.reshape(num_frames, in_frame), samples_per_frame)
    if sample_format == "8":
        return [row.cumsum(dtype=np.int32) + np.int32(first) for row, first in zip(samples, initial, strict=True)]
    if zero := {"80": 128, "160": 32768}.get(sample_format):
        return [row.astype(np.int32) - zero for row in samples]
    return samples


def _of_signals(frames: Integer[np.ndarray, "frame in_frame"], samples_per_frame: tuple[int, ...]) -> Samples:
    first, signals = samples_per_frame[0], len(samples_per_frame)
    if samples_per_frame == (first,) * signals:
        return np.ascontiguousarray(frames.reshape(-1, signals, first).transpose(1, 0, 2)).reshape(signals, -1)
    ends = np.cumsum(samples_per_frame)
    return [frames[:, end - count : end].ravel() for end, count in zip(ends, samples_per_frame, strict=True)]


def invalid(sample_format: str, samples: Integer[np.ndarray, "*shape"]) -> Bool[np.ndarray, "*shape"]:
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


def _flac_file(data: bytes) -> "soundfile.SoundFile":
    """Raises RecordError `unsupported_format` for bytes that are no FLAC, `truncated_file` for damaged ones."""
    import soundfile  # wfdb needs it too; libsndfile also opens files that are no FLAC

    try:
        if data[:4] == b"fLaC":
            return soundfile.SoundFile(io.BytesIO(data))
    except soundfile.LibsndfileError as error:
        raise RecordError("truncated_file", f"the signal file cannot be decoded: {error}") from error
    raise RecordError("unsupported_format", "the signal file is no FLAC, as the header says")


def _flac(
    sample_format: str, data: bytes, num_frames: int, offset: int, samples_per_frame: tuple[int, ...]
) -> Integer[np.ndarray, "signal sample"]:
    """A stream that has fewer bits than the format is read as what it is; soundfile shifts it to the left."""
    signals, count = len(samples_per_frame), num_frames * samples_per_frame[0]
    with _flac_file(data) as file:
        bits = _FLAC_BITS.get(file.subtype, 99)
        if bits > int(sample_format) - 500 or file.channels != signals or len(set(samples_per_frame)) > 1:
            raise RecordError(
                "header_mismatch",
                f"the file has {file.channels} channels of {bits} bits, the header says {signals} signals of format "
                f"{sample_format} and {samples_per_frame} samples in a frame",
            )
        blocks, missing = [], count
        try:
            file.seek(offset)
            while missing > 0:
                block = file.read(min(missing, _FLAC_BLOCK), dtype="int16" if bits <= 16 else "int32", always_2d=True)
                if not len(block):
                    raise RecordError("truncated_file", f"{count - missing} samples of {count}")
                blocks.append(block.T >> (0 if bits == 16 else 8))
                missing -= len(block)
        except RuntimeError as error:  # soundfile's errors are
            raise RecordError("truncated_file", f"the signal file cannot be decoded: {error}") from error
    return np.ascontiguousarray(np.concatenate(blocks, axis=1))
