"""Small archives that tests search, filled without a cluster, and the scores that an index job reads."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mets_ray import storage
from mets_ray.archive.facts import ArchiveFacts, IndexedDataset
from mets_ray.archive.schema import table_schema
from mets_ray.archive.writer import IndexWriter, write_fragments
from mets_ray.dataset.card import read_card
from mets_ray.dataset.shard_reader import open_shard
from mets_ray.model.bundle import load_bundle
from mets_ray.pipelines.score import MANIFEST_NAME, METADATA_KEY, score_uri

KEY, SOURCE = "0123456789abcdef", "synthetic"
DATASET = IndexedDataset(uri="/nowhere", source=SOURCE, content_sha256="c" * 64, synthetic=True)


def unit_vectors(records, dimension=128, seed=0):
    """Random unit vectors around a common direction, as embeddings are; float32 [record, dimension]."""
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(records, dimension)) + generator.normal(size=dimension)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def rows_of(vectors, *, first=0, shard="shards/part-00000.parquet", key=KEY, reports=False, **columns):
    """Rows of an index; two records in a row are of one patient. columns: values in place of the made-up ones."""
    count, dimension = vectors.shape
    numbers = np.arange(first, first + count)
    schema = table_schema(dimension, reports=reports)
    known = {
        "record_id": [f"r{number:05d}" for number in numbers],
        "patient_id": [f"p{number // 2:05d}" for number in numbers],
        "source": [SOURCE] * count,
        "fold": (numbers % 10 + 1).tolist(),
        "age": [None if number % 7 == 6 else float(20 + number % 70) for number in numbers],
        "sex": [("female", "male")[number % 2] for number in numbers],
        "leads_missing": [["V1", "V2"] if number % 5 == 4 else [] for number in numbers],
        "statement_ids": [[int(number % 3)] for number in numbers],
        "dataset": [key] * count,
        "shard": [shard] * count,
        "shard_row": list(range(count)),
        "report": [f"report {number % 4}" for number in numbers],
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dimension),
    } | columns
    nothing = pa.nulls(count)
    arrays = [pa.array(known[f.name], f.type) if f.name in known else nothing.cast(f.type) for f in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def facts_of(dimension=128, *, bundle_uri="", digest="d" * 64, reports=False):
    return ArchiveFacts(
        bundle_uri=bundle_uri, bundle_run="run", bundle_digest=digest, dimension=dimension, has_reports=reports
    )


def write_archive(uri, *tables, key=KEY, dataset=DATASET, finish=True, **facts):
    """An archive of rows, each table in a commit of its own; answers its writer."""
    dimension = tables[0]["embedding"].type.list_size
    writer = IndexWriter.claim(str(uri), facts_of(dimension, **facts), key, dataset)
    for table in tables:
        writer.append(write_fragments(str(uri), table))
    if finish:
        writer.finish(key)
    return writer


def tiny_archive(uri, *, records=200, dimension=128, reports=False, bundle_uri=None, **columns):
    """A finished archive of random vectors; of a bundle's digest where one is given. Answers its URI."""
    digest = load_bundle(str(bundle_uri)).digest if bundle_uri else "d" * 64
    rows = rows_of(unit_vectors(records, dimension), reports=reports, **columns)
    write_archive(uri, rows, bundle_uri=str(bundle_uri or ""), digest=digest, reports=reports)
    return str(uri)


def write_scores(uri, dataset_uri, *, digest="d" * 64, seed=0, **changes):
    """Finished scores of a data set, as `score` leaves them, with random embeddings. changes: of `scores.json`."""
    card = read_card(dataset_uri)
    facts = {
        "bundle_digest": digest,
        "bundle_uri": "",
        "run": "run",
        "dataset_sha256": card.content_sha256,
        "embeddings": True,
        "finished": True,
    } | changes
    for number, shard in enumerate(card.shards):
        rows = open_shard(dataset_uri, shard).read(columns=["record_id", "patient_id", "fold"])
        vectors = unit_vectors(rows.num_rows, seed=seed + number)
        rows = rows.append_column("leads_missing", pa.array([[]] * rows.num_rows, pa.list_(pa.string())))
        flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
        metadata = {METADATA_KEY: json.dumps(facts | {"shard_sha256": shard.sha256}).encode()}
        sink = pa.BufferOutputStream()
        pq.write_table(rows.append_column("embedding", flat).replace_schema_metadata(metadata), sink)
        storage.write_bytes(score_uri(str(uri), shard.path), sink.getvalue().to_pybytes())
    storage.write_bytes(storage.join(str(uri), MANIFEST_NAME), json.dumps(facts).encode())
    return str(uri)
