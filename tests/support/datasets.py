"""Small prepared data sets that tests make, and score, without a cluster."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mets_ray import storage
from mets_ray.dataset import card as cards
from mets_ray.dataset.card import SCHEMA_VERSION, DatasetCard
from mets_ray.dataset.folds import Selection
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.dataset.privacy import Privacy
from mets_ray.dataset.shard_reader import signals
from mets_ray.dataset.shard_writer import ShardTask, write_shard
from mets_ray.ecg.ecg import LEADS
from mets_ray.ecg.preprocess import SignalConfig
from mets_ray.ecg.wfdb import read_wfdb
from mets_ray.model.bundle import load_bundle
from mets_ray.pipelines.embed import EcgEmbedder
from mets_ray.sources.synthetic import Synthetic, synthetic_manifest
from mets_ray.tasks.questions import Questions, dataset_tasks
from mets_ray.training.validation import task_macro_auroc

SIGNAL = SignalConfig(100, 10.0, highpass_hz=0.5)  # as jobs/prepare.py writes them


def synthetic_rows(records, *, seed=0, shuffled_reports=None):
    """Synthetic manifest rows; with a `shuffled_reports` seed, each record carries another record's report."""
    rows = synthetic_manifest(records, seed=seed, sampling_rate_hz=100.0, duration_s=10.0).rows
    if shuffled_reports is None:
        return rows
    order = np.random.default_rng(shuffled_reports).permutation(len(rows))
    return tuple(
        replace(row, report=rows[other].report, statements=rows[other].statements)
        for row, other in zip(rows, order, strict=True)
    )


class SyntheticAndFiles(Synthetic):
    """Synthetic records, and WFDB files among them."""

    def read(self, record_uri):
        return super().read(record_uri) if record_uri.startswith("synthetic:") else read_wfdb(record_uri)


def write_rows(
    dataset_uri,
    rows,
    *,
    source=None,
    name="part-00000-abc",
    duplicates=(),
    reads_in_flight=4,
    reports=True,
    zero_leads=False,
    measured=False,
    privacy=Privacy(),  # noqa: B008  it is frozen
):
    source = source or SyntheticAndFiles(kind="synthetic")
    task = ShardTask(name, tuple(rows), frozenset(duplicates), reports, zero_leads, measured)
    return write_shard(
        task,
        source,
        signal=SIGNAL,
        dataset_uri=str(dataset_uri),
        reads_in_flight=reads_in_flight,
        privacy=privacy,
    )


def write_card(dataset_uri, summaries, **changes):
    shards = tuple(summary.shard for summary in summaries)
    facts = {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": "f",
        "source": "synthetic",
        "source_uri": None,
        "source_sha256": "s",
        "synthetic": True,
        "sampling_rate_hz": 100,
        "duration_s": 10.0,
        "leads": SIGNAL.leads,
        "highpass_hz": SIGNAL.highpass_hz,
        "records_in": sum(summary.records_in for summary in summaries),
        "records_out": sum(sum(shard.row_group_rows) for shard in shards),
        "rejected": {},
        "folds": {fold: 1 for summary in summaries for fold in summary.folds},
        "shards": shards,
        "command": "",
        "created_at": "",
    }
    card = DatasetCard(**facts | changes)
    cards.write_card(str(dataset_uri), card)
    return card


def write_dataset(dataset_uri, rows, **changes):
    """A whole data set of one shard; answers its URI."""
    write_card(dataset_uri, [write_rows(dataset_uri, rows)], **changes)
    return str(dataset_uri)


def write_shards(dataset_uri, *, shards, rows):
    """A whole data set of several shards with `rows` records each; answers its URI."""
    every = synthetic_rows(shards * rows)
    parts = [every[start : start + rows] for start in range(0, len(every), rows)]
    write_card(dataset_uri, [write_rows(dataset_uri, part, name=f"part-{n:05d}-abc") for n, part in enumerate(parts)])
    return str(dataset_uri)


def scored_table(output_uri):
    """What jobs/score.py has written, of all shards."""
    return pa.concat_tables([pq.read_table(uri) for uri in storage.list_files(output_uri, suffix=".parquet")])


def auroc_of_fold(fold, dataset_uri, bundle_uri, leads=LEADS):
    """What jobs/evaluate.py gives as `macro_auroc` of a synthetic data set's fold, without its pictures; with `leads`
    alone."""
    bundle, selection, dataset = load_bundle(bundle_uri), Selection((fold,)), PreparedDataset.open(dataset_uri)
    embedder, labels, embeddings = EcgEmbedder(bundle_uri, "cpu"), [], []
    for group in dataset.row_groups(selection):
        rows = dataset.read(group, selection)
        signal_uv = signals(rows).copy()
        for row, lead in enumerate(dataset.card.leads):
            signal_uv[:, row] *= lead in leads
        place = rows.column_names.index("signal_uv")
        rows = rows.set_column(place, "signal_uv", pa.FixedShapeTensorArray.from_numpy_ndarray(signal_uv))
        rows = embedder(rows)
        labels += rows["labels"].to_pylist()
        embeddings += rows["ecg_embedding"].to_pylist()
    questions = Questions(bundle.facts.prompt_sets["descriptive"], dataset_tasks("synthetic"))
    return task_macro_auroc(
        bundle.model, questions, bundle.prompts, ecg_embeddings=np.asarray(embeddings, np.float32), labels=labels
    )["synthetic"]
