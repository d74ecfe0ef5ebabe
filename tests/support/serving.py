"""A small bundle with the real LM's prompt features, and a running server of it."""

import asyncio
import contextlib
import functools
import io
import socket
import threading
import time
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import numpy as np
import torch
import uvicorn

from mets_ray.config.load import load_config
from mets_ray.ecg.ecg import LEADS
from mets_ray.model.anchor_statements import AnchorStatement, AnchorStatements
from mets_ray.model.bundle import Bundle, BundleFacts, build_model, load_bundle, write_bundle
from mets_ray.model.predictor import Predictor
from mets_ray.serve.app import create_app
from mets_ray.serve.service import Service
from mets_ray.serve.settings import ServeConfig
from mets_ray.sources.synthetic import render_synthetic
from mets_ray.tasks.prompt_sets import load_prompt_set, prompt_texts
from mets_ray.text.embeddings import EmbeddingTable
from mets_ray.text.language_model import FrozenTextEncoder
from mets_ray.text.reports import text_id

STATEMENTS = {
    "sinus rhythm": 1322,
    "normal ecg": 765,
    "atrial fibrillation": 120,
    "sinus tachycardia": 90,
    "ventricular extrasystoles": 80,
    "left bundle branch block": 60,
    "right bundle branch block": 50,
    "left ventricular hypertrophy": 40,
    "low qrs voltage": 30,
    "anterior st elevation": 20,
    "inferior st elevation": 10,
}
"""Anchors for `make_bundle`."""

TEXT = {"model": "packaged-minilm", "pooling": "mean", "max_length": 128}


@functools.cache
def lm():
    return FrozenTextEncoder(TEXT["model"], pooling=TEXT["pooling"], max_length=TEXT["max_length"])


@functools.cache
def prompt_features():
    """(fingerprint, table) of the synthetic task's prompts, from the real LM."""
    sets = [load_prompt_set(name) for name in ("mets", "descriptive")]
    texts = prompt_texts(sets, ["synthetic"])
    encoder = lm()
    ids = np.asarray([text_id(text) for text in texts])
    return encoder.fingerprint, EmbeddingTable.build(ids, encoder(texts))


def make_bundle(
    folder,
    *words,
    leads=LEADS,
    sampling_rate_hz=100,
    seed=0,
    width=4,
    run="pretrain-20260101-000000-test",
    statements=None,
    **facts,
):
    """An untrained bundle at `<folder>/<run>/bundle`; answers that path. words: more settings. facts: more facts.

    statements: its anchors, and how many patients have each; those of ten are named. None for a bundle without anchors.
    """
    fingerprint, table = prompt_features()
    config = load_config(None, [f"encoder.width={width}", *words])
    torch.manual_seed(seed)
    facts = BundleFacts(
        run=run,
        sampling_rate_hz=sampling_rate_hz,
        duration_s=10.0,
        leads=leads,
        highpass_hz=0.5,
        text_model=TEXT["model"],
        text_pooling=TEXT["pooling"],
        text_max_length=TEXT["max_length"],
        text_fingerprint=fingerprint,
        text_features=table.vectors.shape[1],
        dataset_source="synthetic",
        dataset_sha256="d",
        synthetic=True,
        train_folds=(1, 2),
        validation=(9,),
        prompt_sets={name: load_prompt_set(name) for name in ("mets", "descriptive")},
        metrics={"loss": 1.0, "validation_macro_auroc": None},
        history=(),
        **facts,
    )
    path = Path(folder) / run / "bundle"
    path.mkdir(parents=True)
    model = build_model(config, leads=len(leads), text_features=facts.text_features)
    named = None
    if statements is not None:
        model.anchors = torch.from_numpy(lm()(list(statements)))
        rows = (
            AnchorStatement(text=text, patients=patients, anchor=row)
            for row, (text, patients) in enumerate(statements.items())
            if patients >= 10
        )
        named = AnchorStatements(least_patients=10, statements=tuple(rows))
    write_bundle(path, Bundle(model, config, facts, table, statements=named))
    return path


def synthetic_ecg(index=1, *, sampling_rate_hz=100, duration_s=10):
    """A made-up ECG: whole microvolts, as devices store them, and a third of the JSON; twelve leads."""
    ecg = render_synthetic(
        f"synthetic:?seed=0&index={index}&sampling_rate_hz={sampling_rate_hz}&duration_s={duration_s}"
    )
    return replace(ecg, signal_mv=np.round(ecg.signal_mv, 3))


def json_ecg(ecg, *, unit="mV"):
    """The JSON form of an ECG."""
    signal = ecg.signal_mv if unit == "mV" else ecg.signal_mv * 1000
    return {
        "signal": signal.tolist(),
        "unit": unit,
        "leads": list(ecg.leads),
        "sampling_rate_hz": ecg.sampling_rate_hz,
    }


@dataclass(frozen=True)
class Served:
    """A running server: where it answers, what it serves, and where Ray shows its counts."""

    url: str
    bundle: Path
    state: Path
    metrics_url: str

    def metric(self, name, **tags):
        """Sum of a counter (or of `_sum`, `_count` of a histogram) over the samples that carry these tags."""
        text = urllib.request.urlopen(self.metrics_url, timeout=10).read().decode()
        total = 0.0
        for line in text.splitlines():
            if line.startswith(f"ray_{name}{{") and all(f'{key}="{value}"' in line for key, value in tags.items()):
                total += float(line.rsplit(" ", 1)[1])
        return total


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def metrics_url():
    """Where the node of the running Ray shows its metrics."""
    import ray

    (node,) = [node for node in ray.nodes() if node["Alive"]]
    return f"http://127.0.0.1:{node['MetricsExportPort']}/metrics"


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


class Counts:
    """Telemetry of a server without Ray: everything that was counted, as it was called."""

    def __init__(self):
        self.calls = []
        self.lm_texts = []

    def began(self):
        self.calls.append(("began",))

    def ended(self, route, status, latency_ms):
        self.calls.append(("ended", route, status))

    def rejected(self, reason):
        self.calls.append(("rejected", reason))

    def text_cache(self, hits, misses):
        self.calls.append(("text_cache", hits, misses))

    def prompt_set(self, name, version):
        self.calls.append(("prompt_set", name, version))


class Encode:
    """Forward passes of one window."""

    failed_in_a_row = 0

    def __init__(self, predictor):
        self._predictor = predictor

    async def __call__(self, window, place):
        return self._predictor.embed_windows(window[None])[0]


def make_service(bundle_uri, counts, *, with_lm=True, **settings):
    """The service of one replica without Ray: the same predictor, the real LM."""
    config = ServeConfig(bundle_uri=str(bundle_uri), **({"auth": "none"} | settings))
    predictor = Predictor(load_bundle(str(bundle_uri)), device="cpu", text_cache_texts=config.text_cache_texts)

    async def ask_lm(texts):
        counts.lm_texts.append(list(texts))
        return lm()(texts)

    return Service(
        predictor,
        config,
        bundle_uri=str(bundle_uri),
        encode=Encode(predictor),
        ask_lm=ask_lm if with_lm else None,
        telemetry=counts,
    )


class InThisProcess:
    """`ArchiveCalls` without Ray: the same replica, each call on a thread."""

    def __init__(self, replica):
        self._replica = replica

    def __getattr__(self, method):
        return functools.partial(asyncio.to_thread, getattr(self._replica, method))


@contextlib.contextmanager
def plain_server(bundle_uri, **settings):
    """(client, counts) of a uvicorn server in a thread: real HTTP, no Ray."""
    counts = Counts()
    service, archive = make_service(bundle_uri, counts, **settings), None
    if service.config.archive_uri is not None:
        from mets_ray.serve.archive.replica import ArchiveReplica

        archive = InThisProcess(ArchiveReplica(service.config, service.predictor.bundle.digest))
    app = create_app(service, counts, archive=archive)
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield client, counts
    finally:  # a server that outlives a failed test has threads, in which a later fork waits for ever
        server.should_exit = True
        thread.join()
