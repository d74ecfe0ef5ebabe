"""Who gets which CPUs: the one place where the shares of training workers, data tasks and LM actors are computed.

Ray starts workers first and data tasks when they ask. Two one-CPU workers on two CPUs leave nothing for the tasks that
feed them, and both wait for ever without an error. So every share is fixed here, and what cannot fit is refused.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from mets_ray.errors import ConfigError

_SMALLEST_SHARE = 0.05


@dataclass(frozen=True)
class NodeType:
    """Machines of one kind that an autoscaler may start, besides or instead of those that live."""

    resources: Mapping[str, float]
    max_workers: int


def parse_node_types(text: str, name: str) -> list[NodeType]:
    """Node types from JSON: `[{"resources": {"CPU": 8, "GPU": 1}, "max_workers": 4}]`.

    Raises ConfigError, which names the environment variable `name`.
    """
    try:
        return [NodeType(_numbers(item["resources"]), int(item["max_workers"])) for item in json.loads(text)]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"`{name}` is no list of node types: {type(error).__name__}: {error}",
            hint='write for example [{"resources": {"CPU": 8, "GPU": 1}, "max_workers": 4}]',
        ) from error


def read_cluster_yaml(text: str) -> tuple[list[NodeType], int | None]:
    """(worker node types, the most workers of all types together) of a file for Ray's cluster launcher."""
    cluster = yaml.safe_load(text) or {}
    head = cluster.get("head_node_type")
    types = [
        NodeType(_numbers(node_type.get("resources") or {}), int(node_type.get("max_workers", 0)))
        for name, node_type in (cluster.get("available_node_types") or {}).items()
        if name != head
    ]
    most = cluster.get("max_workers")
    return types, None if most is None else int(most)


def nodes_within_reach(
    alive: Sequence[Mapping[str, float]], types: Sequence[NodeType], *, most_nodes: int | None
) -> list[dict[str, float]]:
    """The live nodes and those that may still be started; types of equal resources (spot, on demand) count once.

    most_nodes: workers of all types together; what lives counts, but for the head, which is no worker.
    """
    nodes = [dict(node) for node in alive]
    # A spot type and its on-demand twin stand in for each other: both full at the same time is not what was meant.
    most_of: dict[tuple[tuple[str, float], ...], int] = {}
    for node_type in types:
        key = tuple(sorted(node_type.resources.items()))
        most_of[key] = max(most_of.get(key, 0), node_type.max_workers)
    room = math.inf if most_nodes is None else most_nodes - sum(_has_type(node, list(most_of)) for node in alive)
    # Special machines first: a global limit is met by fewer of the plain ones, as the autoscaler does it on demand.
    for key, most in sorted(most_of.items(), key=lambda item: -len(item[0])):
        missing = most - sum(_has_type(node, [key]) for node in alive)
        for _ in range(int(max(0, min(missing, room)))):
            nodes.append(dict(key))
            room -= 1
    return nodes


def _has_type(node: Mapping[str, float], keys: Sequence[tuple[tuple[str, float], ...]]) -> bool:
    # Ray adds memory and names of its own to what a node was declared with.
    return any(key and all(node.get(name, 0.0) == amount for name, amount in key) for key in keys)


def _numbers(resources: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(amount) for name, amount in resources.items()}


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
    resources: Mapping[str, float] | None = None,
    lm_cpus_per_worker: float = 0.0,
    lm_gpus_per_worker: float = 0.0,
) -> TrainShares:
    """Split the cluster between `num_workers` workers and what feeds them.

    nodes: what each node has, {"CPU": 8, "GPU": 1}. resources: custom resources that one worker takes on its node.
    `lm_*_per_worker` is what streaming LM actors hold beside one worker (0 when text is cached). A worker is never
    larger than what as many nodes as are needed can hold.
    Raises ConfigError, with what is missing, where the request cannot fit.
    """
    resources = resources or {}
    slots = [_slots(node, resources) for node in nodes]
    if sum(min(slot, num_workers) for slot in slots) < num_workers:
        asked = ", ".join(f"{amount:g} {name}" for name, amount in resources.items())
        raise ConfigError(
            f"`train.num_workers` is {num_workers}, each with {asked} (`train.resources`), and the nodes hold "
            f"{sum(slot for slot in slots if math.isfinite(slot)):g} such workers",
            hint="use fewer workers, or nodes with these resources",
        )
    # Workers live on nodes with their resources only; data tasks go anywhere.
    for_workers = [node for node, slot in zip(nodes, slots, strict=True) if slot]
    cluster_cpus, cluster_gpus = (sum(node.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU"))
    worker_gpus = sum(min(node.get("GPU", 0.0), slot) for node, slot in zip(nodes, slots, strict=True))
    elsewhere = cluster_gpus - worker_gpus  # on nodes that workers cannot use: the LM's
    free_gpus = worker_gpus - max(0.0, num_workers * lm_gpus_per_worker - elsewhere)
    if free_gpus < 0:
        raise ConfigError(
            f"streaming LM actors ask for {num_workers * lm_gpus_per_worker:g} GPUs, the cluster has {cluster_gpus:g}",
            hint="lower text.max_actors or text.num_gpus_per_actor, or set text.mode=cached",
        )
    gpus = int(device == "gpu" or (device == "auto" and free_gpus >= num_workers))
    if free_gpus < num_workers * gpus:
        for_lm = f", of which streaming LM actors hold {worker_gpus - free_gpus:g}" if worker_gpus > free_gpus else ""
        raise ConfigError(
            f"`train.num_workers` is {num_workers} with `train.device` gpu, but the cluster has {worker_gpus:g} GPUs"
            f"{' on nodes with `train.resources`' if resources else ''}{for_lm}",
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
    largest = _largest_slot(for_workers, num_workers, resources)
    if share < 2 or largest < 1:
        half = math.floor(min(share / 2, largest) * 100) / 100
        if half < _SMALLEST_SHARE:
            raise ConfigError(
                f"`train.num_workers` is {num_workers}, and the nodes that may hold them have {half:g} CPUs for each",
                hint="use fewer workers, or nodes with more CPUs",
            )
        return TrainShares(worker_cpus=half, task_cpus=half, data_cpus=half, gpus_per_worker=gpus)
    # A GPU worker needs one CPU and hungry data tasks; a CPU worker computes, and its data tasks are few.
    worker = 1 if gpus else max(1, min(math.floor(share * 0.75), math.floor(share) - 1, math.floor(largest)))
    return TrainShares(worker_cpus=worker, task_cpus=1, data_cpus=math.floor(share - worker), gpus_per_worker=gpus)


def check_shared_storage(nodes: int, local_uris: Mapping[str, str]) -> None:
    """Raise ConfigError where several nodes would each read or write a folder of their own.

    local_uris: key of the configuration → its value, for those that are paths of one machine.
    """
    if nodes < 2 or not local_uris:
        return
    named = ", ".join(f"`{key}` is `{uri}`" for key, uri in local_uris.items())
    raise ConfigError(
        f"{named}: a path of one machine, and the cluster has {nodes}",
        hint="use s3://, gs:// or az://; where all machines mount that path, set METS_RAY_SHARED_FILESYSTEM=1",
    )


def _slots(node: Mapping[str, float], resources: Mapping[str, float]) -> float:
    """How many workers a node can hold by their custom resources alone."""
    return min((node.get(name, 0.0) // amount for name, amount in resources.items() if amount), default=math.inf)


def _largest_slot(nodes: Sequence[Mapping[str, float]], num_workers: int, resources: Mapping[str, float]) -> float:
    """The largest number of CPUs of which `num_workers` equal slots fit on the nodes; a slot lies on one node."""
    of_node = [(node.get("CPU", 0.0), _slots(node, resources)) for node in nodes]
    sizes = {cpus / parts for cpus, _ in of_node for parts in range(1, num_workers + 1)}
    fitting = [
        size for size in sizes if size and sum(min(cpus // size, slots) for cpus, slots in of_node) >= num_workers
    ]
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
