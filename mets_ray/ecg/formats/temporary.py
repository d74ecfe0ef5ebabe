"""A file for libraries that read paths only."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mets_ray.ecg.formats.limits import check_bytes


@contextmanager
def as_file(data: bytes, suffix: str) -> Iterator[Path]:
    """The path of a file that holds `data`, alone in a folder that is removed at the end of the block.

    suffix: such as `.edf`, for libraries that look at it; never from the file's sender.
    Raises RecordError `too_large`.
    """
    check_bytes(len(data))
    with tempfile.TemporaryDirectory(prefix="mets_ray_ecg_") as folder:
        path = Path(folder) / f"ecg{suffix}"
        path.write_bytes(data)
        yield path
