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
from mets_ray.dataset.planned_rows import plan_delivery, planned_batches
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.pipelines.lm_actors import embed_stage


def training_batches(
    blocks: list[Block],
    *,
    first_step: int,
    dataset: PreparedDataset,
    selection: Selection,
    template: str | None,
    shares: TrainShares,
    streaming: TextConfig | None,
) -> Iterator[dict[str, np.ndarray]]:
    """One worker's batches of one epoch, in the planned order, starting at `first_step`.

    Each has the columns `step`, `record_id`, `signal_uv` and `text_id` (`PreparedDataset.read_rows`); without a
    `template` reports are not looked at. With `streaming` there are also `embedding` float16 [row, feature] and
    `embedded`.
    """
    if not blocks:
        return
    delivery = plan_delivery(blocks)

    def read(batch: dict[str, Any]) -> dict[str, Any]:
        return dataset.read_rows(unpack_item(batch), selection, template)

    rows = item_dataset(delivery.reads).map_batches(read, batch_size=None, num_cpus=shares.task_cpus)
    _in_order(rows, ExecutionResources(cpu=shares.data_cpus))
    chunks = rows.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=1)
    batches = planned_batches(delivery, iter(chunks), first_step=first_step)
    if streaming is None or template is None:
        yield from batches
        return
    texts = _embedded_texts(
        blocks, streaming, first_step=first_step, dataset=dataset, selection=selection, template=template
    )
    for batch, text in zip(batches, texts, strict=True):
        assert (batch["step"] == text["step"]).all(), f"the texts of step {batch['step'][0]} are of other steps"
        yield batch | {name: text[name] for name in ("embedding", "embedded")}


def _embedded_texts(
    blocks: list[Block],
    lm: TextConfig,
    *,
    first_step: int,
    dataset: PreparedDataset,
    selection: Selection,
    template: str,
) -> Iterator[dict[str, np.ndarray]]:
    """The texts of the same batches through LM actors: their own stream, so that no signal passes through an actor."""
    size = blocks[0].rows_per_step

    def read(batch: dict[str, Any]) -> dict[str, Any]:
        columns = dataset.read_texts(unpack_item(batch), selection, template)
        todo = columns["step"] >= first_step
        return {key: column[todo] for key, column in columns.items()}

    # No CPU is reserved for the texts, which are quickly read: the tasks that read signals may hold all of them.
    texts = embed_stage(item_dataset(blocks).map_batches(read, batch_size=None, num_cpus=0), lm, batch_size=size)
    actors = lm.max_actors
    _in_order(texts, ExecutionResources(cpu=lm.num_cpus_per_actor * actors, gpu=lm.num_gpus_per_actor * actors))
    yield from texts.iter_batches(batch_size=size, batch_format="numpy", prefetch_batches=2)


def record_batches(
    groups: list[RowGroup], *, dataset: PreparedDataset, selection: Selection, batch_size: int, shares: TrainShares
) -> Iterator[dict[str, np.ndarray]]:
    """Selected records of some row groups in stored order, for validation: the columns of `PreparedDataset.read`."""
    if not groups:
        return

    def read(batch: dict[str, Any]) -> pa.Table:
        return dataset.read(unpack_item(batch), selection)

    records = item_dataset(groups).map_batches(read, batch_size=None, num_cpus=shares.task_cpus)
    _in_order(records, ExecutionResources(cpu=shares.data_cpus))
    yield from records.iter_batches(batch_size=batch_size, batch_format="numpy", prefetch_batches=2)


def _in_order(dataset: Dataset, limit: ExecutionResources) -> None:
    # Set on the data set's own context: the driver's context does not reach a training worker.
    options = plain(dataset).context.execution_options
    options.preserve_order = True
    options.resource_limits = limit
