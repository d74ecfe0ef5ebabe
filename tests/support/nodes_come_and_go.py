"""Real raylets on one machine that come, get notice and die while training runs; `test_nodes.py` starts this.

    python -m tests.support.nodes_come_and_go FOLDER

Training may run only on nodes with a `train_slot`; the head has none. Ends with one JSON line.
"""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.support.processes import NO_STATE_API, train_workers
from tests.support.warm_workers import warm_server, warm_workers

WORDS = [
    "prepare.source.records=240",
    "encoder.width=4",
    "encoder.norm=group",
    "train.precision=float64",
    "train.batch_size=16",
    "train.lanes=8",
    "train.resources={train_slot: 1}",
    "train.resize_every_s=1",
    "train.log_batches=true",
    "train.max_failures=5",
    "text.max_actors=1",
]
SLOT = {"num_cpus": 2, "resources": {"train_slot": 1}}


SEEN_AFTER_S = 21  # Ray's autoscaling coordinator looks at the cluster every 20 s
DEADLINE_S = 12  # of the notice
EPOCHS = 8  # of the elastic run: it grows after the second, alone on two cores, and shrinks two later
NOTICED_EPOCHS = 7  # of the other run


def main(folder):
    os.environ |= NO_STATE_API | {
        "RAY_AUTH_MODE": "disabled",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
        "RAY_health_check_period_ms": "500",  # a node is dead after five failures
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "15",
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "1",
        "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "0.5",
        "METS_RAY_SHARED_FILESYSTEM": "1",
    }
    import ray
    from ray.cluster_utils import Cluster

    from mets_ray.config.load import load_config
    from mets_ray.pipelines.prepare import find_or_make_dataset

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    first = cluster.add_node(**SLOT)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    dataset_uri = find_or_make_dataset(load_config(None, [*WORDS, f"run_uri={folder}"]), "test")
    runs = Runs(Path(folder), dataset_uri)
    elastic, second = grown_and_shrunk(runs, cluster, first)
    told = {"elastic": elastic, "preemption": preempted(runs, cluster, second)}
    ray.shutdown()
    cluster.shutdown()
    print(json.dumps(told), flush=True)


class Runs:
    """Training runs in one folder."""

    def __init__(self, folder, dataset_uri):
        self.folder, self._dataset_uri = folder, dataset_uri

    def train(self, name, *words):
        from mets_ray.config.load import load_config
        from mets_ray.training.fit import fit

        words = [*WORDS, *words, f"run_uri={self.folder}/{name}", f"dataset_uri={self._dataset_uri}"]
        return fit(load_config(None, words), self._dataset_uri)

    def start(self, name, *words):
        """In a thread: nodes must be added in the main thread. Returns what waits for its result."""
        self._running = ThreadPoolExecutor(1).submit(self.train, name, *words)
        return self._running.result

    def wait_until(self, is_so):
        while not is_so():
            assert not self._running.done(), "the run ended first"
            time.sleep(0.1)

    def wait_for(self, pattern):
        self.wait_until(lambda: list(self.folder.glob(pattern)))

    def newest_epoch(self, name):
        return max(int(path.name.split("-")[1]) for path in self.folder.glob(f"{name}/*/checkpoint-*"))


def grown_and_shrunk(runs, cluster, first):
    """A node comes while a run trains, then the first one dies. (what is told, the node that is left)."""
    epochs = f"train.epochs={EPOCHS}"
    undisturbed = runs.train("undisturbed", "train.num_workers=1", epochs)
    result = runs.start("elastic", "train.num_workers=[1,2]", epochs)
    runs.wait_for("elastic/*/checkpoint-00002-*")
    with paused(train_workers()):  # on an idle machine the run would end before Ray Train sees the node
        second = cluster.add_node(**SLOT)
        time.sleep(SEEN_AFTER_S)
    runs.wait_until(lambda: len(train_workers()) == 2)
    told = {"grew_to": 2}
    runs.wait_for(f"elastic/*/checkpoint-{runs.newest_epoch('elastic') + 2:05d}-*")
    cluster.remove_node(first, allow_graceful=False)
    told |= told_of(result())
    told |= {"undisturbed": losses(undisturbed), "undisturbed_run": undisturbed.run_uri}
    return told, second


@contextmanager
def paused(processes):
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):  # its node was taken away meanwhile
                process.resume()


def preempted(runs, cluster, node):
    """The only node gets notice, another one comes, the first is taken away."""
    # None may fail: a machine that is taken away does not count.
    words = [f"train.epochs={NOTICED_EPOCHS}", "train.checkpoint_every_minutes=null", "train.max_failures=0"]
    result = runs.start("preemption", *words)
    runs.wait_for("preemption/*/checkpoint-00002-*")
    with paused(train_workers()):  # a loaded machine takes seconds to start the command
        drain(cluster.address, node)
    noticed = time.monotonic()
    runs.wait_for("preemption/*/checkpoint-*-*[1-9]*")  # of a step within an epoch: nothing else asks for one
    told = {"saved_after_s": time.monotonic() - noticed}
    with paused(train_workers()):  # it must still train when its node is taken away
        cluster.add_node(**SLOT)
        time.sleep(max(0.0, DEADLINE_S - (time.monotonic() - noticed)))
        cluster.remove_node(node, allow_graceful=False)
    return told | told_of(result())


def told_of(result):
    return {"restarts": result.restarts, "losses": losses(result), "run": result.run_uri}


def losses(result):
    return [figures["loss"] for figures in result.history]


def drain(address, node):
    """The notice that a cloud gives before it takes a spot machine away, as the autoscaler passes it on to Ray."""
    words = ["--address", address, "--node-id", node.node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    words += ["--reason-message", "spot", "--deadline-remaining-seconds", str(DEADLINE_S)]
    subprocess.run([str(Path(sys.executable).with_name("ray")), "drain-node", *words], check=True, stdout=sys.stderr)


if __name__ == "__main__":
    with warm_server(), warm_workers():  # a server of its own: `train_workers` looks among what this process started
        main(sys.argv[1])
