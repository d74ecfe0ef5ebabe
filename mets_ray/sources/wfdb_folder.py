"""Any folder of WFDB records, with a CSV that assigns a report to each record."""

import hashlib
from typing import ClassVar

from pydantic import Field

from mets_ray import storage
from mets_ray.config.kinds import Uri
from mets_ray.ecg.preprocess import SignalConfig
from mets_ray.errors import RecordError
from mets_ray.sources.cells import Blanks, age_years, identifier, is_missing, sex, unreadable, whole_number
from mets_ray.sources.csv_table import Table, read_table, sha256_of
from mets_ray.sources.manifest import Manifest, ManifestRow
from mets_ray.sources.source import Source
from mets_ray.text.reports import sentences


def wfdb_folder_manifest(source_uri: str, manifest_uri: str) -> Manifest:
    """Rows of a CSV with the columns `record` (path below `source_uri`, with or without .hea) and `report`.

    Optional columns, with the default for a missing column or cell:
    `record_id` (the path), `patient_id` (the record id, so each record counts as a separate patient), `fold` (that of
    the patient's other records, or 1 + sha256(patient_id) mod 10, so a patient stays in one fold), `labels` (codes
    separated by `;`; none), `age` in years (unknown), `sex` (male, female, m, f; unknown). Ids are the same with and
    without `.0`.

    An `age` or `sex` that cannot be read is unknown; a row without `record`, or whose `fold` is no number, is rejected.
    Raises DatasetError for an unreadable CSV, a missing column, or a row with another number of cells, with its line.
    """
    table = read_table(manifest_uri, ("record", "report"))
    blanks = Blanks()
    folds = _folds_of_patients(table)
    rows = [_row(cells, f"line {line}", source_uri, folds, blanks) for line, cells in table.rows]
    return Manifest(tuple(rows), "wfdb", sha256_of(table.data), (*_notes(table, folds), *blanks.notes()))


def _row(cells: dict[str, str], line: str, source_uri: str, folds: dict[str, set[int]], blanks: Blanks) -> ManifestRow:
    path = _path(cells)
    record_id, patient_id = _ids(cells)
    fault, fold = None, fold_of(patient_id)
    try:
        if not path:
            raise unreadable("record", "")
        if cells.get("fold"):
            fold = whole_number(cells["fold"], "fold")
        elif len(folds.get(patient_id, ())) == 1:
            (fold,) = folds[patient_id]
    except RecordError as error:
        fault = (error.reason, f"{error.fact} in {line}")
    return ManifestRow(
        record_id=record_id or line,
        patient_id=patient_id or line,
        fold=fold,
        record_uri=storage.join(source_uri, path),
        report=cells["report"].strip(),
        statements=tuple(text for text in sentences(cells["report"]) if not is_missing(text)),
        labels=tuple(label for part in cells.get("labels", "").split(";") if not is_missing(label := part.strip())),
        age=age_years(cells.get("age", ""), blanks),
        sex=sex(cells.get("sex", ""), blanks),
        fault=fault,
    )


def _path(cells: dict[str, str]) -> str:
    return cells["record"].strip().removesuffix(".hea")


def _ids(cells: dict[str, str]) -> tuple[str, str]:
    record_id = identifier(cells.get("record_id", "")) or _path(cells)
    return record_id, identifier(cells.get("patient_id", "")) or record_id


def _folds_of_patients(table: Table) -> dict[str, set[int]]:
    """The folds that the table states, by patient."""
    folds: dict[str, set[int]] = {}
    for _, cells in table.rows:
        if cells.get("fold"):
            try:
                folds.setdefault(_ids(cells)[1], set()).add(whole_number(cells["fold"], "fold"))
            except RecordError:
                continue  # its row is rejected
    return folds


def _notes(table: Table, folds: dict[str, set[int]]) -> tuple[str, ...]:
    notes = []
    if "patient_id" not in table.columns:
        notes.append("the CSV has no `patient_id`: each record counts as a separate patient")
    if "fold" not in table.columns:
        notes.append("the CSV has no `fold`: patients were assigned to folds 1 to 10 by a hash of their id")
    torn = sum(len(numbers) > 1 for numbers in folds.values())
    if torn:
        notes.append(f"{torn} patients have records in several folds: training and test then share patients")
    return tuple(notes)


def fold_of(patient_id: str) -> int:
    """A fold from 1 to 10, the same for a patient in every run and on every machine."""
    return 1 + int.from_bytes(hashlib.sha256(patient_id.encode()).digest()) % 10


class WfdbFolder(Source):
    """Any folder of WFDB records, with a CSV of reports."""

    needs: ClassVar[dict[str, str]] = {
        "uri": "name the folder that contains the records",
        "manifest_uri": "name a CSV with the columns `record` and `report`",
    }
    uri: Uri | None = Field(None, description="folder of the records (local, s3://, gs://, az://)")
    manifest_uri: Uri | None = Field(None, description="CSV with the columns `record` and `report`")

    def manifest(self, signal: SignalConfig, *, seed: int) -> Manifest:
        self.check()
        assert self.manifest_uri is not None
        return wfdb_folder_manifest(self.root, self.manifest_uri)
