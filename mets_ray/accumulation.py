"""One training step's loss, in one forward pass or in parts that fit into memory; negatives are global either way."""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from mets_ray.collectives import Targets, global_contrastive_loss
from mets_ray.encoders import buffers_kept
from mets_ray.errors import ConfigError

Backward = Callable[[torch.amp.GradScaler], None]


def forward_loss(
    wrapped: nn.Module,
    signal_mv: Float[Tensor, "local lead sample"],
    text_features: Float[Tensor, "local text_feature"],
    text_ids: Int64[Tensor, "local"],
    *,
    rows_per_part: int | None,
    autocast: torch.autocast,
    targets: Targets,
    row_counts: list[int],
) -> tuple[Float[Tensor, ""], Backward]:
    """This worker's share of the global loss, without gradient, and a function that adds its gradients.

    wrapped: `Mets`, in DistributedDataParallel or bare. row_counts: rows of every worker. The mean of the shares is the
    loss; no gradient flows before the function is called, so a loss that is not finite can be refused by all workers.

    rows_per_part: rows of one forward pass at most; None, or no fewer than any worker has, is one pass. Else two, as in
    GradCache (Gao et al. 2021, arXiv 2101.06983): embed all parts without a graph, take the global loss's gradient at
    the embeddings, then run each part again and send its share of that gradient through it. Negatives are exactly those
    of the global batch, memory is one part's graph, time is a forward pass more. Loss and gradients equal one pass to
    rounding with norm "group"; norm "batch" takes its statistics from each part, so there it is another computation.

    Raises ConfigError where SyncBatchNorm would wait for a worker that has fewer rows than others have parts.
    """
    # All workers take the same way, whatever their own rows: the order of collectives is not the same on both.
    if rows_per_part is None or max(row_counts) <= rows_per_part:
        with autocast:
            ecg_embedding, text_embedding, logit_scale = wrapped(signal_mv, text_features)
        loss = global_contrastive_loss(
            ecg_embedding, text_embedding, logit_scale, text_ids, targets=targets, row_counts=row_counts
        )
        return loss.detach(), lambda scaler: scaler.scale(loss).backward()

    parts = list(zip(*_split(wrapped, (signal_mv, text_features), rows_per_part, row_counts), strict=True))
    # First pass. Leaving autocast drops its copies of the weights, which have no gradient here.
    with torch.no_grad(), buffers_kept(wrapped), autocast:
        embedded = [wrapped(*part) for part in parts]
    # There is no dropout; with it, the second pass would have to repeat the first one's random numbers.
    ecg_rows, text_rows, logit_scales = zip(*embedded, strict=True)
    ecg_embedding, text_embedding = torch.cat(ecg_rows).requires_grad_(), torch.cat(text_rows).requires_grad_()
    logit_scale = logit_scales[0].requires_grad_()
    loss = global_contrastive_loss(
        ecg_embedding, text_embedding, logit_scale, text_ids, targets=targets, row_counts=row_counts
    )

    def backward(scaler: torch.amp.GradScaler) -> None:
        *at_rows, at_scale = torch.autograd.grad(scaler.scale(loss), [ecg_embedding, text_embedding, logit_scale])
        kept = zip(*(at.split([len(signal) for signal, _ in parts]) for at in at_rows), strict=True)
        for index, (part, gradients) in enumerate(zip(parts, kept, strict=True)):
            last = index == len(parts) - 1
            # Workers add up their own parts and speak once, with the last; forward too must be inside no_sync.
            with nullcontext() if last else getattr(wrapped, "no_sync", nullcontext)():
                with autocast:
                    *rows, scale = wrapped(*part)
                # Each part has its own logit scale; the gradient kept for it is of all rows, so one part takes all.
                torch.autograd.backward(
                    [*rows, scale] if last else rows, [*gradients, at_scale] if last else list(gradients)
                )

    return loss.detach(), backward


def _split(
    wrapped: nn.Module, tensors: tuple[Tensor, ...], rows_per_part: int, row_counts: list[int]
) -> list[tuple[Tensor, ...]]:
    """Each tensor in parts of about equal length; as many on every worker, unless one has too few rows for that."""
    parts = -(-max(row_counts) // rows_per_part)
    fewest = min(row_counts)
    if fewest < parts and any(isinstance(module, nn.SyncBatchNorm) for module in wrapped.modules()):
        raise ConfigError(
            f"`train.micro_batch_size` is {rows_per_part}, which makes {parts} parts of {max(row_counts)} rows, and a "
            f"worker has {fewest} rows: with `encoder.norm` sync every worker must take part in each",
            hint=f"set train.micro_batch_size to {-(-max(row_counts) // fewest)} or more",
        )
    return [tensor.tensor_split(min(parts, len(tensor))) for tensor in tensors]
