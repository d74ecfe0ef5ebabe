"""Files that are compared with their hashes when they are read, as a whole or piece by piece.

A piece is checked when a process first reads bytes of it, so a reader of two small columns does not fetch the signals
beside them, and later epochs cost nothing. A file that is written again is checked again.
"""

import hashlib
import io
import time
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import pyarrow as pa

from mets_ray.storage.faults import DamagedFileError, MissingFileError, store_faults
from mets_ray.storage.stores import arrow_filesystem, filesystem
from mets_ray.storage.uris import is_local

_BLOCK_BYTES = 8 * 2**20

# A local file that is newer than this might be written again without getting another time: clocks of file systems tick.
_SETTLED_S = 2.0

# What this process has found whole: (URI, sha256) → (state of the file, numbers of its pieces, or `_ALL` of them).
_CHECKED: dict[tuple[str, str], tuple[str, set[int]]] = {}
_ALL = -1


class Piece(NamedTuple):
    """A stretch of a file: the next `size` bytes, and their sha256."""

    size: int
    sha256: str


def cut(data: bytes, boundaries: Sequence[int], least_bytes: int) -> tuple[Piece, ...]:
    """Pieces of a whole file, cut at ascending `boundaries`; neighbours below `least_bytes` share one.

    What follows the last boundary is a piece of its own.
    """
    pieces: list[bytes] = []
    for start, end in pairwise([0, *boundaries]):
        part = data[start:end]
        if pieces and max(len(pieces[-1]), len(part)) < least_bytes:
            pieces[-1] += part
        elif part:
            pieces.append(part)
    pieces.append(data[boundaries[-1] :])
    return tuple(Piece(len(piece), hashlib.sha256(piece).hexdigest()) for piece in pieces)


def is_whole(uri: str, sha256: str) -> bool:
    """Whether a file is there and has this hash; it is read to its end. Raises DatasetError where the store fails."""
    try:
        return _sha256(uri) == sha256
    except MissingFileError:
        return False


def open_checked(uri: str, sha256: str, pieces: Sequence[Piece] = (), *, hint: str = "") -> pa.NativeFile:
    """A file for pyarrow of which only bytes that were written are read.

    Each of `pieces` is compared with its hash when it is first read; without pieces the whole file is, now. Raises
    MissingFileError, and DamagedFileError with `hint`, which reading may raise too.
    """
    checked = _checked(uri, sha256)
    if pieces:
        return pa.PythonFile(_CheckedFile(uri, pieces, checked, hint), mode="r")
    if _ALL not in checked:
        if _sha256(uri) != sha256:
            raise DamagedFileError(f"`{uri}` is damaged: its sha256 is not the one it was written with", hint=hint)
        checked.add(_ALL)
    return _open(uri)


def _checked(uri: str, sha256: str) -> set[int]:
    """Numbers of the pieces that this process has checked since the file was last written."""
    fs, path = filesystem(uri)
    with store_faults(uri, fs):
        info = fs.info(path)
    if is_local(uri) and time.time() - max(info["mtime"], info["created"]) < _SETTLED_S:
        return set()
    state = str(info)
    known = _CHECKED.get((uri, sha256))
    if known is None or known[0] != state:
        known = _CHECKED[uri, sha256] = (state, set())
    return known[1]


def _open(uri: str) -> pa.NativeFile:
    fs, path = arrow_filesystem(uri)
    with store_faults(uri):
        return fs.open_input_file(path)


def _sha256(uri: str) -> str:
    digest = hashlib.sha256()
    with store_faults(uri), _open(uri) as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


class _CheckedFile(io.RawIOBase):
    """A file in pieces, each of which is compared with its hash before bytes of it are handed out."""

    def __init__(self, uri: str, pieces: Sequence[Piece], checked: set[int], hint: str) -> None:
        super().__init__()
        self._uri = uri
        self._pieces = pieces
        self._ends = list(accumulate(piece.size for piece in pieces))
        self._checked = checked
        self._hint = hint
        self._file = _open(uri)
        self._position = 0
        if self._file.size() != self._ends[-1]:
            raise self._damaged(f"it has {self._file.size()} bytes, and {self._ends[-1]} were written")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._ends[-1]}[whence]
        return self._position

    def read(self, size: int = -1) -> bytes:
        start = self._position
        end = self._ends[-1] if size < 0 else min(start + size, self._ends[-1])
        if end <= start:
            return b""
        self._position = end
        todo = [
            number
            for number, (piece, stop) in enumerate(zip(self._pieces, self._ends, strict=True))
            if stop > start and stop - piece.size < end and number not in self._checked
        ]
        if not todo:
            return self._read(start, end)
        # One request for what was asked for and the rest of the pieces that it begins and ends in.
        low = min(start, self._ends[todo[0]] - self._pieces[todo[0]].size)
        high = max(end, self._ends[todo[-1]])
        data = memoryview(self._read(low, high))
        for number in todo:
            piece, stop = self._pieces[number], self._ends[number]
            if hashlib.sha256(data[stop - piece.size - low : stop - low]).hexdigest() != piece.sha256:
                raise self._damaged(f"bytes {stop - piece.size} to {stop} are not those that were written")
            self._checked.add(number)
        return bytes(data[start - low : end - low])

    def _read(self, start: int, end: int) -> bytes:
        with store_faults(self._uri):
            data = bytes(self._file.read_at(end - start, start))
        if len(data) != end - start:
            raise self._damaged(f"it ends at byte {start + len(data)}, before byte {end}")
        return data

    def _damaged(self, how: str) -> DamagedFileError:
        return DamagedFileError(f"`{self._uri}` is damaged: {how}", hint=self._hint)

    def close(self) -> None:
        self._file.close()
        super().close()
