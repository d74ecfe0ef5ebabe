"""From a row of the manifest to what a shard holds of it: read, de-identified, preprocessed, or rejected."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Int16

from mets_ray import storage
from mets_ray.dataset.privacy import Finds, Privacy
from mets_ray.dataset.quality.measures import RecordMeasures, measure
from mets_ray.dataset.recording_windows import rows_of_windows
from mets_ray.ecg.derived_leads import derivation
from mets_ray.ecg.ecg import Ecg, EcgMeta
from mets_ray.ecg.gaps import behind_gaps
from mets_ray.ecg.lead_sets import recorded, with_absent_leads
from mets_ray.ecg.measured_statements import measured_statements
from mets_ray.ecg.median_beat import measure_median_beat
from mets_ray.ecg.preprocess import SignalConfig, preprocess
from mets_ray.errors import RecordError
from mets_ray.sources.manifest import ManifestRow, completed
from mets_ray.sources.source import Source
from mets_ray.text.reports import clean_report


@dataclass(frozen=True)
class ShardTask:
    """Manifest rows of one shard, in order. `duplicates`: positions of rows that repeat the `record_id` of an earlier
    row. Without `has_reports` the source has no reports, and rows are written with an empty one. With `zero_leads`,
    leads that a record lacks are zeros. With `measured` the reports get the statements that are measured on the ECG
    (`ecg.measured_statements`). With `stride_s` each record becomes a row for each of its windows."""

    name: str
    rows: tuple[ManifestRow, ...]
    duplicates: frozenset[int]
    has_reports: bool = True
    zero_leads: bool = False
    measured: bool = False
    stride_s: float | None = None


@dataclass(frozen=True)
class Accepted:
    """A record that passed every check, ready to be written; `signal_uv` is int16 [lead, sample]. `measures` are of its
    signal as the source has it. `other_signals` and `absent_leads`: see `Ecg`; `derived_leads`: `derivation`; `stated`:
    `ShardSummary`; `finds`: `Privacy`."""

    row: ManifestRow
    report: str
    signal_uv: np.ndarray
    measures: RecordMeasures | None = None
    other_signals: tuple[str, ...] = ()
    derived_leads: str = ""
    absent_leads: tuple[str, ...] = ()
    stated: dict[str, str] = field(default_factory=dict)
    finds: Finds = field(default_factory=Finds)


Outcome = tuple[ManifestRow, Accepted | RecordError]
"""A row, and what became of it."""


class _Loaded(NamedTuple):
    """A record, or a window of one, before it is converted; the other fields are those of `Accepted`."""

    ecg: Ecg
    row: ManifestRow
    report: str
    derived_leads: str
    stated: dict[str, str]
    finds: Finds


_MOST_SAMPLES = 1_000_000
"""Of the records that a thread holds at once, 8 MB, besides the last of them."""


@dataclass(frozen=True)
class RecordReader:
    """Reads the records of one shard."""

    task: ShardTask
    source: Source
    signal: SignalConfig
    privacy: Privacy

    def read(self, positions: Iterable[int]) -> list[Outcome]:
        """What became of some rows, in their order: one outcome for each, or for each window of its recording.

        All are read, then all converted, then all measured: a processor that does one thing at a time has its code at
        hand, and is faster by a quarter. Raises DatasetError for a store that does not answer.
        """
        outcomes: list[Outcome] = []
        loaded: list[tuple[ManifestRow, _Loaded | RecordError]] = []
        samples = 0
        for position in positions:
            for row, one in self._load(position):
                loaded.append((row, one))
                samples += 0 if isinstance(one, RecordError) else one.ecg.signal_mv.size
            if samples > _MOST_SAMPLES:
                outcomes += self._convert(loaded)
                loaded, samples = [], 0
        return outcomes + self._convert(loaded)

    def _load(self, position: int) -> list[tuple[ManifestRow, _Loaded | RecordError]]:
        """A row's record, or each of its windows, as its source has it."""
        row = self.task.rows[position]
        try:
            self._check(row, position)
            ecg = self.source.read(row.record_uri)
            if self.task.zero_leads:
                ecg = with_absent_leads(ecg, self.signal.leads)
            whole, finds = self.privacy.of_text(completed(row, ecg.meta))
            report = self._report(whole)
            if self.task.stride_s is not None:
                parts = list(rows_of_windows(whole, ecg, self.signal, self.task.stride_s))
            elif "#" in row.record_uri:  # behind it a source names a stretch, which must not move
                parts = [(whole, ecg)]
            else:
                parts = [(whole, behind_gaps(ecg, self.signal))]
        except RecordError as error:
            return [(row, error)]
        named, stated, derived = self.privacy.of_ids(whole), _stated(row, ecg.meta), derivation(ecg, self.signal.leads)
        loaded: list[tuple[ManifestRow, _Loaded | RecordError]] = []
        for part_row, part in parts:
            # The pseudonym is the recording's: its windows stay known as such.
            record_id = named.record_id + part_row.record_id.removeprefix(whole.record_id)
            part_named = named if record_id == named.record_id else replace(named, record_id=record_id)
            loaded.append((part_row, _Loaded(part, part_named, report, derived, stated, finds)))
        return loaded

    def _convert(self, loaded: list[tuple[ManifestRow, _Loaded | RecordError]]) -> list[Outcome]:
        signals = [self._preprocessed(one) for _, one in loaded]
        return [(row, self._accepted(one, signal_uv)) for (row, one), signal_uv in zip(loaded, signals, strict=True)]

    def _preprocessed(self, one: _Loaded | RecordError) -> Int16[np.ndarray, "lead sample"] | RecordError:
        if isinstance(one, RecordError):
            return one
        try:
            return preprocess(one.ecg, self.signal)
        except RecordError as error:
            return error

    def _accepted(
        self, one: _Loaded | RecordError, signal_uv: Int16[np.ndarray, "lead sample"] | RecordError
    ) -> Accepted | RecordError:
        if isinstance(one, RecordError):
            return one
        if isinstance(signal_uv, RecordError):
            return signal_uv
        if self.task.measured:
            one = self._with_measured(one, signal_uv)
        return Accepted(
            row=one.row,
            report=one.report,
            signal_uv=signal_uv,
            measures=measure(
                one.ecg,
                self.signal.duration_s,
                device=one.row.device,
                site=one.row.site,
                recorded_at=self.privacy.of_time(one.row.recorded_at or one.ecg.meta.recorded_at),
            ),
            other_signals=one.ecg.other_signals,
            derived_leads=one.derived_leads,
            absent_leads=one.ecg.absent_leads,
            stated=one.stated,
            finds=one.finds,
        )

    def _with_measured(self, one: _Loaded, signal_uv: Int16[np.ndarray, "lead sample"]) -> _Loaded:
        """With what is measured on the signal as it is stored; unchanged where nothing is."""
        there = recorded(signal_uv[None])[0]  # a lead that is absent is zeros, which are no low voltage
        leads = [lead for lead, is_there in zip(self.signal.leads, there.tolist(), strict=True) if is_there]
        signal_mv = signal_uv[there].astype(np.float32) / np.float32(1000.0)
        beat = measure_median_beat(signal_mv, self.signal.sampling_rate_hz)
        said = one.row.statements or (one.report,)
        measured = () if beat is None else measured_statements(beat, leads)
        if not (added := tuple(statement for statement in measured if statement not in said)):
            return one
        return one._replace(
            row=replace(one.row, statements=(*said, *added)),
            report=f"{one.report.rstrip('. ')}. {'. '.join(added)}.",
            stated=one.stated | {"statements measured on the ECG": "added"},
        )

    def _check(self, row: ManifestRow, position: int) -> None:
        """Raise RecordError for a row that is rejected before its signal is fetched."""
        if row.fault is not None:
            raise RecordError(*row.fault)
        if position in self.task.duplicates:
            raise RecordError("duplicate_record_id", "the manifest lists this `record_id` already")
        _check_location(row.record_uri, self.source.root)
        if "report" not in row.from_file:
            self._report(row)

    def _report(self, row: ManifestRow) -> str:
        return clean_report(row.report) if self.task.has_reports else ""


def _stated(row: ManifestRow, meta: EcgMeta) -> dict[str, str]:
    """What the card counts of a record that its own file describes."""
    if not row.from_file:
        return {}
    facts = {"format": meta.format or "not stated"}
    if "report" in row.from_file:
        facts["language of the statements"] = meta.language or "not stated"
    if "patient_id" in row.from_file:
        facts["patient"] = "named" if meta.patient_id else "not named, so counted as a patient of its own"
    return facts


def _check_location(record_uri: str, root: str) -> None:
    """Raise RecordError `unsafe_path` for a record that is not below the folder of its source; "" is no folder."""
    if not root:
        return
    below = record_uri.startswith(f"{root.rstrip('/')}/")
    if fault := storage.path_fault(record_uri[len(root.rstrip("/")) + 1 :]) if below else "it is elsewhere":
        raise RecordError(
            "unsafe_path",
            f"the record's path is not one below `{root}`: {fault}",
            hint="name records by their path below the source's folder, with `/`",
        )
