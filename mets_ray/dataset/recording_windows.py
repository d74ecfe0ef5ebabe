"""Rows of a data set that are windows of recordings: their ids, and how a recording becomes rows."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from mets_ray.ecg.ecg import Ecg, check_sampling_rate
from mets_ray.ecg.preprocess import SignalConfig
from mets_ray.ecg.timeline import part_from, window_starts
from mets_ray.sources.manifest import ManifestRow


class WindowName(NamedTuple):
    """A window as its row names it, `<record>@<start_s>`."""

    record_id: str
    start_s: float

    def __str__(self) -> str:
        return f"{self.record_id}@{self.start_s:.10g}"


def window_name(row_id: str) -> WindowName | None:
    """What the id of a window's row says; None for any other id."""
    record_id, at, start_s = row_id.rpartition("@")
    try:
        return WindowName(record_id, float(start_s)) if at and record_id else None
    except ValueError:
        return None


def rows_of_windows(
    row: ManifestRow, ecg: Ecg, signal: SignalConfig, stride_s: float
) -> Iterator[tuple[ManifestRow, Ecg]]:
    """Each window of a recording as a row with its own id, and the part of the recording that it needs.

    The rows share patient, fold, report, statements and labels. Raises RecordError for a recording without a window.
    """
    check_sampling_rate(ecg.sampling_rate_hz)
    for start_s in window_starts(ecg.signal_mv.shape[1], ecg.sampling_rate_hz, signal, stride_s):
        yield replace(row, record_id=str(WindowName(row.record_id, start_s))), part_from(ecg, start_s, signal)
