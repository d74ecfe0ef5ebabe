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

    `notes` say what a reader of the data set should know about how rows were made, with counts. A source without
    reports (`has_reports=False`) can be scored and not trained on: its rows' `report` is empty.
    """

    rows: tuple[ManifestRow, ...]
    source: str
    sha256: str
    notes: tuple[str, ...] = ()
    has_reports: bool = True


def read_ecg(record_uri: str) -> Ecg:
    """The ECG behind `ManifestRow.record_uri`: rendered for `synthetic:`, cut for `...#mitbih:` and `...#cut:`, else a
    whole WFDB record.

    Raises RecordError for a record that cannot be used, DatasetError for a store that does not answer.
    """
    if record_uri.startswith("synthetic:"):
        from mets_ray.sources.synthetic_source import render_synthetic

        return render_synthetic(record_uri)
    if "#mitbih:" in record_uri:
        from mets_ray.sources.mitbih import read_beat

        return read_beat(record_uri)
    if "#cut:" in record_uri:
        from mets_ray.sources.cinc import read_cut

        return read_cut(record_uri)
    from mets_ray.sources.wfdb_record import read_wfdb

    return read_wfdb(record_uri)
