"""The losses over the global batch: the share that each worker computes, and the communication it needs."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from mets_ray.model.loss import contrastive_loss_share, statement_losses, targets_one_hot, targets_same_report
from mets_ray.training.collectives import gather_rows, gather_rows_no_grad, num_workers, worker_rank

Targets = Literal["one_hot", "same_report"]


def global_contrastive_loss(
    ecg_embedding: Float[Tensor, "local dimension"],
    text_embedding: Float[Tensor, "local dimension"],
    logit_scale: Float[Tensor, ""],
    text_ids: Int64[Tensor, "local"],
    *,
    targets: Targets,
    row_counts: list[int],
) -> Float[Tensor, ""]:
    """This worker's share of `contrastive_loss` over the global batch.

    The mean of these shares over workers is the loss, and DistributedDataParallel's mean of their gradients is the
    gradient that one process would compute on the whole batch, up to rounding. text_ids: equal texts have equal ids.
    """
    # Both sides in one gather: one all_gather forward, one all_reduce backward.
    both = gather_rows(torch.cat([ecg_embedding, text_embedding], dim=1), row_counts)
    ecg_columns, text_columns = both.chunk(2, dim=1)
    if targets == "one_hot":
        matrix = targets_one_hot(
            len(text_ids), sum(row_counts), first_row=sum(row_counts[: worker_rank()]), device=text_ids.device
        )
    else:
        matrix = targets_same_report(text_ids, gather_rows_no_grad(text_ids, row_counts))
    return contrastive_loss_share(
        ecg_embedding, text_embedding, ecg_columns, text_columns, logit_scale, matrix, num_workers=num_workers()
    )


def global_statement_loss(
    ecg_embedding: Float[Tensor, "local dimension"],
    statement_embedding: Float[Tensor, "column dimension"],
    logit_scale: Float[Tensor, ""],
    logit_bias: Float[Tensor, ""],
    positives: Bool[Tensor, "local column"],
    *,
    rows: int,
    seen: Bool[Tensor, "local column"] | None = None,
) -> Float[Tensor, ""]:
    """This worker's share of the mean of `statement_losses` over the global batch of `rows` ECGs.

    statement_embedding: all statements of the global batch, the same on every worker. Each worker embeds them itself,
    so nothing is gathered. The mean of all shares is the loss, and its gradient is that of one process. seen: see
    `statement_losses`.
    """
    losses = statement_losses(ecg_embedding, statement_embedding, logit_scale, logit_bias, positives, seen)
    return losses.sum() * num_workers() / rows
