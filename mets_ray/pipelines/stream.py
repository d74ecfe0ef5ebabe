"""Read shards from storage: training batches in the planned order, records in stored order."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from ray.data import Dataset, ExecutionResources

from mets_ray.cluster.ray_data import item_dataset, plain, unpack_item
from mets_ray.cluster.shares import TrainShares
from mets_ray.config.settings import TextConfig
from mets_ray.dataset.folds import Selection
from mets_ray.dataset.plan import Block, RowGroup
from mets_ray.dataset.prepared import PreparedDataset


def training_batches(
    blocks: list[Block],
    *,
    first_step: int,
    dataset: PreparedDataset,
    selection: Selection,
    template: str,
    shares: TrainShares,
    streaming: TextConfig | None,
) -> Iterator[dict[str, np.ndarray]]:
    """One worker's batches of one epoch, in the planned order, starting at `first_step`.

    Each has the columns of `PreparedDataset.read_block`. With `streaming` there are also `embedding` float16
    [row, feature] and `embedded`; without it there is no `text`.
    """
    if not blocks:
        return
    rows = blocks[0].rows_per_step

    def read(batch: dict[str, Any]) -> dict[str, Any]:
        columns = dataset.read_block(unpack_item(batch), selection, template)
        if streaming is None:
            del columns["text"]
        todo = columns["step"] >= first_step
        return columns if todo.all() else {key: column[todo] for key, column in columns.items()}

    stream = item_dataset(blocks).map_batches(read, batch_size=None, num_cpus=shares.task_cpus)
    limit = ExecutionResources(cpu=shares.data_cpus)
    if streaming is not None:
        # Imported here: it imports torch, which would slow the start of every task that only reads or writes.
        from mets_ray.pipelines.lm_actors import embed_stage

        stream = embed_stage(stream, streaming, batch_size=rows)
        lm_cpus = streaming.num_cpus_per_actor * streaming.max_actors
        limit = ExecutionResources(
            cpu=shares.data_cpus + lm_cpus, gpu=streaming.num_gpus_per_actor * streaming.max_actors
        )
    _in_order(stream, limit)
    for batch in stream.iter_batches(batch_size=rows, batch_format="numpy", prefetch_batches=2):
        steps = set(batch["step"].tolist())
        assert len(steps) == 1, f"a batch mixes the steps {sorted(steps)}: the stream left the planned order"
        yield batch


def record_batches(
    groups: list[RowGroup], *, dataset: PreparedDataset, selection: Selection, batch_size: int, shares: TrainShares
) -> Iterator[dict[str, np.ndarray]]:
    """Selected records of some row groups in stored order, for validation: the columns of `PreparedDataset.read`."""
    if not groups:
        return
    records = record_dataset(groups, dataset, selection, num_cpus=shares.task_cpus)
    _in_order(records, ExecutionResources(cpu=shares.data_cpus))
    yield from records.iter_batches(batch_size=batch_size, batch_format="numpy", prefetch_batches=2)


def record_dataset(
    groups: list[RowGroup], dataset: PreparedDataset, selection: Selection, *, num_cpus: float | None = None
) -> Dataset:
    """Selected records of some row groups as a lazy Ray data set."""

    def read(batch: dict[str, Any]) -> pa.Table:
        return dataset.read(unpack_item(batch), selection)

    return item_dataset(groups).map_batches(read, batch_size=None, num_cpus=num_cpus)


def _in_order(dataset: Dataset, limit: ExecutionResources) -> None:
    # Set on the data set's own context: the driver's context does not reach a training worker.
    options = plain(dataset).context.execution_options
    options.preserve_order = True
    options.resource_limits = limit
