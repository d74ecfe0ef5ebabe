"""ECGs from HTTP bodies: JSON, npy, tables and zips with rules of their own, and every file of `mets_ray.ecg.formats`.

Bodies are untrusted: sizes are checked before memory is allocated, nothing is unpickled, no file is written under a
name from the body, and hostile bytes raise RequestError or RecordError whatever a decoder does with them.
"""

import io
import mmap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np
import python_multipart
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails
from python_multipart.exceptions import FormParserError

from mets_ray.ecg import formats
from mets_ray.ecg.ecg import LEADS, SAMPLING_RATES_HZ, Ecg
from mets_ray.ecg.formats import npy, text
from mets_ray.ecg.formats.arrays import in_millivolts
from mets_ray.ecg.formats.stated import Stated
from mets_ray.ecg.formats.text_layout import layout_of_header
from mets_ray.ecg.formats.zip_files import content_of, named_files, opened_zip
from mets_ray.ecg.wfdb import decode_wfdb, main_headers
from mets_ray.errors import RecordError, RequestError
from mets_ray.serve import json_rows

_T = TypeVar("_T")
_Model = TypeVar("_Model", bound=BaseModel)

MAX_LEADS = 64
_KEYS_OF_AN_ECG = 8
_SPARE = 1000  # brackets and quotes in class names, options
_MAX_FILES = 64

_MAX_ENTRIES = 1024  # of a zip, including folders and skipped files


_PIECE_BYTES = 1024 * 1024  # of a body that is searched or parsed in one call

_UNPACKED_TIMES = 4  # unpacked size of a zip in multiples of max_body_bytes; WFDB compresses to half at best
_COMPRESSED_TIMES = 10  # and in multiples of its own: text compresses to a fifth, a bomb to a thousandth
_UNPACKED_FLOOR = 1024 * 1024


@dataclass(frozen=True)
class BodyLimits:
    """Upper limits on a request body."""

    max_body_bytes: int
    max_ecgs: int
    max_duration_s: float
    max_texts: int = 2048  # classes and their wordings
    max_text_bytes: int | None = None  # where it is less than max_body_bytes: parsed text takes many times its size


@dataclass(frozen=True)
class BodyParameters:
    """What a format such as npy does not state itself; None if the request does not state it either."""

    unit: str | None = None
    sampling_rate_hz: float | None = None
    leads: tuple[str, ...] | None = None


class JsonEcg(BaseModel):
    """An ECG as JSON."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"signal": [[0.01, 0.02], [0.0, 0.01]], "unit": "mV", "leads": ["I", "II"], "sampling_rate_hz": 500}
            ]
        },
    )

    signal: list[json_rows.Row] = Field(fail_fast=True, description="one row of samples per lead")
    unit: str = Field(description="unit of the samples: mV or uV (also V, µV); never guessed")
    leads: list[str] = Field(fail_fast=True, description=f"name of each row, in any order, from {', '.join(LEADS)}")
    sampling_rate_hz: float = Field(strict=True, description="samples per second")

    def to_ecg(self, limits: BodyLimits) -> Ecg:
        """Raises RequestError 422 for rows of unequal length, RecordError as `decode_body`."""
        if len({len(row) for row in self.signal}) > 1:
            raise RequestError(422, "ragged_signal", "the leads of `signal` have different numbers of samples")
        length = len(self.signal[0]) if self.signal else 0
        samples = np.array(self.signal, dtype=np.float64).reshape(len(self.signal), length)
        (ecg,) = _ecgs(samples, BodyParameters(self.unit, self.sampling_rate_hz, tuple(self.leads)), limits)
        return ecg


def media_type(content_type: str) -> str:
    """`application/json` of `Application/JSON; charset=utf-8`."""
    return content_type.partition(";")[0].strip().lower()


def parse_json(model: type[_Model], body: bytes, limits: BodyLimits) -> _Model:
    """`body` as a `model`.

    Raises RequestError 400 for what is not JSON, 422 with the first faults, 413 and 422 as `json_rows.parse`.
    """
    try:
        return _validated(model, body, limits)
    except ValidationError as error:
        # Here and not on the event loop: a body can have thousands of faults.
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        if faults[0]["type"] == "json_invalid":
            raise _malformed(f"the body is not JSON: {faults[0]['msg']}") from None
        more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
        words = "; ".join(map(_fault, faults[:3]))
        raise RequestError(422, "bad_fields", f"the body is invalid: {words}{more}", hint="see /docs") from None


def _validated(model: type[_Model], body: bytes, limits: BodyLimits) -> _Model:
    return json_rows.parse(
        model,
        body,
        max_arrays=limits.max_ecgs * (MAX_LEADS + 2) + _SPARE,
        max_objects=limits.max_ecgs + _SPARE,
        max_strings=limits.max_ecgs * (MAX_LEADS + _KEYS_OF_AN_ECG) + 2 * limits.max_texts + _SPARE,
    )


def _fault(fault: ErrorDetails) -> str:
    place = ".".join(map(str, fault["loc"]))[:200]
    return f"`{place}`: {fault['msg']}" if place else fault["msg"]


def check_count(ecgs: int, limits: BodyLimits) -> None:
    """Raise RequestError 413 for more ECGs than one request may hold."""
    if ecgs > limits.max_ecgs:
        raise RequestError(413, "too_many_ecgs", f"there are {ecgs} ECGs; at most {limits.max_ecgs} are allowed")


def check_text_size(size: int, limits: BodyLimits) -> None:
    """Raise RequestError 413 for more bytes of text than are parsed."""
    if limits.max_text_bytes is not None and size > limits.max_text_bytes:
        raise RequestError(
            413, "too_large", f"there are more than {limits.max_text_bytes} bytes of text", hint="send int16 as npy"
        )


def decode_body(content_type: str, body: bytes, parameters: BodyParameters, limits: BodyLimits) -> list[Ecg]:
    """The ECGs of a body: one, or several for a three-dimensional npy.

    Raises RequestError 400 for a malformed body, 413 for too many ECGs, 415 for an unknown content type, 422 for
    missing parameters; RecordError for an unusable record.
    """
    kind = media_type(content_type)
    if kind == "multipart/form-data":
        return _read_files(_multipart_files(content_type, body), parameters, limits)
    reader = _READERS.get(kind)
    if reader is None:
        known = ", ".join([*_READERS, "multipart/form-data"])
        raise RequestError(
            415, "unsupported_media_type", f"the content type is `{kind[:80]}`", hint=f"send one of {known}"
        )
    return reader(body, parameters, limits)


def _read_json(body: bytes, parameters: BodyParameters, limits: BodyLimits) -> list[Ecg]:
    check_text_size(len(body), limits)
    try:
        return [_validated(JsonEcg, body, limits).to_ecg(limits)]
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise _malformed(f"this is not an ECG in JSON: {_fault(first)}") from None


def _read_npy(body: bytes, parameters: BodyParameters, limits: BodyLimits) -> list[Ecg]:
    """`[lead, sample]` or `[ecg, lead, sample]`."""
    return _ecgs(npy_array(body), parameters, limits)


def npy_array(data: bytes | mmap.mmap) -> np.ndarray:
    """The two- or three-dimensional array of numbers in an .npy file, without a copy of its samples.

    Raises RequestError 400 for anything else.
    """
    with _whole_files():
        samples = npy.array_of(data)
    if samples.ndim not in (2, 3):
        raise _malformed(f"the array has shape {samples.shape}", "save [lead, sample]")
    return samples


def _read_csv(body: bytes, parameters: BodyParameters, limits: BodyLimits) -> list[Ecg]:
    """A header of lead names, then a row per sample; a column `time_s` is checked and dropped."""
    check_text_size(len(body), limits)
    if body.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _malformed("the table is in UTF-16", "save it in UTF-8")
    with _whole_files():
        layout = layout_of_header(body)
        table = text.table_of(body, layout, layout.names or ())
    rate = _required(parameters.sampling_rate_hz, "sampling_rate_hz")
    if "time_s" in table.column_names:
        text.check_times(table["time_s"].to_numpy(), rate)
        table = table.drop_columns(["time_s"])
    leads = tuple(table.column_names)
    if parameters.leads is not None and parameters.leads != leads:
        raise RequestError(422, "leads_twice", "`leads` differs from the header of the table", hint="omit `leads`")
    samples = np.stack([column.to_numpy() for column in table.columns]) if leads else np.empty((0, 0))
    del table  # as large as the samples
    return _ecgs(samples, replace(parameters, leads=leads), limits)


@contextmanager
def _whole_files() -> Iterator[None]:
    """A reader's `malformed_file` becomes the answer to a body that is malformed."""
    try:
        yield
    except RecordError as error:
        if error.reason != "malformed_file":
            raise
        raise _malformed(error.fact, error.hint) from error


def _read_zip(body: bytes, parameters: BodyParameters, limits: BodyLimits) -> list[Ecg]:
    return _read_files(_zip_files(body, limits), parameters, limits)


def _read_any(body: bytes, parameters: BodyParameters, limits: BodyLimits) -> list[Ecg]:
    """A file of any format, recognised by its content."""
    is_zip = body.startswith(b"PK") and formats.recognise(body) is None  # NPZ is a ZIP too
    return (_read_zip if is_zip else _read_file)(body, parameters, limits)


def _read_file(body: bytes, parameters: BodyParameters, limits: BodyLimits) -> list[Ecg]:
    if body.startswith(b"\x93NUMPY"):
        return _read_npy(body, parameters, limits)
    found = formats.recognise(body)
    if found is not None and found.is_text:
        check_text_size(len(body), limits)
    with _whole_files():
        ecg = formats.decode(body, Stated(parameters.sampling_rate_hz, parameters.unit, parameters.leads))
    _check_size(ecg.signal_mv.shape, ecg.sampling_rate_hz, limits)
    return [ecg]


_READERS: dict[str, Callable[[bytes, BodyParameters, BodyLimits], list[Ecg]]] = {
    "application/json": _read_json,
    "application/x-npy": _read_npy,
    "application/zip": _read_zip,
    "text/csv": _read_csv,
    "application/octet-stream": _read_any,
    **{kind: _read_any for one in formats.FORMATS for kind in one.media_types},
}
_SUFFIXES = {".json": _read_json, ".npy": _read_npy, ".zip": _read_zip, ".csv": _read_csv}


def _read_files(files: dict[str, bytes], parameters: BodyParameters, limits: BodyLimits) -> list[Ecg]:
    """One WFDB record, or one file of another format, as the file names say."""
    headers = main_headers(files)
    if len(headers) > 1:
        raise RequestError(
            422, "several_records", f"there are {len(headers)} WFDB headers", hint="send one record at a time"
        )
    if headers:
        ecg = decode_wfdb(
            headers[0],
            files,
            max_samples=limits.max_body_bytes // 2,  # wfdb takes 25 bytes of memory for a sample
            max_duration_s=limits.max_duration_s,
        )
        return [ecg]
    if len(files) != 1:
        raise RequestError(
            422,
            "no_record",
            f"there are {len(files)} files, and none is a WFDB header (.hea)",
            hint="send a .hea with its .dat or .mat, or one file of another format",
        )
    ((name, data),) = files.items()
    if len(data) > limits.max_body_bytes:  # only WFDB may unpack to more: parsed text takes many times its size
        raise RequestError(413, "too_large", f"the file unpacks to {len(data)} bytes", hint="send int16 as npy")
    suffix = next((suffix for suffix in _SUFFIXES if name.lower().endswith(suffix)), "")
    return _SUFFIXES.get(suffix, _read_file)(data, parameters, limits)


def _multipart_files(content_type: str, body: bytes) -> dict[str, bytes]:
    files: dict[str, bytes] = {}

    def keep(file: python_multipart.multipart.File) -> None:
        name = (file.file_name or b"").decode("utf-8", "replace").replace("\\", "/").rpartition("/")[2]
        if len(files) >= _MAX_FILES or name in files:
            raise _malformed(f"more than {_MAX_FILES} files, or two with the same name")
        assert isinstance(file.file_object, io.BytesIO)  # MAX_MEMORY_FILE_SIZE keeps it there
        files[name] = file.file_object.getvalue()  # not read(), which copies it while all other threads wait

    def refuse(field: object) -> None:
        raise _malformed("a part is not a file", "send files here, and everything else in the query string")

    try:
        _, options = python_multipart.multipart.parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if not boundary:
            raise _malformed("the content type multipart/form-data has no boundary")
        parser = python_multipart.FormParser(
            "multipart/form-data",
            refuse,
            keep,
            boundary=boundary,
            config={"MAX_MEMORY_FILE_SIZE": len(body) + 1, "UPLOAD_ERROR_ON_BAD_CTE": True},
        )
        for start in range(0, len(body), _PIECE_BYTES):
            parser.write(body[start : start + _PIECE_BYTES])
        parser.finalize()
    except (FormParserError, ValueError, UnicodeError) as error:
        raise _malformed("the multipart body cannot be read") from error
    return files


def _count(body: bytes, pattern: bytes) -> int:
    """How often `pattern` is in `body`; piece by piece, because each search keeps all other threads waiting."""
    return sum(
        body.count(pattern, start, start + _PIECE_BYTES + len(pattern) - 1)
        for start in range(0, len(body), _PIECE_BYTES)
    )


def _zip_files(body: bytes, limits: BodyLimits) -> dict[str, bytes]:
    allowed = min(_UNPACKED_TIMES * limits.max_body_bytes, max(_UNPACKED_FLOOR, _COMPRESSED_TIMES * len(body)))
    if _count(body, b"PK\1\2") > _MAX_ENTRIES:  # before zipfile spends seconds on them
        raise _malformed(f"the zip lists more than {_MAX_ENTRIES} files")
    files: dict[str, bytes] = {}
    with _whole_files(), opened_zip(body, "the zip") as archive:
        members = named_files(archive)
        if len(members) > _MAX_FILES:
            raise _malformed(f"the zip holds {len(members)} files; at most {_MAX_FILES} are allowed")
        for name, info in members:
            if name.lower().endswith(".zip"):  # each would stay in memory while the next is unpacked
                raise _malformed("the zip holds another zip")
            if name in files:
                raise _malformed(f"the zip holds two files called `{name[:80]}`")
            data = content_of(archive, info, allowed)
            if data is None:
                raise RequestError(
                    413,
                    "too_large",
                    "the zip unpacks to more than this server accepts",
                    hint=f"compress no more than {_COMPRESSED_TIMES} times, or not at all",
                )
            allowed -= len(data)
            files[name] = data
    return files


def _ecgs(samples: np.ndarray, parameters: BodyParameters, limits: BodyLimits) -> list[Ecg]:
    stated = check_array(samples, parameters, limits)
    return [Ecg(in_millivolts(one, stated.unit), stated.leads, stated.sampling_rate_hz) for one in stated.ecgs]


class StatedArray(NamedTuple):
    """Samples [ecg, lead, sample] in `unit`, with the names of their leads and their rate."""

    ecgs: np.ndarray
    unit: str
    leads: tuple[str, ...]
    sampling_rate_hz: float


def check_array(samples: np.ndarray, parameters: BodyParameters, limits: BodyLimits) -> StatedArray:
    """An array with what the request states about it. No sample is read.

    Raises RequestError 422 for what is not stated and for another number of lead names than rows, 413 for too many
    ECGs, RecordError for too many leads and `too_long`.
    """
    unit = _required(parameters.unit, "unit")
    rate = _required(parameters.sampling_rate_hz, "sampling_rate_hz")
    leads = _required(parameters.leads, "leads")
    several = samples if samples.ndim == 3 else samples[None]
    if len(several) == 0:
        raise RequestError(422, "no_ecg", "the array holds no ECG: its first dimension is 0")
    check_count(len(several), limits)
    if len(leads) != several.shape[1]:
        raise RequestError(422, "leads_mismatch", f"{len(leads)} lead names for {several.shape[1]} rows of samples")
    _check_size(several.shape[1:], rate, limits)
    return StatedArray(several, unit, leads, rate)


def _check_size(shape: tuple[int, ...], rate: float, limits: BodyLimits) -> None:
    if shape[0] > MAX_LEADS:
        raise RecordError("unknown_lead", f"the record has {shape[0]} signals, and a 12-lead ECG has 12")
    # At an implausible rate the duration means nothing: `preprocess` rejects the rate itself.
    if rate >= SAMPLING_RATES_HZ[0] and shape[1] >= limits.max_duration_s * rate + 1:
        raise RecordError(
            "too_long",
            f"{shape[1]} samples at {rate:g} Hz are {shape[1] / rate:.1f} s; the limit is {limits.max_duration_s:g} s",
            hint="send a shorter part",
        )


def _required(value: _T | None, name: str) -> _T:
    if value is None:
        raise RequestError(
            422, "missing_parameter", f"`{name}` is not given", hint=f"add `{name}=` to the query; it is never guessed"
        )
    return value


def _malformed(fact: str, hint: str = "") -> RequestError:
    return RequestError(400, "malformed_body", fact, hint=hint)
