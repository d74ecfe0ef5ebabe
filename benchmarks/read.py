"""Reading a data set for training: in planned order, beside WebDataset tars and a memory map of the same records.

    python benchmarks/read.py              # some 3 minutes on 2 cores; the last line of stdout is one JSON object

20,000 ECGs, 12 × 1000, are a few synthetic ones with other noise each. All three ways give batches of 64 in shuffled
order to one consumer, which has one process that reads for it. `ours`: `training_batches` with a worker's share of two
CPUs. `tar`: what open_clip does, tar shards in shuffled order through a shuffle buffer, one `.npy` and one `.txt` a
record. `memmap`: records drawn one by one from one array on disk. Both go through torch's DataLoader.
`read.planned` is the work alone, without processes: records per CPU second in one thread.
"""

import io
import os
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch
from bench_table import Row, in_turn, ratios, report
from noisy import write_noisy
from torch.utils.data import DataLoader, Dataset, IterableDataset

from mets_ray.cluster.shares import TrainShares, train_shares
from mets_ray.dataset.plan import plan_epoch, worker_blocks
from mets_ray.dataset.planned_rows import plan_delivery, planned_batches
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.dataset.shard_reader import signals
from mets_ray.ecg.preprocess import SignalConfig
from mets_ray.pipelines.stream import training_batches

RECORDS, BATCH = 20_000, 64
LANES, BLOCK_ROWS = 16, 256  # the defaults of `train`
_BUFFER = 4096  # ECGs in the shuffle buffer of the tars, as many as ours has in a block


def rows() -> list[Row]:
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    with tempfile.TemporaryDirectory() as folder:
        data = _write(Path(folder))
        of_cpu = in_turn({"planned": lambda: _planned(data), "stored": lambda: _stored(data)})
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        shares = train_shares([{"CPU": 2.0}], num_workers=1, device="cpu")
        ways = {
            "ours": lambda: _rate(_batch["signal_uv"] for _batch in _ours(data, shares)),
            "tar": lambda: _rate(_loaded(_Tars(sorted(Path(folder).glob("*.tar"))))),
            "memmap": lambda: _rate(_loaded(_Mapped(Path(folder) / "signals.npy"), shuffle=True)),
        }
        speeds = in_turn(ways)
        ray.shutdown()
    absolute = {f"{name}_ecg_per_s": float(np.median(of)) for name, of in speeds.items()}
    stored = {"stored_order_ecg_per_cpu_s": float(np.median(of_cpu["stored"]))}
    return [
        Row("read.planned", of_cpu["planned"], "ECG/CPU s", goal=6000, detail=stored),
        Row("read.vs_tar", ratios(speeds["ours"], speeds["tar"]), goal=1.0, detail=absolute),
        Row("read.vs_memmap", ratios(speeds["ours"], speeds["memmap"]), goal=0.5, detail=absolute),
    ]


def _write(folder: Path) -> PreparedDataset:
    """The records as shards, as tars and as one array."""
    uri = str(folder / "data")
    write_noisy(uri, SignalConfig(100, 10.0), records=RECORDS, templates=500, noise_uv=3)
    data = PreparedDataset.open(uri)
    mapped = np.lib.format.open_memmap(folder / "signals.npy", "w+", np.int16, (RECORDS, 12, 1000))
    at = 0
    for number, shard in enumerate(data.card.shards):
        with tarfile.open(folder / f"{number:05d}.tar", "w") as tar:
            for group in (group for group in data.row_groups(data.all_folds) if group.path == shard.path):
                table = data.read(group, data.all_folds)
                for name, report_text, signal_uv in zip(
                    table["record_id"].to_pylist(), table["report"].to_pylist(), signals(table), strict=True
                ):
                    buffer = io.BytesIO()
                    np.save(buffer, signal_uv)
                    _add(tar, f"{name}.npy", buffer.getvalue())
                    _add(tar, f"{name}.txt", report_text.encode())
                    mapped[at] = signal_uv
                    at += 1
    mapped.flush()
    time.sleep(2.5)  # a file that was just written is checked anew at each opening
    return data


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _blocks(data: PreparedDataset) -> list[Any]:
    plan = plan_epoch(
        data.row_groups(data.all_folds), seed=0, epoch=0, batch_size=BATCH, lanes=LANES, block_rows=BLOCK_ROWS
    )
    return worker_blocks(plan, range(LANES))


def _planned(data: PreparedDataset) -> float:
    began = time.process_time()
    delivery = plan_delivery(_blocks(data))
    chunks = (data.read_rows(read, data.all_folds, "{}") for read in delivery.reads)
    count = sum(len(batch["step"]) for batch in planned_batches(delivery, chunks, first_step=0))
    return count / (time.process_time() - began)


def _stored(data: PreparedDataset) -> float:
    began = time.process_time()
    groups = data.row_groups(data.all_folds)
    count = sum(len(signals(data.read(group, data.all_folds))) for group in groups)
    return count / (time.process_time() - began)


def _ours(data: PreparedDataset, shares: TrainShares) -> Iterator[dict[str, np.ndarray]]:
    return training_batches(
        _blocks(data),
        first_step=0,
        dataset=data,
        selection=data.all_folds,
        template="{}",
        shares=shares,
        streaming=None,
    )


def _rate(batches: Iterator[Any]) -> float:
    """ECG/s after the first batch: each way starts processes before it."""
    next(batches)
    began = time.perf_counter()
    count = sum(len(signal_uv) for signal_uv in batches)
    return count / (time.perf_counter() - began)


def _loaded(dataset: Dataset[Any], *, shuffle: bool = False) -> Iterator[Any]:
    loader = DataLoader(dataset, batch_size=BATCH, shuffle=shuffle, num_workers=1, drop_last=True)
    return (batch[0] for batch in loader)


class _Mapped(Dataset[Any]):
    def __init__(self, path: Path) -> None:
        self._signals = np.load(path, mmap_mode="r")

    def __len__(self) -> int:
        return len(self._signals)

    def __getitem__(self, row: int) -> tuple[np.ndarray, int]:
        return np.array(self._signals[row]), row


class _Tars(IterableDataset[Any]):
    """`WebDataset(tars, shardshuffle=True).shuffle(_BUFFER).decode()`, without its package."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths

    def __iter__(self) -> Iterator[tuple[np.ndarray, str]]:
        random = np.random.default_rng(0)
        held: list[tuple[np.ndarray, str]] = []
        for sample in self._samples(random):
            if len(held) < _BUFFER:
                held.append(sample)
                continue
            row = int(random.integers(len(held)))
            held[row], sample = sample, held[row]
            yield sample
        yield from held

    def _samples(self, random: np.random.Generator) -> Iterator[tuple[np.ndarray, str]]:
        for number in random.permutation(len(self._paths)):
            with tarfile.open(self._paths[number]) as tar:
                members = iter(tar)
                for signal, text in zip(members, members, strict=True):
                    content = tar.extractfile(signal).read()  # type: ignore[union-attr]
                    words = tar.extractfile(text).read().decode()  # type: ignore[union-attr]
                    yield np.load(io.BytesIO(content)), words


if __name__ == "__main__":
    report(rows())
