"""Waveform data of MFER (ISO 22077-1, 5.2): frames of sequences, in each the blocks of all channels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from mets_ray.ecg.formats import mfer_definitions as tags
from mets_ray.ecg.formats.limits import check_samples
from mets_ray.ecg.formats.mfer_definitions import Order
from mets_ray.errors import RecordError

Held = Mapping[int, tuple[bytes, Order]]
"""What is defined for a channel: by tag its value, and the byte order at that time."""

# By number; 4 holds bits of status and no samples. 9, the compression of the AHA data base, is not read.
_TYPES = {0: "i2", 1: "u2", 2: "i4", 3: "u1", 4: "u2", 5: "i1", 6: "u4", 7: "f4", 8: "f8"}
_STATUS = 4
_VOLT = 0
_HERTZ, _SECOND = 0, 1
_UNSTATED_RATE_HZ = 1000.0
_WHAT_COUNTS = (tags.BLOCK, tags.LEAD, tags.TYPE, tags.INTERVAL, tags.STEP, tags.OFFSET, tags.NULL)


@dataclass(frozen=True)
class Channel:
    """A channel of a frame: what is defined for it, and its samples as they are stored."""

    held: Held
    start: int
    stored: Shaped[np.ndarray, " sample"]

    @property
    def is_voltage(self) -> bool:
        """Also without a step: an ECG without one is refused, and not left out."""
        return _number(self.held, tags.TYPE, 0) != _STATUS and (self._scale(tags.STEP) or (_VOLT,))[0] == _VOLT

    @property
    def rate_hz(self) -> float:
        """1000 Hz is what the standard says for a file that says nothing."""
        scale = self._scale(tags.INTERVAL)
        if scale is None:
            return _UNSTATED_RATE_HZ
        unit, mantissa, exponent = scale
        if unit not in (_HERTZ, _SECOND) or mantissa <= 0:
            raise RecordError("implausible_sampling_rate", f"the MFER file gives {mantissa}e{exponent} in unit {unit}")
        value = float(f"{mantissa}e{exponent}")
        return value if unit == _HERTZ else float(f"{1 / value:.12g}")

    def millivolts(self, name: str) -> Float[np.ndarray, " sample"]:
        """(sample + offset) x step; what the file calls null is NaN. Raises RecordError `missing_unit`."""
        scale = self._scale(tags.STEP)
        if scale is None:
            raise RecordError("missing_unit", f"the MFER file gives no size of a step for {name}")
        _, mantissa, exponent = scale
        exponent += 3  # V to mV
        factor = float(10 ** abs(exponent))
        samples: Float[np.ndarray, " sample"] = (self.stored + self._sample(tags.OFFSET, 0.0)) * mantissa
        samples = samples * factor if exponent >= 0 else samples / factor
        null = self._sample(tags.NULL, None)
        if null is not None:
            samples[self.stored == null] = np.nan
        return samples

    def _scale(self, tag: int) -> tuple[int, int, int] | None:
        """Unit, mantissa and exponent of ten."""
        value, order = self.held.get(tag, (b"", "big"))
        if not value:
            return None
        if not 3 <= len(value) <= 10:
            raise RecordError("unreadable_file", f"a scale in the MFER file has {len(value)} bytes")
        return value[0], int.from_bytes(value[2:], order, signed=True), int.from_bytes(value[1:2], "big", signed=True)

    def _sample(self, tag: int, otherwise: Any) -> Any:
        """A value that is stored as the samples are."""
        value, order = self.held.get(tag, (b"", "big"))
        return float(np.frombuffer(value, _dtype(self.held, order), 1)[0]) if value else otherwise


def cut(data: bytes, held: Sequence[Held], order: Order, start: int | None, num_bytes: int) -> list[Channel]:
    """One frame; `order` is that of its samples, `start` the number of its first one where the file says it.

    Raises RecordError `truncated_file` for fewer sequences than are defined, `header_mismatch` for samples behind the
    last of them, `too_large`.
    """
    dtypes = [_dtype(one, order) for one in held]
    blocks = [_number(one, tags.BLOCK, 1) for one in held]
    size = sum(block * dtype.itemsize for block, dtype in zip(blocks, dtypes, strict=True))
    if min(blocks) < 1:
        raise RecordError("unreadable_file", "a block of the MFER file has no samples")
    counts = {_number(one, tags.SEQUENCES, len(data) // size) for one in held}
    count = counts.pop()
    if counts:
        raise RecordError("unsupported_format", "the channels of the MFER file have different numbers of sequences")
    if not count or len(data) < count * size:
        raise RecordError("truncated_file", f"a frame of {count} x {size} bytes has {len(data)} in the MFER file")
    if len(data) - count * size >= min(dtype.itemsize for dtype in dtypes):
        raise RecordError("header_mismatch", f"a frame of {count} x {size} bytes has {len(data)} in the MFER file")
    check_samples(1, count * sum(blocks), num_bytes)
    sequences = np.frombuffer(data, np.uint8, count * size).reshape(count, size)
    channels, at = [], 0
    for one, block, dtype in zip(held, blocks, dtypes, strict=True):
        part = np.ascontiguousarray(sequences[:, at : at + block * dtype.itemsize])
        begins = -1 if start is None else start * block // blocks[0]
        channels.append(Channel(one, begins, part.view(dtype).reshape(-1)))
        at += block * dtype.itemsize
    return channels


def join(frames: Sequence[Sequence[Channel]]) -> list[list[Channel]]:
    """By channel its parts, each with its start. A frame without a pointer follows the one before."""
    first = [{tag: one.held.get(tag) for tag in _WHAT_COUNTS} for one in frames[0]]
    parts: list[list[Channel]] = [[] for _ in first]
    for frame in frames:
        if [{tag: one.held.get(tag) for tag in _WHAT_COUNTS} for one in frame] != first:
            raise RecordError("unsupported_format", "the frames of the MFER file have different channels or scales")
        for row, one in zip(parts, frame, strict=True):
            behind = row[-1].start + len(row[-1].stored) if row else 0
            start = behind if one.start < 0 else one.start
            if start < behind and row:
                raise RecordError("unreadable_file", "the frames of the MFER file overlap in time")
            row.append(Channel(one.held, start, one.stored))
    return parts


def _number(held: Held, tag: int, otherwise: int) -> int:
    value, order = held.get(tag, (b"", "big"))
    return int.from_bytes(value[:4], order) if value else otherwise


def _dtype(held: Held, order: Order) -> np.dtype[Any]:
    number = _number(held, tags.TYPE, 0)
    if number not in _TYPES:
        raise RecordError("unsupported_format", f"the samples of the MFER file are of type {number}")
    return np.dtype(_TYPES[number]).newbyteorder(">" if order == "big" else "<")
