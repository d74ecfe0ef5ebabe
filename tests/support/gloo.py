"""Real gloo processes: a body is run by every worker of a group, and what each found comes back."""

import multiprocessing
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

_PRELOADED = ["pytest", "torch.nn.parallel", "torch.multiprocessing", "mets_ray.training.grad_cache"]
_PRELOADED += ["mets_ray.training.global_loss", "mets_ray.model.mets"]
_PRELOADED += ["torch._dynamo"]  # which the first optimizer imports, for a second

Body = Callable[[int, int], dict[Any, Any]]


def run_groups(
    body: Body, worlds: Iterable[int], tmp_path_factory: pytest.TempPathFactory, *, limit_s: float
) -> dict[int, list[dict[Any, Any]]]:
    """By number of workers, what `body(rank, world)` found on each; one group of processes per world."""
    # A server that has imported once forks all workers: importing torch takes longer than they do. It is the same list
    # for all tests, because the first one to start the server decides.
    multiprocessing.set_forkserver_preload(_PRELOADED)
    answers = {}
    for world in worlds:
        folder = tmp_path_factory.mktemp(f"world{world}")
        context = mp.start_processes(
            _worker, args=(world, body, str(folder)), nprocs=world, join=False, start_method="forkserver"
        )
        deadline = time.monotonic() + limit_s
        while not context.join(timeout=1):
            if time.monotonic() > deadline:
                for process in context.processes:
                    process.kill()
                pytest.fail(f"{world} workers did not finish in {limit_s:g} s")
        answers[world] = [torch.load(Path(folder) / f"{rank}.pt") for rank in range(world)]
    return answers


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Each parameter's gradient, by the name it has outside DistributedDataParallel; none may lack one."""
    found = {}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        found[name.removeprefix("module.")] = parameter.grad.clone()
    return found


def _worker(rank: int, world: int, body: Body, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world, timeout=timedelta(seconds=60)
    )
    torch.save(body(rank, world), f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
