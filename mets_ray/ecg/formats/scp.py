"""SCP-ECG: EN 1064, ISO 11073-91064. Read here and not by ecgdatakit, which takes three times as long, allocates as
many samples as a header asks for, and reads on where a checksum is wrong.

Sections 2 to 6 give the signal: Huffman code, leads, reference beat and where it was subtracted, differences. Sections
1, 8 and 11 are in `scp_meta`. A reference beat is needed to restore the rhythm and is not itself given.
"""

import binascii
import math
import struct
from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer

from mets_ray.ecg.ecg import Ecg, check_sampling_rate, to_millivolts
from mets_ray.ecg.formats import scp_huffman, scp_meta
from mets_ray.ecg.formats.facts import refuse_damaged
from mets_ray.ecg.formats.lead_codes import LEAD_CODES
from mets_ray.ecg.formats.limits import check_samples
from mets_ray.ecg.formats.placing import place
from mets_ray.errors import RecordError

FORMAT = "scp"

_RECORD_HEADER = 6  # CRC, length
_SECTION_HEADER = 16
_POINTER = struct.Struct("<HII")  # section, length, position counted from 1
_LEAD = struct.Struct("<IIB")  # first sample, last sample, code
_QRS = struct.Struct("<HIII")  # beat type; first, fiducial and last sample
_USED = (0, 1, 2, 3, 4, 5, 6, 8, 11)
_LONG_TERM = 12  # of version 3

_BIMODAL = 5  # place of the flag in section 6
_SUBTRACTED = 1  # bit of the flags in section 3: the reference beat was subtracted


@dataclass(frozen=True)
class _Lead:
    """Numbers of the first and the last sample, from 1."""

    name: str
    first: int
    last: int


@dataclass(frozen=True)
class _Coded:
    """The leads of section 5 or 6. One step is `step_nv` nV, one sample `interval_us` µs."""

    step_nv: int
    interval_us: int
    leads: list[Integer[np.ndarray, "_"]]


def recognises(head: bytes) -> bool:
    """Section 0 comes first, and its first pointer is to itself."""
    if len(head) < _RECORD_HEADER + _SECTION_HEADER + _POINTER.size:
        return False
    section, length = struct.unpack_from("<HI", head, 8)
    pointer = _POINTER.unpack_from(head, _RECORD_HEADER + _SECTION_HEADER)
    named = head[16:22] == b"SCPECG"
    return section == 0 and length >= 26 and (named or (pointer[0] == 0 and pointer[2] == _RECORD_HEADER + 1))


def read(data: bytes) -> Ecg:
    """All leads, with the statements, the person and the filters that the file names.

    Checksums are verified: that of the whole record, or else those of the sections. Raises RecordError
    `unreadable_file`, `truncated_file`, `header_mismatch`, `unsupported_format`, `too_large`, `missing_unit`,
    `implausible_sampling_rate` and `no_ecg_lead`.
    """
    with refuse_damaged("SCP-ECG"):
        sections = _sections(data)
        leads, flags = _leads(sections)
        rhythm = _rhythm(sections, leads, flags, len(data))
        rate = 1e6 / rhythm.interval_us
        check_sampling_rate(rate)
        steps = place([(lead.first, row) for lead, row in zip(leads, rhythm.leads, strict=True)], len(data))
        return Ecg(
            to_millivolts(steps * (rhythm.step_nv / 1000), "uV"),
            tuple(lead.name for lead in leads),
            rate,
            meta=scp_meta.meta(sections, FORMAT),
        )


def _sections(data: bytes) -> dict[int, bytes]:
    """Each section that is read, behind its header."""
    size = int.from_bytes(data[2:6], "little")
    if size > len(data):
        raise RecordError("truncated_file", f"the SCP file has {len(data)} bytes of the {size} that it says")
    data = data[:size]
    is_whole = _has_checksum(data)
    pointers = _pointers(data)
    if _LONG_TERM in pointers and 6 not in pointers:
        raise RecordError("unsupported_format", "the SCP file holds a long-term rhythm (section 12)")
    sections = {}
    for number, (length, position) in pointers.items():
        if number not in _USED:
            continue
        section = data[position - 1 : position - 1 + length]
        if position < 1 or len(section) < max(length, _SECTION_HEADER):
            raise RecordError("truncated_file", f"section {number} of the SCP file goes beyond its end")
        if int.from_bytes(section[2:4], "little") != number:
            raise RecordError("header_mismatch", f"section {number} of the SCP file is not where its pointer says")
        if not is_whole and section[:2] != b"\0\0" and not _has_checksum(section):  # 0: none was written
            raise RecordError("header_mismatch", f"section {number} of the SCP file does not match its checksum")
        sections[number] = section[_SECTION_HEADER:]
    return sections


def _pointers(data: bytes) -> dict[int, tuple[int, int]]:
    """Length and position of each section, of section 0 itself first."""
    length = int.from_bytes(data[10:14], "little")
    if not _SECTION_HEADER <= length <= len(data) - _RECORD_HEADER:
        raise RecordError("unreadable_file", f"section 0 of the SCP file has {length} bytes of {len(data)}")
    pointers = {0: (length, _RECORD_HEADER + 1)}
    for at in range(_RECORD_HEADER + _SECTION_HEADER, _RECORD_HEADER + length - _POINTER.size + 1, _POINTER.size):
        number, section_length, position = _POINTER.unpack_from(data, at)
        if number and section_length:
            pointers[number] = (section_length, position)
    return pointers


def _has_checksum(part: bytes) -> bool:
    return binascii.crc_hqx(part[2:], 0xFFFF) == int.from_bytes(part[:2], "little")


def _leads(sections: dict[int, bytes]) -> tuple[list[_Lead], int]:
    body = sections.get(3, b"")
    if not body or not body[0]:
        raise RecordError("no_ecg_lead", "the SCP file defines no leads")
    leads = []
    for number in range(body[0]):
        first, last, code = _LEAD.unpack_from(body, 2 + number * _LEAD.size)
        if not 1 <= first <= last:
            raise RecordError("unreadable_file", f"a lead of the SCP file has the samples {first} to {last}")
        leads.append(_Lead(LEAD_CODES.get(code, f"SCP lead {code}"), first, last))
    return leads, body[1]


def _rhythm(sections: dict[int, bytes], leads: list[_Lead], flags: int, num_bytes: int) -> _Coded:
    check_samples(len(leads), max(lead.last for lead in leads) - min(lead.first for lead in leads) + 1, num_bytes)
    tables = scp_huffman.parse_tables(sections[2]) if 2 in sections else None
    if 6 not in sections:
        raise RecordError("no_ecg_lead", "the SCP file has no rhythm (section 6)")
    counts = [lead.last - lead.first + 1 for lead in leads]
    beat = None
    if flags & _SUBTRACTED or sections[6][_BIMODAL]:
        beat = _reference_beat(sections, len(leads), tables, num_bytes)
    # The flag of bimodal compression alone does no harm where both sections have one interval: nothing was decimated.
    is_decimated = beat is not None and int.from_bytes(sections[6][2:4], "little") != beat.interval_us
    if is_decimated or (sections[6][_BIMODAL] and beat is None):
        raise RecordError(
            "unsupported_format",
            "the rhythm of the SCP file was decimated between its beats (bimodal compression)",
            hint="export it without bimodal compression: it has lost part of the signal",
        )
    rhythm = _coded(sections[6], counts, tables)
    if not flags & _SUBTRACTED:
        return rhythm
    if beat is None:
        raise RecordError("unreadable_file", "the SCP file lacks the reference beat that was subtracted")
    return _add_beats(rhythm, beat, leads, sections[4])


def _reference_beat(
    sections: dict[int, bytes], num_leads: int, tables: scp_huffman.Tables | None, num_bytes: int
) -> _Coded | None:
    if 4 not in sections or 5 not in sections:
        return None
    milliseconds = int.from_bytes(sections[4][:2], "little")
    interval = int.from_bytes(sections[5][2:4], "little")
    if not interval:
        return None
    count = round(milliseconds * 1000 / interval)
    check_samples(num_leads, count, num_bytes)
    return _coded(sections[5], [count] * num_leads, tables)


def _coded(body: bytes, counts: list[int], tables: scp_huffman.Tables | None) -> _Coded:
    step_nv, interval_us, differences = struct.unpack_from("<HHB", body)
    if not step_nv:
        raise RecordError("missing_unit", "the SCP file gives no size of a step (amplitude value multiplier)")
    if not interval_us:
        raise RecordError("implausible_sampling_rate", "the SCP file gives no time between samples")
    if differences > 2:
        raise RecordError("unsupported_format", f"the SCP file has differences of order {differences}")
    sizes = struct.unpack_from(f"<{len(counts)}H", body, 6)
    at = 6 + 2 * len(counts)
    leads = []
    for count, size in zip(counts, sizes, strict=True):
        part = body[at : at + size]
        if len(part) < size or (tables is None and size < 2 * count):
            raise RecordError("truncated_file", f"a lead of the SCP file has {len(part)} bytes for {count} samples")
        numbers = np.frombuffer(part, "<i2", count) if tables is None else scp_huffman.decode(part, count, tables)
        leads.append(_summed(numbers.astype(np.int64), differences))
        at += size
    return _Coded(step_nv, interval_us, leads)


def _summed(numbers: Integer[np.ndarray, " sample"], order: int) -> Integer[np.ndarray, " sample"]:
    """Samples from their first or second differences. Recorders count in 16 bits, so sums that leave them wrap."""
    if order == 2 and len(numbers) > 2:
        slopes = np.cumsum(np.concatenate((numbers[1:2] - numbers[:1], numbers[2:])))  # the first two are samples
        numbers = np.concatenate((numbers[:1], numbers[0] + np.cumsum(slopes)))
    elif order == 1:
        numbers = np.cumsum(numbers)
    return numbers.astype(np.int16).astype(np.int64)


def _add_beats(rhythm: _Coded, beat: _Coded, leads: list[_Lead], body: bytes) -> _Coded:
    """The reference beat back where it was subtracted: around the fiducial point of each beat of type 0."""
    fiducial_of_beat, count = struct.unpack_from("<HH", body, 2)
    step_nv = math.gcd(rhythm.step_nv, beat.step_nv)
    rows = [row * (rhythm.step_nv // step_nv) for row in rhythm.leads]
    beats = [row * (beat.step_nv // step_nv) for row in beat.leads]
    for number in range(count):
        beat_type, first, fiducial, last = _QRS.unpack_from(body, 6 + number * _QRS.size)
        if beat_type:
            continue
        begin = fiducial - fiducial_of_beat + 1  # the sample number of the beat's first sample
        for lead, row, samples in zip(leads, rows, beats, strict=True):
            low = max(first, lead.first, begin)
            high = min(last, lead.last, begin + len(samples) - 1)
            if low <= high:
                row[low - lead.first : high - lead.first + 1] += samples[low - begin : high - begin + 1]
    return _Coded(step_nv, rhythm.interval_us, rows)
