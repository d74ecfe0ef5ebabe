"""ECGs from HTTP bodies. A new format (EDF, DICOM, ...) is a function and an entry in `_READERS` and `_SUFFIXES`.

Bodies are untrusted: sizes are checked before memory is allocated, nothing is unpickled, no file is written under a
name from the body, and hostile bytes raise RequestError or RecordError whatever a decoder does with them.
"""

import csv
import io
import re
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.csv
import python_multipart
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails
from python_multipart.exceptions import FormParserError

from mets_ray.ecg.ecg import LEADS, SAMPLING_RATES_HZ, Ecg, to_millivolts
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

_MAX_HEADER_BYTES = 16 * 1024  # of a CSV
_INDEX, _TAIL = "\0index", "\0tail"  # no lead is called like this

_UNPACKED_TIMES = 4  # unpacked size of a zip in multiples of max_body_bytes; WFDB compresses to half at best
_COMPRESSED_TIMES = 10  # and in multiples of its own: text compresses to a fifth, a bomb to a thousandth
_UNPACKED_FLOOR = 1024 * 1024

_NPY_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@dataclass(frozen=True)
class BodyLimits:
    """Upper limits on a request body."""

    max_body_bytes: int
    max_ecgs: int
    max_duration_s: float
    max_texts: int = 2048  # classes and their wordings


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
    sampling_rate_hz: float = Field(description="samples per second")

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
    try:
        return [_validated(JsonEcg, body, limits).to_ecg(limits)]
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise _malformed(f"this is not an ECG in JSON: {_fault(first)}") from None


def _read_npy(body: bytes, parameters: BodyParameters, limits: BodyLimits) -> list[Ecg]:
    """`[lead, sample]` or `[ecg, lead, sample]`; not numpy.load, which trusts the shape and can unpickle."""
    stream = io.BytesIO(body)
    try:
        shape, is_fortran, dtype = _NPY_HEADERS[np.lib.format.read_magic(stream)](stream)
    except Exception as error:  # numpy evaluates the header and does not catch what tokenize and dtype raise
        raise _malformed("this is not an .npy file of version 1 or 2, or its header cannot be read") from error
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise _malformed(f"the array holds {dtype.kind}{dtype.itemsize}, not integers or floats of up to 64 bits")
    count = 1
    for length in shape:
        count *= length
    data = memoryview(body)[stream.tell() :]
    if len(shape) not in (2, 3) or count * dtype.itemsize != len(data):
        raise _malformed(f"the array has shape {shape} and {len(data)} bytes of samples", "save [lead, sample]")
    try:
        samples = np.frombuffer(data, dtype).reshape(shape, order="F" if is_fortran else "C")
    except (ValueError, TypeError) as error:  # (-1, -10), (0, 1e30), (True, 10)
        raise _malformed("the array has an impossible shape") from error
    return _ecgs(samples, parameters, limits)


def _read_csv(body: bytes, parameters: BodyParameters, limits: BodyLimits) -> list[Ecg]:
    """A header of lead names, then a row per sample; a column `time_s` is checked and dropped.

    So are an index as pandas writes it, a first column without a name, and the empty last one of lines with a comma at
    their end.
    """
    if body.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _malformed("the table is in UTF-16", "save it in UTF-8")
    names = _column_names(body)
    try:
        table = pa.csv.read_csv(
            pa.BufferReader(body),
            pa.csv.ReadOptions(use_threads=False, column_names=names, skip_rows=1),
            convert_options=pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.float64())),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError, pa.ArrowNotImplementedError) as error:
        raise _malformed(
            "a row does not have as many cells as the header, or a cell is not a number",
            "end no line with a comma, and write no text below the header",
        ) from error
    table = _without_index(table)
    rate = _required(parameters.sampling_rate_hz, "sampling_rate_hz")
    if "time_s" in table.column_names:
        _check_times(table["time_s"].to_numpy(), rate)
        table = table.drop_columns(["time_s"])
    leads = tuple(table.column_names)
    if parameters.leads is not None and parameters.leads != leads:
        raise RequestError(422, "leads_twice", "`leads` differs from the header of the table", hint="omit `leads`")
    samples = np.stack([column.to_numpy() for column in table.columns]) if leads else np.empty((0, 0))
    del table  # as large as the samples
    return _ecgs(samples, replace(parameters, leads=leads), limits)


def _column_names(body: bytes) -> list[str]:
    """The header's cells, in which _INDEX and _TAIL stand for a first and a last one without a name."""
    head = re.match(rb"(?:\xef\xbb\xbf)?([^\r\n]{0,%d}+)" % _MAX_HEADER_BYTES, body)
    line = head[1] if head else b""
    if b"," not in line and (b";" in line or b"\t" in line):
        raise _malformed(
            "the columns are not separated by commas", "write 0.12,0.34: decimal points, and commas between columns"
        )
    try:
        cells = next(csv.reader([line.decode("utf-8", "replace")]), [])
    except csv.Error as error:
        raise _malformed("the header of the table cannot be read") from error
    names = [cell.strip() for cell in cells]
    if not any(names):  # without names Arrow would take them from the next line
        raise _malformed("the table has no header", "begin with a line of lead names: I,II,III,aVR,...")
    if len(names) > 1 and _is_unnamed(names[0]):
        names[0] = _INDEX
    if len(names) > 1 and not names[-1]:
        names[-1] = _TAIL
    if len(names) > MAX_LEADS + 3 or len(set(names)) < len(names):
        raise _malformed(f"the header has {len(names)} columns with {len(set(names))} distinct names")
    return names


def _is_unnamed(name: str) -> bool:
    return name.lower() in ("", "unnamed: 0", "index")  # to_csv(); that read again and written again; reset_index()


def _without_index(table: pa.Table) -> pa.Table:
    if _TAIL in table.column_names:
        if table[_TAIL].null_count < len(table):
            raise _malformed("the last column has no name", "name each column by its lead")
        table = table.drop_columns([_TAIL])
    if _INDEX in table.column_names:
        index = table[_INDEX].to_numpy()
        if len(index) and not (index[0] in (0, 1) and np.array_equal(index, np.arange(len(index)) + index[0])):
            raise _malformed(
                "the first column has no name of a lead, and is no index that counts 0, 1, 2, …",
                "write the table without its index (index=False), and call a column of times `time_s`",
            )
        table = table.drop_columns([_INDEX])
    return table


def _read_zip(body: bytes, parameters: BodyParameters, limits: BodyLimits) -> list[Ecg]:
    return _read_files(_zip_files(body, limits), parameters, limits)


_READERS: dict[str, Callable[[bytes, BodyParameters, BodyLimits], list[Ecg]]] = {
    "application/json": _read_json,
    "application/x-npy": _read_npy,
    "application/zip": _read_zip,
    "text/csv": _read_csv,
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
        folder = headers[0].rpartition("/")[0]
        record = {name.rpartition("/")[2]: data for name, data in files.items() if name.rpartition("/")[0] == folder}
        ecg = decode_wfdb(
            headers[0].rpartition("/")[2],
            record,
            max_samples=limits.max_body_bytes // 2,  # wfdb takes 25 bytes of memory for a sample
            max_duration_s=limits.max_duration_s,
        )
        return [ecg]
    known = [(name, suffix) for name in files for suffix in _SUFFIXES if name.lower().endswith(suffix)]
    if len(known) != 1 or len(files) != 1:
        raise RequestError(
            422,
            "no_record",
            f"of {len(files)} files none is a WFDB header (.hea) and {len(known)} are of another known format",
            hint=f"send a .hea with its .dat or .mat, or one of {', '.join(_SUFFIXES)}",
        )
    ((name, suffix),) = known
    if len(files[name]) > limits.max_body_bytes:  # only WFDB may unpack to more: parsed text takes many times its size
        raise RequestError(413, "too_large", f"the file unpacks to {len(files[name])} bytes", hint="send int16 as npy")
    return _SUFFIXES[suffix](files[name], parameters, limits)


def _multipart_files(content_type: str, body: bytes) -> dict[str, bytes]:
    files: dict[str, bytes] = {}

    def keep(file: python_multipart.multipart.File) -> None:
        name = (file.file_name or b"").decode("utf-8", "replace").replace("\\", "/").rpartition("/")[2]
        if len(files) >= _MAX_FILES or name in files:
            raise _malformed(f"more than {_MAX_FILES} files, or two with the same name")
        file.file_object.seek(0)
        files[name] = file.file_object.read()

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
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError, UnicodeError) as error:
        raise _malformed("the multipart body cannot be read") from error
    return files


def _zip_files(body: bytes, limits: BodyLimits) -> dict[str, bytes]:
    allowed = min(_UNPACKED_TIMES * limits.max_body_bytes, max(_UNPACKED_FLOOR, _COMPRESSED_TIMES * len(body)))
    if body.count(b"PK\1\2") > _MAX_ENTRIES:  # before zipfile spends seconds on them
        raise _malformed(f"the zip lists more than {_MAX_ENTRIES} files")
    files: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            # PowerShell 5 and .NET before 4.6.1 separate folders by `\\`.
            named = [(info.filename.replace("\\", "/"), info) for info in archive.infolist()]
            members = [
                (name, info)
                for name, info in named
                if not name.endswith("/") and not any(part.startswith((".", "__")) for part in name.split("/"))
            ]
            if len(members) > _MAX_FILES:
                raise _malformed(f"the zip holds {len(members)} files; at most {_MAX_FILES} are allowed")
            for name, info in members:
                if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise _malformed("the zip uses a compression method other than deflate")
                if name.lower().endswith(".zip"):  # each would stay in memory while the next is unpacked
                    raise _malformed("the zip holds another zip")
                if name in files:
                    raise _malformed(f"the zip holds two files called `{name[:80]}`")
                with archive.open(info) as member:  # the zip's own directory may state wrong sizes: count bytes
                    data = member.read(allowed + 1)
                allowed -= len(data)
                if allowed < 0:
                    raise RequestError(
                        413,
                        "too_large",
                        "the zip unpacks to more than this server accepts",
                        hint=f"compress no more than {_COMPRESSED_TIMES} times, or not at all",
                    )
                files[name] = data
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, OSError, ValueError, OverflowError) as error:
        raise _malformed("the zip is damaged, truncated or encrypted") from error
    return files


def _ecgs(samples: np.ndarray, parameters: BodyParameters, limits: BodyLimits) -> list[Ecg]:
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
    return [Ecg(_millivolts(one, unit), leads, rate) for one in several]


def _millivolts(samples: np.ndarray, unit: str) -> Float[np.ndarray, "lead sample"]:
    with np.errstate(over="ignore", invalid="ignore"):  # a float16 of 1e5 is infinite: `preprocess` rejects it
        return to_millivolts(samples.astype(np.float64, copy=False), unit)


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


def _check_times(time_s: np.ndarray, rate: float) -> None:
    if not rate > 0:
        raise RecordError("sampling_rate_mismatch", f"the sampling rate is {rate:g} Hz")
    with np.errstate(over="ignore", invalid="ignore"):
        expected_s = np.arange(len(time_s)) / rate
    # Half a sample: a time column may be rounded to milliseconds; a wrong rate is off by more after a few samples.
    if len(time_s) and not np.all(np.abs(time_s - time_s[0] - expected_s) <= 0.5 / rate + 1e-3):
        raise RecordError(
            "sampling_rate_mismatch",
            f"the column `time_s` does not increase in steps of 1/{rate:g} s",
            hint="check both",
        )


def _required(value: _T | None, name: str) -> _T:
    if value is None:
        raise RequestError(
            422, "missing_parameter", f"`{name}` is not given", hint=f"add `{name}=` to the query; it is never guessed"
        )
    return value


def _malformed(fact: str, hint: str = "") -> RequestError:
    return RequestError(400, "malformed_body", fact, hint=hint)
