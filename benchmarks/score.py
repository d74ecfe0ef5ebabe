"""Scoring a whole data set, compared with a bare loop of forward passes over the same arrays in memory, same cores.

    python benchmarks/score.py              # about four minutes on 2 cores; the last line of stdout is one JSON object
    SHARDS=14 python benchmarks/score.py
    python benchmarks/score.py --encoder-runtime openvino_bf16

`ours` reads shards, decodes, encodes with `encoder_runtime`, and writes embeddings, similarities and scores; it
is measured from when every actor has delivered its first shard. `bare` only calls the encoder in plain PyTorch on
batches in memory, with as many threads as ours has actors (each holds one CPU). The records are 64 synthetic ECGs,
repeated with different noise each time.
"""

import argparse
import itertools
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from bench_table import Row, in_turn, ratios, report
from local_ray import local_ray
from noisy import write_noisy
from random_models import write_random_bundle

from mets_ray.config.load import load_config
from mets_ray.config.settings import Config
from mets_ray.dataset.card import rows_per_shard
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.dataset.shard_reader import signals
from mets_ray.ecg.preprocess import SignalConfig
from mets_ray.model.bundle import load_bundle
from mets_ray.model.mets import microvolts_to_millivolts
from mets_ray.pipelines.score import score

SIGNAL = SignalConfig(100, 10.0)
RECORDS = int(os.environ.get("SHARDS", "8")) * rows_per_shard(SIGNAL)  # whole shards, so that actors end together
BARE_RECORDS = 4096
TEMPLATES = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder-runtime", default="auto")
    runtime = parser.parse_args().encoder_runtime
    with local_ray(), tempfile.TemporaryDirectory() as folder:
        report(rows(folder, runtime))


def rows(folder: str, runtime: str) -> list[Row]:
    config = load_config(None, [f"run_uri={folder}", "score.tasks=[synthetic]", f"encoder_runtime={runtime}"])
    dataset_uri = str(Path(folder) / "data")
    write_noisy(dataset_uri, SIGNAL, records=RECORDS, templates=TEMPLATES, noise_uv=10)
    bundle_uri = write_random_bundle(Path(folder) / "bundle", "synthetic")
    signal_uv = _signals(dataset_uri)[:BARE_RECORDS]
    torch.set_num_threads(config.score.max_actors)
    numbers = itertools.count()
    with_start: list[float] = []

    def ours() -> float:
        output = {"output_uri": str(Path(folder) / f"scores-{next(numbers)}")}
        again = config.model_copy(update={"score": config.score.model_copy(update=output)})
        done = score(again, dataset_uri, bundle_uri)
        with_start.append(done.records_per_s)
        return done.steady_records_per_s

    per_s = in_turn({"ours": ours, "bare": lambda: _bare_rate(bundle_uri, signal_uv, config)})
    detail = {
        "encoder_runtime": runtime,
        "records": RECORDS,
        "actors": config.score.max_actors,
        "records_per_s": float(np.median(per_s["ours"])),
        "records_per_s_with_start": float(np.median(with_start)),
        "records_per_s_bare": float(np.median(per_s["bare"])),
    }
    return [Row("score.archive", ratios(per_s["ours"], per_s["bare"]), goal=1.8, detail=detail)]


def _signals(dataset_uri: str) -> np.ndarray:
    """All ECGs of the data set, int16 [record, lead, sample], in memory."""
    dataset = PreparedDataset.open(dataset_uri)
    selection = dataset.all_folds
    return np.concatenate([signals(dataset.read(group, selection)) for group in dataset.row_groups(selection)])


@torch.no_grad()
def _bare_rate(bundle_uri: str, signal_uv: np.ndarray, config: Config) -> float:
    model, batch_size = load_bundle(bundle_uri).model.eval(), config.score.batch_size

    def forward(rows: np.ndarray) -> None:
        model.embed_ecg(microvolts_to_millivolts(rows, model)).numpy()

    forward(signal_uv[:batch_size])  # the first pass chooses algorithms
    began = time.perf_counter()
    for start in range(0, len(signal_uv), batch_size):
        forward(signal_uv[start : start + batch_size])
    return len(signal_uv) / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
