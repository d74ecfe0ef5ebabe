"""One WFDB record (`.hea` with its `.dat` or `.mat`) as an `Ecg`, from any storage.

`wfdb_header` reads the header, `wfdb_signals` the samples, `wfdb_record` makes leads of them and `wfdb_segments` joins
segments: a record of PTB-XL at 100 Hz takes 0.2 ms.
"""

import re
from dataclasses import dataclass

from mets_ray import storage
from mets_ray.ecg.ecg import Ecg, EcgMeta
from mets_ray.ecg.formats.facts import SEXES, plausible_age
from mets_ray.ecg.wfdb_header import parse_header
from mets_ray.ecg.wfdb_record import Files, Limits, read_leads
from mets_ray.ecg.wfdb_segments import join_segments, with_signals
from mets_ray.errors import RecordError

_YEARS = re.compile(r"\d{1,3}(\.\d{1,6})?", re.ASCII)

# The reasons of every RecordError that `read_wfdb` raises, besides `to_millivolts`' missing_unit and unknown_unit.
REASONS = (
    "missing_file",  # no header, or no signal file or segment that the header names
    "unreadable_header",  # not in the format of header(5), or without a sampling rate
    "header_mismatch",  # signal lines, segments, file size or checksums disagree with the header
    "truncated_file",  # fewer samples than the header says
    "unsupported_format",  # leads of several rates, or an unknown format
    "too_long",  # gaps or FLAC that ask for more memory than a machine has
)


@dataclass(frozen=True)
class HeaderFacts:
    """What a manifest needs of a header: names of the ECG's signals, length, and the `#` lines without their `#`."""

    leads: tuple[str, ...]
    num_samples: int | None
    sampling_rate_hz: float
    comments: tuple[str, ...]
    data: bytes


def read_header(record_uri: str) -> HeaderFacts:
    """The header of a record, without its samples; errors as `read_wfdb`."""
    name, files = _stored(record_uri)
    try:
        data = files.read(f"{name}.hea")
        header = parse_header(data)
        if header.segments:
            header = with_signals(header, files)
    except RecordError as error:
        error.where = error.where or record_uri
        raise
    return HeaderFacts(
        leads=header.leads,
        num_samples=None if header.num_frames is None else header.num_frames * header.samples_per_frame,
        sampling_rate_hz=header.sampling_rate_hz,
        comments=header.comments,
        data=data,
    )


def segments_of(record_uri: str) -> tuple[str, ...]:
    """The records in the same folder that make up a record; none where it has signals of its own.

    Raises RecordError for a header that is absent or cannot be read.
    """
    name, files = _stored(record_uri)
    return tuple(segment.name for segment in files.header(name).segments)


def comment_facts(comments: tuple[str, ...]) -> dict[str, str]:
    """Comments as `key: value`, by the key in lower case: `# age: 81` of PTB, `#Dx: 59118001` of the challenges."""
    pairs = (line.partition(":") for line in comments)
    return {key.strip().lower(): value.strip() for key, _, value in pairs}


def read_wfdb(record_uri: str) -> Ecg:
    """Read a record; `record_uri` is its path with or without `.hea`. All leads, the whole length.

    Samples that are marked invalid become NaN, and so do gaps between segments and the end of a signal with a skew.
    Leads that are sampled several times in a frame keep all their samples. Sizes and checksums of the header are
    verified. Signals that are no ECG are left out, and named in `Ecg.other_signals`.
    Raises RecordError with one of `REASONS`, `missing_unit` or `unknown_unit`; DatasetError where the store itself
    fails.
    """
    name, files = _stored(record_uri)
    try:
        return _ecg(name, files)
    except RecordError as error:
        error.where = error.where or record_uri
        raise


def decode_wfdb(header_name: str, files: dict[str, bytes], *, max_samples: int, max_duration_s: float) -> Ecg:
    """The same for a record that anybody may have sent: its `files` in memory, by path, the header among them.

    Files that the header names lie in its folder. Sizes are checked before anything is decoded: at most `max_samples`
    of all signals together, and `max_duration_s`. Raises RecordError as `read_wfdb`, `too_long` and
    `implausible_sampling_rate`.
    """
    folder, slash, name = header_name[: -len(".hea")].rpartition("/")

    def read(wanted: str) -> bytes:
        if wanted == f"{name}.hea":
            return files[header_name]  # whose suffix may be in capitals
        path = f"{folder}{slash}{wanted}"
        if path not in files:
            raise RecordError("missing_file", f"the header names `{wanted[:80]}`, which is not there")
        return files[path]

    return _ecg(name, Files(read, Limits(max_samples, max_duration_s)))


def main_headers(files: dict[str, bytes]) -> list[str]:
    """The names of the headers among `files` that are no segment of another one: one for each record."""
    headers = [name for name in files if name.lower().endswith(".hea")]
    if len(headers) < 2:
        return headers
    segments = set()
    for name in headers:
        folder = name[: name.rfind("/") + 1]
        try:
            header = Files(files.__getitem__, Limits(0, 0.0)).header(name[: -len(".hea")])
        except (RecordError, KeyError):
            continue
        segments |= {f"{folder}{segment.name}.hea" for segment in header.segments}
    return [name for name in headers if name not in segments] or headers


def _stored(record_uri: str) -> tuple[str, Files]:
    folder, _, name = record_uri.removesuffix(".hea").rpartition("/")

    def read(wanted: str) -> bytes:
        try:
            return storage.read_bytes(storage.join(folder, wanted) if folder else wanted)
        except storage.MissingFileError as error:
            raise RecordError("missing_file", f"`{wanted}` does not exist") from error

    return name, Files(read)


def _ecg(name: str, files: Files) -> Ecg:
    try:
        header = files.header(name)
        if header.segments:
            header = with_signals(header, files)
            signal_mv = join_segments(header, files)
        else:
            signal_mv = read_leads(header, files)
    except (ValueError, TypeError, ArithmeticError) as error:  # numbers of 5,000 digits, for example
        raise RecordError("unreadable_header", "the header contains an impossible number") from error
    return Ecg(
        signal_mv,
        header.leads,
        header.sampling_rate_hz,
        other_signals=tuple(signal.name for signal in header.signals if not signal.is_ecg),
        meta=_meta(header.comments),
    )


def _meta(comments: tuple[str, ...]) -> EcgMeta:
    """Age and sex where comments name them as in PTB (`# age: 81`) and the PhysioNet challenges (`#Sex: Male`)."""
    facts = comment_facts(comments)
    age = facts.get("age", "")
    return EcgMeta(
        format="wfdb",
        age=plausible_age(float(age)) if _YEARS.fullmatch(age) else None,
        sex=SEXES.get(facts.get("sex", "").lower()),
    )
