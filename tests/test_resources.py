"""Shares of a cluster: everybody who must run at the same time fits, or the request is refused."""

import pytest

from mets_ray.errors import ConfigError
from mets_ray.resources import check_actor_fits, train_shares


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
