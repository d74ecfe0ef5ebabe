"""ISHNE Holter. Badilini F, The ISHNE Holter Standard Output File Format, Ann Noninvasive Electrocardiol 1998;3:263.

522 bytes of header, a block of text, then 16-bit samples of all leads in turn. Little-endian.
"""

import binascii
import struct
from dataclasses import dataclass
from datetime import date

import numpy as np

from mets_ray.ecg.ecg import Ecg, EcgMeta, check_sampling_rate, to_millivolts
from mets_ray.ecg.formats.facts import age_years, day_of, recorded_at, refuse_damaged, time_of
from mets_ray.ecg.formats.limits import check_samples
from mets_ray.errors import RecordError

FORMAT = "ishne"

_MAGIC = b"ISHNE1.0"
_CHECKED_FROM = 10  # the checksum covers the header behind it, and the block of text
_HEADER_BYTES = 522
_SIZES = struct.Struct("<iiii")  # bytes of text, samples, where the text begins, where the samples begin
_MAX_LEADS = 12

_LEADS = {2: "VX", 3: "VY", 4: "VZ", 5: "I", 6: "II", 7: "III", 8: "aVR", 9: "aVL", 10: "aVF"}
_LEADS |= {number + 10: f"V{number}" for number in range(1, 7)} | {17: "ES", 18: "AS", 19: "AI"}
_NOT_PRESENT = -9
_LEAD_FAULT = -32768
_SEXES = {1: "male", 2: "female"}


@dataclass(frozen=True)
class _Lead:
    """`row` is its place among the samples; a step is `step_nv` nV."""

    name: str
    row: int
    step_nv: int


def recognises(head: bytes) -> bool:
    """The first eight bytes. Files of annotations begin with `ANN  1.0` and hold no signal."""
    return head[: len(_MAGIC)] == _MAGIC


def read(data: bytes) -> Ecg:
    """All leads that are present; samples that mark a lead fault are NaN.

    The checksum is verified where there is one. Raises RecordError `unreadable_file`, `truncated_file`,
    `header_mismatch`, `no_ecg_lead`, `missing_unit`, `too_large` and `implausible_sampling_rate`.
    """
    with refuse_damaged("ISHNE"):
        if len(data) < _HEADER_BYTES:
            raise RecordError("truncated_file", f"the ISHNE file has {len(data)} bytes, its header {_HEADER_BYTES}")
        begin = _samples_begin(data)
        (num_leads,) = struct.unpack_from("<h", data, 156)
        if not 1 <= num_leads <= _MAX_LEADS:
            raise RecordError("unreadable_file", f"the ISHNE file has {num_leads} leads; 1 to {_MAX_LEADS} are allowed")
        (rate,) = struct.unpack_from("<h", data, 272)
        check_sampling_rate(rate)
        leads = _leads(data, num_leads)
        count = _num_frames(data, begin, num_leads)
        check_samples(num_leads, count, len(data))
        stored = np.frombuffer(data, "<i2", count * num_leads, begin).reshape(count, num_leads)
        signal_mv = np.empty((len(leads), count))
        for row, lead in zip(signal_mv, leads, strict=True):
            steps = stored[:, lead.row]
            row[:] = to_millivolts(steps * (lead.step_nv / 1000), "uV")
            row[steps == _LEAD_FAULT] = np.nan
        return Ecg(signal_mv, tuple(lead.name for lead in leads), float(rate), meta=_meta(data))


def _samples_begin(data: bytes) -> int:
    """Behind the block of text. Writers that give another place are believed only with a right checksum."""
    text_bytes, _, _, said = _SIZES.unpack_from(data, 10)
    begin: int = _HEADER_BYTES + text_bytes
    if text_bytes < 0 or begin > len(data):
        raise RecordError("truncated_file", f"the ISHNE file says {text_bytes} bytes of text, beyond its end")
    stored = data[8:10]
    checksum = binascii.crc_hqx(data[_CHECKED_FROM:begin], 0xFFFF)
    is_checked = stored in (checksum.to_bytes(2, "little"), checksum.to_bytes(2, "big"))  # both are found
    if not is_checked and stored != b"\0\0":
        raise RecordError("header_mismatch", "the header of the ISHNE file does not match its checksum")
    if said != begin and not is_checked:
        raise RecordError("header_mismatch", f"the samples begin at byte {said} or {begin}, and there is no checksum")
    return begin


def _leads(data: bytes, num_leads: int) -> list[_Lead]:
    codes, steps = (struct.unpack_from(f"<{num_leads}h", data, at) for at in (158, 206))
    leads = [
        _Lead(_LEADS.get(code, f"ISHNE lead {row + 1}"), row, step)
        for row, (code, step) in enumerate(zip(codes, steps, strict=True))
        if code != _NOT_PRESENT
    ]
    if not leads:
        raise RecordError("no_ecg_lead", "no lead of the ISHNE file is present")
    for lead in leads:
        if lead.step_nv <= 0:
            raise RecordError("missing_unit", f"{lead.name} has steps of {lead.step_nv} nV")
    return leads


def _num_frames(data: bytes, begin: int, num_leads: int) -> int:
    """Samples of each lead. The header's number means those of one lead, or in some files of all together."""
    said = int.from_bytes(data[14:18], "little", signed=True)
    there = (len(data) - begin) // 2
    if said > 0 and said * num_leads <= there:
        return said
    if said == there and there % num_leads == 0:
        return there // num_leads
    raise RecordError("truncated_file", f"the ISHNE file holds {there // num_leads} samples of a lead of {said}")


def _meta(data: bytes) -> EcgMeta:
    sex, _, *days = struct.unpack_from("<8h", data, 128)
    born, day = _day(days[:3]), _day(days[3:6])
    clock = struct.unpack_from("<3h", data, 150)
    return EcgMeta(
        format=FORMAT,
        patient_id=_text(data[108:128]),
        age=age_years(born, day),
        sex=_SEXES.get(sex),
        device=_text(data[232:272]),
        recorded_at=recorded_at(day, time_of(*clock)),
    )


def _day(parts: list[int]) -> date | None:
    """Stored as day, month, year."""
    return day_of(*reversed(parts))


def _text(field: bytes) -> str | None:
    return field.partition(b"\0")[0].decode("latin-1").strip() or None
