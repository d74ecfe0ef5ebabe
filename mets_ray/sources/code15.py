"""CODE-15%: 345,779 ECGs of 233,770 patients of the Telehealth Network of Minas Gerais, with six diagnoses.

Ribeiro et al. 2021, doi:10.5281/zenodo.4916206 (CC BY 4.0). `exams.csv` has a line for each exam, with whether it
shows 1dAVb, RBBB, LBBB, SB, AF, ST, and whether it is a normal ECG; `trace_file` names the HDF5 file that holds it
(`exams_part0.hdf5` to `exams_part17.hdf5`): 400 Hz, DI, DII, DIII, AVR, AVL, AVF, V1 to V6, 7 or 10 s. Most exams are
shorter than 10 s, so `prepare.duration_s=7` keeps them. There is no published split: patients go to folds 1 to 10 by a
hash of their id, and there are no reports.

Zenodo names no unit, and what the authors write elsewhere contradicts itself (`ecg/formats/hdf5_traces.py`), so it is a
setting. The PhysioNet challenge of 2025 takes the samples for mV.
"""

import functools
import threading
from typing import Any, ClassVar, Literal

from pydantic import Field

from mets_ray import storage
from mets_ray.config.kinds import Uri
from mets_ray.ecg.ecg import Ecg
from mets_ray.ecg.formats.hdf5_traces import exam_ids, read_exam
from mets_ray.ecg.preprocess import SignalConfig
from mets_ray.errors import DatasetError, RecordError
from mets_ray.sources.arrow_table import ArrowTable
from mets_ray.sources.cells import Blanks, age_years, identifier, is_missing
from mets_ray.sources.csv_table import sha256_of
from mets_ray.sources.manifest import Manifest, ManifestRow, fold_of
from mets_ray.sources.source import Source
from mets_ray.text.reports import join_statements

WORDS = {
    "1dAVb": "1st degree AV block",
    "RBBB": "Right bundle branch block",
    "LBBB": "Left bundle branch block",
    "SB": "Sinus bradycardia",
    "AF": "Atrial fibrillation",
    "ST": "Sinus tachycardia",
    "normal_ecg": "Normal ECG",
}
"""The columns of `exams.csv` that are labels, in the words that Zenodo explains them with."""

_COLUMNS = ("exam_id", "age", "is_male", "patient_id", "trace_file", *WORDS)
_BOOLEANS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
_SEPARATOR = "#exam="
_OPEN_FILES = 18  # all of them: exams of one shard are in any file


def code15_manifest(source_uri: str, *, unit: str, has_reports: bool) -> Manifest:
    """A row for each line of `exams.csv`. Labels are the columns of `WORDS` that are true; with `has_reports` their
    words are the statements, so an exam without any has an empty report. `unit` is part of `Manifest.sha256`: samples
    read in another unit are another data set.

    Raises DatasetError for a table that cannot be read.
    """
    table, blanks = ArrowTable(storage.join(source_uri, "exams.csv"), _COLUMNS), Blanks()
    rows = [
        _row(source_uri, dict(zip(batch, cells, strict=True)), blanks, has_reports=has_reports)
        for batch in table
        for cells in zip(*(column.to_pylist() for column in batch.values()), strict=True)
    ]
    notes = ["patients were assigned to folds 1 to 10 by a hash of their id", *blanks.notes()]
    notes.append(f"the samples are taken for {unit}, which the data set does not say")
    notes.append("reports are the words of the labels" if has_reports else "no reports: for scoring only")
    unlabelled = sum(not row.labels for row in rows)
    if unlabelled:
        notes.append(f"{unlabelled} exams are neither normal nor have one of the six diagnoses")
    sha256 = sha256_of(table.sha256.encode(), unit.encode())
    return Manifest(tuple(rows), "code15", sha256, tuple(notes), has_reports=has_reports)


def _row(source_uri: str, cells: dict[str, str], blanks: Blanks, *, has_reports: bool) -> ManifestRow:
    exam, patient = identifier(cells["exam_id"]), identifier(cells["patient_id"])
    fault, labels = None, []
    for name in WORDS:
        value = _BOOLEANS.get(cells[name].strip().lower())
        if value is None:
            fault = ("unreadable_cell", f"`{name}` of exam {exam} is neither true nor false")
        elif value:
            labels.append(name)
    if not exam.isdecimal() or is_missing(patient) or is_missing(cells["trace_file"]):
        fault = ("unreadable_cell", "`exam_id` is no number, or `patient_id` or `trace_file` is empty")
    statements = tuple(WORDS[name] for name in labels) if has_reports else ()
    male = _BOOLEANS.get(cells["is_male"].strip().lower())
    return ManifestRow(
        record_id=exam,
        patient_id=patient,
        fold=fold_of(patient),
        record_uri=f"{storage.join(source_uri, cells['trace_file'].strip())}{_SEPARATOR}{exam}",
        report=join_statements(statements),
        statements=statements,
        labels=tuple(labels),
        age=age_years(cells["age"], blanks),
        sex=None if male is None else "male" if male else "female",
        fault=fault,
    )


def read_code15(record_uri: str, unit: str | None) -> Ecg:
    """The exam that `exams_part0.hdf5#exam=1169160` names.

    Raises RecordError `missing_file`, `missing_exam` and as `read_exam`; DatasetError for any other URI.
    """
    uri, separator, exam = record_uri.rpartition(_SEPARATOR)
    if not separator or not exam.isdecimal():
        raise DatasetError(f"`{record_uri}` is not an exam", hint="write exams_part0.hdf5#exam=1169160")
    with _LOCK:  # HDF5 reads one thing at a time
        try:
            file, rows = _opened(uri)
        except storage.MissingFileError as error:
            raise RecordError("missing_file", error.fact) from error
        if int(exam) not in rows:
            raise RecordError("missing_exam", f"the file holds no exam {exam}", where=uri)
        return read_exam(file, rows[int(exam)], unit)


_LOCK = threading.Lock()


@functools.lru_cache(maxsize=_OPEN_FILES)
def _opened(uri: str) -> tuple[Any, dict[int, int]]:
    """An open file and the row of each of its exams."""
    file: Any = storage.open_file(uri)
    return file, {exam: row for row, exam in enumerate(exam_ids(file).tolist()) if exam}


class Code15(Source):
    """CODE-15%, with labels and without reports."""

    licence: ClassVar[str] = "CC BY 4.0"
    citation: ClassVar[str] = "Ribeiro et al. 2021, CODE-15%, doi:10.5281/zenodo.4916206"
    needs: ClassVar[dict[str, str]] = {
        "uri": "name the folder that holds exams.csv",
        "unit": "say what the samples are in; Zenodo names no unit, and the PhysioNet challenge of 2025 takes mV",
    }
    uri: Uri | None = Field(None, description="folder of exams.csv and exams_part0.hdf5, … (unzipped)")
    unit: Literal["mV", "uV", "V"] | None = Field(None, description="of the samples, which the data set does not say")
    report: Literal["labels", "none"] = Field(
        "none", description="labels: the words of the labels, so that it can be trained on; none: for scoring only"
    )

    def manifest(self, signal: SignalConfig, *, seed: int) -> Manifest:
        self.check()
        assert self.unit is not None
        return code15_manifest(self.root, unit=self.unit, has_reports=self.report == "labels")

    def read(self, record_uri: str) -> Ecg:
        return read_code15(record_uri, self.unit)
