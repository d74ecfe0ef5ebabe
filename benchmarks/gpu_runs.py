"""What `gpu_check.py` checks with Ray: Ray Train, checkpoint and resume, its speed, serving, the language model."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from gpu_steps import Found, Size, unless_too_large
from local_ray import local_job, local_ray, random_texts
from noisy import write_noisy
from random_models import FEATURES, find_or_make_lm, write_random_bundle
from server_process import behind_haproxy

from mets_ray import stops
from mets_ray.cluster.nodes import live_nodes
from mets_ray.cluster.shares import train_shares
from mets_ray.config.load import load_config
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.ecg.ecg import LEADS
from mets_ray.ecg.preprocess import SignalConfig
from mets_ray.model.bundle import build_model, load_bundle
from mets_ray.model.optimization import build_optimizer, choose_precision
from mets_ray.model.predictor import load_predictor
from mets_ray.pipelines.lm_actors import embed_texts
from mets_ray.sources.synthetic import render_synthetic, synthetic_manifest
from mets_ray.text.language_model import FrozenTextEncoder
from mets_ray.training.epoch import open_epoch, train_epoch
from mets_ray.training.fit import fit
from mets_ray.training.state import Running, State
from mets_ray.training.texts import Texts
from mets_ray.training.watch import Reporter, SaveClock, Watch, Watchdog

HERE = Path(__file__).parent
MOST_DEVIATION = 1e-6  # of resumed weights on a GPU, whose sums have no fixed order
TASK = "synthetic"
LOAD_S = 4.0
CLIENTS = 32


def one_worker(size: Size) -> Iterator[tuple[str, Found]]:
    """Ray Train with one worker: it trains, and a run that is stopped and resumed ends with the same weights."""
    records = 600 if size.is_gpu else 120
    with tempfile.TemporaryDirectory() as name, local_ray():
        folder = Path(name)
        write_noisy(str(folder / "data"), SignalConfig(100, 10.0), records=records, templates=64, noise_uv=10)
        words = [
            f"encoder.width={size.width}", f"train.device={'gpu' if size.is_gpu else 'cpu'}", "train.batch_size=32",
            "train.precision=float64",  # in float32 a difference in the last place grows to a hundredth in 160 steps
            # At full size a checkpoint has 95 MB, and is written twice.
            f"train.checkpoint_every_steps={6 if size.is_gpu else 2}", "train.keep_checkpoints=50", "train.epochs=4",
            "folds.validation=[]", f"text.model={find_or_make_lm(folder / 'lm')}", "text.max_actors=1",
        ]  # fmt: skip
        dataset_uri = str(folder / "data")

        def run(place: str, *more: str) -> Any:
            return fit(load_config(None, [*words, f"run_uri={folder / place}", *more]), dataset_uri)

        straight = run("straight")
        last = straight.history[-1]
        yield "worker", {"ok": last["loss"] is not None and straight.restarts == 0, "loss": last["loss"]}
        with _stopped_at_the_first_checkpoint(folder / "stopped"), suppress(KeyboardInterrupt):
            run("stopped")
        (stopped,) = (folder / "stopped").glob("pretrain-*")
        if (stopped / "bundle").exists():
            raise RuntimeError("the run had ended before it could be stopped: nothing was resumed")
        saved = max(path.name for path in stopped.glob("checkpoint-*"))
        resumed = run("stopped", f"train.resume={stopped}")
        one, other = (load_bundle(result.bundle_uri).model.state_dict() for result in (straight, resumed))
        deviation = max(float((one[key] - other[key]).abs().max() / (1e-6 + one[key].abs().max())) for key in one)
        is_same = all(one[key].equal(other[key]) for key in one)
        yield (
            "resume",
            {
                "ok": (is_same or size.is_gpu) and deviation <= MOST_DEVIATION,
                "stopped_after": saved,
                "bit_for_bit": is_same,
                "deviation": deviation,
            },
        )


@contextmanager
def _stopped_at_the_first_checkpoint(folder: Path) -> Iterator[None]:
    """Sends this process a SIGINT, as Ctrl-C does, when the first checkpoint of a run below `folder` is there."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            if list(folder.glob("pretrain-*/checkpoint-*")):
                os.kill(os.getpid(), signal.SIGINT)
                return

    stops.listen()
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def train(size: Size, samples: int) -> Found:
    """ECG/s and the share of time that a step waits for data, by batch size: the stream and the loop of the jobs."""
    found: Found = {"ok": True, "samples": samples}
    with tempfile.TemporaryDirectory() as name, local_ray():
        write_noisy(name, SignalConfig(samples // 10, 10.0), records=size.epoch_records, templates=64, noise_uv=3)
        dataset = PreparedDataset.open(name)
        texts = random_texts(dataset, "{}")
        for batch in (min(size.batches), *size.batches):  # the first starts the processes that read
            figures = unless_too_large(partial(_epoch, size, dataset, texts, batch))
            if isinstance(figures, str):
                found[f"ecg_per_s_{batch}"] = figures
                continue
            found[f"ecg_per_s_{batch}"], found[f"data_wait_share_{batch}"] = figures
    return found


class _Undisturbed(SaveClock):
    """For an epoch outside Ray Train, which alone knows of notices that a node will be taken away."""

    def is_preempted(self) -> bool:
        return False


def _epoch(size: Size, dataset: PreparedDataset, texts: Texts, batch: int) -> Any:
    """(ECG/s, data_wait_share) of the second epoch in this process: as in a run, its first blocks are read while the
    first one ends. The first waits a second or more until Ray Data has started."""
    config = load_config(
        None,
        [f"encoder.width={size.width}", f"train.batch_size={batch}", "text.unit=report", "text.template={}",
         "train.epochs=2", "train.checkpoint_every_minutes=null"],
    )  # fmt: skip
    shares = train_shares(live_nodes(), num_workers=1, device="gpu" if size.is_gpu else "cpu")
    job = local_job(config, dataset, shares)
    device = torch.device(size.device)
    model = build_model(config, leads=len(LEADS), text_features=FEATURES).to(device)
    state = State(
        model=model,
        wrapped=model,
        optimizer=build_optimizer(config.train, model),
        scaler=torch.amp.GradScaler(device.type, enabled=choose_precision(config.train, device) == "fp16"),
        device=device,
    )
    watchdog = Watchdog(config.train.step_timeout_s)
    readers = ThreadPoolExecutor(2)
    try:
        upcoming = [open_epoch(job, texts, (0, 0), readers, device)]
        watch = Watch(Reporter(job.messages), watchdog, _Undisturbed(job))

        def open_second() -> None:
            upcoming.append(open_epoch(job, texts, (1, 0), readers, device))

        train_epoch(job, texts, state, upcoming.pop(), watch, open_next=open_second)
        state.epoch, state.step, state.running = 1, 0, Running()
        figures = train_epoch(job, texts, state, upcoming.pop(), watch, open_next=lambda: None)
    finally:
        watchdog.stop()
        readers.shutdown(wait=False, cancel_futures=True)
        ray.kill(job.messages)
    assert figures is not None
    return figures["ecg_per_s"], figures["data_wait_share"]


def serving(size: Size) -> Found:
    """A replica on the device: it says so, its scores are those of the CPU, and its ECG/s with 32 clients."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle_uri = write_random_bundle(folder / "bundle", TASK, width=size.width)
        ecg = render_synthetic("synthetic:?seed=0&index=1&sampling_rate_hz=100&duration_s=10")
        np.save(folder / "ecg.npy", np.rint(1000 * ecg.signal_mv).astype(np.int16))
        expected = load_predictor(bundle_uri).zero_shot(ecg, prompt_set="descriptive", task=TASK)
        settings = {
            "bundle_uri": bundle_uri, "prompt_set": f"descriptive:{TASK}", "encoder_gpus": float(size.is_gpu),
            "batch_size": 64,
        }  # fmt: skip
        with behind_haproxy(folder / "serve.yaml", settings) as (url, _):
            query = f"{url}?unit=uV&sampling_rate_hz=100&leads={','.join(LEADS)}"
            request = urllib.request.Request(
                query, (folder / "ecg.npy").read_bytes(), {"Content-Type": "application/x-npy"}
            )
            answer = _read_json(request)
            device = _read_json(url.replace("zero-shot", "model"))["device"]
            command = [sys.executable, str(HERE / "load.py"), query, str(folder / "ecg.npy")]
            command += ["--clients", str(CLIENTS), "--duration-s", str(LOAD_S)]
            load = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    similarity = {row["class_name"]: row["similarity"] for row in answer["classes"]}
    deviation = max(abs(similarity[row.class_name] - row.similarity) for row in expected)
    return {
        "ok": device == size.device and set(load["statuses"]) == {"200"} and deviation < 0.01,
        "device": device,
        "deviation": deviation,
        "ecg_per_s": load["per_s"],
        "p95_ms": load["p95_ms"],
    }


def language_model(size: Size) -> Found:
    """Texts/s through the language model, alone and on an actor of Ray; its vectors beside those of the CPU."""
    texts = sorted({row.report for row in synthetic_manifest(4 * size.texts, 0, 100, 10).rows})[: size.texts]
    with tempfile.TemporaryDirectory() as name:
        model = find_or_make_lm(Path(name) / "lm")
        few = texts[:16]
        encoder, on_cpu = (
            FrozenTextEncoder(model, pooling="mean", max_length=128, device=device) for device in (size.device, "cpu")
        )
        deviation = float(np.abs(encoder(few).astype(np.float32) - on_cpu(few).astype(np.float32)).max())
        began = time.perf_counter()
        encoder(texts)
        alone = len(texts) / (time.perf_counter() - began)
        del encoder
        words = [f"text.model={model}", f"text.num_gpus_per_actor={int(size.is_gpu)}", "text.max_actors=1"]
        with local_ray():
            began = time.perf_counter()
            embedded = embed_texts(load_config(None, words).text, f"{name}/store", reports=texts, prompts=[])
            with_start_s = time.perf_counter() - began
    return {
        "ok": deviation < 0.02 and embedded.reports_embedded == len(texts),
        "model": "random weights" if model.endswith("lm") and "/" in model else model,
        "deviation": deviation,
        "texts": len(texts),
        "texts_per_s": alone,
        "actor_with_start_s": with_start_s,
    }


def _read_json(request: urllib.request.Request | str) -> Any:
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())
