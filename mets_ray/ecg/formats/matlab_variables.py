"""The matrices of MATLAB files of versions 4 and 5 to 7, without scipy, whose parser crashes on damaged ones.

The formats: https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf. Only full matrices of real numbers are
looked at: cells, structures, objects, text and sparse matrices are skipped by their length.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mets_ray.ecg.formats.arrays import malformed
from mets_ray.ecg.formats.limits import MAX_BYTES
from mets_ray.errors import RecordError

_HEADER_BYTES = 128
_V5_ORDERS: dict[bytes, Literal["little", "big"]] = {b"\0\1IM": "little", b"\1\0MI": "big"}  # at byte 124
_MATRIX, _COMPRESSED = 14, 15
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_NUMBERS = range(6, 16)  # the classes of double, single and the integers
_IS_LOGICAL, _IS_COMPLEX = 0x0200, 0x0800

_V4_HEADER_BYTES = 20
_V4_TYPES = ("f8", "f4", "i4", "i2", "u2", "u1")

_MOST_VARIABLES = 256
_COMPRESSED_TIMES = 20  # float64 of a 16-bit signal compresses to a fifth; a bomb a thousandfold
_ANY_BYTES = 4 * 1024**2


def is_v5(head: bytes) -> bool:
    """Whether a file begins with the header of version 5, 6 or 7."""
    return head[124:128] in _V5_ORDERS


def is_v4(head: bytes) -> bool:
    """Whether a file begins with a variable of version 4, which has no signature."""
    return _v4_variable(head, 0) is not None


def matrices(data: bytes) -> dict[str, np.ndarray]:
    """All matrices of real numbers with two axes, by name, as views of `data` where it is not compressed.

    Raises RecordError `malformed_file`, `too_large` (more than a compressed ECG unpacks to) and `unsupported_format`.
    """
    found: dict[str, np.ndarray] = {}
    for number, (name, matrix) in enumerate(_v5_matrices(data) if is_v5(data) else _v4_matrices(data)):
        if number == _MOST_VARIABLES:
            raise RecordError("unsupported_format", f"the .mat file holds more than {_MOST_VARIABLES} variables")
        if matrix is not None:
            found[name] = matrix
    return found


@dataclass(frozen=True)
class _V4:
    name: str
    dtype: np.dtype
    rows: int
    columns: int
    start: int  # of the numbers
    is_plain: bool  # a full matrix of real numbers

    is_complex: bool = False

    @property
    def end(self) -> int:
        """A complex matrix has its imaginary part behind the real one; a sparse one is a full one of its entries."""
        return self.start + (1 + self.is_complex) * self.dtype.itemsize * self.rows * self.columns


def _v4_matrices(data: bytes) -> Iterator[tuple[str, np.ndarray | None]]:
    at = 0
    while at < len(data):
        one = _v4_variable(data, at)
        if one is None or one.end > len(data):
            raise _damaged()
        matrix = None
        if one.is_plain:
            numbers = np.frombuffer(data, one.dtype, one.rows * one.columns, one.start)
            matrix = numbers.reshape((one.rows, one.columns), order="F")
        yield one.name, matrix
        at = one.end


def _v4_variable(data: bytes, at: int) -> _V4 | None:
    """The header at `at`: its type is written as MOPT, in decimal: machine, zero, precision and kind."""
    for machine, order in enumerate("<>"):
        header = np.frombuffer(data[at : at + _V4_HEADER_BYTES].ljust(_V4_HEADER_BYTES, b"\xff"), f"{order}i4")
        kind, rows, columns, is_complex, length = (int(one) for one in header)
        if kind // 100 != 10 * machine or kind // 10 % 10 >= len(_V4_TYPES) or kind % 10 > 2:
            continue
        start = at + _V4_HEADER_BYTES + length
        name = data[at + _V4_HEADER_BYTES : start]
        if rows < 0 or columns < 0 or is_complex not in (0, 1) or not 2 <= length <= 64 or not name.endswith(b"\0"):
            continue
        if name.isascii() and name[:-1].decode().isidentifier():
            dtype = np.dtype(f"{order}{_V4_TYPES[kind // 10 % 10]}")
            is_plain = kind % 10 == 0 and not is_complex
            return _V4(name[:-1].decode(), dtype, rows, columns, start, is_plain, bool(is_complex))
    return None


def _v5_matrices(data: bytes) -> Iterator[tuple[str, np.ndarray | None]]:
    order = _V5_ORDERS[data[124:128]]
    allowed = min(MAX_BYTES, max(_ANY_BYTES, _COMPRESSED_TIMES * len(data)))
    at = _HEADER_BYTES
    while at + 8 <= len(data):
        kind, content, at = _element(data, at, order)
        if kind == _COMPRESSED:
            try:
                unpacked = zlib.decompressobj().decompress(content, allowed + 1)
            except zlib.error as error:
                raise _damaged() from error
            allowed -= len(unpacked)
            if allowed < 0:
                raise RecordError("too_large", f"the .mat file has {len(data)} bytes and unpacks to too many")
            kind, content, _ = _element(unpacked, 0, order)
        yield _v5_matrix(content, order) if kind == _MATRIX else ("", None)


def _v5_matrix(content: bytes, order: Literal["little", "big"]) -> tuple[str, np.ndarray | None]:
    """Array flags, lengths of the axes, name, and the numbers: each an element."""
    _, flags, at = _element(content, 0, order)
    _, lengths, at = _element(content, at, order)
    _, name, at = _element(content, at, order)
    mark = "<" if order == "little" else ">"
    word = int.from_bytes(flags[:4], order)
    if word & 0xFF not in _NUMBERS or word & (_IS_COMPLEX | _IS_LOGICAL) or len(lengths) != 8:
        return "", None
    rows, columns = (int(one) for one in np.frombuffer(lengths, f"{mark}i4"))
    kind, numbers, _ = _element(content, at, order)
    dtype = np.dtype(f"{mark}{_TYPES[kind]}") if kind in _TYPES else None
    if dtype is None or min(rows, columns) < 0 or rows * columns * dtype.itemsize != len(numbers):
        raise _damaged()
    return name.decode("ascii", "replace"), np.frombuffer(numbers, dtype).reshape((rows, columns), order="F")


def _element(data: bytes, at: int, order: Literal["little", "big"]) -> tuple[int, bytes, int]:
    """Type and content of the element at `at`, and where the next begins. Up to 4 bytes fit into the tag itself."""
    if at + 8 > len(data):
        raise _damaged()
    word, size = int.from_bytes(data[at : at + 4], order), int.from_bytes(data[at + 4 : at + 8], order)
    if word >> 16:
        kind, size = word & 0xFFFF, word >> 16
        if size > 4:
            raise _damaged()
        return kind, data[at + 4 : at + 4 + size], at + 8
    end = at + 8 + size
    if end > len(data):
        raise _damaged()
    return word, data[at + 8 : end], end if word == _COMPRESSED else end + -size % 8


def _damaged() -> RecordError:
    return malformed("this .mat file is damaged or truncated")
