"""The encoding of MFER (ISO 22077-1): a row of definitions with tag, length and value."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mets_ray.errors import RecordError

# ISO 22077-1, table of tags.
PADDING, BYTE_ORDER, CHARACTERS, CHANNELS, POINTER = 0x00, 0x01, 0x03, 0x05, 0x07
BLOCK, SEQUENCES, WAVEFORM, LEAD, TYPE, INTERVAL, STEP = 0x04, 0x06, 0x08, 0x09, 0x0A, 0x0B, 0x0C
OFFSET, COMPRESSION, FILTER, NULL, MAKER, DATA = 0x0D, 0x0E, 0x11, 0x12, 0x17, 0x1E
OF_CHANNEL, PREAMBLE, GROUP, END = 0x3F, 0x40, 0x67, 0x80
PATIENT_ID, AGE, SEX, TIME = 0x82, 0x83, 0x84, 0x85
KNOWN = {*range(0x01, 0x10), 0x11, 0x12, *range(0x15, 0x18), DATA, *range(0x3F, 0x47), GROUP, *range(0x80, 0x89)}

# How long a value can be: text of other tags, and any length of those that hold more definitions or samples.
MOST_BYTES = {BYTE_ORDER: 1, 0x02: 3, BLOCK: 4, CHANNELS: 4, SEQUENCES: 4, POINTER: 8, TYPE: 1, INTERVAL: 10, STEP: 10}
MOST_BYTES |= {OFFSET: 8, NULL: 8, SEX: 1, DATA: 1 << 32, OF_CHANNEL: 1 << 32, GROUP: 1 << 32}
MOST_BYTES_OF_OTHERS = 256

MAX_CHANNELS = 256
MAX_DEPTH = 8

Order = Literal["big", "little"]


@dataclass(frozen=True)
class Definition:
    """channel: from 0, of a definition OF_CHANNEL. size: bytes of the value, which may be cut off in a file's head."""

    tag: int
    channel: int
    value: bytes
    size: int


def definitions(data: bytes, *, is_head: bool = False) -> Iterator[Definition]:
    """All that are in `data`, or in the beginning of a file. Raises RecordError `truncated_file`, `unreadable_file`;
    IndexError for a definition without its length."""
    at = 0
    while at < len(data):
        tag, channel = data[at], 0
        at += 1
        if tag == PADDING:
            continue
        if tag == END:
            return
        if tag == OF_CHANNEL:
            channel, at = _channel(data, at)
        length, begin = _length(data, at)
        end, at = (begin + length, begin + length) if length is not None else _end_of_contents(data, begin)
        if end > len(data) and not is_head:
            raise RecordError("truncated_file", f"a definition of the MFER file lacks {end - len(data)} bytes")
        yield Definition(tag, channel, data[begin:end], end - begin)


def _channel(data: bytes, at: int) -> tuple[int, int]:
    """Seven bits a byte, and the highest bit says that another follows; with the place behind."""
    number = data[at] & 0x7F
    while data[at] & 0x80:
        at += 1
        number = number << 7 | data[at] & 0x7F
        if number > MAX_CHANNELS:
            raise RecordError("unreadable_file", f"the MFER file names a channel above {MAX_CHANNELS}")
    return number, at + 1


def _length(data: bytes, at: int) -> tuple[int | None, int]:
    """None for contents that end with two zeros; with the place behind."""
    first = data[at]
    if first <= 0x80:
        return (None if first == 0x80 else first), at + 1
    if first > 0x84:
        raise RecordError("unreadable_file", f"a length in the MFER file has {first - 0x80} bytes; 4 are allowed")
    behind = at + 1 + first - 0x80
    return int.from_bytes(data[at + 1 : behind], "big"), behind


def _end_of_contents(data: bytes, at: int, depth: int = 1) -> tuple[int, int]:
    """Where contents of unstated length end, and the place behind their two zeros."""
    while depth <= MAX_DEPTH and at + 1 < len(data):
        if data[at : at + 2] == b"\0\0":
            return at, at + 2
        tag = data[at]
        at += 1
        if tag == PADDING:
            continue
        if tag == OF_CHANNEL:
            _, at = _channel(data, at)
        length, at = _length(data, at)
        at = _end_of_contents(data, at, depth + 1)[1] if length is None else at + length
    raise RecordError("unreadable_file", "contents of unstated length have no end in the MFER file")
