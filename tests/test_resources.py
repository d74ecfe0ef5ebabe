"""Shares of a cluster: everybody who must run at the same time fits, or the request is refused."""

import pytest

from mets_ray.errors import ConfigError
from mets_ray.resources import check_actor_fits, train_shares


@pytest.mark.parametrize("cpus", [1, 2, 3, 4, 8, 16, 96])
@pytest.mark.parametrize("workers", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("gpus", [0, 8])
@pytest.mark.parametrize("lm_cpus", [0.0, 0.25, 1.0])
def test_workers_their_data_tasks_and_lm_actors_fit_together(cpus, workers, gpus, lm_cpus):
    request = {"cluster_cpus": cpus, "cluster_gpus": gpus, "num_workers": workers, "device": "auto"}
    if cpus / workers - lm_cpus < 0.1:
        with pytest.raises(ConfigError, match=r"need at least .* CPUs"):
            train_shares(**request, lm_cpus_per_worker=lm_cpus)
        return
    shares = train_shares(**request, lm_cpus_per_worker=lm_cpus)
    assert workers * (shares.worker_cpus + shares.data_cpus + lm_cpus) <= cpus + 1e-9
    assert 0 < shares.task_cpus <= shares.data_cpus  # at least one data task of each worker can always run
    assert shares.worker_cpus > 0
    assert shares.gpus_per_worker == (1 if gpus >= workers else 0)


def test_a_gpu_worker_leaves_the_cpus_to_its_data():
    shares = train_shares(cluster_cpus=32, cluster_gpus=4, num_workers=4, device="auto", lm_cpus_per_worker=0.0)
    assert (shares.worker_cpus, shares.data_cpus, shares.gpus_per_worker) == (1, 7, 1)


def test_gpus_that_are_not_there_are_refused_and_cpu_is_never_replaced():
    with pytest.raises(ConfigError, match="the cluster has 1 GPUs"):
        train_shares(cluster_cpus=8, cluster_gpus=1, num_workers=2, device="gpu", lm_cpus_per_worker=0.0)
    shares = train_shares(cluster_cpus=8, cluster_gpus=2, num_workers=2, device="cpu", lm_cpus_per_worker=0.0)
    assert shares.gpus_per_worker == 0


def test_an_actor_that_fits_no_cluster_is_refused_with_what_is_missing():
    cluster = {"CPU": 2.0}
    check_actor_fits(key="text", cluster=cluster, cpus=2, gpus=0, resources={})
    with pytest.raises(ConfigError, match=r"0\.5 GPU \(the cluster has 0\), 1 lm_gpu \(the cluster has 0\)"):
        check_actor_fits(key="text", cluster=cluster, cpus=1, gpus=0.5, resources={"lm_gpu": 1})
