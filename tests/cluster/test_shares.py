"""Shares of a cluster: everybody who must run at the same time fits, or the request is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mets_ray.cluster.shares import (
    HEAD_RESOURCE,
    NodeType,
    check_actor_fits,
    check_lm_fits,
    check_shared_storage,
    nodes_within_reach,
    parse_node_types,
    read_cluster_yaml,
    train_shares,
)
from mets_ray.errors import ConfigError


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


def place(nodes, count, wanted, random):
    """What is left of each node once that many are placed, each wherever it fits; None where one does not."""
    left = [dict(node) for node in nodes]
    for _ in range(count):
        homes = [n for n in left if all(n.get(name, 0) >= amount - 1e-9 for name, amount in wanted.items())]
        if not homes:
            return None
        home = random.choice(homes)
        for name, amount in wanted.items():
            home[name] -= amount
    return left


class FirstFit:
    """Stands in for random.Random: what is packed, is packed on the first node that has room."""

    def choice(self, homes):
        return homes[0]


def of_worker(shares, resources):
    return {"CPU": shares.worker_cpus, "GPU": shares.gpus_per_worker, **resources}


def can_run(nodes, cpus):
    return any(node["CPU"] >= cpus - 1e-9 for node in nodes)


NODES = st.lists(
    st.fixed_dictionaries(
        {
            "CPU": st.integers(0, 9).map(float),
            "GPU": st.sampled_from([0.0, 0.0, 1.0, 4.0]),
            "slot": st.integers(0, 3).map(float),
        }
    ),
    min_size=1,
    max_size=6,
)
DEVICES = st.sampled_from(["cpu", "auto", "gpu"])


@given(nodes=NODES, workers=st.integers(1, 6), pinned=st.booleans(), device=DEVICES, random=st.randoms())
def test_what_is_accepted_fits_node_by_node_and_leaves_room_to_read(nodes, workers, pinned, device, random):
    resources = {"slot": 1.0} if pinned else {}
    try:
        shares = train_shares(nodes, num_workers=workers, device=device, resources=resources)
    except ConfigError:
        smallest = {"CPU": 0.05, **resources} | ({"GPU": 1.0} if device == "gpu" else {})
        # Half of the CPUs are for reading, so a tenth of one each is what is promised.
        room = sum(node["CPU"] for node in nodes) >= 0.1 * workers
        assert not (room and place(nodes, workers, smallest, random)), "refused what fits"
        return
    assert (shares.gpus_per_worker == 1) >= (device == "gpu")
    left = place(sorted(nodes, key=lambda node: -node["CPU"]), workers, of_worker(shares, resources), FirstFit())
    assert left is not None, "the workers do not fit"
    assert can_run(left, shares.task_cpus), "no data task could ever run"


LM = st.fixed_dictionaries({"CPU": st.sampled_from([0.25, 0.5, 1.0, 2.0]), "GPU": st.sampled_from([0.0, 0.5, 1.0])})


@given(
    nodes=NODES,
    workers=st.integers(1, 4),
    actors=st.integers(1, 2),
    actor=LM,
    pinned=st.booleans(),
    device=DEVICES,
    random=st.randoms(),
)
def test_streaming_lm_actors_fit_beside_the_workers(nodes, workers, actors, actor, pinned, device, random):
    resources = {"slot": 1.0} if pinned else {}
    per_worker = {f"lm_{name.lower()}s_per_worker": actors * amount for name, amount in actor.items()}
    beside = {"worker_resources": resources, "actors_per_worker": actors, "actor": actor}
    try:
        shares = train_shares(nodes, num_workers=workers, device=device, resources=resources, **per_worker)
        check_lm_fits(nodes, shares, num_workers=workers, **beside)
    except ConfigError:
        return
    both = []
    for sign in (-1, 1):  # the workers on the largest nodes first, or on the smallest
        order = sorted(nodes, key=lambda node: sign * node["CPU"])
        left = place(order, workers, of_worker(shares, resources), FirstFit())
        both.append(left and place(left, workers * actors, actor, random))
    assert any(both), "the LM actors do not fit"
    for left in filter(None, both):  # wherever the actors came to stand
        assert can_run(left, shares.task_cpus), "no data task could ever run"


def test_lm_actors_are_counted_in_whole_ones():
    nodes = [{"CPU": 3.0}, {"CPU": 2.0}, {"CPU": 1.0}]
    shares = train_shares(nodes, num_workers=1, device="cpu", lm_cpus_per_worker=4.0)
    beside = {"num_workers": 1, "worker_resources": {}, "actors_per_worker": 2}
    check_lm_fits(nodes, shares, actor={"CPU": 2.0}, **beside)
    with pytest.raises(ConfigError, match=r"needs 2 LM actors, .* with 3 CPU each, .* the nodes hold 1"):
        check_lm_fits(nodes, shares, actor={"CPU": 3.0}, **beside)
    with pytest.raises(ConfigError, match="with 1 CPU, 1 lm_gpu each, but alongside the workers the nodes hold 0"):
        check_lm_fits(nodes, shares, actor={"CPU": 1.0, "GPU": 0.0, "lm_gpu": 1.0}, **beside)


def test_a_data_task_fits_the_pieces_that_lm_actors_leave():
    nodes = [{"CPU": 1.0}] * 3
    shares = train_shares(nodes, num_workers=2, device="cpu", lm_cpus_per_worker=0.75)
    assert shares.worker_cpus == 0.37  # both on one node, an LM actor on each other one: 0.26, 0.25, 0.25 are left
    assert shares.task_cpus <= 0.26
    assert train_shares([{"CPU": 3.0}], num_workers=2, device="cpu", lm_cpus_per_worker=0.75).task_cpus == 0.37


@pytest.mark.parametrize("cpus", range(1, 33))
def test_one_node_is_shared_by_as_many_workers_as_have_a_tenth_of_a_cpu(cpus):
    for workers in range(1, min(10 * cpus, 40) + 1):  # 5 CPUs for 3 were refused: 5.0 // (5.0 / 3) is 2
        shares = train_shares([{"CPU": float(cpus)}], num_workers=workers, device="cpu")
        assert workers * (shares.worker_cpus + shares.data_cpus) <= cpus + 1e-9


def test_gpu_workers_are_no_larger_than_the_cpus_of_nodes_with_gpus():
    nodes = [{"CPU": 16.0}, {"CPU": 2.0, "GPU": 4.0}]
    assert train_shares(nodes, num_workers=4, device="gpu").worker_cpus == 0.5
    with pytest.raises(ConfigError, match="the cluster has 0 GPUs"):
        train_shares([{"CPU": 16.0}, {"CPU": 0.0, "GPU": 4.0}], num_workers=1, device="gpu")
    with pytest.raises(ConfigError, match=r"need at least 0\.1 CPUs, the cluster has 0"):
        train_shares([{"CPU": 0.0}], num_workers=1, device="cpu")


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
    types, most, of_head = read_cluster_yaml(CLUSTER)
    assert (most, of_head) == (5, {"CPU": 0.0})
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


def test_a_live_node_counts_for_one_type_and_the_head_for_none():
    types = [NodeType({"CPU": 7.0}, 8), NodeType({"CPU": 7.0, "GPU": 1.0, "memory": 2.0e10}, 4)]
    gpu = {"CPU": 7.0, "GPU": 1.0, "memory": 1.9e10, "node:10.0.0.2": 1.0}
    head = {"CPU": 7.0, HEAD_RESOURCE: 1.0}
    reach = nodes_within_reach([head, gpu, gpu], types, most_nodes=None)
    assert sum(node.get("GPU", 0) for node in reach) == 4, "two live, two to come"
    assert len(reach) == 1 + 8 + 4
    assert len(nodes_within_reach([head, gpu, gpu], types, most_nodes=5)) == 1 + 5


def test_node_types_of_the_environment_are_read_or_refused():
    assert parse_node_types('[{"resources": {"CPU": 8}, "max_workers": 4}]', "X") == [NodeType({"CPU": 8.0}, 4)]
    for text in ("{", '{"CPU": 8}', '[{"resources": {"CPU": 8}}]', '[{"resources": 8, "max_workers": 1}]'):
        with pytest.raises(ConfigError, match="`X` is not a list of node types"):
            parse_node_types(text, "X")


def test_local_paths_are_refused_where_there_are_several_machines():
    check_shared_storage(1, {"run_uri": "/runs"})
    check_shared_storage(3, {})
    with pytest.raises(
        ConfigError, match="`run_uri` is `/runs`: a path of one machine, and the cluster has 3"
    ) as error:
        check_shared_storage(3, {"run_uri": "/runs"})
    assert "s3://" in error.value.hint
