"""Where ECGs come from: a manifest (who, which fold, which report) and `read_ecg`, which fetches one record.

A manifest is light (text only) and made once per job; signals are fetched record by record on the workers. Its reports
are as in the source: `clean_report` is applied when shards are written.
"""

from dataclasses import dataclass, replace

import numpy as np

from mets_ray.errors import DatasetError


@dataclass(frozen=True)
class ManifestRow:
    """One record. `statements` are the parts of the report, `labels` the source's codes; `age` in years, `sex` male,
    female or None. `fault`: why the record is rejected without being read, as reason and fact, or None."""

    record_id: str
    patient_id: str
    fold: int
    record_uri: str
    report: str
    statements: tuple[str, ...]
    labels: tuple[str, ...]
    age: float | None
    sex: str | None
    fault: tuple[str, str] | None = None


@dataclass(frozen=True)
class Manifest:
    """All rows of a source, in its order. `sha256` is the hash of the files that it was made from.

    `notes` say what users of the data set should know about how rows were made, with counts. A source without
    reports (`has_reports=False`) can be scored but not trained on: its rows' `report` is empty. `focus_s`: see
    `schema.DatasetCard`.
    """

    rows: tuple[ManifestRow, ...]
    source: str
    sha256: str
    notes: tuple[str, ...] = ()
    has_reports: bool = True
    focus_s: float | None = None


def shuffle_reports(manifest: Manifest, seed: int) -> Manifest:
    """Each record with the report and statements of another record of its fold; signals and labels stay.

    A model trained on it learns the distribution of reports and nothing about ECGs: the baseline of a zero-shot score.
    Raises DatasetError for a source without reports.
    """
    if not manifest.has_reports:
        raise DatasetError(
            f"the source `{manifest.source}` has no reports to shuffle", hint="do not set prepare.shuffle_reports"
        )
    generator = np.random.default_rng(seed)
    rows = list(manifest.rows)
    folds = np.asarray([row.fold for row in rows])
    for fold in np.unique(folds):
        order = generator.permutation(np.flatnonzero(folds == fold))
        # A random cyclic shift over all records of the fold, so that none keeps its own.
        for taker, giver in zip(order, np.roll(order, 1), strict=True):
            given = manifest.rows[giver]
            rows[taker] = replace(rows[taker], report=given.report, statements=given.statements)
    note = "SHUFFLED reports: each record has another record's; a bundle trained on this must score at chance"
    return replace(manifest, rows=tuple(rows), notes=(*manifest.notes, note))
