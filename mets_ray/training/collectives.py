"""Communication between workers. Every worker must make the same calls in the same order, or all of them hang.

Without a process group, every function acts as in a group of one worker.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.autograd.function import once_differentiable


def worker_rank() -> int:
    """This worker's rank, from 0."""
    return dist.get_rank() if _in_a_group() else 0


def num_workers() -> int:
    """Workers in the process group."""
    return dist.get_world_size() if _in_a_group() else 1


def gather_rows(rows: Float[Tensor, "local *row"], row_counts: list[int]) -> Float[Tensor, "all *row"]:
    """All workers' rows, ordered by rank, with gradient.

    row_counts: rows of each worker; they may differ. Backward gives each worker the sum, over all workers, of the
    gradients of its rows. Raises ValueError if `row_counts` does not match the group or this worker's rows.
    """
    _check(rows, row_counts)
    if num_workers() == 1:
        return rows
    gathered: Tensor = _GatherRows.apply(rows, row_counts)  # type: ignore[no-untyped-call]
    return gathered


@torch.no_grad()
def gather_rows_no_grad(rows: Shaped[Tensor, "local *row"], row_counts: list[int]) -> Shaped[Tensor, "all *row"]:
    """Like `gather_rows`, for ids and other rows that need no gradient."""
    _check(rows, row_counts)
    return rows.detach() if num_workers() == 1 else _gather(rows, row_counts)


def sums_over_workers(values: Sequence[float]) -> list[float]:
    """The sum over workers of each of several values, on every worker, in a single all-reduce."""
    if num_workers() == 1:
        return list(values)
    totals = torch.tensor(values, dtype=torch.float64, device=_device())
    dist.all_reduce(totals)
    return totals.tolist()


def add_over_workers(tensors: Iterable[Float[Tensor, "*size"]]) -> None:
    """Replace each tensor by its sum over workers, in place, on every worker."""
    if num_workers() > 1:
        for tensor in tensors:
            total = tensor.to(_device())
            dist.all_reduce(total)
            tensor.copy_(total)


def sum_over_workers(value: float) -> float:
    """The sum of each worker's value, on every worker."""
    return sums_over_workers([value])[0]


def mean_over_workers(value: float) -> float:
    """The mean of each worker's value, on every worker."""
    return sum_over_workers(value) / num_workers()


def broadcast_object(value: Any, source: int = 0) -> Any:
    """The picklable value of worker `source`, on every worker."""
    if num_workers() == 1:
        return value
    carrier = [value]
    dist.broadcast_object_list(carrier, src=source)
    return carrier[0]


def broadcast_buffers(module: torch.nn.Module) -> None:
    """Copy rank 0's buffers (BatchNorm's running statistics) to every worker."""
    if num_workers() > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)


def gather_objects(value: Any) -> list[Any]:
    """Every worker's picklable value, ordered by rank, on every worker."""
    if num_workers() == 1:
        return [value]
    values: list[Any] = [None] * num_workers()
    dist.all_gather_object(values, value)
    return values


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error says that another worker died or stopped responding, so that the cause is there."""
    # gloo raises plain RuntimeErrors; their text names its C++ file.
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo/" in str(error))


class _GatherRows(torch.autograd.Function):
    # torch.distributed.nn.functional does the same for equal counts, but torch 2.13 deprecates it.

    @staticmethod
    def forward(ctx: Any, rows: Tensor, row_counts: list[int]) -> Tensor:
        ctx.row_counts = row_counts
        return _gather(rows, row_counts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        # all_reduce works in place, and autograd may still need the gradient that it passed in.
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.split(ctx.row_counts)[dist.get_rank()], None


def _gather(rows: Tensor, row_counts: list[int]) -> Tensor:
    # all_gather needs equal shapes: workers with fewer rows send padding, which is cut off again.
    padded = rows.new_zeros(max(row_counts), *rows.shape[1:])
    padded[: len(rows)] = rows
    received = [torch.empty_like(padded) for _ in row_counts]
    dist.all_gather(received, padded)
    return torch.cat([part[:count] for part, count in zip(received, row_counts, strict=True)])


def _check(rows: Tensor, row_counts: list[int]) -> None:
    if len(row_counts) != num_workers() or row_counts[worker_rank()] != len(rows):
        raise ValueError(f"worker {worker_rank()} of {num_workers()} has {len(rows)} rows, row_counts is {row_counts}")


def _in_a_group() -> bool:
    return dist.is_available() and dist.is_initialized()


def _device() -> torch.device:
    # NCCL only supports GPU tensors.
    if dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
