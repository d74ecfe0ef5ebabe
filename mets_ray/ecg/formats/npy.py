"""NumPy's .npy and .npz: an array [lead, sample]; nothing is unpickled.

The format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. It names no unit, rate or leads.
"""

import functools
import io
import math
import mmap
from typing import Any

import numpy as np

from mets_ray.ecg.ecg import Ecg
from mets_ray.ecg.formats.arrays import ecg_of, is_matrix, malformed, real_numbers
from mets_ray.ecg.formats.limits import MAX_BYTES
from mets_ray.ecg.formats.stated import Stated
from mets_ray.ecg.formats.zip_files import content_of, opened_zip
from mets_ray.errors import RecordError

FORMAT = "npy"

_MAGIC = b"\x93NUMPY"
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_PREFIX_BYTES = 10  # of version 1: magic, version, and the length of the rest
_USUAL_HEADER_BYTES = 256
_MOST_HEADER_BYTES = 128 * 1024  # numpy writes up to 64 KiB, and reads up to 10,000 characters
_MOST_ARRAYS = 64
_COMPRESSED_TIMES = 20  # float64 of a 16-bit signal compresses to a fifth; a bomb a thousandfold
_ANY_BYTES = 4 * 1024**2


def recognises(head: bytes) -> bool:
    """Whether a file begins like an .npy, or like a ZIP whose first file is called `….npy`."""
    return head.startswith(_MAGIC) or _is_npz(head)


def read(data: bytes, stated: Stated) -> Ecg:
    """The one ECG of an .npy, or of an .npz with one array of two axes; `stated` says its unit, rate and leads.

    Raises RecordError `malformed_file`, `too_large`, and as `arrays.ecg_of`.
    """
    return ecg_of(_array_of_npz(data) if _is_npz(data) else array_of(data), stated, FORMAT)


def array_of(data: bytes | mmap.mmap) -> np.ndarray:
    """The numbers of an .npy, without a copy; not numpy.load, which trusts the shape and can unpickle.

    Raises RecordError `malformed_file`.
    """
    length = _PREFIX_BYTES + int.from_bytes(data[8:_PREFIX_BYTES], "little")  # of a header of version 1
    try:
        if data[6:8] == b"\1\0" and length <= _USUAL_HEADER_BYTES:
            header = _usual_header(bytes(data[:length]))
        else:
            header = _header(data[:_MOST_HEADER_BYTES])
    except Exception as error:  # numpy evaluates the header and does not catch what tokenize and dtype raise
        raise malformed("this is not an .npy file of version 1 or 2, or its header cannot be read") from error
    shape, is_fortran, dtype, begins = header
    real_numbers(np.empty(0, dtype))
    size = len(data) - begins
    if math.prod(shape) * dtype.itemsize != size:
        raise malformed(f"the array has shape {shape} and {size} bytes of samples", "save [lead, sample]")
    try:
        return np.frombuffer(data, dtype, offset=begins).reshape(shape, order="F" if is_fortran else "C")
    except (ValueError, TypeError) as error:  # (-1, -10), (0, 1e30), (True, 10)
        raise malformed("the array has an impossible shape") from error


def _header(begin: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether in Fortran's order, type, and where the samples begin. Raises what numpy raises."""
    stream = io.BytesIO(begin)
    shape, is_fortran, dtype = _HEADERS[np.lib.format.read_magic(stream)](stream)
    return shape, is_fortran, dtype, stream.tell()


_usual_header = functools.lru_cache(maxsize=64)(_header)  # evaluating one takes longer than all else here


def _is_npz(head: bytes) -> bool:
    """APPNOTE.TXT 4.3.7: a local file header of 30 bytes, the length of the name at 26, then the name."""
    return head.startswith(b"PK\3\4") and head[30 : 30 + int.from_bytes(head[26:28], "little")].endswith(b".npy")


def _array_of_npz(data: bytes) -> np.ndarray:
    if data.count(b"PK\1\2") > _MOST_ARRAYS:  # before zipfile spends seconds on them
        raise malformed(f"the .npz lists more than {_MOST_ARRAYS} arrays")
    allowed = min(MAX_BYTES, max(_ANY_BYTES, _COMPRESSED_TIMES * len(data)))
    arrays = []
    with opened_zip(data, "the .npz") as archive:
        for info in archive.infolist():
            content = content_of(archive, info, allowed)
            if content is None:
                raise RecordError("too_large", f"the .npz has {len(data)} bytes and unpacks to too many")
            allowed -= len(content)
            if _is_matrix(content):
                arrays.append(array_of(content))
    if len(arrays) != 1:
        raise malformed(
            f"the .npz holds {len(arrays)} arrays of numbers with two axes", "save one array [lead, sample] in it"
        )
    return arrays[0]


def _is_matrix(content: bytes) -> bool:
    """Whether an .npy holds numbers in rows and columns; an .npz may have names and rates beside them."""
    try:
        return is_matrix(array_of(content).shape)
    except RecordError:
        return False
