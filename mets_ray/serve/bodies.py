"""ECGs from HTTP bodies. A new format (EDF, DICOM, ...) is a function and an entry in `_READERS` and `_SUFFIXES`.

Bodies are untrusted: sizes are checked before memory is allocated, nothing is unpickled, no file is written under a
name from the body, and hostile bytes raise RequestError or RecordError whatever a decoder does with them.
"""

import io
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
from python_multipart.exceptions import FormParserError

from mets_ray.ecg.ecg import LEADS, SAMPLING_RATES_HZ, Ecg, to_millivolts
from mets_ray.ecg.wfdb import decode_wfdb
from mets_ray.errors import RecordError, RequestError

_T = TypeVar("_T")
_Model = TypeVar("_Model", bound=BaseModel)

MAX_LEADS = 64
_OTHER_ARRAYS = 1000  # brackets in class names
_MAX_FILES = 64

_MAX_ENTRIES = 1024  # of a zip, including folders and skipped files

_UNPACKED_TIMES = 4  # unpacked size of a zip in multiples of max_body_bytes; WFDB compresses to half at best

_NPY_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@dataclass(frozen=True)
class BodyLimits:
    """Upper limits on a request body."""

    max_body_bytes: int
    max_ecgs: int
    max_duration_s: float


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

    signal: list[list[float]] = Field(description="one row of samples per lead")
    unit: str = Field(description="unit of the samples: mV or uV (also V, µV); never guessed")
    leads: list[str] = Field(description=f"name of each row, in any order, from {', '.join(LEADS)}")
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
    """`body` as a `model`. Raises pydantic's ValidationError, and RequestError 422 for too many arrays.

    They are counted before parsing: 8 MB of `[],[],…` would block the interpreter for seconds.
    """
    if _has_too_many_arrays(body, limits):
        raise RequestError(422, "too_many_arrays", "the JSON holds more arrays than ECGs have leads")
    return model.model_validate_json(body)


def _has_too_many_arrays(body: bytes, limits: BodyLimits) -> bool:
    return body.count(b"[") > limits.max_ecgs * (MAX_LEADS + 2) + _OTHER_ARRAYS


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
    if _has_too_many_arrays(body, limits):
        raise _malformed("the JSON holds more arrays than an ECG has leads")
    try:
        return [JsonEcg.model_validate_json(body).to_ecg(limits)]
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, fault["loc"]))
        raise _malformed(f"this is not an ECG in JSON: {f'`{place}`: ' if place else ''}{fault['msg']}") from None


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
    """A header of lead names, then a row per sample; a column `time_s` is checked and dropped."""
    head = body.removeprefix(b"\xef\xbb\xbf").split(b"\n", 1)[0]
    if b"," not in head and (b";" in head or b"\t" in head):
        raise _malformed(
            "the columns are not separated by commas", "write 0.12,0.34: decimal points, and commas between columns"
        )
    names = [name.strip().strip('"') for name in head.decode("utf-8", "replace").strip().split(",")]
    if len(names) > MAX_LEADS + 1 or len(set(names)) < len(names):
        raise _malformed(f"the header has {len(names)} columns with {len(set(names))} distinct names")
    try:
        table = pa.csv.read_csv(
            io.BytesIO(body),
            pa.csv.ReadOptions(use_threads=False, column_names=names, skip_rows=1),
            convert_options=pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.float64())),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError, pa.ArrowNotImplementedError) as error:
        raise _malformed("a row does not have as many cells as the header, or a cell is not a number") from error
    rate = _required(parameters.sampling_rate_hz, "sampling_rate_hz")
    if "time_s" in names:
        _check_times(table["time_s"].to_numpy(), rate)
        table = table.drop_columns(["time_s"])
    leads = tuple(table.column_names)
    if parameters.leads is not None and parameters.leads != leads:
        raise RequestError(422, "leads_twice", "`leads` differs from the header of the table", hint="omit `leads`")
    samples = np.stack([column.to_numpy() for column in table.columns]) if leads else np.empty((0, 0))
    return _ecgs(samples, replace(parameters, leads=leads), limits)


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
    headers = [name for name in files if name.lower().endswith(".hea")]
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
            max_samples=limits.max_body_bytes,  # the most that an array of one-byte samples could hold
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
    allowed = _UNPACKED_TIMES * limits.max_body_bytes
    if body.count(b"PK\1\2") > _MAX_ENTRIES:  # before zipfile spends seconds on them
        raise _malformed(f"the zip lists more than {_MAX_ENTRIES} files")
    files: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            members = [
                info
                for info in archive.infolist()
                if not info.filename.endswith("/")
                and not any(part.startswith((".", "__")) for part in info.filename.split("/"))
            ]
            if len(members) > _MAX_FILES:
                raise _malformed(f"the zip holds {len(members)} files; at most {_MAX_FILES} are allowed")
            for info in members:
                if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise _malformed("the zip uses a compression method other than deflate")
                if info.filename.lower().endswith(".zip"):  # each would stay in memory while the next is unpacked
                    raise _malformed("the zip holds another zip")
                if info.filename in files:
                    raise _malformed(f"the zip holds two files called `{info.filename[:80]}`")
                with archive.open(info) as member:  # the zip's own directory may state wrong sizes: count bytes
                    data = member.read(allowed + 1)
                allowed -= len(data)
                if allowed < 0:
                    raise RequestError(413, "too_large", "the zip unpacks to more than this server accepts")
                files[info.filename] = data
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
        return to_millivolts(samples.astype(np.float64), unit)


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
