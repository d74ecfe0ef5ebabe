"""Any folder or bucket of ECG files, in every format that can be read; with or without a table that says more.

Without a table the files speak for themselves: the statements that a device or a reader wrote are the report, and the
patient's id, age and sex are the file's. They are read with the signal, when a shard is written, and not when the
manifest is made. So each file is fetched once, by many workers, also where there are millions; and a prepare that
goes on after a stop lists names and sizes, and reads only what is not written yet. The price: the fingerprint of the
data set knows the files by name and size, as it knows all signal files, and reports cannot be shuffled.
"""

import fnmatch
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import ClassVar

from pydantic import Field, field_validator

from mets_ray import storage
from mets_ray.config.kinds import Uri
from mets_ray.ecg.ecg import LEADS, UNITS, Ecg, check_sampling_rate
from mets_ray.ecg.preprocess import SignalConfig
from mets_ray.ecg.read import read_ecg
from mets_ray.ecg.wfdb import read_wfdb, segments_of
from mets_ray.errors import DatasetError, RecordError
from mets_ray.sources.csv_table import sha256_of
from mets_ray.sources.manifest import Column, Manifest, ManifestRow, fold_of
from mets_ray.sources.source import Source
from mets_ray.sources.table_manifest import Reports, table_manifest

_STATED = {"sampling_rate_hz", "unit", "leads", "lead_names"}
_WFDB_SIGNALS = (".dat", ".mat")
_HEADERS_IN_FLIGHT = 32


def folder_manifest(source_uri: str, *, match: str, has_reports: bool, patient: str | None = None) -> Manifest:
    """A row for each file at any depth below `source_uri` whose path matches the pattern; its file says all else.

    patient: a regular expression whose first group is the patient in a path, where the files do not say it; a record
    whose path it does not find is rejected.

    The files of a WFDB record are one row: those that share their name with a `.hea`, and `.dat` and `.mat` beside one.
    So are the segments of a WFDB record, if its own header matches too.
    Hidden files and folders, and what macOS puts into archives, are left out. Raises DatasetError where nothing is
    left.
    """
    sizes = storage.list_sizes(source_uri)
    shown = [path for path in sizes if not any(part.startswith((".", "__MACOSX")) for part in path.split("/"))]
    matching = [path for path in _records(shown) if fnmatch.fnmatchcase(path.lower(), match.lower())]
    segments = _segments(source_uri, matching, shown)
    records = [path for path in matching if path not in segments]
    if not records:
        raise DatasetError(
            f"`{source_uri}` holds no file that matches `{match}`; it has {len(shown)} files",
            hint="set prepare.source.uri to the folder of the ECGs, and prepare.source.match to * or *.xml",
        )
    stated: tuple[Column, ...] = ("patient_id", "fold", "age", "sex")
    from_file: tuple[Column, ...] = (*stated, "report") if has_reports else stated
    rows = tuple(_row(source_uri, path, from_file, re.compile(patient) if patient else None) for path in records)
    listing = "".join(f"{path}\0{sizes[path]}\n" for path in shown)
    notes = [
        "reports, patients, ages and sexes are what the files say" if has_reports else "no reports: for scoring only",
        "patients were assigned to folds 1 to 10 by a hash of their id",
        *([f"the patient is what `{patient}` finds in a file's path"] if patient else []),
        f"{len(sizes)} files, {len(records)} of them a record that matches `{match}`",
    ]
    return Manifest(
        rows, "files", sha256_of(listing.encode(errors="surrogateescape")), tuple(notes), has_reports=has_reports
    )


def _records(paths: list[str]) -> list[str]:
    """The files without those that belong to the header of a WFDB record."""
    stems = {path.removesuffix(".hea") for path in paths if path.endswith(".hea")}
    folders = {stem.rpartition("/")[0] for stem in stems}

    def is_part(path: str) -> bool:
        of_folder = path.endswith(_WFDB_SIGNALS) and path.rpartition("/")[0] in folders
        return not path.endswith(".hea") and (of_folder or path.rpartition(".")[0] in stems)

    return [path for path in paths if not is_part(path)]


def _segments(source_uri: str, records: list[str], paths: list[str]) -> set[str]:
    """The headers among `records` that are segments of others. On their own they would count as separate patients."""
    with_signals = {path.rpartition(".")[0] for path in paths if not path.endswith(".hea")}
    # A header with segments has no signal file of its own, so the headers of an ordinary folder need not be read.
    joining = [path for path in records if path.endswith(".hea") and path.removesuffix(".hea") not in with_signals]

    def joined(path: str) -> list[str]:
        try:
            names = segments_of(storage.join(source_uri, path))
        except RecordError:
            return []  # the record is rejected with this error when it is read
        folder = path[: path.rfind("/") + 1]
        return [f"{folder}{name}.hea" for name in names]

    with ThreadPoolExecutor(_HEADERS_IN_FLIGHT) as pool:
        return {segment for names in pool.map(joined, joining) for segment in names}


def _readable(path: str) -> str:
    """A path whose bytes may be no UTF-8, as on many a hospital's share, in characters that can be written."""
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _row(source_uri: str, path: str, from_file: tuple[Column, ...], patient: re.Pattern[str] | None) -> ManifestRow:
    record_id = path.removesuffix(".hea")
    patient_id, fault = record_id, None
    if (plain := _readable(record_id)) != record_id:
        fault = ("unsafe_path", "the file's name is not UTF-8")
        record_id = patient_id = path = plain
    if patient:
        found = patient.search(path)
        patient_id = (found and found[1]) or ""
        fault = fault if patient_id else ("no_patient", "`prepare.source.patient` finds nothing in the file's path")
        patient_id = patient_id or record_id
        from_file = tuple(name for name in from_file if name not in ("patient_id", "fold"))
    return ManifestRow(
        record_id=record_id,
        patient_id=patient_id,
        fold=fold_of(patient_id),
        record_uri=storage.join(source_uri, path),
        report="",
        statements=(),
        labels=(),
        age=None,
        sex=None,
        fault=fault,
        from_file=from_file,
    )


class Files(Source):
    """Any folder of ECG files: vendors' XML, DICOM, SCP, WFDB and others; with their own statements, or a table."""

    needs: ClassVar[dict[str, str]] = {"uri": "name the folder that contains the files"}
    uri: Uri | None = Field(None, description="folder of the files, at any depth (local, s3://, gs://, az://)")
    manifest_uri: Uri | None = Field(
        None,
        description="CSV or Parquet with the column `record`; default: every file of the folder is a record, with its "
        "own statements as report",
    )
    match: str = Field("*", description="without a table: which files, as a pattern in either case, such as *.xml")
    reports: Reports | None = Field(
        None,
        description="where reports are: in the table, or in each file, which is rejected if it has none; none: for "
        "scoring only; default: the table if there is one",
    )
    patient: str | None = Field(
        None,
        description="without a table: a regular expression whose group is the patient in a file's path, such as "
        r"(p\d+)_s; default: the patient that the file names",
    )
    lead_names: dict[str, str] = Field(
        {},
        description="leads that the files name otherwise, which is never guessed: {ECG: II} for a recorder's one lead",
    )
    sampling_rate_hz: float | None = Field(None, description="of files that do not say it (CSV, NPY, MATLAB, HDF5)")
    unit: str | None = Field(None, description="of files that do not say it: mV, uV or V")
    leads: tuple[str, ...] | None = Field(None, description="of files that do not say them, in the files' order")

    @field_validator("patient")
    @classmethod
    def _has_a_group(cls, value: str | None) -> str | None:
        try:
            groups = re.compile(value).groups if value else 1
        except re.error as error:
            raise ValueError(f"it is not a regular expression: {error}") from error
        if groups != 1:
            raise ValueError(f"it has {groups} groups; put one, the patient, into parentheses")
        return value

    @field_validator("sampling_rate_hz")
    @classmethod
    def _is_plausible(cls, value: float | None) -> float | None:
        if value is not None:
            try:
                check_sampling_rate(value)
            except RecordError as error:
                raise ValueError(error.fact) from error
        return value

    @field_validator("unit")
    @classmethod
    def _is_a_unit(cls, value: str | None) -> str | None:
        if value is not None and value not in UNITS:
            raise ValueError(f"`{value}` is not a unit of a signal; give one of {', '.join(UNITS)}")
        return value

    @field_validator("lead_names")
    @classmethod
    def _are_leads(cls, value: dict[str, str]) -> dict[str, str]:
        if unknown := sorted(set(value.values()) - set(LEADS)):
            raise ValueError(f"{unknown[0]} is not a lead; the names are {', '.join(LEADS)}")
        return value

    def manifest(self, signal: SignalConfig, *, seed: int) -> Manifest:
        self.check()
        if self.manifest_uri is None:
            has_reports = self.reports != "none"
            manifest = folder_manifest(self.root, match=self.match, has_reports=has_reports, patient=self.patient)
        else:
            manifest = table_manifest(self.root, self.manifest_uri, reports=self.reports or "table")
        stated = self.model_dump_json(include=_STATED, exclude_defaults=True)
        if stated == "{}":
            return manifest
        # Other samples from the same files: another data set.
        return replace(manifest, sha256=sha256_of(manifest.sha256.encode(), stated.encode()))

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from super().faults()
        if self.reports == "table" and self.manifest_uri is None:
            yield "`prepare.source.reports` is table, but `prepare.source.manifest_uri` is not set", "name the table"

    def read(self, record_uri: str) -> Ecg:
        """A file in any format, or a WFDB record with or without `.hea`."""
        ecg = self._read(record_uri)
        if not self.lead_names:
            return ecg
        return replace(ecg, leads=tuple(self.lead_names.get(name, name) for name in ecg.leads))

    def _read(self, record_uri: str) -> Ecg:
        if "." not in record_uri.rpartition("/")[2]:  # most likely WFDB: look for its header first
            try:
                return read_wfdb(record_uri)
            except RecordError as error:
                if error.reason != "missing_file":
                    raise
        return read_ecg(record_uri, sampling_rate_hz=self.sampling_rate_hz, unit=self.unit, leads=self.leads)
