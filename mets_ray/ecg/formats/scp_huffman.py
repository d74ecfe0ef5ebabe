"""Huffman code of SCP-ECG (EN 1064, section 2 and annex C), decoded with numpy.

For every bit of a lead it is worked out at once which code would begin there; then one walk along the codes remains.
"""

from array import array
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Integer, UInt64

from mets_ray.errors import RecordError

DEFAULT_TABLE = 19999
_MAX_TABLES = 4  # each is tried at every bit
_MAX_BITS = 32
_CODE_BYTES = 9
_MOST_SAMPLE_BYTES = 3 * _MAX_BITS // 8  # a code that leads to another table, a prefix and a number behind it
_LOOKUP_BITS = 12  # longer codes are looked for one length after the other
_NO_CODE, _CUT_OFF = 1, 2


@dataclass(frozen=True)
class Code:
    """prefix: its first `prefix_bits` bits; `extra_bits` more hold a signed number that is added to `value`. A code
    with `next_table` has no sample: the codes after it are from that table, counted from 0."""

    prefix: int
    prefix_bits: int
    extra_bits: int
    value: int
    next_table: int | None = None


Tables = tuple[tuple[Code, ...], ...]


def default_table() -> tuple[Code, ...]:
    """0 is the bit 0; ±n up to 8 are n ones, a zero and the sign; larger ones follow in 8 or 16 bits."""
    codes = [Code(0, 1, 0, 0)]
    for size in range(1, 9):
        ones = (1 << size) - 1
        codes += [Code(ones << 2, size + 2, 0, size), Code(ones << 2 | 1, size + 2, 0, -size)]
    return (*codes, Code(0b1111111110, 10, 8, 0), Code(0b1111111111, 10, 16, 0))


def parse_tables(body: bytes) -> Tables:
    """Section 2 behind its header. Raises RecordError `unsupported_format`, `unreadable_file`."""
    count = int.from_bytes(body[:2], "little")
    if count == DEFAULT_TABLE:
        return (default_table(),)
    if not 1 <= count <= _MAX_TABLES:
        raise RecordError("unsupported_format", f"the SCP file has {count} Huffman tables; 1 to {_MAX_TABLES} are read")
    tables, position = [], 2
    for _ in range(count):
        size = int.from_bytes(body[position : position + 2], "little")
        position += 2
        fields = body[position : position + size * _CODE_BYTES]
        if not size or len(fields) < size * _CODE_BYTES:
            raise RecordError("unreadable_file", "a Huffman table of the SCP file is cut off")
        tables.append(tuple(_code(fields[at : at + _CODE_BYTES], count) for at in range(0, len(fields), _CODE_BYTES)))
        position += size * _CODE_BYTES
    return tuple(tables)


def _code(fields: bytes, num_tables: int) -> Code:
    prefix_bits, total_bits, is_sample = fields[0], fields[1], fields[2]
    value = int.from_bytes(fields[3:5], "little", signed=True)
    # The first bit of the code is the lowest of the stored number.
    prefix = int(f"{int.from_bytes(fields[5:9], 'little'):032b}"[::-1], 2) >> max(0, 32 - prefix_bits)
    if not 1 <= prefix_bits <= total_bits or total_bits - prefix_bits > _MAX_BITS or prefix_bits > _MAX_BITS:
        raise RecordError("unreadable_file", f"a Huffman code of {prefix_bits} bits is {total_bits} long")
    if is_sample:
        return Code(prefix, prefix_bits, total_bits - prefix_bits, value)
    if not 1 <= value <= num_tables:
        raise RecordError("unreadable_file", f"a Huffman code leads to table {value} of {num_tables}")
    return Code(prefix, prefix_bits, 0, 0, value - 1)


def decode(data: bytes, count: int, tables: Tables) -> Integer[np.ndarray, " sample"]:
    """The first `count` numbers in `data`. Raises RecordError `truncated_file`, `unreadable_file`."""
    data = data[: _MOST_SAMPLE_BYTES * (count + 1)]  # what lies behind the last sample costs nothing
    words = _words(data)
    codes = [_codes_at(words, len(data) * 8, table, number) for number, table in enumerate(tables)]
    # A place is a bit of `data` and a table; `following` is the place of the next code.
    following = array("i", np.concatenate([one.following for one in codes]).astype(np.int32).tobytes())
    is_sample = np.concatenate([one.is_sample for one in codes])
    places: list[int] = []
    place = 0
    if is_sample.all():  # the usual way, in half the time: one table, and so no code that leads to another
        for _ in range(count):
            places.append(place)
            place = following[place]
    while len(places) < count:
        if is_sample[place]:
            places.append(place)
        place = following[place]
    faults = np.concatenate([one.fault for one in codes])
    if count and (fault := faults[places[-1]]):
        whole = int(np.searchsorted(faults[places], 1))
        if fault == _NO_CODE:
            raise RecordError("unreadable_file", f"sample {whole} of a lead is in no Huffman code")
        raise RecordError("truncated_file", f"a lead ends after {whole} of {count} samples")
    return np.concatenate([one.values for one in codes])[places]


@dataclass(frozen=True)
class _Codes:
    """The codes of one table that would begin at each bit, and behind the last bit. A place with a fault counts as a
    sample and is followed by itself, so that every walk ends."""

    following: Integer[np.ndarray, " bit"]
    values: Integer[np.ndarray, " bit"]
    is_sample: Bool[np.ndarray, " bit"]
    fault: Integer[np.ndarray, " bit"]


def _codes_at(words: UInt64[np.ndarray, " byte"], num_bits: int, table: tuple[Code, ...], number: int) -> _Codes:
    index = _find(words, num_bits, table)
    # One more entry, for bits where no code begins: index -1.
    lengths = np.array([code.prefix_bits + code.extra_bits for code in table] + [0])[index]
    values = np.array([code.value for code in table] + [0], np.int32)[index]
    is_sample = np.array([code.next_table is None for code in table] + [True])[index]
    next_table = np.array([number if code.next_table is None else code.next_table for code in table] + [number])[index]
    places = np.arange(num_bits + 1)
    ends = places + lengths
    extra_bits = np.array([code.extra_bits for code in table] + [0])[index]
    at = np.flatnonzero((extra_bits > 0) & (ends <= num_bits))  # others are cut off
    extra_bits = extra_bits[at]
    more = _bits(words, ends[at] - extra_bits, extra_bits)
    values[at] += (more - ((more >> (extra_bits - 1)) << extra_bits)).astype(np.int32)
    fault = np.where(lengths == 0, _NO_CODE, 0).astype(np.int8)
    fault[ends > num_bits] = _CUT_OFF
    fault[num_bits] = _CUT_OFF
    following = np.where(fault, number * (num_bits + 1) + places, next_table * (num_bits + 1) + ends)
    return _Codes(following, values, is_sample | (fault > 0), fault)


def _find(words: UInt64[np.ndarray, " byte"], num_bits: int, table: tuple[Code, ...]) -> Integer[np.ndarray, " bit"]:
    """The number of the code in `table` that begins at each bit, -1 for none. The shortest wins."""
    lookup = np.full(1 << _LOOKUP_BITS, -1, np.int32)
    by_length = sorted(range(len(table)), key=lambda number: -table[number].prefix_bits)
    for number in by_length:
        if (spare := _LOOKUP_BITS - table[number].prefix_bits) >= 0:
            lookup[table[number].prefix << spare : (table[number].prefix + 1) << spare] = number
    shifts = (64 - _LOOKUP_BITS - np.arange(8)).astype(np.uint64)
    windows = (words[:, None] >> shifts) & np.uint64((1 << _LOOKUP_BITS) - 1)
    index = lookup[windows.reshape(-1)[: num_bits + 1].astype(np.intp)]
    for prefix_bits in sorted({code.prefix_bits for code in table if code.prefix_bits > _LOOKUP_BITS}):
        numbers = sorted(
            (number for number in by_length if table[number].prefix_bits == prefix_bits),
            key=lambda number: table[number].prefix,
        )
        prefixes = np.array([table[number].prefix for number in numbers])
        at = np.flatnonzero(index < 0)
        found = _bits(words, at, prefix_bits)
        nearest = np.minimum(np.searchsorted(prefixes, found), len(prefixes) - 1)
        hit = prefixes[nearest] == found
        index[at[hit]] = np.array(numbers)[nearest[hit]]
    return index


def _words(data: bytes) -> UInt64[np.ndarray, " byte"]:
    """The 64 bits from each byte on; zeros behind the end."""
    every = np.lib.stride_tricks.sliding_window_view(np.frombuffer(data + bytes(8), np.uint8), 8)
    return np.ascontiguousarray(every).view(">u8")[:, 0].astype(np.uint64)


def _bits(
    words: UInt64[np.ndarray, " byte"],
    at: Integer[np.ndarray, " bit"],
    num_bits: int | Integer[np.ndarray, " bit"],
) -> Integer[np.ndarray, " bit"]:
    """`num_bits` (at most 56) bits from each of the bits `at` on, as numbers."""
    shift = (64 - num_bits - (at & 7)).astype(np.uint64)
    mask = (np.left_shift(1, num_bits) - 1).astype(np.uint64)
    found: UInt64[np.ndarray, " bit"] = (words[at >> 3] >> shift) & mask
    return found.astype(np.int64)
