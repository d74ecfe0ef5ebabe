"""Who gets which CPUs: the one place where the shares of training workers, data tasks and LM actors are computed.

Ray starts workers first and data tasks when they ask. Two one-CPU workers on two CPUs leave nothing for the tasks that
feed them, and both wait for ever without an error. So every share is fixed here, and what cannot fit is refused.
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
"""What Ray gives the head, and no other node."""

_MEMORY = ("memory", "object_store_memory")
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


def read_cluster_yaml(text: str) -> tuple[list[NodeType], int | None, dict[str, float]]:
    """(worker types, the most workers of all types together, the head's resources) of a file for Ray's launcher."""
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
    """The live nodes and those that may still be started; types of equal resources (spot, on demand) count once.

    most_nodes: workers of all types together; what lives counts, but for the head, which is no worker.
    """
    nodes = [dict(node) for node in alive]
    # A spot type and its on-demand twin stand in for each other: both full at the same time is not what was meant.
    most_of: dict[tuple[tuple[str, float], ...], int] = {}
    for node_type in types:
        key = tuple(sorted(node_type.resources.items()))
        most_of[key] = max(most_of.get(key, 0), node_type.max_workers)
    living = Counter(_type_of(node, most_of) for node in alive if HEAD_RESOURCE not in node)
    room = math.inf if most_nodes is None else most_nodes - sum(living[key] for key in most_of)
    # Special machines first: a global limit is met by fewer of the plain ones, as the autoscaler does it on demand.
    for key, most in sorted(most_of.items(), key=lambda item: -len(item[0])):
        for _ in range(int(max(0, min(most - living[key], room)))):
            nodes.append(dict(key))
            room -= 1
    return nodes


def was_declared_with(node: Mapping[str, float], resources: Mapping[str, float]) -> bool:
    """Whether a live node may be one of these resources: Ray adds names of its own, and memory is never exact."""
    return all(node.get(name, 0.0) == amount for name, amount in resources.items() if name not in _MEMORY)


def _type_of(
    node: Mapping[str, float], types: Iterable[tuple[tuple[str, float], ...]]
) -> tuple[tuple[str, float], ...] | None:
    """The one type that a live node counts for: of {CPU: 7} and {CPU: 7, GPU: 1} the one that says more of it."""
    matching = [key for key in types if key and was_declared_with(node, dict(key))]
    return max(matching, key=len, default=None)


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
    cluster_cpus, cluster_gpus = (sum(node.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU"))
    worker_gpus = sum(_slots(node, {**resources, "GPU": 1}) for node in nodes)
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
    # Workers live on nodes with their resources and their GPU only; data tasks go anywhere.
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
    # A GPU worker needs one CPU and hungry data tasks; a CPU worker computes, and its data tasks are few.
    worker = 1 if gpus else max(1, min(math.floor(share * 0.75), math.floor(share) - 1, math.floor(largest)))
    data = math.floor(share - worker)
    shares = TrainShares(worker_cpus=worker, task_cpus=1, data_cpus=data, gpus_per_worker=gpus)
    return _between_lm_actors(shares, nodes, num_workers, lm_cpus_per_worker)


def check_lm_fits(
    nodes: Sequence[Mapping[str, float]],
    shares: TrainShares,
    *,
    num_workers: int,
    worker_resources: Mapping[str, float],
    actors_per_worker: int,
    actor: Mapping[str, float],
) -> None:
    """Raise ConfigError where the streaming LM actors of all workers cannot stand beside the workers, node by node.

    actor: all that one of them takes, {"CPU": 1, "GPU": 0.5, "lm_gpu": 1}. Sums alone (`train_shares`) do not say it:
    one CPU on each of two nodes is no actor of two.
    """
    worker = {"CPU": shares.worker_cpus, "GPU": shares.gpus_per_worker, **worker_resources}
    wanted = num_workers * actors_per_worker
    found = 0
    # Ray packs workers on few nodes where it can; the smallest first is what leaves most room in one piece.
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
            f"each, and beside the workers the nodes hold {found}",
            hint="lower text.max_actors or what one takes, add such nodes, or set text.mode=cached",
        )


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


def _between_lm_actors(
    shares: TrainShares, nodes: Sequence[Mapping[str, float]], num_workers: int, lm_cpus_per_worker: float
) -> TrainShares:
    # LM actors leave pieces of nodes, wherever Ray puts them. One piece has at least the mean: a task must fit there.
    if not lm_cpus_per_worker:
        return shares
    free = sum(node["CPU"] for node in nodes) - num_workers * (shares.worker_cpus + lm_cpus_per_worker)
    piece = math.floor(free / len(nodes) * 1000) / 1000
    return replace(shares, task_cpus=min(shares.task_cpus, max(piece, 0.001)))


def _slots(node: Mapping[str, float], resources: Mapping[str, float]) -> float:
    """How many of what takes `resources` a node can hold."""
    return min((_times(node.get(name, 0.0), amount) for name, amount in resources.items() if amount), default=math.inf)


def _times(amount: float, size: float) -> int:
    # Not `//`: 5.0 // (5.0 / 3) is 2.
    return math.floor(amount / size + 1e-6)


def _largest_slot(nodes: Sequence[Mapping[str, float]], num_workers: int, resources: Mapping[str, float]) -> float:
    """The largest number of CPUs of which `num_workers` equal slots fit on the nodes; a slot lies on one node."""
    of_node = [(node.get("CPU", 0.0), slots) for node in nodes if (slots := _slots(node, resources))]
    sizes = {cpus / parts for cpus, _ in of_node for parts in range(1, num_workers + 1)}
    fitting = [size for size in sizes if sum(min(_times(cpus, size), slots) for cpus, slots in of_node) >= num_workers]
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
