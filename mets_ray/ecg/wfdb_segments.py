"""WFDB records of several segments: one after the other in time, each an ordinary record or a gap.

In a fixed layout all segments have the same signals. In a variable layout, as monitors write it, the first segment has
no length and names the signals; a later one may lack some of them. header(5) and
https://physionet.org/physiotools/wpg/wpg_39.htm
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from mets_ray.ecg.wfdb_header import GAP, Header, Segment
from mets_ray.ecg.wfdb_record import Files, check_empty_samples, read_leads
from mets_ray.errors import RecordError


def with_signals(header: Header, files: Files) -> Header:
    """A header of segments, with the signals of its layout, or of its first segment, and the length of all segments.

    Raises RecordError `header_mismatch` for segments that disagree with it.
    """
    recorded = (segment.name for segment in header.segments if segment.name != GAP and segment.num_frames)
    name = header.layout or next(recorded, None)
    if name is None:
        raise RecordError("header_mismatch", "all segments are gaps, and none names the signals")
    first = _segment_header(name, header, files)
    if first.num_signals != header.num_signals:
        raise RecordError(
            "header_mismatch", f"segment `{name}` has {first.num_signals} signals, the record has {header.num_signals}"
        )
    num_frames = sum(segment.num_frames for segment in header.segments)
    return replace(header, signals=first.signals, num_frames=num_frames)


def join_segments(header: Header, files: Files) -> Float[np.ndarray, "lead sample"]:
    """`header.leads` of all segments in mV; NaN in gaps, and where a segment lacks a lead.

    header: as `with_signals` gives it. Signals that a variable layout does not name are not read.
    """
    assert header.num_frames is not None
    files.check_length(header, header.num_frames)
    check_empty_samples(header, header.num_frames)
    in_frame = header.samples_per_frame
    joined = np.full((len(header.leads), header.num_frames * in_frame), np.nan)
    start = 0
    for segment in header.segments:
        stop = start + segment.num_frames * in_frame
        if segment.name != GAP and segment.num_frames:
            try:
                _read_segment(segment, header, files, joined[:, start:stop])
            except RecordError as error:
                error.fact = f"segment `{segment.name}`: {error.fact}"
                raise
        start = stop
    return joined


def _read_segment(segment: Segment, header: Header, files: Files, into: Float[np.ndarray, "lead sample"]) -> None:
    own = _segment_header(segment.name, header, files)
    if own.num_frames != segment.num_frames:
        raise RecordError(
            "header_mismatch", f"its header says {own.num_frames} samples, the record {segment.num_frames}"
        )
    if header.layout is None and own.leads != header.leads:
        raise RecordError(
            "header_mismatch", f"its leads are {', '.join(own.leads)}, those of the record {', '.join(header.leads)}"
        )
    rows = _matching(header.leads, own.leads)
    if not rows:
        return
    if own.samples_per_frame != header.samples_per_frame:
        raise RecordError(
            "header_mismatch",
            f"a frame has {own.samples_per_frame} samples of its leads, in the record {header.samples_per_frame}",
        )
    signal_mv = read_leads(own, files)
    for row, stored in rows:
        into[row] = signal_mv[stored]


def _matching(leads: Sequence[str], own: Sequence[str]) -> list[tuple[int, int]]:
    """Which rows of the record are which of a segment: the first signal of a name is the first one there, and so on."""
    rows, left = [], list(enumerate(own))
    for row, lead in enumerate(leads):
        found = next((one for one in left if one[1] == lead), None)
        if found is not None:
            left.remove(found)
            rows.append((row, found[0]))
    return rows


def _segment_header(name: str, header: Header, files: Files) -> Header:
    own = files.header(name)
    if own.segments:  # so a chain of headers ends, whichever names which
        raise RecordError("header_mismatch", f"segment `{name}` has segments of its own")
    if not math.isclose(own.frames_per_s, header.frames_per_s, rel_tol=1e-6):
        raise RecordError(
            "header_mismatch", f"segment `{name}` has {own.frames_per_s:g} Hz, the record {header.frames_per_s:g} Hz"
        )
    return own
