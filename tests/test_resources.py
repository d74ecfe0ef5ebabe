"""Shares of a cluster: everybody who must run at the same time fits, or the request is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mets_ray.errors import ConfigError
from mets_ray.resources import (
    NodeType,
    check_actor_fits,
    check_shared_storage,
    nodes_within_reach,
    parse_node_types,
    read_cluster_yaml,
    train_shares,
)


def nodes_of(cpus, gpus=0.0, count=1):
    return [{"CPU": cpus / count, "GPU": gpus / count}] * count


@pytest.mark.parametrize("cpus", [1, 2, 3, 4, 8, 16, 96])
@pytest.mark.parametrize("workers", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("gpus", [0, 8])
@pytest.mark.parametrize("lm_cpus", [0.0, 0.25, 1.0])
def test_workers_their_data_tasks_and_lm_actors_fit_together(cpus, workers, gpus, lm_cpus):
    request = {"num_workers": workers, "device": "auto", "lm_cpus_per_worker": lm_cpus}
    if cpus / workers - lm_cpus < 0.1:
        with pytest.raises(ConfigError, match=r"need at least .* CPUs"):
            train_shares(nodes_of(cpus, gpus), **request)
        return
    shares = train_shares(nodes_of(cpus, gpus), **request)
    assert workers * (shares.worker_cpus + shares.data_cpus + lm_cpus) <= cpus + 1e-9
    assert 0 < shares.task_cpus <= shares.data_cpus  # at least one data task of each worker can always run
    assert shares.worker_cpus > 0
    assert shares.gpus_per_worker == (1 if gpus >= workers else 0)


@pytest.mark.parametrize(
    ("node_cpus", "workers", "expected"),
    [([2, 2], 1, 2), ([8] * 4, 1, 8), ([8] * 3, 2, 8), ([8, 8], 4, 3), ([2, 16], 2, 6), ([4, 4], 2, 3)],
)
def test_no_worker_is_larger_than_the_nodes_can_hold(node_cpus, workers, expected):
    shares = train_shares([{"CPU": float(cpus)} for cpus in node_cpus], num_workers=workers, device="cpu")
    assert shares.worker_cpus == expected
    assert sum(cpus // shares.worker_cpus for cpus in node_cpus) >= workers


def test_a_gpu_worker_leaves_the_cpus_to_its_data():
    shares = train_shares(nodes_of(32, 4), num_workers=4, device="auto")
    assert (shares.worker_cpus, shares.data_cpus, shares.gpus_per_worker) == (1, 7, 1)


def test_gpus_that_are_not_there_are_refused_and_cpu_is_never_replaced():
    with pytest.raises(ConfigError, match="the cluster has 1 GPUs"):
        train_shares(nodes_of(8, 1), num_workers=2, device="gpu")
    assert train_shares(nodes_of(8, 2), num_workers=2, device="cpu").gpus_per_worker == 0


def test_streaming_lm_actors_count_with_their_gpus():
    shared = {"num_workers": 1, "lm_cpus_per_worker": 1.0}
    with pytest.raises(ConfigError, match="of which streaming LM actors hold 1"):
        train_shares(nodes_of(8, 1), device="gpu", lm_gpus_per_worker=1.0, **shared)
    assert train_shares(nodes_of(8, 1), device="auto", lm_gpus_per_worker=1.0, **shared).gpus_per_worker == 0
    assert train_shares(nodes_of(8, 2), device="auto", lm_gpus_per_worker=1.0, **shared).gpus_per_worker == 1
    with pytest.raises(ConfigError, match="ask for 2 GPUs, the cluster has 1"):
        train_shares(nodes_of(8, 1), device="auto", lm_gpus_per_worker=2.0, **shared)


def test_an_actor_that_fits_no_node_is_refused_with_what_is_missing():
    nodes = [{"CPU": 2.0}, {"CPU": 4.0, "lm_gpu": 1.0}]
    check_actor_fits(nodes, key="text", cpus=4, gpus=0, resources={"lm_gpu": 1})
    with pytest.raises(ConfigError, match="asks for 6 CPU, which no node has; the most on one node is 4 CPU"):
        check_actor_fits(nodes, key="text", cpus=6, gpus=0, resources={})
    with pytest.raises(ConfigError, match=r"asks for 1 CPU, 0\.5 GPU"):
        check_actor_fits(nodes, key="text", cpus=1, gpus=0.5, resources={})


def placed(nodes, workers, cpus, resources):
    """Whether that many bundles really fit, node by node, and what is left of the CPUs."""
    left = [dict(node) for node in nodes]
    for _ in range(workers):
        wanted = {"CPU": cpus, **resources}
        home = next((n for n in left if all(n.get(name, 0) >= amount - 1e-9 for name, amount in wanted.items())), None)
        if home is None:
            return None
        for name, amount in wanted.items():
            home[name] -= amount
    return [node["CPU"] for node in left]


NODES = st.lists(
    st.builds(lambda cpus, slots: {"CPU": float(cpus), "slot": float(slots)}, st.integers(0, 9), st.integers(0, 3)),
    min_size=1,
    max_size=6,
)


@given(nodes=NODES, workers=st.integers(1, 6), pinned=st.booleans())
def test_what_is_accepted_fits_node_by_node_and_leaves_room_to_read(nodes, workers, pinned):
    resources = {"slot": 1.0} if pinned else {}
    try:
        shares = train_shares(nodes, num_workers=workers, device="cpu", resources=resources)
    except ConfigError:
        cpus = sum(node["CPU"] for node in nodes)
        slots = sum(min(node["slot"], workers) for node in nodes if node["CPU"])
        assert cpus < 0.1 * workers or (pinned and (slots < workers or cpus < workers)) or cpus < workers
        return
    left = placed(nodes, workers, shares.worker_cpus, resources)
    assert left is not None, "the workers do not fit"
    assert any(cpus >= shares.task_cpus - 1e-9 for cpus in left), "no data task could ever run"


def test_workers_are_pinned_to_nodes_with_their_resources():
    nodes = [{"CPU": 0.0}, {"CPU": 16.0}, {"CPU": 4.0, "GPU": 1.0, "lm_gpu": 1.0}]
    nodes += [{"CPU": 8.0, "GPU": 2.0, "train_gpu": 2.0}] * 2
    four = train_shares(nodes, num_workers=4, device="auto", resources={"train_gpu": 1})
    assert (four.gpus_per_worker, four.worker_cpus) == (1, 1)
    assert train_shares(nodes, num_workers=5, device="auto").gpus_per_worker == 1, "unpinned, one on the LM's GPU"
    with pytest.raises(ConfigError, match=r"each with 1 train_gpu \(`train.resources`\), and the nodes hold 4"):
        train_shares(nodes, num_workers=5, device="auto", resources={"train_gpu": 1})
    # The LM has GPUs of its own, so it takes none of the workers'.
    with_lm = {"lm_gpus_per_worker": 0.25, "resources": {"train_gpu": 1}}
    assert train_shares(nodes, num_workers=4, device="gpu", **with_lm).gpus_per_worker == 1


CLUSTER = """
head_node_type: head
max_workers: 5
available_node_types:
  head: {resources: {CPU: 0}, node_config: {}}
  cpu: {max_workers: 4, resources: {CPU: 16}, node_config: {}}
  spot: {max_workers: 2, resources: {CPU: 8, GPU: 1, train_gpu: 1}, node_config: {}}
  on_demand: {max_workers: 2, resources: {CPU: 8, GPU: 1, train_gpu: 1}, node_config: {}}
"""


def test_a_cluster_at_zero_counts_with_what_its_autoscaler_may_start():
    types, most = read_cluster_yaml(CLUSTER)
    assert most == 5
    assert len(types) == 3
    head = {"CPU": 0.0, "node:10.0.0.1": 1.0}
    reach = nodes_within_reach([head], types, most_nodes=most)
    assert sorted(node["CPU"] for node in reach) == [0, 8, 8, 16, 16, 16], "five workers at most"
    assert sum(node.get("train_gpu", 0) for node in reach) == 2, "spot and on-demand twins count once"
    one_alive = nodes_within_reach(
        [head, {"CPU": 8.0, "GPU": 1.0, "train_gpu": 1.0, "memory": 1e9}], types, most_nodes=5
    )
    assert sum(node.get("train_gpu", 0) for node in one_alive) == 2, "a live node is not counted twice"
    assert len(one_alive) == 6
    assert nodes_within_reach([head], [], most_nodes=None) == [head]


def test_node_types_of_the_environment_are_read_or_refused():
    assert parse_node_types('[{"resources": {"CPU": 8}, "max_workers": 4}]', "X") == [NodeType({"CPU": 8.0}, 4)]
    for text in ("{", '{"CPU": 8}', '[{"resources": {"CPU": 8}}]', '[{"resources": 8, "max_workers": 1}]'):
        with pytest.raises(ConfigError, match="`X` is no list of node types"):
            parse_node_types(text, "X")


def test_local_paths_are_refused_where_there_are_several_machines():
    check_shared_storage(1, {"run_uri": "/runs"})
    check_shared_storage(3, {})
    with pytest.raises(
        ConfigError, match="`run_uri` is `/runs`: a path of one machine, and the cluster has 3"
    ) as error:
        check_shared_storage(3, {"run_uri": "/runs"})
    assert "s3://" in error.value.hint
