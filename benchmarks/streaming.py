"""Does memory stay flat while streaming a data set far larger than the object store? One epoch, no training.

    python benchmarks/streaming.py --folder /tmp/streaming       # 200,000 ECGs, 5 GB; takes minutes; keeps the folder

Shards with the real schema are made from 2,000 synthetic ECGs with noise. Two workers with the shares of a 2-CPU
machine read their lanes with `training_batches`, as in training, through an object store of 500 MB. Meanwhile, private
memory (not shared with other processes, so without the mapped object store) and the store are sampled. The last line of
stdout is one JSON object. `read.flat` is 1 if no group of processes peaks after the first tenth of the records above
1.1 × its peak within it, the store stayed within its limit (it may fill it), and nothing was spilled to disk.
"""

import argparse
import logging
import os
import re
import time
from pathlib import Path
from typing import Any

import psutil
import ray
from bench_table import Row, report
from noisy import write_noisy
from ray._private.internal_api import memory_summary

from mets_ray import storage
from mets_ray.cluster.shares import TrainShares, train_shares
from mets_ray.dataset.card import CARD_NAME
from mets_ray.dataset.folds import Selection
from mets_ray.dataset.plan import EpochPlan, plan_epoch, worker_blocks, worker_lanes
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.ecg.preprocess import SignalConfig
from mets_ray.pipelines.stream import training_batches

SIGNAL = SignalConfig(100, 10.0)
TEMPLATES = 2_000
NUM_WORKERS = 2
FOLDS = tuple(range(1, 11))
LANES, BLOCK_ROWS = 16, 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--store-mb", type=int, default=500)
    arguments = parser.parse_args()
    dataset_uri = storage.absolute(storage.join(arguments.folder, f"streaming-{arguments.records}"))
    if not storage.exists(storage.join(dataset_uri, CARD_NAME)):
        write_noisy(dataset_uri, SIGNAL, records=arguments.records, templates=TEMPLATES, noise_uv=3)

    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    ray.init(
        address="local", num_cpus=2, object_store_memory=arguments.store_mb * 10**6, include_dashboard=False,
        log_to_driver=False, logging_level=logging.ERROR,
    )  # fmt: skip
    figures = _stream(dataset_uri, arguments.batch_size, arguments.store_mb)
    ray.shutdown()
    figures |= {"object_store_mb": arguments.store_mb, "batch_size": arguments.batch_size}
    report(
        [
            Row("read.streamed", (figures["records_per_s"],), "ECG/s", detail=figures),
            Row("read.flat", (float(figures["flat"]),), "", goal=1.0, detail=figures),
        ]
    )


class _Worker:
    """One training worker without a model; it counts records, while another thread answers progress calls."""

    def __init__(self) -> None:
        self._records = 0

    def process_id(self) -> int:
        return os.getpid()

    def records(self) -> int:
        return self._records

    def stream(self, dataset: PreparedDataset, plan: EpochPlan, worker: int, shares: TrainShares) -> dict[str, int]:
        blocks = worker_blocks(plan, worker_lanes(LANES, NUM_WORKERS, worker))
        step, seen, signal_bytes = -1, set(), 0
        for batch in training_batches(
            blocks, first_step=0, dataset=dataset, selection=Selection(FOLDS), template="{}",
            shares=shares, streaming=None,
        ):  # fmt: skip
            step += 1
            assert batch["step"][0] == step
            seen.update(batch["record_id"].tolist())
            signal_bytes += batch["signal_uv"].nbytes
            self._records += len(batch["step"])
        assert len(seen) == self._records
        return {"records": self._records, "signal_bytes": signal_bytes}


def _stream(dataset_uri: str, batch_size: int, store_mb: int) -> dict[str, Any]:
    dataset = PreparedDataset.open(dataset_uri)
    groups = dataset.row_groups(Selection(FOLDS))
    plan = plan_epoch(groups, seed=0, epoch=0, batch_size=batch_size, lanes=LANES, block_rows=BLOCK_ROWS)
    shares = train_shares([{"CPU": 2.0}], num_workers=NUM_WORKERS, device="cpu")
    actor: Any = ray.remote(num_cpus=shares.worker_cpus, max_concurrency=2)(_Worker)  # type: ignore[call-overload]
    workers = [actor.remote() for _ in range(NUM_WORKERS)]
    consumers = set(ray.get([worker.process_id.remote() for worker in workers]))
    began = time.perf_counter()
    running = [worker.stream.remote(dataset, plan, rank, shares) for rank, worker in enumerate(workers)]
    samples = []
    while len(ray.wait(running, num_returns=len(running), timeout=0.5)[0]) < len(running):
        done = sum(ray.get([worker.records.remote() for worker in workers]))
        samples.append((done / (plan.steps * batch_size), _memory_mb(consumers)))
    results = ray.get(running)
    seconds = time.perf_counter() - began
    records = sum(result["records"] for result in results)
    assert records == plan.steps * batch_size

    figures: dict[str, Any] = {
        "records": records,
        "seconds": round(seconds, 1),
        "records_per_s": round(records / seconds),
        "mb_per_s": round(sum(result["signal_bytes"] for result in results) / seconds / 1e6, 1),
        "samples": len(samples),
    }
    flat = True
    for name in samples[0][1]:
        first = max(memory[name] for share, memory in samples if share <= 0.1)
        after = max(memory[name] for share, memory in samples if share > 0.1)
        figures |= {f"{name}_first_tenth": round(first), f"{name}_after": round(after)}
        bound = {"object_store_mb_used": store_mb, "spilled_mb": 0.0}.get(name, 1.1 * first)
        flat = flat and after <= bound
    return figures | {"flat": flat}


def _memory_mb(consumers: set[int]) -> dict[str, float]:
    """Total private memory of the consumers and of Ray's other worker processes; use of the object store."""
    of_consumers = of_tasks = 0.0
    for process in psutil.Process().children(recursive=True):
        try:
            private = process.memory_info().rss - process.memory_info().shared
            if process.pid in consumers:
                of_consumers += private
            elif "ray::" in process.name() or any("ray::" in word for word in process.cmdline()[:1]):
                of_tasks += private
        except psutil.Error:
            continue
    summary = memory_summary(address=ray.get_runtime_context().gcs_address, stats_only=True)
    used = re.search(r"Plasma memory usage (\d+) MiB", summary)
    spilled = re.search(r"Spilled (\d+) MiB", summary)
    assert used is not None, summary
    return {
        "consumers_mb": of_consumers / 1e6,
        "data_tasks_mb": of_tasks / 1e6,
        "object_store_mb_used": float(used[1]) * 1.048576,
        "spilled_mb": float(spilled[1]) * 1.048576 if spilled else 0.0,
    }


if __name__ == "__main__":
    Path("/proc/self/statm").stat()  # shared memory is only reported on Linux
    main()
