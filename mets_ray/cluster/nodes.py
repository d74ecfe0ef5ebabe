"""The nodes of the cluster: those that live, those that an autoscaler may start, and whether they share storage."""

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
"""Environment variable of the driver: what an autoscaler may start, if Ray does not report it (KubeRay)."""

# `ray up` writes the cluster's YAML here, on the head, where submitted jobs run; Ray's GCS does not have it.
_BOOTSTRAP_CONFIG = "~/ray_bootstrap_config.yaml"


def live_nodes() -> list[dict[str, float]]:
    """Resources of each live node."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def reachable_nodes() -> list[dict[str, float]]:
    """Resources of each node that a job can rely on: live nodes, and those that the autoscaler may start.

    If no autoscaler is known, these are the live nodes. Raises ConfigError if METS_RAY_NODES cannot be parsed.
    """
    alive = live_nodes()
    types, most = _node_types(alive)
    return nodes_within_reach(alive, types, most_nodes=most)


def check_storage(uris: Mapping[str, str | None]) -> None:
    """Raise ConfigError for a local path in a cluster of several machines, unless they are declared to share files.

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
    # A job without RAY_ADDRESS starts a separate Ray on the head's machine, which no autoscaler manages.
    ours = any(HEAD_RESOURCE in node and was_declared_with(node, of_head) for node in alive)
    return (types, most) if ours else ([], None)
