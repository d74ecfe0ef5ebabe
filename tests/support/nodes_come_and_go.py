"""Real raylets on one machine that come, get notice and die while training runs; `test_nodes.py` starts this.

    python -m tests.support.nodes_come_and_go {elastic|preemption} FOLDER

Training may run only on nodes with a `train_slot`; the head has none. Ends with one JSON line.
"""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.support.processes import NO_STATE_API, train_workers
from tests.support.warm_workers import warm_server, warm_workers

WORDS = [
    "prepare.source.records=400",
    "encoder.width=8",
    "encoder.norm=group",
    "train.precision=float64",
    "train.batch_size=16",
    "train.lanes=8",
    "train.resources={train_slot: 1}",
    "train.resize_every_s=4",
    "train.log_batches=true",
    "train.max_failures=5",
    "text.max_actors=1",
]
SLOT = {"num_cpus": 2, "resources": {"train_slot": 1}}


DEADLINE_S = 15
EPOCHS = 20  # of the elastic run: enough that it still trains when the group has grown


def main(scenario, folder):
    os.environ |= NO_STATE_API | {
        "RAY_AUTH_MODE": "disabled",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "15",
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "1",
        "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "0.5",
        "METS_RAY_SHARED_FILESYSTEM": "1",
    }
    import ray
    from ray.cluster_utils import Cluster

    from mets_ray.config.load import load_config
    from mets_ray.pipelines.prepare import find_or_make_dataset
    from mets_ray.training.fit import fit

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    first = cluster.add_node(**SLOT)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    dataset_uri = find_or_make_dataset(load_config(None, [*WORDS, f"run_uri={folder}"]), "test")

    def train(name, *words):
        words = [*WORDS, *words, f"run_uri={folder}/{name}", f"dataset_uri={dataset_uri}"]
        return fit(load_config(None, words), dataset_uri)

    def in_thread(name, *words):
        """Nodes must be added in the main thread."""
        done = []
        thread = threading.Thread(target=lambda: done.append(train(name, *words)))
        thread.start()
        return thread, done

    def wait_for(pattern):
        while not list(Path(folder).glob(pattern)):
            time.sleep(0.1)

    told = {}
    if scenario == "elastic":
        epochs = f"train.epochs={EPOCHS}"
        undisturbed = train("undisturbed", "train.num_workers=1", epochs)
        thread, done = in_thread("elastic", "train.num_workers=[1,2]", epochs)
        wait_for("elastic/*/checkpoint-00002-*")
        cluster.add_node(**SLOT)
        while len(train_workers()) < 2:
            time.sleep(0.1)
        told["grew_to"] = 2
        wait_for(f"elastic/*/checkpoint-{newest_epoch(folder) + 3:05d}-*")
        cluster.remove_node(first, allow_graceful=False)
        thread.join()
        told["undisturbed"] = [figures["loss"] for figures in undisturbed.history]
        told["undisturbed_run"] = undisturbed.run_uri
    else:
        # None may fail: a machine that is taken away does not count.
        words = ["train.epochs=12", "train.checkpoint_every_minutes=null", "train.max_failures=0"]
        thread, done = in_thread("preemption", *words)
        wait_for("preemption/*/checkpoint-00002-*")
        drain(cluster.address, first)
        noticed = time.monotonic()
        wait_for("preemption/*/checkpoint-*-*[1-9]*")  # of a step within an epoch: nothing else asks for one
        told["saved_after_s"] = time.monotonic() - noticed
        cluster.add_node(**SLOT)
        time.sleep(max(0.0, DEADLINE_S - (time.monotonic() - noticed)))
        cluster.remove_node(first, allow_graceful=False)
        thread.join()
    (result,) = done
    told |= {
        "restarts": result.restarts,
        "losses": [figures["loss"] for figures in result.history],
        "run": result.run_uri,
    }
    ray.shutdown()
    cluster.shutdown()
    print(json.dumps(told), flush=True)


def drain(address, node):
    """The notice that a cloud gives before it takes a spot machine away, as the autoscaler passes it on to Ray."""
    words = ["--address", address, "--node-id", node.node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    words += ["--reason-message", "spot", "--deadline-remaining-seconds", str(DEADLINE_S)]
    subprocess.run([str(Path(sys.executable).with_name("ray")), "drain-node", *words], check=True, stdout=sys.stderr)


def newest_epoch(folder):
    return max(int(path.name.split("-")[1]) for path in Path(folder).glob("elastic/*/checkpoint-*"))


if __name__ == "__main__":
    with warm_server(), warm_workers():  # a server of its own: `train_workers` looks among what this process started
        main(sys.argv[1], sys.argv[2])
