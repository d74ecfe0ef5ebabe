"""The contrastive losses and their targets: pure functions of tensors, without communication."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor


def targets_one_hot(
    rows: int, columns: int, *, first_row: int = 0, device: torch.device | None = None
) -> Float[Tensor, "row column"]:
    """METS's targets: row i belongs to column `first_row + i`, and every other column is a negative."""
    targets = torch.zeros(rows, columns, device=device)
    own = torch.arange(rows, device=device)
    targets[own, own + first_row] = 1.0
    return targets


def targets_same_report(
    row_text_ids: Int64[Tensor, "row"], column_text_ids: Int64[Tensor, "column"]
) -> Float[Tensor, "row column"]:
    """1 where row and column have equal texts, so that equal reports are not negatives of each other.

    If equal texts have equal embeddings, as with a frozen LM, this gives the same loss and gradient as
    `targets_one_hot`: the effect of a duplicate's column exactly offsets the weaker target of the row's own column.
    They differ if one text has several embeddings (paraphrases, sampled sentences), or if equal ids mean more than
    equal wording.
    """
    return (row_text_ids[:, None] == column_text_ids[None, :]).float()


def row_losses(
    row_embeddings: Float[Tensor, "row dimension"],
    column_embeddings: Float[Tensor, "column dimension"],
    logit_scale: Float[Tensor, ""],
    targets: Float[Tensor, "row column"],
) -> Float[Tensor, "row"]:
    """Soft cross-entropy of each row over all columns; embeddings are L2-normalised.

    Each row of `targets` holds weights >= 0, which are normalised to sum to 1. A row of zeros gives nan.
    """
    # In half precision, the matrix product would round logits of up to 100 to steps of 0.5.
    with torch.autocast(row_embeddings.device.type, enabled=False):
        log_probability = (logit_scale * row_embeddings @ column_embeddings.T).log_softmax(dim=-1)
        weights = targets.to(log_probability.dtype)
        return -(weights * log_probability).sum(dim=-1) / weights.sum(dim=-1)


def contrastive_loss(
    ecg_embedding: Float[Tensor, "batch dimension"],
    text_embedding: Float[Tensor, "batch dimension"],
    logit_scale: Float[Tensor, ""],
    targets: Float[Tensor, "batch batch"],
) -> Float[Tensor, ""]:
    """Symmetric InfoNCE over a whole batch: the mean of ECG-to-text and text-to-ECG (METS, PMLR v227, li24a).

    targets: `[ECG, text]`.
    """
    ecg_to_text = row_losses(ecg_embedding, text_embedding, logit_scale, targets)
    text_to_ecg = row_losses(text_embedding, ecg_embedding, logit_scale, targets.T)
    return (ecg_to_text.mean() + text_to_ecg.mean()) / 2


def contrastive_loss_share(
    ecg_rows: Float[Tensor, "row dimension"],
    text_rows: Float[Tensor, "row dimension"],
    ecg_columns: Float[Tensor, "column dimension"],
    text_columns: Float[Tensor, "column dimension"],
    logit_scale: Float[Tensor, ""],
    targets: Float[Tensor, "row column"],
    *,
    num_workers: int,
) -> Float[Tensor, ""]:
    """One worker's share of `contrastive_loss`: its own rows against the columns of the global batch.

    The mean of all workers' shares is the loss over the global batch, for any row counts. Memory grows with
    row x column, not column x column. targets: which rows and columns match, the same in both directions.
    """
    ecg_to_text = row_losses(ecg_rows, text_columns, logit_scale, targets)
    text_to_ecg = row_losses(text_rows, ecg_columns, logit_scale, targets)
    return (ecg_to_text + text_to_ecg).sum() / 2 * num_workers / len(ecg_columns)


def statement_losses(
    ecg_rows: Float[Tensor, "row dimension"],
    statement_columns: Float[Tensor, "column dimension"],
    logit_scale: Float[Tensor, ""],
    logit_bias: Float[Tensor, ""],
    positives: Bool[Tensor, "row column"],
    seen: Bool[Tensor, "row column"] | None = None,
) -> Float[Tensor, "row"]:
    """Binary cross-entropy of each ECG against every statement of the global batch, summed over statements.

    The sigmoid loss of SigLIP (Zhai et al. 2023, arXiv 2303.15343, algorithm 1) with several positives per row. Rows
    are independent, so the losses of any split of the rows sum to the total loss. Embeddings are L2-normalised.

    seen: which statements the view of each ECG can show; the others do not count for it. Default: all.
    """
    with torch.autocast(ecg_rows.device.type, enabled=False):
        logits = logit_scale * ecg_rows @ statement_columns.T + logit_bias
        each = F.binary_cross_entropy_with_logits(logits, positives.to(logits.dtype), reduction="none")
        return (each if seen is None else each * seen).sum(dim=-1)
