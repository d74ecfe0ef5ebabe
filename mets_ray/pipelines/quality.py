"""The quality page and the Croissant description of a prepared data set: one task per shard, and one per ECG drawn."""

import hashlib
import importlib.metadata
import pickle
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from mets_ray import storage
from mets_ray.cluster.ray_data import item_dataset, own_errors, plain, unpack_item
from mets_ray.console import progress_bar, say
from mets_ray.dataset.card import CARD_NAME, Shard
from mets_ray.dataset.croissant import write_croissant
from mets_ray.dataset.plan import RowGroup
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.dataset.quality.counts import QualityCounts
from mets_ray.dataset.quality.duplicates import RecordKeys, find_duplicates
from mets_ray.dataset.quality.page import Quality, Sample, quality_page, verdict_page
from mets_ray.dataset.quality.rejections import read_rejections
from mets_ray.dataset.quality.shard import count_shard
from mets_ray.dataset.quality.verdict import verdict
from mets_ray.dataset.shard_reader import signals
from mets_ray.pictures.ecg import draw_ecg
from mets_ray.results.page import markdown, render

PAGE_NAME = "quality.html"

_SAMPLES = 12
_SAMPLE_PIXELS_PER_MM = 4  # as wide as the page


@dataclass(frozen=True)
class WrittenQuality:
    """Where the page and the description are, and how many findings are of each level."""

    quality_uri: str
    croissant_uri: str
    findings: dict[str, int]


def write_quality(dataset: PreparedDataset) -> WrittenQuality:
    """Write `quality.html` and `croissant.json` beside the card, and print the verdict.

    Reads the small columns of all shards, and the signals of twelve ECGs. Raises DatasetError for shards that cannot be
    read.
    """
    counts, samples = _read(dataset)
    duplicates = find_duplicates(RecordKeys.concatenate(counts.keys))
    quality = Quality(
        card=dataset.card,
        counts=counts,
        duplicates=duplicates,
        rejections=read_rejections(dataset.uri, dataset.card),
        verdict=verdict(dataset.card, counts, duplicates),
        samples=samples,
    )
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    made = f"{now}, mets-ray {importlib.metadata.version('mets_ray')}"
    page_uri = storage.join(dataset.uri, PAGE_NAME)
    storage.write_bytes(page_uri, render(quality_page(quality, made)).encode())
    card_bytes = storage.read_bytes(storage.join(dataset.uri, CARD_NAME))
    croissant_uri = write_croissant(dataset.uri, dataset.card, hashlib.sha256(card_bytes).hexdigest())
    say(f"\n{markdown(verdict_page(quality.verdict))}\nquality page  {page_uri}")
    levels = [finding.level for finding in quality.verdict]
    return WrittenQuality(page_uri, croissant_uri, {level: levels.count(level) for level in ("stop", "look", "fine")})


def _read(dataset: PreparedDataset) -> tuple[QualityCounts, list[Sample]]:
    """The counts of all shards, and the ECGs to draw."""

    def read(batch: dict[str, Any]) -> dict[str, Any]:
        item = unpack_item(batch)
        found = count_shard(dataset.uri, dataset.card, item) if isinstance(item, Shard) else _draw(dataset, *item)
        return {"found": [pickle.dumps(found)]}

    # Pictures first: they take longest, and shards fill what is left.
    rows = plain(item_dataset([*_chosen(dataset), *dataset.card.shards]).map_batches(read, batch_size=None))
    rows.context.execution_options.preserve_order = True
    counts, samples = QualityCounts(), []
    with own_errors(), progress_bar(total=dataset.card.records_out, unit="record", description="quality") as bar:
        for row in rows.iter_rows():
            found = pickle.loads(row["found"])  # made by `read` in this same job
            if isinstance(found, QualityCounts):
                counts.merge(found)
                bar.update(found.records)
            else:
                samples.append(found)
    return counts, samples


def _chosen(dataset: PreparedDataset) -> list[tuple[RowGroup, int]]:
    """Twelve records at random, the same for the same data set: each as its row group and its row there."""
    groups = [
        RowGroup(shard.path, number, rows)
        for shard in dataset.card.shards
        for number, rows in enumerate(shard.row_group_rows)
    ]
    ends = np.cumsum([group.rows for group in groups])
    seed = int(hashlib.sha256(dataset.card.fingerprint.encode()).hexdigest()[:16], 16)
    chosen = np.random.default_rng(seed).choice(ends[-1], min(_SAMPLES, int(ends[-1])), replace=False)
    found = []
    for position in sorted(chosen.tolist()):
        number = int(np.searchsorted(ends, position, side="right"))
        found.append((groups[number], position - int(ends[number]) + groups[number].rows))
    return found


def _draw(dataset: PreparedDataset, group: RowGroup, row: int) -> Sample:
    card = dataset.card
    one = dataset.read(group, dataset.all_folds).slice(row, 1)
    record_id = str(one["record_id"][0].as_py())
    title = f"{'SYNTHETIC ' if card.synthetic else ''}record {record_id}, fold {one['fold'][0].as_py()}"
    signal_uv = signals(one)[0]
    picture = draw_ecg(
        signal_uv,
        card.leads,
        card.sampling_rate_hz,
        title,
        pixels_per_mm=_SAMPLE_PIXELS_PER_MM,
        in_few_colours=True,
    )
    return Sample(record_id, picture)
