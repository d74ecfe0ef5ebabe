"""`read_ecg`: one ECG from a path, a URI or bytes, in the format that its content has."""

import os
from collections.abc import Sequence

from mets_ray import storage
from mets_ray.ecg import formats
from mets_ray.ecg.ecg import Ecg
from mets_ray.ecg.formats.limits import MAX_BYTES, check_bytes
from mets_ray.ecg.formats.stated import Stated
from mets_ray.ecg.formats.zip_files import content_of, named_files, opened_zip
from mets_ray.ecg.wfdb import decode_wfdb, main_headers, read_wfdb
from mets_ray.errors import RecordError

_MOST_SAMPLES = 64 * 1024**2  # of all leads of a WFDB record in a ZIP
_LONGEST_S = 7 * 86_400.0


def read_ecg(
    source: str | os.PathLike[str] | bytes,
    *,
    sampling_rate_hz: float | None = None,
    unit: str | None = None,
    leads: Sequence[str] | None = None,
) -> Ecg:
    """One ECG, in millivolts, with its own leads, sampling rate and length.

    source: a file in any format of `mets_ray.ecg.formats`, recognised by its content; a WFDB record (its path with or
    without `.hea`); a ZIP that holds one record's files or one file of another format; or the bytes of such a file.
    Paths are local or URIs (s3://, gs://, az://).
    sampling_rate_hz, unit (mV, uV, V), leads: of a file that does not say them (CSV, NPY, MATLAB, HDF5). They are never
    guessed, and a file's own header is believed before them.

    Raises RecordError with its `reason` for an ECG that cannot be used, DatasetError for a store that does not answer.
    """
    stated = Stated(sampling_rate_hz, unit, None if leads is None else tuple(leads))
    if isinstance(source, bytes):
        return _decode(source, stated)
    uri = os.fspath(source)
    if uri.endswith(".hea"):
        return read_wfdb(uri)
    try:
        data = storage.read_bytes(uri, max_bytes=MAX_BYTES)
    except (storage.MissingFileError, storage.NotAFileError) as error:
        if not storage.exists(f"{uri}.hea"):
            is_missing = isinstance(error, storage.MissingFileError)
            without = "does not exist, and neither does" if is_missing else "is not a file, and there is no"
            raise RecordError(
                "missing_file" if is_missing else "not_a_file",
                f"`{uri}` {without} `{uri}.hea`",
                hint="give the path of one ECG's file, or of a WFDB record with or without its .hea",
            ) from error
        return read_wfdb(uri)
    except storage.TooLargeError as error:
        raise RecordError("too_large", error.fact, hint="cut the recording into parts") from error
    try:
        return _decode(data, stated)
    except RecordError as error:
        error.where = error.where or uri
        raise


def _decode(data: bytes, stated: Stated) -> Ecg:
    check_bytes(len(data))
    if data.startswith(b"PK") and formats.recognise(data) is None:  # NPZ is a ZIP too
        return _from_zip(data, stated)
    return formats.decode(data, stated)


def _from_zip(data: bytes, stated: Stated) -> Ecg:
    files = _unpacked(data)
    headers = main_headers(files)
    if len(headers) == 1:
        return decode_wfdb(headers[0], files, max_samples=_MOST_SAMPLES, max_duration_s=_LONGEST_S)
    if len(files) == 1 and not (file := next(iter(files.values()))).startswith(b"PK"):
        return formats.decode(file, stated)
    raise RecordError(
        "unsupported_format",
        f"the ZIP holds {len(files)} files and {len(headers)} WFDB headers (.hea)",
        hint="put one record into a ZIP: its .hea and the signal file that the header names, or one file of another "
        "format",
    )


def _unpacked(data: bytes) -> dict[str, bytes]:
    """The files of a ZIP by their paths."""
    files: dict[str, bytes] = {}
    allowed = MAX_BYTES
    try:
        with opened_zip(data, "the ZIP") as archive:
            for name, info in named_files(archive):
                content = content_of(archive, info, allowed)
                if content is None:
                    raise RecordError("too_large", f"the ZIP unpacks to more than {MAX_BYTES // 1024**2} MiB")
                if name in files:
                    raise RecordError("unsupported_format", "the ZIP holds two files of the same name")
                allowed -= len(content)
                files[name] = content
    except RecordError as error:
        if error.reason != "malformed_file":
            raise
        hint = "give the path of a WFDB record, or a ZIP of its .hea and its signal file"
        raise RecordError("unsupported_format", error.fact, hint=hint) from error
    return files
