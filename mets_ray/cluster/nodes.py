"""What Ray knows that the jobs ask for: the nodes there are or can be, and the error behind an error."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import ray

from mets_ray import storage
from mets_ray.cluster.shares import (
    HEAD_RESOURCE,
    NodeType,
    check_shared_storage,
    nodes_within_reach,
    parse_node_types,
    read_cluster_yaml,
    was_declared_with,
)

SHARED_FILES_VARIABLE = "METS_RAY_SHARED_FILESYSTEM"
"""Environment variable of the driver: 1 where all machines mount the local paths of the configuration."""

NODES_VARIABLE = "METS_RAY_NODES"
"""Environment variable of the driver: what an autoscaler may start, where Ray does not say it (KubeRay)."""

# `ray up` puts the cluster's own YAML there, on the head, where submitted jobs run; Ray's GCS does not know it.
_BOOTSTRAP_CONFIG = "~/ray_bootstrap_config.yaml"


def live_nodes() -> list[dict[str, float]]:
    """Resources of each live node."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def reachable_nodes() -> list[dict[str, float]]:
    """Resources of each node that a job may count on: those that live, and those that the autoscaler may start.

    Raises ConfigError where METS_RAY_NODES cannot be read. Where nothing is known of an autoscaler: the live nodes.
    """
    alive = live_nodes()
    types, most = _node_types(alive)
    return nodes_within_reach(alive, types, most_nodes=most)


def check_storage(uris: Mapping[str, str | None]) -> None:
    """Raise ConfigError for a path of one machine in a cluster of several, unless they are said to share their files.

    uris: key of the configuration → its value.
    """
    if os.environ.get(SHARED_FILES_VARIABLE) != "1":
        local = {key: uri for key, uri in uris.items() if uri is not None and storage.is_local(uri)}
        check_shared_storage(len(reachable_nodes()), local)


def _node_types(alive: Sequence[Mapping[str, float]]) -> tuple[list[NodeType], int | None]:
    if os.environ.get(NODES_VARIABLE):
        return parse_node_types(os.environ[NODES_VARIABLE], NODES_VARIABLE), None
    path = Path(_BOOTSTRAP_CONFIG).expanduser()
    if not path.is_file():
        return [], None
    types, most, of_head = read_cluster_yaml(path.read_text(encoding="utf-8"))
    # A job without RAY_ADDRESS starts a Ray of its own on the head's machine, which no autoscaler looks after.
    ours = any(HEAD_RESOURCE in node and was_declared_with(node, of_head) for node in alive)
    return (types, most) if ours else ([], None)
