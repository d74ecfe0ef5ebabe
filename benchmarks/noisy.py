"""Generate large synthetic data sets quickly: a few rendered ECGs, repeated, each with different noise."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

from mets_ray.dataset.card import SCHEMA_VERSION, DatasetCard, Shard, rows_per_shard, write_card
from mets_ray.dataset.shard_writer import Accepted, write_accepted
from mets_ray.ecg.preprocess import SignalConfig, preprocess
from mets_ray.sources.manifest import ManifestRow
from mets_ray.sources.synthetic import render_synthetic, synthetic_manifest


def write_noisy(dataset_uri: str, signal: SignalConfig, *, records: int, templates: int, noise_uv: int) -> None:
    """Write shards and card of `records` ECGs: cycles through `templates` ECGs, adding noise of at most `noise_uv`."""
    manifest = synthetic_manifest(
        min(templates, records), seed=0, sampling_rate_hz=signal.sampling_rate_hz, duration_s=signal.duration_s
    )
    rows = rows_per_shard(signal)
    with ThreadPoolExecutor(2) as pool:
        drawn = list(pool.map(lambda row: preprocess(render_synthetic(row.record_uri), signal), manifest.rows))

        def write(start: int) -> Shard:
            noise = np.random.default_rng(start)
            accepted = []
            for number in range(start, min(records, start + rows)):
                template = number % len(drawn)
                changed = noise.integers(-noise_uv, noise_uv + 1, drawn[template].shape, dtype=np.int16)
                row = _renamed(manifest.rows[template], number, number // len(drawn))
                accepted.append(Accepted(row, row.report, drawn[template] + changed))
            return write_accepted(f"part-{start // rows:05d}", accepted, signal, dataset_uri)

        shards = tuple(pool.map(write, range(0, records, rows)))
    card = DatasetCard(
        schema_version=SCHEMA_VERSION, fingerprint="benchmark", source="synthetic", source_uri=None,
        source_sha256=manifest.sha256, synthetic=True, sampling_rate_hz=signal.sampling_rate_hz,
        duration_s=signal.duration_s, leads=signal.leads, records_in=records, records_out=records, rejected={},
        folds=dict(sorted(Counter(manifest.rows[number % len(drawn)].fold for number in range(records)).items())),
        shards=shards, command="benchmark", created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip
    write_card(dataset_uri, card)


def _renamed(row: ManifestRow, number: int, repeat: int) -> ManifestRow:
    return replace(row, record_id=f"syn-{number:06d}", patient_id=f"{row.patient_id}-{repeat}")
