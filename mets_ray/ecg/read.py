"""`read_ecg`: one ECG from a path, a URI or bytes, in the format that its content has."""

import io
import os
import zipfile
import zlib
from pathlib import PurePosixPath

from mets_ray import storage
from mets_ray.ecg.ecg import Ecg
from mets_ray.ecg.wfdb import decode_wfdb, main_headers, read_wfdb
from mets_ray.errors import RecordError

_MOST_BYTES = 512 * 1024**2  # of a zip, unpacked
_MOST_SAMPLES = 64 * 1024**2  # of all leads together
_LONGEST_S = 7 * 86_400.0


def read_ecg(source: str | os.PathLike[str] | bytes) -> Ecg:
    """One ECG, in millivolts, with its own leads, sampling rate and length.

    source: a WFDB record (its path or URI with or without `.hea`; local, s3://, gs://, az://), a ZIP that holds one
    record's files, or the bytes of such a ZIP.

    Raises RecordError with its `reason` for an ECG that cannot be used, DatasetError for a store that does not answer.
    """
    if isinstance(source, bytes):
        return _from_zip(source)
    uri = os.fspath(source)
    if uri.lower().endswith(".zip"):
        return _from_zip(storage.read_bytes(uri))
    return read_wfdb(uri)


def _from_zip(data: bytes) -> Ecg:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: info for info in archive.infolist() if (name := _file_name(info.filename))}
            if sum(info.file_size for info in members.values()) > _MOST_BYTES:
                raise RecordError("unsupported_format", f"the ZIP unpacks to more than {_MOST_BYTES // 1024**2} MiB")
            files = {name: archive.read(info) for name, info in members.items()}
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, NotImplementedError) as error:
        raise RecordError(
            "unsupported_format",
            f"these {len(data)} bytes are no ZIP that can be read: {error}",
            hint="give the path of a WFDB record, or a ZIP of its .hea and its signal file",
        ) from error
    headers = main_headers(files)
    if len(headers) != 1:
        raise RecordError(
            "unsupported_format",
            f"the ZIP holds {len(headers)} WFDB headers (.hea)",
            hint="put one record into a ZIP: its .hea and the signal file that the header names",
        )
    return decode_wfdb(headers[0], files, max_samples=_MOST_SAMPLES, max_duration_s=_LONGEST_S)


def _file_name(path: str) -> str:
    """The name of a file in a ZIP; "" for a folder and for what macOS puts beside files (`__MACOSX/._r.hea`). Some
    Windows programs write backslashes between folders."""
    path = path.replace("\\", "/")
    parts = PurePosixPath(path).parts
    return "" if path.endswith("/") or any(part.startswith((".", "__")) for part in parts) else parts[-1]
