"""With `train.log_batches`: which records every step of the surviving history has seen, below `<run>/batches`.

A part is written just before each checkpoint. What a lost worker saw after its last checkpoint is in no part, as it is
in no weights; a step that was done twice after all stands in two parts, and the later one counts.
"""

import json
import time
from collections.abc import Mapping, Sequence

from mets_ray import storage

_FOLDER = "batches"


def write_steps(run_uri: str, epoch: int, steps: Mapping[int, Sequence[str]]) -> None:
    """The record ids of some steps of one epoch, each a whole global batch in its order."""
    uri = storage.join(run_uri, _FOLDER, f"{time.time_ns()}-epoch-{epoch:05d}.json")
    storage.write_bytes(uri, json.dumps({"epoch": epoch, "steps": steps}).encode())


def read_batches(run_uri: str) -> dict[tuple[int, int], list[str]]:
    """(epoch, step) → record ids of the global batch."""
    batches: dict[tuple[int, int], list[str]] = {}
    for uri in storage.list_files(storage.join(run_uri, _FOLDER), suffix=".json"):
        part = json.loads(storage.read_bytes(uri))
        batches |= {(part["epoch"], int(step)): ids for step, ids in part["steps"].items()}
    return batches
