"""The manifest of a table that names records and says what is known of each: CSV or Parquet."""

import functools
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

from mets_ray import storage
from mets_ray.console import progress_over
from mets_ray.errors import RecordError
from mets_ray.sources.cells import (
    Blanks,
    age_years,
    codes,
    identifier,
    is_missing,
    parts,
    recorded_at,
    sex,
    unreadable,
    whole_number,
)
from mets_ray.sources.csv_table import Table, check_columns, parse_csv, sha256_of
from mets_ray.sources.manifest import Column, Manifest, ManifestRow, fold_of
from mets_ray.sources.parquet_table import is_parquet, parse_parquet
from mets_ray.text.reports import join_statements, sentences, statements_of

Reports = Literal["table", "file", "none"]
"""Where reports come from; `none`: the data set is for scoring only."""

_NUMBERED = re.compile(r"report_\d+")


def table_manifest(source_uri: str, manifest_uri: str, *, reports: Reports = "table") -> Manifest:
    """Rows of a CSV or Parquet file with the column `record`: a path below `source_uri`; of WFDB with or without .hea.

    Reports are in `report`, as text, or come as a list of statements: in `statements` (a list, or one on each line) or
    in `report_0`, `report_1`, …, one in each. Other columns, with the default for a missing cell:
    `record_id` (the path), `patient_id` (the record id, so each record counts as a separate patient), `fold` (that of
    the patient's other records, or 1 + sha256(patient_id) mod 10, so a patient stays in one fold), `labels` (codes
    separated by `;`, or a list; none), `age` in years (unknown), `sex` (male, female, m, f; unknown), `device` and
    `site` (unknown), which `evaluate` tells scores by. Ids and sites are the same with and without `.0`. Patients, ages
    and sexes that the table has no column for are left to the records' own files (`ManifestRow.from_file`). `reports`
    says whether the table has them, or the files, or `none` are wanted.

    An `age` or `sex` that cannot be read is unknown; a row without `record`, or whose `fold` is no number, is rejected.
    Raises DatasetError for an unreadable table, a missing column, or a row with another number of cells, with its line.
    """
    data = storage.read_bytes(manifest_uri)
    table = (parse_parquet if is_parquet(data) else parse_csv)(manifest_uri, data, ("record",))
    statements = _statement_columns(table)
    if reports == "table" and not statements:
        check_columns(manifest_uri, table.columns, ("record", "report"))
    rows = _Rows(source_uri, table, reports, statements, {}, Blanks())
    found, without_fold = [], []
    for number, cells in progress_over(table.rows, total=None, unit="record", description="manifest"):
        found.append(rows.row(number, cells))
        if not cells.get("fold"):
            without_fold.append(len(found) - 1)
    for position in without_fold:  # a patient's later rows may state one
        found[position] = rows.in_fold_of_patient(found[position])
    found = _told_apart(found)
    notes = (*_notes(rows), *rows.blanks.notes())
    return Manifest(tuple(found), "files", sha256_of(data), notes, has_reports=reports != "none")


@dataclass(frozen=True)
class _Rows:
    """What the rows of a table have in common. `statements`: the columns that hold lists of them; `folds`: those that
    the rows read so far state, by patient."""

    source_uri: str
    table: Table
    reports: Reports
    statements: tuple[str, ...]
    folds: dict[str, set[int]]
    blanks: Blanks

    @functools.cached_property
    def from_file(self) -> tuple[Column, ...]:
        columns = set(self.table.columns)
        absent: list[Column] = [name for name in ("patient_id", "age", "sex") if name not in columns]
        if "patient_id" in absent and "fold" not in columns:
            absent.append("fold")
        if self.reports == "file":
            absent.append("report")
        return tuple(absent)

    def row(self, number: int, cells: dict[str, str]) -> ManifestRow:
        place = f"{self.table.counts} {number}"
        path = _path(cells)
        record_id, patient_id = _ids(cells)
        fault, fold = None, fold_of(patient_id)
        try:
            if not path:
                with suppress(RecordError):
                    self.stated_fold(cells, patient_id)  # counts for the patient's other rows
                raise unreadable("record", "")
            stated = self.stated_fold(cells, patient_id)
            fold = fold if stated is None else stated
        except RecordError as error:
            fault = (error.reason, f"{error.fact} in {place}")
        report, statements = "", tuple[str, ...]()
        if self.reports == "table":
            report, statements = self.read_report(cells.get("report", ""), *(cells[name] for name in self.statements))
        return ManifestRow(
            record_id=record_id or place,
            patient_id=patient_id or place,
            fold=fold,
            record_uri=storage.join(self.source_uri, path),
            report=report,
            statements=statements,
            labels=codes(cells.get("labels", "")),
            age=age_years(cells.get("age", ""), self.blanks),
            sex=sex(cells.get("sex", ""), self.blanks),
            fault=fault,
            from_file=self.from_file,
            device=" ".join(cells.get("device", "").split()) or None,
            site=identifier(cells.get("site", "")) or None,
            recorded_at=recorded_at(cells.get("recorded_at", ""), self.blanks),
        )

    def stated_fold(self, cells: dict[str, str], patient_id: str) -> int | None:
        if not cells.get("fold"):
            return None
        fold = whole_number(cells["fold"], "fold")
        self.folds.setdefault(patient_id, set()).add(fold)
        return fold

    def in_fold_of_patient(self, row: ManifestRow) -> ManifestRow:
        """A row that states no fold, in the one that other rows of its patient state, or left to the file that names
        the patient."""
        if "patient_id" in row.from_file and "fold" not in row.from_file:
            return replace(row, from_file=(*row.from_file, "fold"))
        stated = self.folds.get(row.patient_id, ())
        return row if row.fault or len(stated) != 1 else replace(row, fold=next(iter(stated)))

    @functools.cached_property
    def read_report(self) -> Callable[..., tuple[str, tuple[str, ...]]]:
        """`_report`, which reads equal reports once: a million ECGs share a few hundred thousand."""
        return functools.cache(functools.partial(_report, has_statements=bool(self.statements)))


def _told_apart(rows: list[ManifestRow]) -> list[ManifestRow]:
    """Where ECGs with the same `report` have other statements, these become part of it: training knows a report by its
    text."""
    lists: dict[str, set[tuple[str, ...]]] = {}
    for row in rows:
        lists.setdefault(row.report, set()).add(row.statements)
    return [
        replace(row, report=f"{row.report}. {join_statements(row.statements)}") if len(lists[row.report]) > 1 else row
        for row in rows
    ]


def _report(text: str, *stated: str, has_statements: bool) -> tuple[str, tuple[str, ...]]:
    """The report and its statements. stated: cells that hold some."""
    text = text.strip()
    if not has_statements:
        return text, tuple(one for one in sentences(text) if not is_missing(one))
    lines = (line for cell in stated for line in parts(cell, "\n"))
    statements = statements_of(line for line in lines if not is_missing(line))
    return text or join_statements(statements), statements


def _statement_columns(table: Table) -> tuple[str, ...]:
    """The columns that hold statements, in their order: `statements`, or `report_0`, `report_1`, …"""
    if "statements" in table.columns:
        return ("statements",)
    numbered = (name for name in table.columns if _NUMBERED.fullmatch(name))
    return tuple(sorted(numbered, key=lambda name: int(name.partition("_")[2])))


def _path(cells: dict[str, str]) -> str:
    return cells["record"].strip().removesuffix(".hea")


def _ids(cells: dict[str, str]) -> tuple[str, str]:
    record_id = identifier(cells.get("record_id", "")) or _path(cells)
    return record_id, identifier(cells.get("patient_id", "")) or record_id


def _notes(rows: _Rows) -> tuple[str, ...]:
    notes, columns = [], rows.table.columns
    if "patient_id" not in columns:
        notes.append(
            "the table has no `patient_id`: a record counts as a separate patient, unless its own file names one"
        )
    if "report" in rows.from_file:
        notes.append("reports are the statements that the records' own files hold")
    if "fold" not in columns:
        notes.append("the table has no `fold`: patients were assigned to folds 1 to 10 by a hash of their id")
    torn = sum(len(numbers) > 1 for numbers in rows.folds.values())
    if torn:
        notes.append(f"{torn} patients have records in several folds: training and test then share patients")
    return tuple(notes)
