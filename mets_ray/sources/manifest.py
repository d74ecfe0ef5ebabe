"""Which ECGs a source has: who, which fold, which report, and the URI that `Source.read` fetches the signal from.

A manifest is light (text only) and made once per job; signals are fetched record by record on the workers. Its reports
are as in the source: `clean_report` is applied when shards are written.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from mets_ray.ecg.ecg import EcgMeta
from mets_ray.errors import DatasetError, RecordError
from mets_ray.sources.cells import is_missing
from mets_ray.text.reports import join_statements, statements_of

Column = Literal["patient_id", "fold", "report", "age", "sex"]
"""What the file of a record may say itself."""


@dataclass(frozen=True)
class ManifestRow:
    """One record. `statements` are the parts of the report, `labels` the source's codes; `age` in years, `sex` male,
    female or None. `fault`: why the record is rejected without being read, as reason and fact, or None. `from_file`:
    columns that nothing but the record's own file says; `completed` fills them in once it is read. `device`, `site`:
    with what it was recorded and where, as the source names them; scores are told by them. `recorded_at`: when, ISO
    8601; an archive can be searched by it."""

    record_id: str
    patient_id: str
    fold: int
    record_uri: str
    report: str
    statements: tuple[str, ...]
    labels: tuple[str, ...]
    age: float | None
    sex: str | None
    fault: tuple[str, str] | None = None
    from_file: tuple[Column, ...] = ()
    device: str | None = None
    site: str | None = None
    recorded_at: str | None = None


@dataclass(frozen=True)
class Manifest:
    """All rows of a source, in its order. `sha256` is the hash of the files that it was made from.

    `notes` say what users of the data set should know about how rows were made, with counts. A source without
    reports (`has_reports=False`) can be scored but not trained on: its rows' `report` is empty. `focus_s`: see
    `DatasetCard`.
    """

    rows: tuple[ManifestRow, ...]
    source: str
    sha256: str
    notes: tuple[str, ...] = ()
    has_reports: bool = True
    focus_s: float | None = None


def fold_of(patient_id: str, folds: int = 10) -> int:
    """A fold from 1 to `folds`, the same for a patient in every run and on every machine."""
    encoded = patient_id.encode(errors="surrogateescape")  # a path need not be UTF-8
    return 1 + int.from_bytes(hashlib.sha256(encoded).digest()) % folds


def completed(row: ManifestRow, meta: EcgMeta) -> ManifestRow:
    """The row with what its `from_file` names, as the file says it in `meta`; what the file does not say is unknown.

    A record whose file names no patient counts as a patient of its own. Where the fold is left to the file it is that
    of the patient's id. Raises RecordError `no_statements` for a report that the file does not hold.
    """
    if not row.from_file:
        return row
    is_known = not is_missing(meta.patient_id or "")
    known = {"patient_id": meta.patient_id if is_known else row.record_id, "age": meta.age, "sex": meta.sex}
    change: dict[str, Any] = {name: known[name] for name in row.from_file if name in known}
    if "fold" in row.from_file:
        change["fold"] = fold_of(change.get("patient_id", row.patient_id))
    if "report" in row.from_file:
        statements = statements_of(meta.statements)
        if not statements:
            raise RecordError(
                "no_statements",
                "the file holds no statement about its ECG",
                hint="give reports in a table (prepare.source.manifest_uri), or set prepare.source.reports=none to "
                "prepare the ECGs for scoring only",
            )
        change |= {"statements": statements, "report": join_statements(statements)}
    return replace(row, from_file=(), **change)


def in_patient_folds(manifest: Manifest, folds: int) -> Manifest:
    """Each record in the fold of its patient, 1 to `folds`, whatever fold the source had put it in.

    Raises DatasetError where patients are named in the records' own files, which are read later.
    """
    if any("patient_id" in row.from_file for row in manifest.rows):
        raise DatasetError(
            "the records' own files name their patients: they are read when shards are written, too late for folds",
            hint="give a `patient_id` column in prepare.source.manifest_uri, or do not set prepare.patient_folds",
        )
    rows = tuple(
        replace(
            row, fold=fold_of(row.patient_id, folds), from_file=tuple(one for one in row.from_file if one != "fold")
        )
        for row in manifest.rows
    )
    note = f"patients were assigned to folds 1 to {folds} by a hash of their ids; the source's own folds are not used"
    return replace(manifest, rows=rows, notes=(*manifest.notes, note))


def shuffle_reports(manifest: Manifest, seed: int) -> Manifest:
    """Each record with the report and statements of another record of its fold; signals and labels stay.

    A model trained on it learns the distribution of reports and nothing about ECGs: the baseline of a zero-shot score.
    Raises DatasetError for a source without reports, or with reports that only the records' own files hold.
    """
    if not manifest.has_reports:
        raise DatasetError(
            f"the source `{manifest.source}` has no reports to shuffle", hint="do not set prepare.shuffle_reports"
        )
    if any("report" in row.from_file for row in manifest.rows):
        raise DatasetError(
            "the reports stand in the records' own files, which are read when shards are written: too late to shuffle",
            hint="give them in a table with prepare.source.manifest_uri, or do not set prepare.shuffle_reports",
        )
    generator = np.random.default_rng(seed)
    rows = list(manifest.rows)
    folds = np.asarray([row.fold for row in rows])
    for fold in np.unique(folds):
        order = generator.permutation(np.flatnonzero(folds == fold))
        # A random cyclic shift over all records of the fold, so that none keeps its own.
        for taker, giver in zip(order, np.roll(order, 1), strict=True):
            given = manifest.rows[giver]
            rows[taker] = replace(rows[taker], report=given.report, statements=given.statements)
    note = "SHUFFLED reports: each record has another record's; a bundle trained on this must score at chance"
    return replace(manifest, rows=tuple(rows), notes=(*manifest.notes, note))
