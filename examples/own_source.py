r"""A source of your own: a folder of CSV files, one ECG each, with a table of reports.

    PYTHONPATH=. mets-ray prepare prepare.source=examples.own_source:CsvFolder prepare.source.uri=records \
        dataset_uri=data/csv

`records/reports.csv` has the columns file, patient and report. Each ECG file has a first line of lead names and then
one row per sample, in millivolts; all were recorded at `sampling_rate_hz`.
"""

import io
from typing import ClassVar

import numpy as np
from pydantic import Field

from mets_ray import storage
from mets_ray.config.kinds import Uri
from mets_ray.ecg.ecg import Ecg
from mets_ray.ecg.preprocess import SignalConfig
from mets_ray.errors import RecordError
from mets_ray.sources.cells import identifier
from mets_ray.sources.csv_table import read_table, sha256_of
from mets_ray.sources.manifest import Manifest, ManifestRow, fold_of
from mets_ray.sources.source import Source
from mets_ray.text.reports import sentences


class CsvFolder(Source):
    """A folder of CSV files, one ECG each, with `reports.csv` beside them."""

    needs: ClassVar[dict[str, str]] = {"uri": "name the folder of reports.csv"}
    uri: Uri | None = Field(None, description="folder of reports.csv and the ECG files")
    sampling_rate_hz: float = Field(500.0, description="rate of all files")

    def manifest(self, signal: SignalConfig, *, seed: int) -> Manifest:
        """One row per line of `reports.csv`."""
        table = read_table(storage.join(self.root, "reports.csv"), ("file", "patient", "report"))
        rows = []
        for _, cells in table.rows:
            patient = identifier(cells["patient"]) or cells["file"]
            rows.append(
                ManifestRow(
                    record_id=cells["file"].removesuffix(".csv"),
                    patient_id=patient,
                    fold=fold_of(patient),
                    record_uri=storage.join(self.root, cells["file"]),
                    report=cells["report"],
                    statements=sentences(cells["report"]),
                    labels=(),
                    age=None,
                    sex=None,
                )
            )
        return Manifest(tuple(rows), "csv_folder", sha256_of(table.data), ())

    def read(self, record_uri: str) -> Ecg:
        """The ECG of one file; a file that is missing or holds no numbers is rejected with its reason."""
        try:
            header, _, samples = storage.read_bytes(record_uri).decode("utf-8-sig").partition("\n")
            signal_mv = np.loadtxt(io.StringIO(samples), delimiter=",", ndmin=2).T
        except storage.MissingFileError as error:
            raise RecordError("missing_file", f"`{record_uri}` does not exist") from error
        except ValueError as error:
            raise RecordError("unreadable_table", f"the samples are not numbers: {error}", where=record_uri) from error
        return Ecg(signal_mv, tuple(name.strip() for name in header.split(",")), self.sampling_rate_hz)
