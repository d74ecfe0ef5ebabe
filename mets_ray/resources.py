"""Who gets which CPUs: the one place where the shares of training workers, data tasks and LM actors are computed.

Ray starts workers first and data tasks when they ask. Two one-CPU workers on two CPUs leave nothing for the tasks that
feed them, and both wait for ever without an error. So every share is fixed here, and what cannot fit is refused.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mets_ray.errors import ConfigError

_SMALLEST_SHARE = 0.05


@dataclass(frozen=True)
class TrainShares:
    """CPUs of one training worker, of one of its data tasks, and the limit of all its data tasks together."""

    worker_cpus: float
    task_cpus: float
    data_cpus: float
    gpus_per_worker: int


def train_shares(
    nodes: Sequence[Mapping[str, float]],
    *,
    num_workers: int,
    device: str,
    lm_cpus_per_worker: float = 0.0,
    lm_gpus_per_worker: float = 0.0,
) -> TrainShares:
    """Split the cluster between `num_workers` workers and what feeds them.

    nodes: what each live node has, {"CPU": 8, "GPU": 1}. `lm_*_per_worker` is what streaming LM actors hold beside one
    worker (0 when text is cached). A worker is never larger than what as many nodes as are needed can hold.
    Raises ConfigError, with what is missing, where the request cannot fit.
    """
    cluster_cpus, cluster_gpus = (sum(node.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU"))
    free_gpus = cluster_gpus - num_workers * lm_gpus_per_worker
    if free_gpus < 0:
        raise ConfigError(
            f"streaming LM actors ask for {cluster_gpus - free_gpus:g} GPUs, the cluster has {cluster_gpus:g}",
            hint="lower text.max_actors or text.num_gpus_per_actor, or set text.mode=cached",
        )
    gpus = int(device == "gpu" or (device == "auto" and free_gpus >= num_workers))
    if free_gpus < num_workers * gpus:
        for_lm = f", of which streaming LM actors hold {cluster_gpus - free_gpus:g}" if lm_gpus_per_worker else ""
        raise ConfigError(
            f"`train.num_workers` is {num_workers} with `train.device` gpu, but the cluster has {cluster_gpus:g} GPUs"
            f"{for_lm}",
            hint="use fewer workers, more GPU nodes, text.mode=cached, or train.device=cpu",
        )
    share = cluster_cpus / num_workers - lm_cpus_per_worker
    if share < 2 * _SMALLEST_SHARE:
        needed = num_workers * (lm_cpus_per_worker + 2 * _SMALLEST_SHARE)
        raise ConfigError(
            f"`train.num_workers` is {num_workers}: workers, their data tasks and LM actors need at least {needed:g} "
            f"CPUs, the cluster has {cluster_cpus:g}",
            hint="use fewer workers, a smaller text.num_cpus_per_actor, or text.mode=cached",
        )
    if share < 2:
        half = math.floor(share / 2 * 100) / 100
        return TrainShares(worker_cpus=half, task_cpus=half, data_cpus=half, gpus_per_worker=gpus)
    # A GPU worker needs one CPU and hungry data tasks; a CPU worker computes, and its data tasks are few.
    largest = math.floor(_largest_slot([node.get("CPU", 0.0) for node in nodes], num_workers))
    worker = 1 if gpus else max(1, min(math.floor(share * 0.75), math.floor(share) - 1, largest))
    return TrainShares(worker_cpus=worker, task_cpus=1, data_cpus=math.floor(share - worker), gpus_per_worker=gpus)


def _largest_slot(node_cpus: Sequence[float], num_workers: int) -> float:
    """The largest number of CPUs of which `num_workers` equal slots fit on the nodes; a slot lies on one node."""
    sizes = {cpus / parts for cpus in node_cpus for parts in range(1, num_workers + 1)}
    fitting = [size for size in sizes if size and sum(cpus // size for cpus in node_cpus) >= num_workers]
    return max(fitting, default=0.0)


def check_actor_fits(
    nodes: Sequence[Mapping[str, float]], *, key: str, cpus: float, gpus: float, resources: Mapping[str, float]
) -> None:
    """Raise ConfigError where no single node can hold even one actor."""
    wanted = {"CPU": cpus, "GPU": gpus, **resources}
    if any(all(amount <= node.get(name, 0.0) for name, amount in wanted.items()) for node in nodes):
        return
    asked = ", ".join(f"{amount:g} {name}" for name, amount in wanted.items() if amount)
    largest = ", ".join(
        f"{max((node.get(name, 0.0) for node in nodes), default=0.0):g} {name}"
        for name, amount in wanted.items()
        if amount
    )
    raise ConfigError(
        f"one actor of `{key}` asks for {asked}, which no node has; the most on one node is {largest}",
        hint=f"lower it under `{key}`, or add such a node",
    )
