"""Does ten times the data take ten times the work and the same memory? `prepare`, reading for training, `score`.

    python benchmarks/growth.py             # 2,000, 6,000 and 20,000 records: some four minutes on 2 cores
    python benchmarks/growth.py --full      # 2,000, 20,000 and 200,000 records: an hour, and 10 GB of disk

`growth.<stage>` is the CPU time of one more record between the two larger sizes, divided by that between the two
smaller ones: what a stage takes once, whatever the size, is in neither. CPU time is that of the driver and of all of
Ray's processes. `growth.<stage>.memory` is the largest private memory of a process that works on records at the
largest size, divided by that at the middle one (the smallest fills no block of the training order); stages share
processes, so it may be what the stage before has left. `detail.driver_mb` grows with the manifest, which the driver
holds.
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from bench_table import Row, report
from local_ray import local_ray
from processes import Peaks
from random_models import write_random_bundle

from mets_ray.cluster.nodes import live_nodes
from mets_ray.cluster.shares import train_shares
from mets_ray.config.load import load_config
from mets_ray.config.settings import PrepareConfig
from mets_ray.console import say
from mets_ray.dataset.plan import plan_epoch, worker_blocks, worker_lanes
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.pipelines.prepare import prepare
from mets_ray.pipelines.score import score
from mets_ray.pipelines.stream import training_batches

SIZES, FULL_SIZES = (2_000, 6_000, 20_000), (2_000, 20_000, 200_000)
WARM_UP = 600
GOAL = 1.1
LANES, BLOCK_ROWS, BATCH_SIZE = 16, 256, 64
WORKERS = ("task", "actor")
TASK = "synthetic"


@dataclass(frozen=True)
class Taken:
    """What a stage took at one size. `worker_mb`, `driver_mb`: the largest private memory."""

    records: int
    cpu_s: float
    worker_mb: float
    driver_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="up to 200,000 records")
    parser.add_argument("--sizes", type=int, nargs=3, help="other numbers of records, ascending")
    arguments = parser.parse_args()
    report(rows(arguments.sizes or (FULL_SIZES if arguments.full else SIZES)))


def rows(sizes: Sequence[int]) -> list[Row]:
    """Two rows for each stage. sizes: three numbers of records, ascending."""
    found: dict[str, list[Taken]] = {"prepare": [], "read": [], "score": []}
    with tempfile.TemporaryDirectory(prefix="growth_") as name, local_ray():
        folder = Path(name)
        bundle_uri = write_random_bundle(folder / "bundle", TASK, width=8, highpass_hz=PrepareConfig().highpass_hz)
        for number, records in enumerate((WARM_UP, *sizes)):
            taken = _stages(folder / str(records), records, bundle_uri)
            shutil.rmtree(folder / str(records))
            say("  " + "  ".join(f"{stage} {one.records}: {one.cpu_s:.1f} s" for stage, one in taken.items()))
            if number:  # the first starts processes
                for stage, one in taken.items():
                    found[stage].append(one)
    return [row for stage, of_size in found.items() for row in _rows(stage, of_size)]


def _rows(stage: str, taken: list[Taken]) -> list[Row]:
    small, middle, large = taken
    before = (middle.cpu_s - small.cpu_s) / (middle.records - small.records)
    after = (large.cpu_s - middle.cpu_s) / (large.records - middle.records)
    detail: dict[str, Any] = {
        "records": [one.records for one in taken],
        "cpu_s": [one.cpu_s for one in taken],
        "cpu_ms_per_record": [1000 * before, 1000 * after],
        "worker_mb": [one.worker_mb for one in taken],
        "driver_mb": [one.driver_mb for one in taken],
    }
    return [
        Row(f"growth.{stage}", (after / before,), goal=GOAL, at_most=True, detail=detail),
        Row(f"growth.{stage}.memory", (large.worker_mb / middle.worker_mb,), goal=GOAL, at_most=True, detail=detail),
    ]


def _stages(folder: Path, records: int, bundle_uri: str) -> dict[str, Taken]:
    words = ["prepare.source=repeated_source:Repeated", f"prepare.source.records={records}", f"run_uri={folder}"]
    config = load_config(None, words)
    dataset_uri = str(folder / "data")
    return {
        "prepare": _taken(records, lambda: prepare(config, dataset_uri, "growth")),
        "read": _taken(records, lambda: _read(dataset_uri)),
        "score": _taken(records, lambda: score(config, dataset_uri, bundle_uri)),
    }


def _taken(records: int, work: Callable[[], object]) -> Taken:
    with Peaks(psutil.Process()) as peaks:
        work()
    private = peaks.private_of_role
    worker_mb = max((private[role] for role in WORKERS if role in private), default=float("nan"))
    return Taken(records, peaks.cpu_s, worker_mb, private["driver"])


def _read(dataset_uri: str) -> None:
    """One epoch in the planned order, as one training worker reads it."""
    dataset = PreparedDataset.open(dataset_uri)
    selection = dataset.all_folds
    plan = plan_epoch(
        dataset.row_groups(selection), seed=0, epoch=0, batch_size=BATCH_SIZE, lanes=LANES, block_rows=BLOCK_ROWS
    )
    batches = training_batches(
        worker_blocks(plan, worker_lanes(LANES, 1, 0)),
        first_step=0,
        dataset=dataset,
        selection=selection,
        template="{}",
        shares=train_shares(live_nodes(), num_workers=1, device="cpu"),
        streaming=None,
    )
    assert sum(len(batch["step"]) for batch in batches) == plan.steps * BATCH_SIZE


if __name__ == "__main__":
    main()
