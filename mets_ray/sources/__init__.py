"""Where ECGs come from: a manifest (who, which fold, which report) and `read_ecg`, which fetches one record.

A manifest is light (text only) and made once per job; signals are fetched record by record on the workers. Reports
stand in it as the source has them: `report.clean_report` is applied when shards are written.
"""

from dataclasses import dataclass

from mets_ray.ecg import Ecg


@dataclass(frozen=True)
class ManifestRow:
    """One record. `statements` are the report's own parts, `labels` the source's codes; `age` in years, `sex` male,
    female or None."""

    record_id: str
    patient_id: str
    fold: int
    record_uri: str
    report: str
    statements: tuple[str, ...]
    labels: tuple[str, ...]
    age: float | None
    sex: str | None


@dataclass(frozen=True)
class Manifest:
    """All rows of a source, in its order. `sha256` is that of the bytes of the files that it was made from.

    `notes` say what a reader of the data set should know about how rows were made, with counts.
    """

    rows: tuple[ManifestRow, ...]
    source: str
    sha256: str
    notes: tuple[str, ...] = ()


def read_ecg(record_uri: str) -> Ecg:
    """The ECG behind `ManifestRow.record_uri`: rendered for `synthetic:`, else read as WFDB.

    Raises RecordError for a record that cannot be used, DatasetError for a store that does not answer.
    """
    if record_uri.startswith("synthetic:"):
        from mets_ray.sources.synthetic_source import render_synthetic

        return render_synthetic(record_uri)
    from mets_ray.sources.wfdb_record import read_wfdb

    return read_wfdb(record_uri)
