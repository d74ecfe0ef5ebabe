"""SPH: 25,770 ECGs of 24,666 patients of Shandong Provincial Hospital, with statements of the AHA's list.

Liu et al. 2022, doi:10.1038/s41597-022-01403-5, https://springernature.figshare.com/collections/5779802 (CC BY 4.0).
`metadata.csv` has a line for each ECG, `code.csv` the words of the AHA's codes (Mason et al. 2007,
doi:10.1161/CIRCULATIONAHA.106.180201), `records/` an HDF5 file for each: 12 leads from I to V6, 500 Hz, mV, 10 to 60 s.
`AHA_Code` separates statements by `;` and adds modifiers by `+`: `60+310;22`. There is no published split: patients go
to folds 1 to 10 by a hash of their id.
"""

from typing import ClassVar, Literal

from pydantic import Field

from mets_ray import storage
from mets_ray.config.kinds import Uri
from mets_ray.ecg.ecg import Ecg
from mets_ray.ecg.preprocess import SignalConfig
from mets_ray.ecg.read import read_ecg
from mets_ray.errors import DatasetError
from mets_ray.sources.cells import Blanks, age_years, identifier, sex
from mets_ray.sources.csv_table import read_table, sha256_of
from mets_ray.sources.manifest import Manifest, ManifestRow, fold_of
from mets_ray.sources.source import Source
from mets_ray.text.reports import join_statements

_COLUMNS = ("ECG_ID", "AHA_Code", "Patient_ID", "Age", "Sex")


def sph_manifest(source_uri: str, *, has_reports: bool = True) -> Manifest:
    """A row for each line of `metadata.csv`; the statements are the words of its codes, a modifier behind a comma.

    Labels are the codes as written, with their modifiers and without. A code that `code.csv` lacks is a label alone.
    Raises DatasetError for a table that cannot be read, or without words for any code.
    """
    table = read_table(storage.join(source_uri, "metadata.csv"), _COLUMNS)
    codes = read_table(storage.join(source_uri, "code.csv"), ("Code", "Description")) if has_reports else None
    words = {identifier(cells["Code"]): cells["Description"].strip() for _, cells in codes.rows} if codes else {}
    records_uri = storage.join(source_uri, "records")
    records_uri = records_uri if storage.exists(records_uri) else source_uri
    blanks, unknown = Blanks(), set[str]()
    rows = []
    for line, cells in table.rows:
        name = cells["ECG_ID"].strip()
        coded = [part.strip() for part in cells["AHA_Code"].split(";") if part.strip()]
        unknown |= {code for part in coded for code in _codes(part) if has_reports and code not in words}
        statements = tuple(dict.fromkeys(text for part in coded if (text := _statement(part, words))))
        patient = identifier(cells["Patient_ID"]) or name
        rows.append(
            ManifestRow(
                record_id=name.removesuffix(".h5") or f"line {line}",
                patient_id=patient,
                fold=fold_of(patient),
                record_uri=storage.join(records_uri, f"{name.removesuffix('.h5')}.h5"),
                report=join_statements(statements),
                statements=statements,
                labels=tuple(
                    dict.fromkeys(code for part in coded for code in ("+".join(_codes(part)), _codes(part)[0]))
                ),
                age=age_years(cells["Age"], blanks),
                sex=sex(cells["Sex"], blanks),
                fault=None if name else ("unreadable_cell", f"`ECG_ID` is empty in line {line}"),
            )
        )
    if has_reports and not any(row.statements for row in rows):
        raise DatasetError("`code.csv` has words for no code of `metadata.csv`", where=source_uri)
    notes = ["patients were assigned to folds 1 to 10 by a hash of their id", *blanks.notes()]
    if unknown:
        notes.append(f"{len(unknown)} codes have no words in code.csv: {', '.join(sorted(unknown)[:10])}")
    if not has_reports:
        notes.append("no reports: for scoring only")
    files = (table.data, *((codes.data,) if codes else ()))
    return Manifest(tuple(rows), "sph", sha256_of(*files), tuple(notes), has_reports=has_reports)


def _codes(part: str) -> list[str]:
    """`60+310` → the statement and its modifiers."""
    return [identifier(code) for code in part.split("+")]


def _statement(part: str, words: dict[str, str]) -> str:
    """`Ventricular premature complex(es), frequent`; "" for a statement without words."""
    first, *modifiers = (words.get(code, "") for code in _codes(part))
    return ", ".join([first, *(one.lower() for one in modifiers if one)]) if first else ""


class Sph(Source):
    """SPH, with text from the AHA's codes."""

    licence: ClassVar[str] = "CC BY 4.0"
    citation: ClassVar[str] = "Liu et al. 2022, doi:10.1038/s41597-022-01403-5"
    needs: ClassVar[dict[str, str]] = {"uri": "name the folder that holds metadata.csv"}
    uri: Uri | None = Field(None, description="folder of metadata.csv, code.csv and records/")
    report: Literal["codes", "none"] = Field(
        "codes", description="codes: the words that code.csv has for the AHA codes; none: for scoring only"
    )

    def manifest(self, signal: SignalConfig, *, seed: int) -> Manifest:
        self.check()
        return sph_manifest(self.root, has_reports=self.report == "codes")

    def read(self, record_uri: str) -> Ecg:
        return read_ecg(record_uri)
