"""Serving speed compared with the bare model and with plain uvicorn + FastAPI, in one run on the same machine.

    python benchmarks/serve.py          # about six minutes on 2 cores; the last line of stdout is one JSON object
    python benchmarks/serve.py --encoder-runtime openvino_bf16

The default encoder at the paper's width (4.03 M parameters, random weights) on ECGs of 12 x 1000 and 12 x 5000 samples:

bare      only the batched forward pass of plain PyTorch, int16 in memory, 16 at a time
uvicorn   `plain_server.py`: the same model and runtime, the same batching, no checks, no Ray
serve     mets_ray on Ray Serve behind HAProxy (RAY_SERVE_ENABLE_HA_PROXY=1), int16 npy bodies, 32 clients

Clients run on the same cores. All are measured in turn, because a shared machine's speed drifts by a third within
minutes. Ray is suspended (SIGSTOP) while the others are measured, so its background work only affects Serve.

`serve.one_client_ms`: what one client waits longer than for the bare pass of its ECG. `serve.beds`: patients with an
ECG every 10 s of whom 95 in 100 are answered within a second, as a share of those that the throughput would do.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from bench_table import Row, in_turn, ratios, report
from random_models import write_random_bundle
from server_process import behind_haproxy, free_port, server_process

from mets_ray.console import say
from mets_ray.ecg.ecg import LEADS
from mets_ray.model.bundle import load_bundle
from mets_ray.model.mets import microvolts_to_millivolts
from mets_ray.sources.synthetic import render_synthetic

HERE = Path(__file__).parent
TASK = "ptbxl_super"
CLIENTS = 32
BATCH_SIZE = 16
THREADS = len(os.sched_getaffinity(0))
BARE_S = 1.5
LOAD_S, WARM_UP_S = 3.0, 1.0
SETTLES_S = 0.5
BED_PERIOD_S = 10.0
BEDS_P95_MS = 1000.0
BED_SHARES = (1.0, 0.95, 0.9, 0.8, 0.6)
BED_ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder-runtime", default="auto")
    runtime = parser.parse_args().encoder_runtime
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory(prefix="mets_bench_") as folder:
        found = [row for samples in (1000, 5000) for row in _rows(Path(folder) / f"{samples}", samples, runtime)]
    report(found)


def _rows(folder: Path, samples: int, runtime: str) -> list[Row]:
    body = _make(folder, sampling_rate_hz=samples // 10)
    bundle = folder / "bundle"
    with _uvicorn(bundle, runtime) as (uvicorn, _), _serve(bundle, runtime) as (serve, ray):
        ways = _ways(body, uvicorn, serve, ray)
        if samples == 5000:
            ways = {name: ways[name] for name in ("bare", "serve")}
        seen = in_turn(ways)
        medians = {name: float(np.median(values)) for name, values in seen.items()} | {"encoder_runtime": runtime}
        ours = ratios(seen["serve"], seen["bare"])
        if samples == 5000:
            return [Row("serve.5000.binary", ours, goal=2.0, detail=medians)]
        beds = [_share_of_beds(serve, body, per_s=seen["serve"][-1]) for _ in range(BED_ROUNDS)]
    waits = tuple(one - bare for one, bare in zip(seen["alone_ms"], seen["bare_alone_ms"], strict=True))
    return [
        Row("serve.1000.binary", ours, goal=1.1, detail=medians),
        Row("serve.uvicorn", ratios(seen["serve"], seen["uvicorn"]), goal=0.9, detail=medians),
        Row("serve.one_client_ms", waits, unit="ms", goal=2.0, at_most=True, detail=medians),
        Row("serve.beds", tuple(beds), goal=0.95, detail={"throughput": seen["serve"][-1]}),
    ]


def _ways(body: Path, uvicorn: str, serve: str, ray: psutil.Process) -> dict[str, Callable[[], float]]:
    """ECGs per second, and for one ECG after the other the median milliseconds (`_ms`)."""
    bundle, signal_uv = body.parent / "bundle", np.load(body)
    model = load_bundle(str(bundle)).model.eval()

    def stopped(measure: Callable[[], float]) -> Callable[[], float]:
        def measured() -> float:
            with _stopped(ray):
                return measure()

        return measured

    return {
        "bare": stopped(lambda: _bare(model, signal_uv, BATCH_SIZE)[0]),
        "bare_alone_ms": stopped(lambda: _bare(model, signal_uv, 1)[1]),
        "uvicorn": stopped(lambda: _throughput(uvicorn, body)),
        "serve": lambda: _throughput(serve, body),
        "alone_ms": lambda: float(_load(serve, body, clients=1)["p50_ms"]),
    }


def _throughput(url: str, body: Path) -> float:
    seen = _load(url, body, clients=CLIENTS)
    assert set(seen["statuses"]) == {"200"}, seen
    return float(seen["per_s"])


def _share_of_beds(serve: str, body: Path, *, per_s: float) -> float:
    """The largest of `BED_SHARES` of the beds that `per_s` would do whose requests are all answered in time."""
    for share in BED_SHARES:
        seen = _load(serve, body, beds=round(share * BED_PERIOD_S * per_s), duration_s=BED_PERIOD_S)
        if set(seen["statuses"]) == {"200"} and seen["p95_ms"] < BEDS_P95_MS:
            return share
    return 0.0


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


def _make(folder: Path, *, sampling_rate_hz: int) -> Path:
    """Write a bundle and the request body. Returns the body."""
    write_random_bundle(folder / "bundle", TASK, sampling_rate_hz=sampling_rate_hz)
    ecg = render_synthetic(f"synthetic:?seed=0&index=1&sampling_rate_hz={sampling_rate_hz}&duration_s=10")
    np.save(folder / "ecg.npy", np.rint(ecg.signal_mv * 1000).astype(np.int16))
    return folder / "ecg.npy"


@torch.inference_mode()
def _bare(model: torch.nn.Module, signal_uv: np.ndarray, batch_size: int) -> tuple[float, float]:
    """(ECGs per second, median milliseconds per forward pass) of plain PyTorch."""
    batch = np.stack([signal_uv] * batch_size)
    times = []
    while sum(times) < BARE_S:
        began = time.perf_counter()
        model.embed_ecg(microvolts_to_millivolts(batch, model)).numpy()
        times.append(time.perf_counter() - began)
    return batch_size * len(times) / sum(times), 1000 * float(np.median(times))


@contextmanager
def _uvicorn(bundle: Path, runtime: str) -> Iterator[tuple[str, psutil.Process]]:
    port = free_port()
    plain = [str(HERE / "plain_server.py"), str(bundle), str(port), str(THREADS), str(BATCH_SIZE), runtime]
    command = [sys.executable, *plain]
    with server_process(command, port) as process:
        yield f"http://127.0.0.1:{port}/v1/zero-shot", process


def _serve(bundle: Path, runtime: str) -> AbstractContextManager[tuple[str, psutil.Process]]:
    settings = {
        "bundle_uri": str(bundle),
        "prompt_set": f"descriptive:{TASK}",
        "batch_size": BATCH_SIZE,
        "encoder_runtime": runtime,
        "encoder_threads": THREADS,
    }
    return behind_haproxy(bundle.parent / "serve.yaml", settings)


def _load(url: str, body: Path, *, clients: int = 0, beds: int = 0, duration_s: float = LOAD_S) -> dict[str, Any]:
    query = f"?unit=uV&sampling_rate_hz={int(body.parent.name) // 10}&leads={','.join(LEADS)}"
    command = [sys.executable, str(HERE / "load.py"), url + query, str(body), "--duration-s", str(duration_s)]
    command += ["--warm-up-s", str(WARM_UP_S)]
    command += ["--beds", str(beds)] if beds else ["--clients", str(clients)]
    figures: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    say(f"  {url.split('/')[2]} clients {clients} beds {beds}: {figures}")
    return figures


if __name__ == "__main__":
    main()
