"""How CPUs and GPUs are divided between training workers, data tasks and LM actors; computed only here.

Ray starts workers first, and data tasks when the workers request data. Two one-CPU workers on two CPUs leave nothing
for the tasks that feed them, and both wait forever without an error. So every share is fixed here, and a request that
cannot fit is rejected.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml

from mets_ray.errors import ConfigError

HEAD_RESOURCE = "node:__internal_head__"
"""A resource that Ray gives only to the head."""

_MEMORY = ("memory", "object_store_memory")
_SMALLEST_SHARE = 0.05


@dataclass(frozen=True)
class NodeType:
    """Machines of one type that an autoscaler may start, in addition to the live ones or to replace them."""

    resources: Mapping[str, float]
    max_workers: int


def parse_node_types(text: str, name: str) -> list[NodeType]:
    """Node types from JSON: `[{"resources": {"CPU": 8, "GPU": 1}, "max_workers": 4}]`.

    Raises ConfigError that names the environment variable `name`.
    """
    try:
        return [NodeType(_numbers(item["resources"]), int(item["max_workers"])) for item in json.loads(text)]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"`{name}` is not a list of node types: {type(error).__name__}: {error}",
            hint='use for example [{"resources": {"CPU": 8, "GPU": 1}, "max_workers": 4}]',
        ) from error


def read_cluster_yaml(text: str) -> tuple[list[NodeType], int | None, dict[str, float]]:
    """(worker types, limit on workers of all types together, resources of the head) from a cluster launcher YAML."""
    cluster = yaml.safe_load(text) or {}
    head = cluster.get("head_node_type")
    types = [
        NodeType(_numbers(node_type.get("resources") or {}), int(node_type.get("max_workers", 0)))
        for name, node_type in (cluster.get("available_node_types") or {}).items()
        if name != head
    ]
    most = cluster.get("max_workers")
    of_head = ((cluster.get("available_node_types") or {}).get(head) or {}).get("resources") or {}
    return types, None if most is None else int(most), _numbers(of_head)


def nodes_within_reach(
    alive: Sequence[Mapping[str, float]], types: Sequence[NodeType], *, most_nodes: int | None
) -> list[dict[str, float]]:
    """The live nodes and those that may still be started; types with equal resources (spot, on-demand) count once.

    most_nodes: limit on workers of all types together. Live nodes count towards it, except the head.
    """
    nodes = [dict(node) for node in alive]
    # A spot type and its on-demand twin are alternatives: they are not meant to be used in full at the same time.
    most_of: dict[tuple[tuple[str, float], ...], int] = {}
    for node_type in types:
        key = tuple(sorted(node_type.resources.items()))
        most_of[key] = max(most_of.get(key, 0), node_type.max_workers)
    living = Counter(_type_of(node, most_of) for node in alive if HEAD_RESOURCE not in node)
    room = math.inf if most_nodes is None else most_nodes - sum(living[key] for key in most_of)
    # Specialised machines first: a global limit reduces the plain ones, as the autoscaler would do on demand.
    for key, most in sorted(most_of.items(), key=lambda item: -len(item[0])):
        for _ in range(int(max(0, min(most - living[key], room)))):
            nodes.append(dict(key))
            room -= 1
    return nodes


def was_declared_with(node: Mapping[str, float], resources: Mapping[str, float]) -> bool:
    """Whether a live node may have been declared with these resources: Ray adds its own, and memory is never exact."""
    return all(node.get(name, 0.0) == amount for name, amount in resources.items() if name not in _MEMORY)


def _type_of(
    node: Mapping[str, float], types: Iterable[tuple[tuple[str, float], ...]]
) -> tuple[tuple[str, float], ...] | None:
    """The type that a live node counts as: of {CPU: 7} and {CPU: 7, GPU: 1}, the more specific match."""
    matching = [key for key in types if key and was_declared_with(node, dict(key))]
    return max(matching, key=len, default=None)


def _numbers(resources: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(amount) for name, amount in resources.items()}


@dataclass(frozen=True)
class TrainShares:
    """CPUs of one training worker, CPUs of one of its data tasks, and the limit for all its data tasks together."""

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
    """Divide the cluster between `num_workers` workers and the data tasks that feed them.

    nodes: resources of each node, {"CPU": 8, "GPU": 1}. resources: custom resources that one worker takes on its node.
    `lm_*_per_worker`: what the streaming LM actors of one worker take (0 if text is cached). A worker is never too
    large for the nodes to hold all `num_workers`. Raises ConfigError, naming what is missing, if the request cannot
    fit.
    """
    resources = resources or {}
    # Without a CPU a node holds no worker, no task and no LM actor, whatever else it has.
    nodes = [node for node in nodes if node.get("CPU", 0.0) > 0]
    slots = [_slots(node, resources) for node in nodes]
    if resources and sum(min(slot, num_workers) for slot in slots) < num_workers:
        asked = ", ".join(f"{amount:g} {name}" for name, amount in resources.items())
        raise ConfigError(
            f"`train.num_workers` is {num_workers}, each with {asked} (`train.resources`), and the nodes hold "
            f"{sum(slots):g} such workers",
            hint="use fewer workers, or nodes with these resources",
        )
    gpus = _gpus_per_worker(nodes, resources, device, num_workers=num_workers, lm_gpus=num_workers * lm_gpus_per_worker)
    cluster_cpus = sum(node.get("CPU", 0.0) for node in nodes)
    share = cluster_cpus / num_workers - lm_cpus_per_worker
    if share < 2 * _SMALLEST_SHARE:
        needed = num_workers * (lm_cpus_per_worker + 2 * _SMALLEST_SHARE)
        raise ConfigError(
            f"`train.num_workers` is {num_workers}: workers, their data tasks and LM actors need at least {needed:g} "
            f"CPUs, the cluster has {cluster_cpus:g}",
            hint="use fewer workers, a smaller text.num_cpus_per_actor, or text.mode=cached",
        )
    # Workers run only on nodes with their resources and their GPU; data tasks run anywhere.
    largest = _largest_slot(nodes, num_workers, {**resources, "GPU": gpus})
    if share < 2 or largest < 1:
        half = math.floor(min(share / 2, largest) * 100) / 100
        if half < _SMALLEST_SHARE:
            raise ConfigError(
                f"`train.num_workers` is {num_workers}, and the nodes that may hold them have {half:g} CPUs for each",
                hint="use fewer workers, or nodes with more CPUs",
            )
        shares = TrainShares(worker_cpus=half, task_cpus=half, data_cpus=half, gpus_per_worker=gpus)
        return _between_lm_actors(shares, nodes, num_workers, lm_cpus_per_worker)
    # A GPU worker needs one CPU and many data tasks; a CPU worker computes on its CPUs and needs few data tasks.
    worker = 1 if gpus else max(1, min(math.floor(share * 0.75), math.floor(share) - 1, math.floor(largest)))
    data = math.floor(share - worker)
    shares = TrainShares(worker_cpus=worker, task_cpus=1, data_cpus=data, gpus_per_worker=gpus)
    return _between_lm_actors(shares, nodes, num_workers, lm_cpus_per_worker)


def _gpus_per_worker(
    nodes: Sequence[Mapping[str, float]],
    resources: Mapping[str, float],
    device: str,
    *,
    num_workers: int,
    lm_gpus: float,
) -> int:
    """0 or 1. lm_gpus: what all streaming LM actors take. Raises ConfigError if the GPUs asked for do not exist."""
    cluster_gpus = sum(node.get("GPU", 0.0) for node in nodes)
    worker_gpus = sum(_slots(node, {**resources, "GPU": 1}) for node in nodes)
    elsewhere = cluster_gpus - worker_gpus  # on nodes that workers cannot use: left for the LM
    free_gpus = worker_gpus - max(0.0, lm_gpus - elsewhere)
    if free_gpus < 0:
        raise ConfigError(
            f"streaming LM actors ask for {lm_gpus:g} GPUs, the cluster has {cluster_gpus:g}",
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
    return gpus


def check_lm_fits(
    nodes: Sequence[Mapping[str, float]],
    shares: TrainShares,
    *,
    num_workers: int,
    worker_resources: Mapping[str, float],
    actors_per_worker: int,
    actor: Mapping[str, float],
) -> None:
    """Raise ConfigError if the nodes cannot hold the streaming LM actors of all workers in addition to the workers.

    actor: resources of one actor, {"CPU": 1, "GPU": 0.5, "lm_gpu": 1}. The check is per node, because sums
    (`train_shares`) are not enough: one free CPU on each of two nodes cannot hold an actor that needs two.
    """
    worker = {"CPU": shares.worker_cpus, "GPU": shares.gpus_per_worker, **worker_resources}
    wanted = num_workers * actors_per_worker
    found = 0
    # Ray packs workers on few nodes if it can; filling the smallest nodes first leaves the largest free pieces.
    for largest_first in (True, False):
        left = [dict(node) for node in sorted(nodes, key=lambda node: node.get("CPU", 0.0), reverse=largest_first)]
        missing = num_workers
        for node in left:
            placed = int(min(missing, _slots(node, worker)))
            missing -= placed
            for name, amount in worker.items():
                node[name] = node.get(name, 0.0) - placed * amount
        found = max(found, 0 if missing else int(sum(min(_slots(node, actor), wanted) for node in left)))
    if found < wanted:
        asked = ", ".join(f"{amount:g} {name}" for name, amount in actor.items() if amount)
        raise ConfigError(
            f"streaming needs {wanted} LM actors, {actors_per_worker} for each of {num_workers} workers, with {asked} "
            f"each, but alongside the workers the nodes hold {found}",
            hint="lower text.max_actors or the resources of one actor, add such nodes, or set text.mode=cached",
        )


def check_shared_storage(nodes: int, local_uris: Mapping[str, str]) -> None:
    """Raise ConfigError if several nodes would each read or write a separate local folder.

    local_uris: key of the configuration → its value, for values that are local paths.
    """
    if nodes < 2 or not local_uris:
        return
    named = ", ".join(f"`{key}` is `{uri}`" for key, uri in local_uris.items())
    raise ConfigError(
        f"{named}: a path of one machine, and the cluster has {nodes}",
        hint="use s3://, gs:// or az://; where all machines mount that path, set METS_RAY_SHARED_FILESYSTEM=1",
    )


def _between_lm_actors(
    shares: TrainShares, nodes: Sequence[Mapping[str, float]], num_workers: int, lm_cpus_per_worker: float
) -> TrainShares:
    # LM actors fragment the free CPUs of nodes. The largest fragment has at least the mean: a task must fit in it.
    if not lm_cpus_per_worker:
        return shares
    free = sum(node["CPU"] for node in nodes) - num_workers * (shares.worker_cpus + lm_cpus_per_worker)
    piece = math.floor(free / len(nodes) * 1000) / 1000
    return replace(shares, task_cpus=min(shares.task_cpus, max(piece, 0.001)))


def _slots(node: Mapping[str, float], resources: Mapping[str, float]) -> float:
    """The number of slots of `resources` that a node can hold."""
    return min((_times(node.get(name, 0.0), amount) for name, amount in resources.items() if amount), default=math.inf)


def _times(amount: float, size: float) -> int:
    # Not `//`: 5.0 // (5.0 / 3) is 2.
    return math.floor(amount / size + 1e-6)


def _largest_slot(nodes: Sequence[Mapping[str, float]], num_workers: int, resources: Mapping[str, float]) -> float:
    """The largest CPUs per slot such that `num_workers` equal slots fit on the nodes; no slot spans two nodes."""
    of_node = [(node.get("CPU", 0.0), slots) for node in nodes if (slots := _slots(node, resources))]
    sizes = {cpus / parts for cpus, _ in of_node for parts in range(1, num_workers + 1)}
    fitting = [size for size in sizes if sum(min(_times(cpus, size), slots) for cpus, slots in of_node) >= num_workers]
    return max(fitting, default=0.0)


def check_actor_fits(
    nodes: Sequence[Mapping[str, float]], *, key: str, cpus: float, gpus: float, resources: Mapping[str, float]
) -> None:
    """Raise ConfigError if no single node can hold one actor."""
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
