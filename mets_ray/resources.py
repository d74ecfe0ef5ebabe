"""Who gets which CPUs: the one place where the shares of training workers, data tasks and LM actors are computed.

Ray starts workers first and data tasks when they ask. Two one-CPU workers on two CPUs leave nothing for the tasks that
feed them, and both wait for ever without an error. So every share is fixed here, and what cannot fit is refused.
"""

import math
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
    *, cluster_cpus: float, cluster_gpus: float, num_workers: int, device: str, lm_cpus_per_worker: float
) -> TrainShares:
    """Split the cluster between `num_workers` workers and what feeds them.

    `lm_cpus_per_worker` is what streaming LM actors hold beside one worker (0 when text is cached).
    Raises ConfigError, with what is missing, where the request cannot fit.
    """
    gpus = int(device == "gpu" or (device == "auto" and cluster_gpus >= num_workers))
    if gpus and cluster_gpus < num_workers:
        raise ConfigError(
            f"`train.num_workers` is {num_workers} with `train.device` gpu, but the cluster has {cluster_gpus:g} GPUs",
            hint="use fewer workers, more GPU nodes, or train.device=cpu",
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
    worker = 1 if gpus else max(1, min(math.floor(share * 0.75), math.floor(share) - 1))
    return TrainShares(worker_cpus=worker, task_cpus=1, data_cpus=math.floor(share - worker), gpus_per_worker=gpus)


def check_actor_fits(
    *, key: str, cluster: dict[str, float], cpus: float, gpus: float, resources: dict[str, float]
) -> None:
    """Raise ConfigError where even one actor asks for more than the whole cluster has."""
    wanted = {"CPU": cpus, "GPU": gpus, **resources}
    short = {
        name: (amount, cluster.get(name, 0.0)) for name, amount in wanted.items() if amount > cluster.get(name, 0.0)
    }
    if short:
        lack = ", ".join(f"{amount:g} {name} (the cluster has {have:g})" for name, (amount, have) in short.items())
        raise ConfigError(f"one actor of `{key}` asks for {lack}", hint=f"lower it under `{key}`, or add such a node")
