"""Scoring a whole data set against a bare loop of forward passes over the same arrays in memory, on the same cores.

    python benchmarks/score.py              # 20,000 records; the last line of stdout is one JSON object
    RECORDS=6000 python benchmarks/score.py encoder.width=16    # some minutes on a busy machine

`ours` reads shards, decodes, computes, and writes embeddings, similarities and scores; it counts from when every actor
has delivered its first shard. `bare` only calls the encoder on batches that lie in memory, and gets as many threads as
ours has actors (each holds one CPU). The records are 64 synthetic ECGs again and again, each time with other noise.
"""

import hashlib
import io
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from mets_ray import storage
from mets_ray.checkpoint import Bundle, BundleFacts, build_model, load_bundle, write_bundle
from mets_ray.config import Config
from mets_ray.ecg import SignalConfig, preprocess
from mets_ray.encoders import FrozenTextEncoder
from mets_ray.job import run_job
from mets_ray.report import load_prompt_set, text_id
from mets_ray.schema import CARD_NAME, MAX_ROW_GROUP_ROWS, SCHEMA_VERSION, DatasetCard, Shard, shard_schema
from mets_ray.score import score
from mets_ray.sources.synthetic_source import render_synthetic, synthetic_manifest
from mets_ray.tasks import microvolts_to_millivolts, prompt_texts
from mets_ray.text_store import EmbeddingTable

RECORDS = int(os.environ.get("RECORDS", "20000"))
TEMPLATES = 64
ROWS_PER_SHARD = 1024
SIGNAL = SignalConfig(100, 10.0)


def main(config: Config, command: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        signal_uv = _noisy_templates(RECORDS)
        dataset_uri = _write_dataset(Path(folder) / "data", signal_uv)
        bundle_uri = _write_bundle(Path(folder) / "bundle", config)
        ours = score(config.model_copy(update={"run_uri": folder}), dataset_uri, bundle_uri)
        torch.set_num_threads(config.score.max_actors)
        bare = _bare_rate(bundle_uri, signal_uv, config.score.batch_size)
    return {
        "records": ours.records,
        "actors": config.score.max_actors,
        "records_per_s_with_start": ours.records_per_s,
        "records_per_s": ours.steady_records_per_s,
        "records_per_s_bare": bare,
        "throughput_ratio_bare": ours.steady_records_per_s / bare,
    }


def _noisy_templates(records: int) -> np.ndarray:
    rows = synthetic_manifest(TEMPLATES, seed=0, sampling_rate_hz=100, duration_s=10).rows
    templates = np.stack([preprocess(render_synthetic(row.record_uri), SIGNAL) for row in rows])
    generator = np.random.default_rng(0)
    noise_uv = generator.integers(-10, 11, (records, *templates.shape[1:]), dtype=np.int16)
    noise_uv += templates[np.arange(records) % TEMPLATES]
    return noise_uv


def _write_dataset(folder: Path, signal_uv: np.ndarray) -> str:
    schema, shards = shard_schema(SIGNAL), []
    for start in range(0, len(signal_uv), ROWS_PER_SHARD):
        part = signal_uv[start : start + ROWS_PER_SHARD]
        ids = [f"noisy-{number:06d}" for number in range(start, start + len(part))]
        columns = {
            "record_id": ids, "patient_id": ids, "fold": [1] * len(ids), "report": ids, "statements": [[]] * len(ids),
            "labels": [["SR"]] * len(ids), "age": [None] * len(ids), "sex": [None] * len(ids),
        }  # fmt: skip
        arrays = [
            pa.FixedShapeTensorArray.from_numpy_ndarray(part)
            if field.name == "signal_uv"
            else pa.array(columns[field.name], type=field.type)
            for field in schema
        ]
        buffer = io.BytesIO()
        table = pa.Table.from_arrays(arrays, schema=schema)
        pq.write_table(table, buffer, compression="zstd", row_group_size=MAX_ROW_GROUP_ROWS)
        path = f"shards/part-{len(shards):05d}.parquet"
        storage.write_bytes(f"{folder}/{path}", buffer.getvalue())
        groups = tuple(min(MAX_ROW_GROUP_ROWS, len(part) - first) for first in range(0, len(part), MAX_ROW_GROUP_ROWS))
        shards.append(Shard(path=path, sha256=hashlib.sha256(buffer.getvalue()).hexdigest(), row_group_rows=groups))
    card = DatasetCard(
        schema_version=SCHEMA_VERSION, fingerprint="benchmark", source="synthetic", source_uri=None, source_sha256="",
        synthetic=True, sampling_rate_hz=100, duration_s=10.0, leads=SIGNAL.leads, records_in=len(signal_uv),
        records_out=len(signal_uv), rejected={}, folds={1: len(signal_uv)}, shards=tuple(shards), command="",
        created_at="",
    )  # fmt: skip
    storage.write_bytes(f"{folder}/{CARD_NAME}", card.model_dump_json().encode())
    return str(folder)


def _write_bundle(folder: Path, config: Config) -> str:
    """An untrained encoder: its speed is that of a trained one."""
    folder.mkdir()
    prompt_set, text = load_prompt_set("mets"), config.text
    encoder = FrozenTextEncoder(text.model, pooling=text.pooling, max_length=text.max_length)
    prompts = prompt_texts([prompt_set], ["synthetic"])
    table = EmbeddingTable.build(np.asarray([text_id(prompt) for prompt in prompts]), encoder(prompts))
    model = build_model(config, leads=len(SIGNAL.leads), text_features=table.vectors.shape[1])
    facts = BundleFacts(
        run="benchmark", sampling_rate_hz=100, duration_s=10.0, leads=SIGNAL.leads, text_model=text.model,
        text_pooling=text.pooling, text_max_length=text.max_length, text_fingerprint=encoder.fingerprint,
        text_features=table.vectors.shape[1], dataset_source="synthetic", dataset_sha256="", synthetic=True,
        train_folds=(), validation=(), prompt_sets={"mets": prompt_set}, metrics={}, history=(),
    )  # fmt: skip
    write_bundle(folder, Bundle(model, config, facts, table))
    return str(folder)


@torch.no_grad()
def _bare_rate(bundle_uri: str, signal_uv: np.ndarray, batch_size: int) -> float:
    model = load_bundle(bundle_uri).model

    def forward(rows: np.ndarray) -> None:
        model.embed_ecg(microvolts_to_millivolts(rows, model)).numpy()

    forward(signal_uv[:batch_size])  # the first pass chooses algorithms
    began = time.perf_counter()
    for start in range(0, len(signal_uv), batch_size):
        forward(signal_uv[start : start + batch_size])
    return len(signal_uv) / (time.perf_counter() - began)


if __name__ == "__main__":
    run_job("bench-score", __doc__, main)
