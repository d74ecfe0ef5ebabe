"""One training step's loss, in one forward pass or in parts that fit in memory; negatives are global either way."""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mets_ray.errors import ConfigError
from mets_ray.model.ecg_encoder import buffers_kept

Backward = Callable[[torch.amp.GradScaler], None]
LossOf = Callable[
    [
        Float[Tensor, "local dimension"],  # ECG embeddings
        Float[Tensor, "text dimension"],  # text embeddings
        Float[Tensor, ""],  # logit scale
        Float[Tensor, ""],  # logit bias
    ],
    Float[Tensor, ""],
]
"""A worker's share of the loss over the global batch, computed from the outputs of `Mets`."""


def forward_loss(
    wrapped: nn.Module,
    signal_mv: Float[Tensor, "local lead sample"],
    text_features: Float[Tensor, "text text_feature"],
    loss_of: LossOf,
    *,
    rows_per_part: int | None,
    autocast: torch.autocast,
    row_counts: list[int],
) -> tuple[Float[Tensor, ""], Backward]:
    """This worker's share of the global loss, without gradient, and a function that adds its gradients.

    wrapped: `Mets`, in DistributedDataParallel or bare. text_features: what `loss_of` expects, not
    necessarily one row per ECG. row_counts: ECGs of each worker. The mean of the shares is the loss. No gradient flows
    before the function is called, so all workers can reject a loss that is not finite.

    rows_per_part: the most rows in one forward pass. If it is None, or no worker has more rows, there is one pass.
    Otherwise there are two, as in GradCache (Gao et al. 2021, arXiv 2101.06983): embed all parts without a graph, take
    the gradient of the global loss at the embeddings, then run each part again and backpropagate its share of that
    gradient. Negatives are exactly those of the global batch; memory holds the graph of one part; the cost is one extra
    forward pass. With norm "group", loss and gradients equal those of one pass up to rounding. Norm "batch" takes its
    statistics from each part, so the results differ. Texts cost one matrix product, so each part includes all of them.

    Raises ConfigError if SyncBatchNorm would wait for a worker that has fewer rows than others have parts.
    """
    # All workers take the same branch, whatever their own rows: the two branches order their collectives differently.
    if rows_per_part is None or max(row_counts) <= rows_per_part:
        with autocast:
            embedded = wrapped(signal_mv, text_features)
        loss = loss_of(*embedded)
        return loss.detach(), lambda scaler: scaler.scale(loss).backward()

    parts = _split(wrapped, signal_mv, rows_per_part, row_counts)
    # First pass. Leaving autocast drops its cached casts of the weights, which have no gradient here.
    with torch.no_grad(), buffers_kept(wrapped), autocast:
        first_pass = [wrapped(part, text_features) for part in parts]
    ecg_embedding = torch.cat([ecg for ecg, *_ in first_pass]).requires_grad_()
    others = [tensor.requires_grad_() for tensor in first_pass[0][1:]]  # texts, scale, bias: the same in every part
    loss = loss_of(ecg_embedding, *others)

    def backward(scaler: torch.amp.GradScaler) -> None:
        at_rows, *at_others = torch.autograd.grad(scaler.scale(loss), [ecg_embedding, *others], allow_unused=True)
        kept = at_rows.split([len(part) for part in parts])
        for index, (part, at_part) in enumerate(zip(parts, kept, strict=True)):
            last = index == len(parts) - 1
            # Workers accumulate their own parts and all-reduce once, with the last; forward must be inside no_sync too.
            with nullcontext() if last else getattr(wrapped, "no_sync", nullcontext)():
                with autocast:
                    rows, *same = wrapped(part, text_features)
                # The gradient kept for texts, scale and bias covers all rows, so only one part uses it.
                pairs = [(rows, at_part)]
                pairs += [(one, at) for one, at in zip(same, at_others, strict=True) if last and one.requires_grad]
                torch.autograd.backward([one for one, _ in pairs], [at for _, at in pairs])

    return loss.detach(), backward


def _split(wrapped: nn.Module, signal_mv: Tensor, rows_per_part: int, row_counts: list[int]) -> tuple[Tensor, ...]:
    """The rows in parts of about equal length; the same number on every worker, unless one has too few rows."""
    parts = -(-max(row_counts) // rows_per_part)
    fewest = min(row_counts)
    if fewest < parts and any(isinstance(module, nn.SyncBatchNorm) for module in wrapped.modules()):
        raise ConfigError(
            f"`train.micro_batch_size` is {rows_per_part}, which makes {parts} parts of {max(row_counts)} rows, and a "
            f"worker has {fewest} rows: with `encoder.norm` sync every worker must take part in each",
            hint=f"set train.micro_batch_size to {-(-max(row_counts) // fewest)} or more",
        )
    return signal_mv.tensor_split(min(parts, len(signal_mv)))
