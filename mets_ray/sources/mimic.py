"""MIMIC-IV-ECG in its own layout: 800,035 ECGs of 161,352 patients, with the statements of the machines.

Gow et al. 2023, doi:10.13026/4nqg-sb35, https://physionet.org/content/mimic-iv-ecg/1.0/. `record_list.csv` names each
ECG's patient and path, `machine_measurements.csv` its statements, one in each of `report_0` to `report_17`. 10 s at
500 Hz, 200 steps per mV. The leads are stored as I, II, III, aVR, aVF, aVL, V1 to V6; they are read by name.
There is no published split: patients go to folds 1 to 10 by a hash of their id.

`cleaning=merl` is what MERL (Liu et al. 2024, arXiv:2403.06659) and those after it train on. Its `pretrain/
preprocess.ipynb` (https://github.com/cheliu-computation/MERL-ICML2024, commit 38799b7) joins the statements with ". ",
writes ECG for EKG, strips asterisks, `=` and `-` from both ends, makes lower case, and drops reports of fewer than four
words: 771,693 of the 800,035 are left.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int32, Int64
from pydantic import Field

from mets_ray import storage
from mets_ray.config.kinds import Uri
from mets_ray.console import progress_over
from mets_ray.ecg.preprocess import SignalConfig
from mets_ray.errors import DatasetError
from mets_ray.sources.arrow_table import ArrowTable
from mets_ray.sources.cells import Blanks, age_years, is_missing, sex
from mets_ray.sources.csv_table import sha256_of
from mets_ray.sources.manifest import Manifest, ManifestRow, fold_of
from mets_ray.sources.source import Source
from mets_ray.text.reports import join_statements, statements_of

Cleaning = Literal["none", "merl"]

_STATEMENTS = tuple(f"report_{number}" for number in range(18))
_SEPARATOR = "\x1f"  # of the statements of a report: no CSV of text holds it
_FEWEST_WORDS = 4


def mimic_manifest(source_uri: str, *, cleaning: Cleaning = "none", patients_uri: str | None = None) -> Manifest:
    """A row for each line of `record_list.csv` in `source_uri`, in its order; `record_id` is the `study_id`.

    A study without a line in `machine_measurements.csv` has an empty report. `patients_uri`: `patients.csv.gz` of
    MIMIC-IV, which has sexes and ages. Raises DatasetError for a table that cannot be read.
    """
    measurements = ArrowTable(storage.join(source_uri, "machine_measurements.csv"), ("study_id", *_STATEMENTS))
    reports = _Reports.read(measurements, cleaning)
    records = ArrowTable(storage.join(source_uri, "record_list.csv"), ("subject_id", "study_id", "ecg_time", "path"))
    people = _People.read(patients_uri)
    folds: dict[str, int] = {}
    found = (row for batch in records for row in _rows(source_uri, batch, reports, people, folds))
    rows = tuple(progress_over(found, total=None, unit="record", description="manifest"))
    if not rows:
        raise DatasetError(f"`{source_uri}` lists no records", where="record_list.csv")
    files = [measurements.sha256, records.sha256, people.sha256, cleaning]
    notes = [
        f"{len(folds)} patients, assigned to folds 1 to 10 by a hash of their id",
        f"{len(rows)} records have {len(reports.texts)} different reports",
        *people.notes,
    ]
    absent = sum(not row.report and row.fault is None for row in rows)
    if absent:
        notes.append(f"{absent} records have no statement in machine_measurements.csv")
    return Manifest(rows, "mimic", sha256_of(*(one.encode() for one in files)), tuple(notes))


def merl_report(parts: list[str]) -> tuple[str, tuple[str, ...], tuple[str, str] | None]:
    """MERL's report of an ECG's statements, its statements cleaned in the same way, and its fault if it is short."""
    report = _merl_text(". ".join(parts))
    words = len(report.split())
    fault = None
    if words < _FEWEST_WORDS:
        fault = ("short_report", f"the report has {words} words; MERL keeps those with at least {_FEWEST_WORDS}")
    return f"{report}.", statements_of(_merl_text(part) for part in parts), fault


def _merl_text(text: str) -> str:
    text = text.replace("EKG", "ECG").replace("ekg", "ecg")
    return " ".join(text.strip(" *").strip("=-").strip("=").lower().split())


@dataclass(frozen=True)
class _Text:
    report: str
    statements: tuple[str, ...]
    fault: tuple[str, str] | None = None

    @classmethod
    def of(cls, joined: str, cleaning: Cleaning) -> "_Text":
        parts = [part for part in joined.split(_SEPARATOR) if not is_missing(part)]
        if cleaning == "merl":
            return cls(*merl_report(parts))
        statements = statements_of(parts)
        return cls(join_statements(statements), statements)


_NONE = _Text("", ())


@dataclass(frozen=True)
class _Reports:
    """Study i, of the ascending `study_ids`, has report `texts[numbers[i]]`: each different report once."""

    study_ids: Int64[np.ndarray, " study"]
    numbers: Int32[np.ndarray, " study"]
    texts: list[_Text]

    @classmethod
    def read(cls, table: ArrowTable, cleaning: Cleaning) -> "_Reports":
        numbers: dict[str, int] = {}
        ids, codes = [np.empty(0, np.int64)], [np.empty(0, np.int32)]
        for batch in table:
            joined = pc.binary_join_element_wise(*(batch[name] for name in _STATEMENTS), pa.scalar(_SEPARATOR))
            encoded = joined.dictionary_encode()
            known = [numbers.setdefault(text, len(numbers)) for text in encoded.dictionary.to_pylist()]
            ids.append(_whole(batch["study_id"], "study_id"))
            codes.append(np.asarray(known, np.int32)[encoded.indices.to_numpy()])
        study_ids = np.concatenate(ids)
        order = np.argsort(study_ids, kind="stable")
        texts = [_Text.of(joined, cleaning) for joined in numbers]
        return cls(study_ids[order], np.concatenate(codes)[order], texts)

    def of(self, study_ids: Int64[np.ndarray, " record"]) -> Iterator[_Text]:
        """The report of each study; the first, where a study has several."""
        positions = np.searchsorted(self.study_ids, study_ids)
        for position, study_id in zip(positions.tolist(), study_ids.tolist(), strict=True):
            found = position < len(self.study_ids) and self.study_ids[position] == study_id
            yield self.texts[self.numbers[position]] if found else _NONE


@dataclass(frozen=True)
class _People:
    """By `subject_id`: the sex, and the year of birth by the clock of the patient's records."""

    known: dict[str, tuple[str | None, int | None]]
    sha256: str = ""
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, uri: str | None) -> "_People":
        if uri is None:
            return cls({})
        table, blanks = ArrowTable(uri, ("subject_id", "gender", "anchor_age", "anchor_year")), Blanks()
        known = {}
        for batch in table:
            for subject, gender, age, year in zip(*(column.to_pylist() for column in batch.values()), strict=True):
                years = age_years(age, blanks)
                born = int(year) - round(years) if years is not None and year.isdecimal() else None
                known[subject] = (sex(gender, blanks), born)
        old = "MIMIC-IV writes the age 91 for patients above 89 years, and counts on from there"
        return cls(known, table.sha256, (old, *blanks.notes()))

    def of(self, subject: str, time: str) -> tuple[float | None, str | None]:
        """Age in years and sex at a time such as `2180-07-23 08:44:00`."""
        gender, born = self.known.get(subject, (None, None))
        year = time[:4]
        return (float(int(year) - born) if born is not None and year.isdecimal() else None), gender


def _rows(
    source_uri: str, batch: dict[str, pa.Array], reports: _Reports, people: _People, folds: dict[str, int]
) -> Iterator[ManifestRow]:
    studies = _whole(batch["study_id"], "study_id")
    columns = (batch[name].to_pylist() for name in ("subject_id", "ecg_time", "path"))
    for study_id, text, subject, time, path in zip(studies.tolist(), reports.of(studies), *columns, strict=True):
        age, gender = people.of(subject, time)
        fault = text.fault
        if is_missing(subject or "") or is_missing(path or ""):
            fault = ("unreadable_cell", "`subject_id` or `path` is empty")
        if subject not in folds:
            folds[subject] = fold_of(subject)
        yield ManifestRow(
            record_id=str(study_id),
            patient_id=subject,
            fold=folds[subject],
            record_uri=storage.join(source_uri, path),
            report=text.report,
            statements=text.statements,
            labels=(),
            age=age,
            sex=gender,
            fault=fault,
        )


def _whole(column: pa.Array, name: str) -> Int64[np.ndarray, " row"]:
    try:
        numbers: Int64[np.ndarray, " row"] = pc.cast(column, pa.int64()).to_numpy(zero_copy_only=False)
    except pa.ArrowException as error:  # its message quotes the cell
        raise DatasetError(
            f"column `{name}` contains a value that is not a whole number: {type(error).__name__}"
        ) from None
    return numbers


class MimicIvEcg(Source):
    """MIMIC-IV-ECG with the machines' statements."""

    licence: ClassVar[str] = "ODbL 1.0"
    citation: ClassVar[str] = "Gow et al. 2023, MIMIC-IV-ECG 1.0, doi:10.13026/4nqg-sb35"
    needs: ClassVar[dict[str, str]] = {"uri": "name the folder that holds record_list.csv"}
    uri: Uri | None = Field(None, description="folder of record_list.csv and files/ (local, s3://, gs://, az://)")
    cleaning: Cleaning = Field(
        "none", description="merl: lower case, without asterisks, at least four words, as MERL pre-trains on it"
    )
    patients_uri: Uri | None = Field(None, description="patients.csv.gz of MIMIC-IV's module hosp, for age and sex")

    def manifest(self, signal: SignalConfig, *, seed: int) -> Manifest:
        self.check()
        return mimic_manifest(self.root, cleaning=self.cleaning, patients_uri=self.patients_uri)
