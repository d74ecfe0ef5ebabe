"""A run that continues at 90 % of an epoch, beside one that begins it: time and reading until the next batch is there.

    python benchmarks/resume.py         # some two minutes on 2 cores; the last line of stdout is one JSON object

The stream is the jobs' own, opened as a restarted worker opens it. A restart should cost the same wherever it was: what
is read twice is at most a part of one block. `resume.bytes` is exact; `resume.time` is measured in turn.
"""

import argparse
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
from bench_table import ROUNDS, Row, in_turn, ratios, report
from local_ray import local_job, local_ray, random_texts
from noisy import write_noisy
from processes import bytes_read

from mets_ray.cluster.nodes import live_nodes
from mets_ray.cluster.shares import train_shares
from mets_ray.config.load import load_config
from mets_ray.dataset.plan import worker_blocks, worker_lanes
from mets_ray.dataset.planned_rows import plan_delivery, planned_batches
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.ecg.preprocess import SignalConfig
from mets_ray.training.epoch import open_epoch
from mets_ray.training.job import TrainJob
from mets_ray.training.texts import Texts

RECORDS = 12_000
SHARE = 0.9
GOAL = 1.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=RECORDS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    report(rows(arguments.records, arguments.rounds))


def rows(records: int, rounds: int) -> list[Row]:
    """Seconds and bytes to the next batch at 90 % of an epoch, each divided by those at its beginning."""
    with tempfile.TemporaryDirectory(prefix="resume_") as folder, local_ray():
        write_noisy(folder, SignalConfig(100, 10.0), records=records, templates=64, noise_uv=3)
        dataset = PreparedDataset.open(folder)
        config = load_config(None, ["train.batch_size=64"])
        job = local_job(config, dataset, train_shares(live_nodes(), num_workers=1, device="cpu"))
        texts = random_texts(dataset, "{}")
        late = int(SHARE * job.plan(0).steps)
        of_start, of_late = (_bytes_to_the_first_batch(job, step) for step in (0, late))
        ways = {
            "start": partial(_seconds_to_the_next_batch, job, texts, 0),
            "late": partial(_seconds_to_the_next_batch, job, texts, late),
        }
        seconds = in_turn(ways, rounds)
    facts = {"records": records, "steps": job.plan(0).steps, "resumed_at_step": late}
    return [
        Row(
            "resume.time",
            ratios(seconds["late"], seconds["start"]),
            goal=GOAL,
            at_most=True,
            detail={"seconds": seconds, **facts},
        ),
        Row(
            "resume.bytes",
            (of_late / of_start,),
            goal=GOAL,
            at_most=True,
            detail={"bytes_at_start": of_start, "bytes_late": of_late, **facts},
        ),
    ]


def _seconds_to_the_next_batch(job: TrainJob, texts: Texts, step: int) -> float:
    readers = ThreadPoolExecutor(2)
    began = time.perf_counter()
    try:
        batch = next(open_epoch(job, texts, (0, step), readers, torch.device("cpu")).batches)
        seconds = time.perf_counter() - began
    finally:
        readers.shutdown(wait=True, cancel_futures=True)
    assert batch["step"][0] == step, f"the stream began at step {batch['step'][0]} instead of {step}"
    return seconds


def _bytes_to_the_first_batch(job: TrainJob, step: int) -> int:
    """Bytes of what a worker reads until it has its first batch."""
    plan = job.plan(0)
    delivery = plan_delivery(worker_blocks(plan, worker_lanes(plan.lanes, 1, 0), first_step=step))
    before = bytes_read()
    rows = (job.dataset.read_rows(read, job.train, "{}") for read in delivery.reads)
    batch = next(planned_batches(delivery, rows, first_step=step))
    assert batch["step"][0] == step
    return bytes_read() - before


if __name__ == "__main__":
    main()
