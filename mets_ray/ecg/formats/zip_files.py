"""The files of a ZIP that anybody may have sent, one after the other."""

import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from mets_ray.ecg.formats.arrays import malformed

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # a small LZMA file may ask for 4 GiB to unpack it
# What zipfile and zlib raise for bytes that are damaged; all of it was seen.
_DAMAGED = (
    zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, OSError, ValueError, OverflowError, NotImplementedError,
)  # fmt: skip


@contextmanager
def opened_zip(data: bytes, what: str) -> Iterator[zipfile.ZipFile]:
    """A ZIP to read in the `with` block. what: "the zip".

    Raises RecordError `malformed_file` for whatever cannot be read, in the block as well.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            yield archive
    except _DAMAGED as error:
        raise malformed(f"{what} is damaged, truncated or encrypted") from error


def named_files(archive: zipfile.ZipFile) -> list[tuple[str, zipfile.ZipInfo]]:
    """The files and their paths, without folders and what macOS puts beside files (`__MACOSX/._r.hea`)."""
    # PowerShell 5 and .NET before 4.6.1 separate folders by `\\`.
    named = [(info.filename.replace("\\", "/"), info) for info in archive.infolist()]
    return [
        (name, info)
        for name, info in named
        if not name.endswith("/") and not any(part.startswith((".", "__")) for part in name.split("/"))
    ]


def content_of(archive: zipfile.ZipFile, info: zipfile.ZipInfo, allowed: int) -> bytes | None:
    """One file; None if it has more than `allowed` bytes, whatever the ZIP's directory states.

    Raises RecordError `malformed_file` for a compression other than deflate.
    """
    if info.compress_type not in _METHODS:
        raise malformed("the zip uses a compression method other than deflate")
    with archive.open(info) as member:
        data = member.read(allowed + 1)
    return None if len(data) > allowed else data
