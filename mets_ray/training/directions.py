"""The directions of the training statements, measured on the train records with the weights at the end of an epoch."""

from collections.abc import Callable

import numpy as np
import torch

from mets_ray.dataset.plan import share
from mets_ray.model.mets import Mets, microvolts_to_millivolts
from mets_ray.model.statement_directions import StatementSums, statement_directions
from mets_ray.pipelines.stream import record_batches
from mets_ray.text.reports import apply_template, text_id
from mets_ray.training.collectives import add_over_workers, broadcast_buffers, num_workers, worker_rank
from mets_ray.training.job import TrainJob
from mets_ray.training.texts import Texts

_BATCH = 256


def learn_directions(job: TrainJob, model: Mets, texts: Texts, still_alive: Callable[[], None], epoch: int) -> None:
    """Set `anchor_directions` where the model has anchors and `epoch` may become the bundle.

    One more pass over the train records, without views and without gradients: about a third of an epoch. Each worker
    embeds its share. still_alive: called after each batch. A collective: every worker must call it.
    """
    if texts.anchor_ids is None or not job.may_become_bundle(epoch):
        return
    # As for validation: the checkpoint will hold rank 0's statistics of BatchNorm.
    broadcast_buffers(model)
    model.eval()
    sums = _sums(job, model, texts, texts.anchor_ids, still_alive)
    add_over_workers(sums.parts())
    model.anchor_directions = statement_directions(sums)


@torch.no_grad()
def _sums(
    job: TrainJob, model: Mets, texts: Texts, anchor_ids: np.ndarray, still_alive: Callable[[], None]
) -> StatementSums:
    """Of this worker's share of the train records."""
    assert texts.statements is not None, "anchors are statements"
    sums = StatementSums.zeros(len(anchor_ids), model.text_projection.out_features)
    groups = share(job.train_groups, num_workers(), worker_rank())
    for batch in record_batches(groups, dataset=job.dataset, selection=job.train, batch_size=_BATCH, shares=job.shares):
        embeddings = model.embed_ecg(microvolts_to_millivolts(batch["signal_uv"], model))
        ids = [text_id(apply_template(job.config.text.template, report)) for report in batch["report"]]
        entries = texts.statements.entries(np.asarray(ids, dtype=np.int64), anchor_ids)
        sums.add(embeddings, *map(torch.from_numpy, entries))
        still_alive()
    return sums
