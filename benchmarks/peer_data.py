"""The same ECGs and reports in the three forms that `peers.py` compares: one array, tar files, our shards."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from noisy import write_noisy
from processes import bytes_read

from mets_ray.dataset.folds import Selection
from mets_ray.dataset.plan import plan_epoch, worker_blocks, worker_lanes
from mets_ray.dataset.planned_rows import plan_delivery
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.dataset.shard_reader import signals
from mets_ray.ecg.preprocess import SignalConfig

SIGNAL = SignalConfig(100, 10.0)
TAR_RECORDS = 256


def write_data(folder: Path, *, records: int, folds: list[int]) -> dict[str, Any]:
    """Write `array.npy` with `reports.json`, `tars/`, and `dataset/`. Returns their facts."""
    dataset_uri = str(folder / "dataset")
    write_noisy(dataset_uri, SIGNAL, records=records, templates=records, noise_uv=3)
    dataset, selection = PreparedDataset.open(dataset_uri), Selection(tuple(folds))
    rows = pa.concat_tables(dataset.read(group, selection) for group in dataset.row_groups(selection))
    signal_uv, reports = signals(rows), rows["report"].to_pylist()
    np.save(folder / "array.npy", signal_uv)
    (folder / "reports.json").write_text(json.dumps(reports))
    (folder / "tars").mkdir()
    for number, start in enumerate(range(0, len(reports), TAR_RECORDS)):
        with tarfile.open(folder / "tars" / f"{number:05d}.tar", "w") as tar:
            for row in range(start, min(start + TAR_RECORDS, len(reports))):
                data = io.BytesIO()
                np.save(data, signal_uv[row])
                _add(tar, f"{row:07d}.npy", data.getvalue())
                _add(tar, f"{row:07d}.txt", reports[row].encode())
    return {"records": len(reports), "distinct_reports": len(set(reports))}


def bytes_of_planned_epoch(dataset_uri: str, folds: list[int], batch_size: int) -> float:
    """Bytes that one epoch in the planned order reads from our shards, for each ECG."""
    dataset, selection = PreparedDataset.open(dataset_uri), Selection(tuple(folds))
    groups = dataset.row_groups(selection)
    plan = plan_epoch(groups, seed=0, epoch=0, batch_size=batch_size, lanes=16, block_rows=256)
    delivery = plan_delivery(worker_blocks(plan, worker_lanes(16, 1, 0)))
    before = bytes_read()
    for read in delivery.reads:
        dataset.read_rows(read, selection, "{}")
    return (bytes_read() - before) / (plan.steps * batch_size)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
