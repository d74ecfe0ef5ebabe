"""With `train.log_batches`: the records that each step of the surviving history was trained on, in `<run>/batches`.

A part is written just before each checkpoint. Steps that a lost worker ran after its last checkpoint are in no part,
just as they are in no weights. If a step was run twice after all, it is in two parts, and the later one counts.
"""

import json
import time
from collections.abc import Mapping, Sequence

import numpy as np

from mets_ray import storage
from mets_ray.errors import CheckpointError
from mets_ray.training.collectives import gather_objects, worker_rank
from mets_ray.training.job import TrainJob

_FOLDER = "batches"


def write_steps(run_uri: str, epoch: int, steps: Mapping[int, Sequence[str]]) -> None:
    """Write the record ids of some steps of one epoch; each step holds a whole global batch, in order."""
    uri = storage.join(run_uri, _FOLDER, f"{time.time_ns()}-epoch-{epoch:05d}.json")
    storage.write_bytes(uri, json.dumps({"epoch": epoch, "steps": steps}).encode())


def read_batches(run_uri: str) -> dict[tuple[int, int], list[str]]:
    """(epoch, step) → record ids of the global batch. Raises CheckpointError for a part that is damaged."""
    batches: dict[tuple[int, int], list[str]] = {}
    for uri in storage.list_files(storage.join(run_uri, _FOLDER), suffix=".json"):
        try:
            part = json.loads(storage.read_bytes(uri))
            batches |= {(part["epoch"], int(step)): ids for step, ids in part["steps"].items()}
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(
                f"`{uri}` is damaged: {type(error).__name__}: {error}", hint="delete it: training does not need it"
            ) from error
    return batches


class BatchLog:
    """The record ids of the steps since the last checkpoint, with `train.log_batches`."""

    def __init__(self, job: TrainJob) -> None:
        self._run_uri = job.run_uri if job.config.train.log_batches else None
        self._steps: dict[int, list[str]] = {}

    def add(self, step: int, record_ids: np.ndarray) -> None:
        if self._run_uri is not None:
            self._steps[step] = [name for part in gather_objects(record_ids.tolist()) for name in part]

    def write(self, epoch: int) -> None:
        if self._run_uri is not None and self._steps and worker_rank() == 0:
            write_steps(self._run_uri, epoch, self._steps)
        self._steps = {}
