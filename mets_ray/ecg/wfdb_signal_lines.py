"""Signal lines of WFDB headers: where a signal is stored, and how its samples become millivolts."""

import functools
import math
import re
from typing import NamedTuple

from mets_ray import storage
from mets_ray.ecg.leads import is_ecg_name, is_ecg_signal
from mets_ray.ecg.wfdb_signals import FLAC, NO_SAMPLES, SAMPLE_BITS
from mets_ray.errors import RecordError

UNSTATED_UNIT = "mV"
"""header(5): "If the units field is absent, the physical unit may be assumed to be 1 millivolt"."""

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"

_STORAGE = re.compile(r"(?P<format>\d+)(x(?P<per_frame>\d+))?(:(?P<skew>\d+))?(\+(?P<offset>\d+))?")
_GAIN = re.compile(rf"(?P<gain>{NUMBER})(\((?P<baseline>[-+]?\d+)\))?(/(?P<unit>\S+))?")


class Signal(NamedTuple):
    """One signal line. `gain` is in steps per `unit`; both mean nothing unless `is_ecg`.

    `samples_per_frame`: how many times the header's rate the signal is sampled. `skew`: frames of it before the
    record's first.
    """

    file_name: str
    format: str
    samples_per_frame: int
    skew: int
    byte_offset: int
    gain: float
    baseline: int
    initial: int
    unit: str
    checksum: int | None
    name: str
    is_ecg: bool


class _Line(NamedTuple):
    fields: list[str]
    stored: re.Match[str]
    name: str
    may_be_ecg: bool

    @property
    def samples_per_frame(self) -> int:
        return int(self.stored["per_frame"] or 1)


def parse_signals(lines: list[str]) -> tuple[Signal, ...]:
    """A signal of another rate than the leads is left out where only its rate says what it is: one recorder samples its
    leads at one rate."""
    drafts = [_split(line, number) for number, line in enumerate(lines)]
    for name in dict.fromkeys(draft.fields[0] for draft in drafts if draft.stored["format"] != NO_SAMPLES):
        check_file_name("signal file", name)
    rates = {draft.samples_per_frame for draft in drafts if draft.may_be_ecg}
    if len(rates) > 1:
        rates = {draft.samples_per_frame for draft in drafts if draft.may_be_ecg and is_ecg_name(draft.name)} or rates
    if len(rates) > 1:
        leads = ", ".join(f"{draft.name} {draft.samples_per_frame}" for draft in drafts if draft.may_be_ecg)
        raise RecordError(
            "unsupported_format",
            f"the leads have different sampling rates, in samples of a frame: {leads}",
            hint="write the leads at one rate",
        )
    return tuple(_signal(draft, draft.may_be_ecg and draft.samples_per_frame in rates) for draft in drafts)


@functools.lru_cache(maxsize=16)  # nearly all lines of a source have the same
def _storage(field: str) -> re.Match[str] | None:
    return _STORAGE.fullmatch(field)


@functools.lru_cache(maxsize=16)
def _scale(field: str) -> re.Match[str] | None:
    return _GAIN.fullmatch(field)


def _split(line: str, number: int) -> _Line:
    # FILE FORMAT[xN][:SKEW][+OFFSET] GAIN[(BASELINE)][/UNIT] RESOLUTION ZERO INITIAL CHECKSUM BLOCK DESCRIPTION
    fields = line.split(maxsplit=8)
    stored = _storage(fields[1]) if len(fields) > 1 else None
    if stored is None or (stored["per_frame"] and int(stored["per_frame"]) == 0):
        raise RecordError("unreadable_header", f"a signal line is `{line[:80]}`")
    sample_format = stored["format"]
    if sample_format not in SAMPLE_BITS and sample_format not in FLAC and sample_format != NO_SAMPLES:
        raise RecordError("unsupported_format", f"signal {number} has format {sample_format}")
    name = fields[8] if len(fields) > 8 else f"signal {number}"
    scale = _scale(fields[2]) if len(fields) > 2 else None
    return _Line(fields, stored, name, is_ecg_signal(name, scale["unit"] if scale else None))


def _signal(draft: _Line, is_ecg: bool) -> Signal:
    fields, stored = draft.fields, draft.stored
    gain, baseline, unit = 1.0, None, ""
    if is_ecg and stored["format"] != NO_SAMPLES:  # what is none needs no calibration
        gain, baseline, unit = _calibration(fields[2] if len(fields) > 2 else None, draft.name)

    def level(position: int, otherwise: int = 0) -> int:
        return int(fields[position]) if len(fields) > position else otherwise

    return Signal(
        file_name=fields[0],
        format=stored["format"],
        samples_per_frame=draft.samples_per_frame,
        skew=int(stored["skew"] or 0),
        byte_offset=int(stored["offset"] or 0),
        gain=gain,
        baseline=level(4) if baseline is None else baseline,  # the ADC's zero
        initial=level(5, level(4)) if stored["format"] == "8" else 0,
        unit=unit,
        checksum=int(fields[6]) if len(fields) > 6 else None,
        name=draft.name,
        is_ecg=is_ecg,
    )


def _calibration(field: str | None, name: str) -> tuple[float, int | None, str]:
    """Gain, baseline and unit."""
    scale = _scale(field) if field is not None else None
    if field is not None and scale is None:
        raise RecordError("unreadable_header", f"the gain of {name} is `{field}`")
    gain = float(scale["gain"]) if scale else 0.0
    if gain == 0.0 or scale is None:
        raise RecordError(
            "missing_unit",
            f"the header gives no gain for {name}, so its samples have no unit",
            hint="write the recorder's gain into the header, in steps per mV",
        )
    if not math.isfinite(gain):
        raise RecordError("unreadable_header", f"the gain of {name} is `{field}`")
    return gain, int(scale["baseline"]) if scale["baseline"] else None, scale["unit"] or UNSTATED_UNIT


def check_file_name(what: str, name: str) -> None:
    """Raise RecordError `unreadable_header` unless `name`, from a header, is a file in the header's own folder."""
    if fault := storage.path_fault(name) or ("it is a folder" if "/" in name or name == "." else ""):
        raise RecordError("unreadable_header", f"{what} {name[:80]!r} is not one in the header's own folder: {fault}")
