"""Scoring a whole data set, compared with a bare loop of forward passes over the same arrays in memory, same cores.

    python benchmarks/score.py              # 20,000 records; the last line of stdout is one JSON object
    RECORDS=6000 python benchmarks/score.py encoder.width=16    # a few minutes on a busy machine

`ours` reads shards, decodes, computes, and writes embeddings, similarities and scores; it is measured from when every
actor has delivered its first shard. `bare` only calls the encoder on batches in memory, with as many threads as ours
has actors (each holds one CPU). The records are 64 synthetic ECGs, repeated with different noise each time.
"""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from noisy import write_noisy

from mets_ray.config.settings import Config
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.dataset.shard_reader import signals
from mets_ray.ecg.preprocess import SignalConfig
from mets_ray.job import run_job
from mets_ray.model.bundle import Bundle, BundleFacts, build_model, load_bundle, write_bundle
from mets_ray.model.mets import microvolts_to_millivolts
from mets_ray.pipelines.score import score
from mets_ray.tasks.prompt_sets import load_prompt_set, prompt_texts
from mets_ray.text.embeddings import EmbeddingTable
from mets_ray.text.language_model import FrozenTextEncoder
from mets_ray.text.reports import text_id

RECORDS = int(os.environ.get("RECORDS", "20000"))
TEMPLATES = 64
SIGNAL = SignalConfig(100, 10.0)


def main(config: Config, command: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        dataset_uri = str(Path(folder) / "data")
        write_noisy(dataset_uri, SIGNAL, records=RECORDS, templates=TEMPLATES, noise_uv=10)
        bundle_uri = _write_bundle(Path(folder) / "bundle", config)
        ours = score(config.model_copy(update={"run_uri": folder}), dataset_uri, bundle_uri)
        torch.set_num_threads(config.score.max_actors)
        bare = _bare_rate(bundle_uri, _signals(dataset_uri), config.score.batch_size)
    return {
        "records": ours.records,
        "actors": config.score.max_actors,
        "records_per_s_with_start": ours.records_per_s,
        "records_per_s": ours.steady_records_per_s,
        "records_per_s_bare": bare,
        "throughput_ratio_bare": ours.steady_records_per_s / bare,
    }


def _signals(dataset_uri: str) -> np.ndarray:
    """All ECGs of the data set, int16 [record, lead, sample], in memory."""
    dataset = PreparedDataset.open(dataset_uri)
    selection = dataset.all_folds
    return np.concatenate([signals(dataset.read(group, selection)) for group in dataset.row_groups(selection)])


def _write_bundle(folder: Path, config: Config) -> str:
    """A bundle with an untrained encoder, which is as fast as a trained one."""
    folder.mkdir()
    prompt_set, text = load_prompt_set("descriptive"), config.text
    encoder = FrozenTextEncoder(text.model, pooling=text.pooling, max_length=text.max_length)
    prompts = prompt_texts([prompt_set], ["synthetic"])
    table = EmbeddingTable.build(np.asarray([text_id(prompt) for prompt in prompts]), encoder(prompts))
    model = build_model(config, leads=len(SIGNAL.leads), text_features=table.vectors.shape[1])
    facts = BundleFacts(
        run="benchmark", sampling_rate_hz=100, duration_s=10.0, leads=SIGNAL.leads, text_model=text.model,
        text_pooling=text.pooling, text_max_length=text.max_length, text_fingerprint=encoder.fingerprint,
        text_features=table.vectors.shape[1], dataset_source="synthetic", dataset_sha256="", synthetic=True,
        train_folds=(), validation=(), prompt_sets={"descriptive": prompt_set}, metrics={}, history=(),
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
