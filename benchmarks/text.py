"""The language model on its actors, beside one plain process that embeds the same texts in order of their length.

    python benchmarks/text.py              # some 3 minutes on 2 cores; the last line of stdout is one JSON object

Both have the machine's two cores: two actors with a thread each, and one process with two threads. 3,000 distinct texts
are made of the statements of synthetic reports, 1 to 12 of them each, as real reports differ. `actors` is measured from
the moment when all actors have delivered: what they do before, each process does once in a run.
"""

import os
import tempfile
import time

import numpy as np
import ray
import torch
from bench_table import Row, in_turn, ratios, report

from mets_ray.cluster.ray_data import plain
from mets_ray.config.load import load_config
from mets_ray.config.settings import TextConfig
from mets_ray.pipelines.lm_actors import by_length, embed_stage, embed_texts
from mets_ray.sources.synthetic import synthetic_manifest
from mets_ray.text.embeddings import read_store
from mets_ray.text.language_model import FrozenTextEncoder

TEXTS = 3000


def rows() -> list[Row]:
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    text = load_config(None, ["text.min_actors=2", "text.max_actors=2"]).text
    texts = _texts()
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    encoder = FrozenTextEncoder(
        text.model, pooling=text.pooling, max_length=text.max_length, batch_size=text.batch_size
    )
    _check_equal(text, encoder, texts[:200])
    torch.set_num_threads(2)
    found = in_turn({"actors": lambda: _by_actors(text, texts), "process": lambda: _by_process(encoder, texts)})
    ray.shutdown()
    detail = {f"{name}_texts_per_s": float(np.median(of)) for name, of in found.items()}
    return [Row("text.lm", ratios(found["actors"], found["process"]), goal=0.95, detail=detail)]


def _texts() -> list[str]:
    manifest = synthetic_manifest(2000, seed=0, sampling_rate_hz=100, duration_s=10.0)
    statements = sorted({statement for row in manifest.rows for statement in row.statements})
    random = np.random.default_rng(0)
    texts: set[str] = set()
    while len(texts) < TEXTS:
        texts.add(". ".join(random.choice(statements, random.integers(1, 13))))
    return sorted(texts)


def _by_actors(text: TextConfig, texts: list[str]) -> float:
    """Texts per second after the first delivery of both actors."""
    embedded = plain(
        embed_stage(by_length([{"text": one} for one in texts], text), text, batch_size=8 * text.batch_size)
    )
    arrivals = [
        (time.perf_counter(), len(batch["text"]))
        for batch in embedded.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0)
    ]
    second = arrivals[1][0]
    return sum(count for at, count in arrivals if at > second) / (arrivals[-1][0] - second)


def _by_process(encoder: FrozenTextEncoder, texts: list[str]) -> float:
    began = time.perf_counter()
    encoder.embed(texts)
    return len(texts) / (time.perf_counter() - began)


def _check_equal(text: TextConfig, encoder: FrozenTextEncoder, texts: list[str]) -> None:
    """Both ways give the same vectors, but for the last place of float16, which follows from the padding."""
    with tempfile.TemporaryDirectory() as store:
        table = embed_texts(text, store, reports=texts, prompts=[]).table
        assert len(read_store(store, encoder.fingerprint).ids) == len(texts)
        from mets_ray.text.reports import text_id

        mine = table.lookup(np.asarray([text_id(one) for one in texts], dtype=np.int64))
        np.testing.assert_allclose(mine.astype(np.float32), encoder.embed(texts).astype(np.float32), atol=2e-3)


if __name__ == "__main__":
    report(rows())
