"""Serving speed compared with the bare model and with plain uvicorn + FastAPI, in one run on the same machine.

    python benchmarks/serve.py          # about ten minutes on 2 cores; the last line of stdout is one JSON object

The paper's encoder (3.85 M parameters, random weights) on ECGs of 12 x 1000 and 12 x 5000 samples:

bare      only the batched forward pass, int16 in memory, 16 at a time: the limit of the machine
uvicorn   `plain_server.py`: the same model, the same batching, no checks, no Ray
serve     mets_ray on Ray Serve behind HAProxy (RAY_SERVE_ENABLE_HA_PROXY=1), int16 npy bodies, 32 clients

Clients run on the same cores. All three are measured in turn, ROUNDS times, because a shared machine's speed drifts by
a third within minutes; a ratio is the median of the rounds' ratios. Ray is suspended (SIGSTOP) while the others are
measured, so its background work only affects Serve.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import yaml

from mets_ray.config.load import load_config
from mets_ray.console import say
from mets_ray.ecg.ecg import LEADS
from mets_ray.model.bundle import Bundle, BundleFacts, build_model, load_bundle, write_bundle
from mets_ray.model.predictor import Predictor
from mets_ray.sources.synthetic import render_synthetic
from mets_ray.tasks.prompt_sets import load_prompt_set, prompt_texts
from mets_ray.text.embeddings import EmbeddingTable
from mets_ray.text.reports import text_id

HERE = Path(__file__).parent
TASK = "ptbxl_super"
CLIENTS = 32
BATCH_SIZE = 16
THREADS = os.cpu_count() or 1
ROUNDS = 5
OTHER_ROUNDS = 3
BARE_S = 3.0
LOAD_S = 5.0
SETTLES_S = 1.0
BEDS = (400, 800, 1200, 1600)
BEDS_P95_MS = 1000.0


def main() -> None:
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="mets_bench_") as folder:
        for sampling_rate_hz, suffix in ((100, ""), (500, "_5000")):
            bundle, body = _make(Path(folder) / f"{sampling_rate_hz}", sampling_rate_hz)
            results |= {f"{key}{suffix}": value for key, value in _compare(bundle, body, beds=not suffix).items()}
    print(json.dumps(results), flush=True)


def _compare(bundle: Path, body: Path, *, beds: bool) -> dict[str, Any]:
    torch.set_num_threads(THREADS)
    predictor = Predictor(load_bundle(str(bundle)), device="cpu", text_cache_texts=10_000)
    with _uvicorn(bundle) as (uvicorn, _):
        with _serve(bundle, haproxy=True) as (serve, ray):
            rounds = [_round(predictor, body, uvicorn, serve, ray) for _ in range(ROUNDS)]
            mean_batch = _mean_batch(serve, body)
            json_rounds = [_round_of_one(predictor, body.with_suffix(".json"), serve, ray) for _ in range(OTHER_ROUNDS)]
            most_beds = _most_beds(serve, body) if beds else {}
        with _serve(bundle, haproxy=False) as (serve, ray):
            default_rounds = [_round_of_one(predictor, body, serve, ray) for _ in range(OTHER_ROUNDS)]
    figures = {key: float(np.median([one[key] for one in rounds])) for key in rounds[0] if key != "failed"}
    return {
        "throughput_ratio_bare": _median_ratio(rounds, "ecg_per_s", "ecg_per_s_bare"),
        "throughput_ratio_uvicorn": _median_ratio(rounds, "ecg_per_s", "ecg_per_s_uvicorn"),
        "p50_overhead_ms": float(np.median([one["p50_ms"] - one["p50_ms_bare"] for one in rounds])),
        "mean_batch": mean_batch,
        **most_beds,
        "json_ratio_bare": _median_ratio(json_rounds, "ecg_per_s", "ecg_per_s_bare"),
        "default_proxy_ratio_bare": _median_ratio(default_rounds, "ecg_per_s", "ecg_per_s_bare"),
        **figures,
        "failed": sum(one["failed"] for one in rounds + json_rounds + default_rounds),
    }


def _round(predictor: Predictor, body: Path, uvicorn: str, serve: str, ray: psutil.Process) -> dict[str, float]:
    signal_uv = np.load(body)
    with _stopped(ray):
        bare, bare_alone = _bare(predictor, signal_uv, BATCH_SIZE), _bare(predictor, signal_uv, 1)
        plain, plain_alone = _load(uvicorn, body, clients=CLIENTS), _load(uvicorn, body, clients=1)
    busy, alone = _load(serve, body, clients=CLIENTS), _load(serve, body, clients=1)
    return {
        "ecg_per_s": busy["per_s"],
        "ecg_per_s_bare": bare[0],
        "ecg_per_s_uvicorn": plain["per_s"],
        "p50_ms": alone["p50_ms"],
        "p50_ms_bare": bare_alone[1],
        "p50_ms_uvicorn": plain_alone["p50_ms"],
        "p95_ms_at_32": busy["p95_ms"],
        "failed": _failed(busy) + _failed(alone),
    }


def _round_of_one(predictor: Predictor, body: Path, serve: str, ray: psutil.Process) -> dict[str, float]:
    with _stopped(ray):
        bare = _bare(predictor, np.load(body.with_suffix(".npy")), BATCH_SIZE)
    busy = _load(serve, body, clients=CLIENTS)
    return {"ecg_per_s": busy["per_s"], "ecg_per_s_bare": bare[0], "failed": _failed(busy)}


def _median_ratio(rounds: list[dict[str, float]], of: str, to: str) -> float:
    return float(np.median([one[of] / one[to] for one in rounds]))


def _failed(load: dict[str, Any]) -> int:
    return sum(count for status, count in load["statuses"].items() if status != "200")


@contextmanager
def _stopped(process: psutil.Process) -> Iterator[None]:
    """Suspend `process` and all its descendants, and resume them afterwards."""
    family = [process, *process.children(recursive=True)]
    for one in family:
        with suppress(psutil.NoSuchProcess):
            one.suspend()
    try:
        yield
    finally:
        for one in family:
            with suppress(psutil.NoSuchProcess):
                one.resume()
        time.sleep(SETTLES_S)


def _make(folder: Path, sampling_rate_hz: int) -> tuple[Path, Path]:
    """Write a bundle with random weights and the request bodies. Returns (bundle, npy body)."""
    folder.mkdir()
    config = load_config()
    prompt_set = load_prompt_set("descriptive")
    texts = prompt_texts([prompt_set], [TASK])
    draw = np.random.default_rng(0)
    torch.manual_seed(0)
    facts = BundleFacts(
        run="benchmark",
        sampling_rate_hz=sampling_rate_hz,
        duration_s=10.0,
        leads=LEADS,
        text_model="none",
        text_pooling="mean",
        text_max_length=128,
        text_fingerprint="none",
        text_features=384,
        dataset_source="synthetic",
        dataset_sha256="",
        synthetic=True,
        train_folds=(),
        validation=(),
        prompt_sets={"descriptive": prompt_set},
        metrics={},
        history=(),
    )
    ids = np.asarray([text_id(text) for text in texts])
    features = draw.standard_normal((len(texts), 384)).astype(np.float16)
    bundle = folder / "bundle"
    bundle.mkdir()
    model = build_model(config, leads=12, text_features=384)
    write_bundle(bundle, Bundle(model, config, facts, EmbeddingTable.build(ids, features)))
    ecg = render_synthetic(f"synthetic:?seed=0&index=1&sampling_rate_hz={sampling_rate_hz}&duration_s=10")
    signal_uv = np.rint(ecg.signal_mv * 1000).astype(np.int16)
    np.save(folder / "ecg.npy", signal_uv)
    (folder / "ecg.json").write_text(
        json.dumps(
            {
                "ecg": {
                    "signal": np.round(ecg.signal_mv, 3).tolist(),
                    "unit": "mV",
                    "leads": LEADS,
                    "sampling_rate_hz": sampling_rate_hz,
                },
                "prompt_set": f"descriptive:{TASK}",
            }
        )
    )
    return bundle, folder / "ecg.npy"


def _bare(predictor: Predictor, signal_uv: np.ndarray, batch_size: int) -> tuple[float, float]:
    """(ECGs per second, median milliseconds per forward pass)."""
    batch = np.stack([signal_uv] * batch_size)
    for _ in range(3):
        predictor.embed_windows(batch)
    times = []
    while sum(times) < BARE_S:
        began = time.perf_counter()
        predictor.embed_windows(batch)
        times.append(time.perf_counter() - began)
    return batch_size * len(times) / sum(times), 1000 * float(np.median(times))


@contextmanager
def _uvicorn(bundle: Path) -> Iterator[tuple[str, psutil.Process]]:
    port = _free_port()
    command = [sys.executable, str(HERE / "plain_server.py"), str(bundle), str(port), str(THREADS), str(BATCH_SIZE)]
    with _process(command, port, {}) as started:
        yield started


@contextmanager
def _serve(bundle: Path, *, haproxy: bool) -> Iterator[tuple[str, psutil.Process]]:
    port = _free_port()
    config = {
        "proxy_location": "HeadOnly",
        "http_options": {"host": "127.0.0.1", "port": port},
        "logging_config": {"enable_access_log": False},
        "applications": [
            {
                "name": "mets_ray",
                "route_prefix": "/",
                "import_path": "mets_ray.serve:build",
                "args": {
                    "bundle_uri": str(bundle),
                    "prompt_set": f"descriptive:{TASK}",
                    "auth": "none",
                    "batch_size": BATCH_SIZE,
                    "encoder_threads": THREADS,
                    "text_min_replicas": 0,
                    "text_max_replicas": 0,
                    "max_queued_requests": 2000,
                },
            }
        ],
    }
    path = bundle.parent / "serve.yaml"
    path.write_text(yaml.safe_dump(config))
    serve = Path(sys.executable).with_name("serve")
    environment = {"RAY_AUTH_MODE": "disabled", "RAY_SERVE_ENABLE_HA_PROXY": "1" if haproxy else "0"}
    if haproxy:
        environment |= {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1"}
    with _process([str(serve), "run", str(path)], port, environment) as started:
        yield started


@contextmanager
def _process(command: list[str], port: int, environment: dict[str, str]) -> Iterator[tuple[str, psutil.Process]]:
    log = tempfile.TemporaryFile()  # noqa: SIM115  closed below, after the process has ended
    process = psutil.Popen(
        command, env=os.environ | {"RAY_ADDRESS": "local"} | environment, stdout=log, stderr=log, start_new_session=True
    )
    try:
        while not _is_ready(port):
            if process.poll() is not None:
                log.seek(0)
                raise RuntimeError(f"{command} ended: {log.read().decode()[-3000:]}")
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1/zero-shot", process
    finally:
        started = process.children(recursive=True) if process.poll() is None else []
        process.send_signal(signal.SIGINT)
        with suppress(psutil.TimeoutExpired):
            process.wait(timeout=60)
        # HAProxy outlives the Ray that started it and keeps its ports occupied.
        for left in [child for child in started if child.is_running()]:
            with suppress(psutil.NoSuchProcess):
                left.kill()
        with suppress(psutil.NoSuchProcess):
            process.kill()
        log.close()


def _is_ready(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2).read()
    except (urllib.error.URLError, OSError):
        return False
    return True


def _load(url: str, body: Path, *, clients: int = 0, beds: int = 0, duration_s: float = LOAD_S) -> dict[str, Any]:
    as_json = body.suffix == ".json"
    query = "" if as_json else f"?unit=uV&sampling_rate_hz={body.parent.name}&leads={','.join(LEADS)}"
    command = [sys.executable, str(HERE / "load.py"), url + query, str(body), "--duration-s", str(duration_s)]
    command += ["--content-type", "application/json" if as_json else "application/x-npy"]
    command += ["--beds", str(beds)] if beds else ["--clients", str(clients)]
    figures: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    say(f"  {url.split('/')[2]} {body.suffix} clients {clients} beds {beds}: {figures}")
    return figures


def _most_beds(url: str, body: Path) -> dict[str, Any]:
    """The largest number of beds with a 95th percentile latency below one second and no failed request."""
    most: dict[str, Any] = {"beds": 0, "beds_p95_ms": None}
    for beds in BEDS:
        seen = _load(url, body, beds=beds, duration_s=20)
        if set(seen["statuses"]) != {"200"} or seen["p95_ms"] >= BEDS_P95_MS:
            break
        most = {"beds": beds, "beds_p95_ms": seen["p95_ms"]}
    return most


def _mean_batch(serve: str, body: Path) -> float:
    """Windows per forward pass with CLIENTS clients, from the replica's Prometheus counters."""
    before = _counted()
    _load(serve, body, clients=CLIENTS)
    after = _counted()
    return (after["windows"] - before["windows"]) / (after["forward_passes"] - before["forward_passes"])


def _counted() -> dict[str, float]:
    discovery = Path(tempfile.gettempdir()) / "ray" / "prom_metrics_service_discovery.json"
    time.sleep(12)  # counters are exported at least every 10 s
    totals = {"windows": 0.0, "forward_passes": 0.0}
    for target in json.loads(discovery.read_text())[0]["targets"]:
        with urllib.request.urlopen(f"http://{target}/metrics", timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                name = line.partition("{")[0].removeprefix("ray_mets_ray_").removesuffix("_total")
                if name in totals:
                    totals[name] += float(line.rsplit(" ", 1)[1])
    return totals


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


if __name__ == "__main__":
    main()
