"""Synthetic ECGs as a source: the URI of a record has everything needed to render it, so workers need no files."""

import hashlib
import re
from typing import ClassVar

from pydantic import Field

from mets_ray.config.kinds import PositiveInt
from mets_ray.ecg.ecg import Ecg
from mets_ray.ecg.preprocess import SignalConfig
from mets_ray.ecg.synthetic_patients import describe
from mets_ray.ecg.synthetic_waveforms import render
from mets_ray.errors import DatasetError
from mets_ray.sources.manifest import Manifest, ManifestRow
from mets_ray.sources.source import Source

# Part of the manifest's hash: increase it when the same seed gives different ECGs or reports.
_VERSION = 1
_URI = re.compile(r"synthetic:\?seed=(\d+)&index=(\d+)&sampling_rate_hz=([\d.]+)&duration_s=([\d.]+)")


def synthetic_manifest(records: int, seed: int, sampling_rate_hz: float | int, duration_s: float | int) -> Manifest:
    """`records` synthetic ECGs of the data set `seed`."""
    rows = []
    for index in range(records):
        record = describe(index, seed=seed)
        rows.append(
            ManifestRow(
                record_id=record.record_id,
                patient_id=record.patient_id,
                fold=record.fold,
                record_uri=f"synthetic:?seed={seed}&index={index}&sampling_rate_hz={sampling_rate_hz:g}"
                f"&duration_s={duration_s:g}",
                report=record.report,
                statements=record.statements,
                labels=record.labels,
                age=record.age,
                sex=record.sex,
            )
        )
    facts = f"synthetic version {_VERSION}, {records} records, seed {seed}"
    return Manifest(tuple(rows), "synthetic", hashlib.sha256(facts.encode()).hexdigest())


def render_synthetic(record_uri: str) -> Ecg:
    """The ECG of a URI such as `synthetic:?seed=0&index=12&sampling_rate_hz=100&duration_s=10`. Raises DatasetError."""
    match = _URI.fullmatch(record_uri)
    if match is None:
        raise DatasetError(
            f"`{record_uri}` is not a synthetic record",
            hint="write synthetic:?seed=0&index=12&sampling_rate_hz=100&duration_s=10",
        )
    seed, index, sampling_rate_hz, duration_s = match.groups()
    record = describe(int(index), seed=int(seed))
    return render(record, sampling_rate_hz=float(sampling_rate_hz), duration_s=float(duration_s))


class Synthetic(Source):
    """Synthetic ECGs with reports and labels, used by the quickstart and the tests."""

    synthetic: ClassVar[bool] = True
    records: PositiveInt = Field(2400, description="number of synthetic ECGs")

    def manifest(self, signal: SignalConfig, *, seed: int) -> Manifest:
        return synthetic_manifest(self.records, seed, signal.sampling_rate_hz, signal.duration_s)

    def read(self, record_uri: str) -> Ecg:
        return render_synthetic(record_uri)
