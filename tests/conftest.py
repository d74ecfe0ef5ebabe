"""One Ray cluster and one small data set for the whole session: starting them costs more than using them."""

import gc
import os
import tempfile
from pathlib import Path
from unittest import mock

import pytest
from xdist.scheduler import LoadScopeScheduling

import tests.support.typecheck  # noqa: F401  jaxtyping looks it up as an attribute of `tests`
from tests.support.processes import NO_STATE_API
from tests.support.syntax_trees import build_one_at_a_time
from tests.support.warm_workers import warm_server, warm_workers

build_one_at_a_time()
_home = tempfile.TemporaryDirectory(prefix="mets_ray_home_", ignore_cleanup_errors=True)
# Before ray is imported anywhere: a HOME of its own, no token, reports that return at once, and fewer processes.
os.environ |= {
    "HOME": _home.name,
    "RAY_AUTH_MODE": "disabled",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_idle_worker_killing_time_threshold_ms": "60000",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # an actor more for each worker group; test_nodes has it
    "RAY_worker_niceness": "0",  # at Ray's 15, what else is tested beside it takes the CPUs
    "OMP_NUM_THREADS": "1",  # beside another lane, torch's threads would wait for each other at every layer
    "OMP_WAIT_POLICY": "PASSIVE",  # a training worker with two CPUs has two threads; one that waits would hold a core
    "RAY_USAGE_STATS_ENABLED": "0",  # an actor that collects what Ray's makers are told
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "HF_HUB_OFFLINE": "1",
}
os.environ.pop("RAY_ADDRESS", None)

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def data_folder():
    """The real ECGs, or a skip that says how to have them."""
    folder = Path(os.environ.get("METS_TEST_DATA", "")).absolute()
    if not os.environ.get("METS_TEST_DATA") or not (folder / "ptb-xl" / "ptbxl_database.csv").exists():
        pytest.skip("METS_TEST_DATA names no folder with ptb-xl/ptbxl_database.csv")
    return folder


@pytest.fixture(scope="session")
def warm():
    """A server that forks Ray's workers, for clusters whose start is not what is tested."""
    with warm_server():
        yield


@pytest.fixture(scope="session")
def ray_cluster(request, warm):
    """A local cluster with 4 logical CPUs, whatever the machine has."""
    import ray

    # Each report costs CPU: often only where metrics are tested.
    tests_metrics = any(item.path == ROOT / "tests/ray/test_serve.py" for item in request.session.items)
    often = {"RAY_metrics_report_interval_ms": "1000"} if tests_metrics else {}
    with warm_workers(), mock.patch.dict(os.environ, NO_STATE_API | often):
        ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()


@pytest.fixture(scope="session")
def ray_address(ray_cluster):
    """Where jobs find the local cluster."""
    return ray_cluster.get_runtime_context().gcs_address


@pytest.fixture(scope="module")
def served(ray_cluster, tmp_path_factory):
    """The application as users run it: Ray Serve, real HTTP, a small bundle; see `tests.support.serving.Served`."""
    from ray import serve

    from mets_ray.serve.deployments import build
    from mets_ray.serve.settings import ServeConfig
    from tests.support.references import made_up_reference, synthetic_signals, write_reference
    from tests.support.serving import Served, free_port, make_bundle, metrics_url

    folder = tmp_path_factory.mktemp("served")
    bundle, state, port = make_bundle(folder), folder / "state", free_port()
    write_reference(bundle, made_up_reference(bundle, synthetic_signals(range(0, 180, 3))))
    config = ServeConfig(
        bundle_uri=str(bundle), state_uri=str(state), auth="none", encoder_cpus=0.5, encoder_threads=2, text_cpus=0.5
    )
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(build(config), name="mets_ray")
    yield Served(f"http://127.0.0.1:{port}", bundle, state, metrics_url())
    serve.shutdown()


@pytest.fixture(scope="session")
def prepared(ray_cluster, tmp_path_factory):
    """A prepared data set of 300 synthetic ECGs: its URI."""
    from mets_ray.pipelines.prepare import find_or_make_dataset
    from tests.support.pipeline import config_of

    return find_or_make_dataset(config_of(tmp_path_factory.mktemp("prepared")), "test")


@pytest.fixture(scope="session")
def trained(prepared, tmp_path_factory):
    """Two workers, two epochs: what the other tests compare with."""
    from mets_ray.training.fit import fit
    from tests.support.pipeline import config_of

    return fit(config_of(tmp_path_factory.mktemp("trained"), "train.num_workers=2", dataset_uri=prepared), prepared)


TOGETHER = ("tests/ray", "tests/training")
"""Folders whose files share what takes longest: a Ray cluster with a trained model, a server that forks workers."""


class _Lanes(LoadScopeScheduling):
    """What one lane takes at a time: a file, or a whole folder of `TOGETHER`."""

    def _split_scope(self, nodeid):
        file = nodeid.split("::", 1)[0]
        folder = file.rpartition("/")[0]
        return folder if folder in TOGETHER else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return _Lanes(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """What is imported here stays: the collector takes 0.4 s to look at it, and would again and again in the tests."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items):
    """Folders of `TOGETHER` come first: theirs take longest, and what is short fills the end."""
    items.sort(key=lambda item: item.path.parent not in [ROOT / folder for folder in TOGETHER])
