"""Any folder of WFDB records, with a CSV that assigns a report to each record."""

import hashlib
from typing import ClassVar

from pydantic import Field

from mets_ray import storage
from mets_ray.config.kinds import Uri
from mets_ray.ecg.preprocess import SignalConfig
from mets_ray.errors import DatasetError
from mets_ray.sources.csv_table import read_table, sha256_of
from mets_ray.sources.manifest import Manifest, ManifestRow
from mets_ray.sources.source import Source
from mets_ray.text.reports import sentences

_SEXES = {"": None, "m": "male", "male": "male", "f": "female", "female": "female"}
_UNKNOWN_SEXES = ("unknown", "u", "nan")


def wfdb_folder_manifest(source_uri: str, manifest_uri: str) -> Manifest:
    """Rows of a CSV with the columns `record` (path below `source_uri`, with or without .hea) and `report`.

    Optional columns, with the default for a missing column or an empty cell:
    `record_id` (the path), `patient_id` (the record id, so each record counts as a separate patient), `fold`
    (1 + sha256(patient_id) mod 10, so a patient stays in one fold), `labels` (codes separated by `;`; none), `age` in
    years (unknown), `sex` (male, female, m, f; unknown).

    Raises DatasetError for an unreadable CSV, a missing column, or a cell that cannot be read, with its line.
    """
    table, data = read_table(manifest_uri, ("record", "report"))
    rows = []
    for number, cells in enumerate(table.to_dict("records"), start=2):
        row = {str(name): str(value).strip() for name, value in cells.items()}
        if not row["record"]:
            raise DatasetError("`record` is empty", where=f"{manifest_uri}, line {number}")
        path = row["record"].removesuffix(".hea")
        record_id = row.get("record_id") or path
        patient_id = row.get("patient_id") or record_id
        try:
            fold = int(row["fold"]) if row.get("fold") else fold_of(patient_id)
            age = float(row["age"]) if row.get("age") else None
        except ValueError as error:
            raise DatasetError(
                f"`fold` or `age` is not a number: {error}", where=f"{manifest_uri}, line {number}"
            ) from error
        rows.append(
            ManifestRow(
                record_id=record_id,
                patient_id=patient_id,
                fold=fold,
                record_uri=storage.join(source_uri, path),
                report=row["report"],
                statements=sentences(row["report"]),
                labels=tuple(label.strip() for label in row.get("labels", "").split(";") if label.strip()),
                age=age,
                sex=_sex(row.get("sex", ""), f"{manifest_uri}, line {number}"),
            )
        )
    return Manifest(tuple(rows), "wfdb", sha256_of(data), _notes(set(table.columns)))


def _notes(columns: set[str]) -> tuple[str, ...]:
    notes = []
    if "patient_id" not in columns:
        notes.append("the CSV has no `patient_id`: each record counts as a separate patient")
    if "fold" not in columns:
        notes.append("the CSV has no `fold`: patients were assigned to folds 1 to 10 by a hash of their id")
    return tuple(notes)


def fold_of(patient_id: str) -> int:
    """A fold from 1 to 10, the same for a patient in every run and on every machine."""
    return 1 + int.from_bytes(hashlib.sha256(patient_id.encode()).digest()) % 10


def _sex(value: str, where: str) -> str | None:
    word = value.lower()
    if word in _UNKNOWN_SEXES:
        return None
    if word not in _SEXES:
        raise DatasetError(f"`sex` is `{value}`", where=where, hint="write male, female, m, f, or nothing")
    return _SEXES[word]


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
