"""How long `mets-ray evaluate` takes, as a user starts it: Ray, the bundle, tables, pictures and the report.

    python benchmarks/evaluate.py          # some 4 minutes on 2 cores; the last line of stdout is one JSON object

686 test records of 12 × 1000 and as many to calibrate on, of 6,860 synthetic ECGs with noise; the encoder is the
paper's (width 64) and untrained, which takes as long as a trained one. It takes fewer leads, so each test record is
embedded once with all leads and once with each set of fewer. `evaluate.narrow_seconds`: the same with an encoder of
width 16, which is nearly all start-up and drawing.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from bench_table import ROUNDS, Row, in_turn, report
from noisy import write_noisy

from mets_ray.config.load import load_config
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.ecg.preprocess import SignalConfig
from mets_ray.model.bundle import Bundle, BundleFacts, build_model, write_bundle
from mets_ray.tasks.prompt_sets import load_prompt_set, prompt_texts
from mets_ray.text.embeddings import EmbeddingTable
from mets_ray.text.language_model import FrozenTextEncoder
from mets_ray.text.reports import text_id

RECORDS = 6_860  # a tenth of them in each fold
SIGNAL = SignalConfig(100, 10.0)


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        dataset_uri = str(Path(folder) / "data")
        write_noisy(dataset_uri, SIGNAL, records=RECORDS, templates=500, noise_uv=10)
        bundles = {width: _write_bundle(Path(folder) / f"bundle-{width}", width) for width in (64, 16)}
        records = {"records": PreparedDataset.open(dataset_uri).card.folds[10]}
        found = in_turn(
            {str(width): lambda uri=uri: _seconds(folder, dataset_uri, uri) for width, uri in bundles.items()}, ROUNDS
        )
    return [
        Row("evaluate.seconds", found["64"], "s", goal=20.0, at_most=True, detail=records),
        Row("evaluate.narrow_seconds", found["16"], "s", detail=records),
    ]


def _seconds(folder: str, dataset_uri: str, bundle_uri: str) -> float:
    words = [f"run_uri={folder}", f"dataset_uri={dataset_uri}", f"evaluate.bundle_uri={bundle_uri}"]
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", "from mets_ray.cli import main; main()", "evaluate", *words],
        capture_output=True,
        text=True,
        env=os.environ | {"RAY_AUTH_MODE": "disabled"},
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])
    return time.perf_counter() - began


def _write_bundle(folder: Path, width: int) -> str:
    config = load_config(None, [f"encoder.width={width}"])
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
    folder.mkdir()
    write_bundle(folder, Bundle(model, config, facts, table))
    return str(folder)


if __name__ == "__main__":
    report(rows())
