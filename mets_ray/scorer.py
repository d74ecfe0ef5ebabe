"""What a scoring actor runs: one shard in, one Parquet file of embeddings, similarities and scores out."""

import io
import json
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float
from torch import Tensor

from mets_ray import storage
from mets_ray.checkpoint import load_bundle
from mets_ray.model import Mets
from mets_ray.schema import Shard
from mets_ray.shard_reader import open_shard, read_ahead, signals
from mets_ray.tasks import microvolts_to_millivolts
from mets_ray.zero_shot import scores, similarities

METADATA_KEY = b"mets_ray"
_KEPT_COLUMNS = ("record_id", "patient_id", "fold")


@dataclass(frozen=True)
class ScoreTask:
    """Classes of one task and their unit vectors, float32 [class, dimension]."""

    task: str
    classes: tuple[str, ...]
    vectors: np.ndarray


def score_uri(output_uri: str, shard_path: str) -> str:
    """Where the scores of a shard go: its own name below `output_uri`."""
    return storage.join(output_uri, PurePosixPath(shard_path).name)


class ShardScorer:
    """Loads a bundle once, then scores whole shards.

    A shard is what is finished or not: its file is written at the end and whole, so a job that was killed leaves none
    for it and the next one scores it again. Only the results of one shard are held, and two row groups of signals.
    """

    def __init__(
        self,
        bundle_uri: str,
        tasks: tuple[ScoreTask, ...],
        *,
        dataset_uri: str,
        output_uri: str,
        metadata: dict[str, object],
        embeddings: bool,
        focus: float | None,
        batch_size: int,
        device: str,
    ) -> None:
        self._model: Mets = load_bundle(bundle_uri).model.to(device)
        self._tasks = tasks
        self._vectors = [torch.tensor(task.vectors).to(self._model.text_projection.weight) for task in tasks]
        self._dataset_uri = dataset_uri
        self._output_uri = output_uri
        self._metadata = metadata
        self._embeddings = embeddings
        self._focus = focus
        self._batch_size = batch_size

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One row with a `shard` as JSON → `records` that were scored and the `actor` that did it."""
        (packed,) = batch["shard"]
        records = self.score(Shard.model_validate_json(str(packed)))
        return {"records": [records], "actor": [f"{socket.gethostname()}:{os.getpid()}"]}

    def score(self, shard: Shard) -> int:
        """Score every record of `shard`, write its file; answers the number of records."""
        parts = [
            self._scored(rows.slice(start, self._batch_size))
            for rows in self._row_groups(shard)
            for start in range(0, rows.num_rows, self._batch_size)
        ]
        table = pa.concat_tables(parts)
        metadata = self._metadata | {"shard": shard.path, "shard_sha256": shard.sha256}
        table = table.replace_schema_metadata({METADATA_KEY: json.dumps(metadata).encode()})
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        storage.write_bytes(score_uri(self._output_uri, shard.path), buffer.getvalue())
        return int(table.num_rows)

    def _row_groups(self, shard: Shard) -> Iterator[pa.Table]:
        """One after the other; the next is read while the caller computes."""
        file = open_shard(self._dataset_uri, shard.path)
        columns = [*_KEPT_COLUMNS, "signal_uv"]
        groups = (file.read_row_group(index, columns=columns) for index in range(len(shard.row_group_rows)))
        with ThreadPoolExecutor(1) as reader:
            yield from read_ahead(groups, reader)

    @torch.no_grad()
    def _scored(self, rows: pa.Table) -> pa.Table:
        embedding = self._model.embed_ecg(microvolts_to_millivolts(signals(rows), self._model), self._focus)
        table = rows.select(list(_KEPT_COLUMNS))
        if self._embeddings:
            flat = pa.array(embedding.float().cpu().numpy().reshape(-1))
            table = table.append_column("embedding", pa.FixedSizeListArray.from_arrays(flat, embedding.shape[1]))
        for task, vectors in zip(self._tasks, self._vectors, strict=True):
            similarity = similarities(embedding, vectors)
            for kind, values in (
                ("similarity", similarity),
                ("score", scores(similarity, self._model.logit_scale)),
            ):
                table = _with_columns(table, f"{kind}:{task.task}", task.classes, values)
        return table


def _with_columns(
    table: pa.Table, prefix: str, classes: tuple[str, ...], values: Float[Tensor, "record class"]
) -> pa.Table:
    array = values.float().cpu().numpy()
    for column, name in enumerate(classes):
        table = table.append_column(f"{prefix}:{name}", pa.array(np.ascontiguousarray(array[:, column])))
    return table
