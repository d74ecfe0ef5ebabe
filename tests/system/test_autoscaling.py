"""Ray's autoscaler with the node types of the real cluster.yaml, on machines that are only processes."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest

from tests.cluster.test_cluster_files import TYPES, read_aws, settings_of, shown_commands
from tests.conftest import ROOT
from tests.support.jobs import run_job
from tests.support.processes import NO_STATE_API, wait_for_port
from tests.support.serving import free_port


def fake_config(gcs_address, *, idle_minutes):
    """cluster.yaml with Ray's fake provider: resources, minima, maxima and priorities are the real ones."""
    from ray.autoscaler._private.util import prepare_config

    config = prepare_config(read_aws())
    types = {
        name: {key: value for key, value in it.items() if key != "node_config"} | {"node_config": {}}
        for name, it in config[TYPES].items()
    }
    head = types.pop(config["head_node_type"])
    for name, it in types.items():
        it["labels"] = it.get("labels", {}) | {"test/type": name}  # a node says no other way of which type it is
        it["resources"] = it["resources"] | {"object_store_memory": 100_000_000}  # else a third of the machine each
    return {
        "cluster_name": "fake",
        "max_workers": config["max_workers"],
        "idle_timeout_minutes": idle_minutes,
        "upscaling_speed": config["upscaling_speed"],
        "provider": {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "gcs_address": gcs_address,
            "launch_multiple": True,
            "head_node_id": "FAKE_HEAD_NODE_ID",
        },
        "head_node_type": "ray.head.default",  # the provider knows no other
        TYPES: {"ray.head.default": head} | types,
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "initialization_commands": [],
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
    }


DRIVER = textwrap.dedent("""
    import json, sys, time
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    address, actor_options, actors, bundle, workers = json.loads(sys.argv[1])
    ray.init(address, log_to_driver=False, logging_level="ERROR")
    said, started = {}, time.monotonic()

    def types():
        nodes = [node for node in ray.nodes() if node["Alive"]]
        return sorted(node["Labels"].get("test/type", "head") for node in nodes)

    def where():
        return ray.get_runtime_context().get_node_labels().get("test/type", "head")

    def tell(name, value):
        said[name] = value
        print(f"{time.monotonic() - started:.1f} s {name}: {value}", file=sys.stderr, flush=True)

    tell("before", types())

    class Lm:
        def where(self):
            return where()

    pool = [ray.remote(Lm).options(**actor_options).remote() for _ in range(actors)]
    tell("lm", ray.get([actor.where.remote() for actor in pool], timeout=60))
    tell("with_lm", types())
    for actor in pool:
        ray.kill(actor)
    # The LM's nodes are idle now and still there, with a free GPU each: the workers must not take them.
    group = placement_group([bundle] * workers, strategy="PACK")
    ray.get(group.ready(), timeout=60)
    place = [PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=i) for i in range(workers)]
    options = {"num_cpus": 1, "num_gpus": 1}
    tasks = [ray.remote(where).options(scheduling_strategy=it, **options).remote() for it in place]
    tell("training", ray.get(tasks, timeout=30))
    remove_placement_group(group)
    deadline = time.monotonic() + 60
    while len(types()) > 1 and time.monotonic() < deadline:
        time.sleep(0.5)
    tell("after", types())
    print(json.dumps(said))
""")


@contextlib.contextmanager
def fake_cloud(*, idle_minutes):
    """The real autoscaler with the node types of the real file; its machines are processes. (address, a folder)."""
    port, agent, client = (free_port() for _ in range(3))
    temporary = Path(tempfile.mkdtemp(prefix="mr_", dir="/tmp"))  # short: sockets live below it
    (temporary / "cluster.json").write_text(json.dumps(fake_config(f"127.0.0.1:{port}", idle_minutes=idle_minutes)))
    environment = {
        **os.environ,
        **NO_STATE_API,
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": "FAKE_HEAD_NODE_ID",
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": "FAKE_HEAD_NODE_ID",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    }
    options = {
        "port": port,
        "node-ip-address": "127.0.0.1",
        "num-cpus": 0,  # of cluster.yaml's head
        "object-store-memory": 100_000_000,
        "temp-dir": temporary / "ray",
        "autoscaling-config": temporary / "cluster.json",
        "include-dashboard": "false",
        "dashboard-agent-listen-port": agent,
        "ray-client-server-port": client,
        "min-worker-port": 0,
        "max-worker-port": 0,
    }
    head = subprocess.Popen(
        [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
        + [f"--{name}={value}" for name, value in options.items()],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for_port(port, head)
        yield f"127.0.0.1:{port}", temporary
    finally:
        head.kill()  # told to end, it waits half a minute for nodes that are gone
        head.wait()
        end_all_of(temporary)
        shutil.rmtree(temporary, ignore_errors=True)


@pytest.fixture(scope="module")
def cloud():
    """One for both tests: each leaves the head alone, as it found it."""
    with fake_cloud(idle_minutes=0.1) as found:
        yield found


@pytest.mark.timeout(240)
def test_the_node_types_of_the_real_file_come_and_go_as_they_are_asked_for(cloud):
    (with_lm,) = [config for words in shown_commands() if (config := settings_of(words)).text.resources]
    text = with_lm.text
    actor = {"num_cpus": text.num_cpus_per_actor, "num_gpus": text.num_gpus_per_actor, "resources": text.resources}
    bundle = {"CPU": 1, "GPU": 1} | with_lm.train.resources
    address, temporary = cloud
    question = json.dumps([address, actor, text.max_actors, bundle, 2])
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, question],
        env=os.environ, cwd=temporary, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    sys.stderr.write(done.stderr)
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["before"] == ["head"]
    assert said["lm"] == ["lm_gpu"] * text.max_actors
    assert said["with_lm"] == ["head"] + ["lm_gpu"] * text.max_actors
    assert said["training"] == ["train_gpu_spot"] * 2, "spot first, and not the LM's GPUs"
    assert said["after"] == ["head"]


WATCH = textwrap.dedent("""
    import json, sys, time
    import ray
    ray.init(sys.argv[1], log_to_driver=False, logging_level="ERROR")
    while True:
        nodes = [node["Labels"].get("test/type", "head") for node in ray.nodes() if node["Alive"]]
        print(json.dumps(sorted(nodes)), flush=True)
        time.sleep(0.5)
""")


@pytest.mark.timeout(500)
def test_a_job_makes_a_cluster_grow_from_nothing_and_leaves_nothing(cloud, tmp_path):
    """jobs/pretrain.py as it stands, on CPUs: nodes for the LM, then nodes for training, then none."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "ray_bootstrap_config.yaml").write_text((ROOT / "cluster.yaml").read_text())
    words = [
        "prepare.source.records=200",
        "encoder.width=4",
        "train.epochs=2",
        "train.num_workers=2",
        "train.device=cpu",
    ]
    words += ["train.resources={train_gpu: 1}", "text.resources={lm_gpu: 1}", f"run_uri={tmp_path}/runs"]
    address, temporary = cloud
    watched = tmp_path / "nodes"
    with watched.open("w") as file:
        watch = subprocess.Popen([sys.executable, "-c", WATCH, address], stdout=file, cwd=temporary)
    try:
        options = {"address": address, "environment": {"HOME": str(home)}}
        status, _, shown = run_job("pretrain", *words, **options)
        assert status == 2
        assert "a path of one machine" in shown
        options["environment"]["METS_RAY_SHARED_FILESYSTEM"] = "1"
        status, _, shown = run_job("pretrain", *words, "train.num_workers=5", **options)
        assert status == 2
        assert "the nodes hold 4 such workers" in shown
        status, result, shown = run_job("pretrain", *words, timeout=400, **options)
        assert status == 0, shown[-3000:]
        deadline = time.monotonic() + 60  # idle nodes go after 6 s
        while nodes_seen(watched)[-1] != ["head"] and time.monotonic() < deadline:
            time.sleep(0.5)
        time.sleep(2.0)  # and none comes back
    finally:
        watch.terminate()
        watch.wait()
    seen = nodes_seen(watched)
    assert seen[0] == ["head"]
    assert {name for nodes in seen for name in nodes} == {"head", "cpu", "lm_gpu", "train_gpu_spot"}
    assert max(nodes.count("train_gpu_spot") for nodes in seen) == 2
    assert seen[-1] == ["head"], "all of them are gone again"
    assert result["epochs"] == 2


def nodes_seen(file):
    # Ray tells a driver on its stdout of tasks that wait for a node, whatever log_to_driver says.
    return [json.loads(line) for line in file.read_text().splitlines() if line.startswith("[") and line.endswith("]")]


def end_all_of(folder):
    """Kill what fake nodes leave behind when their head goes first, by the folder that only they know."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # gone meanwhile
            if str(folder).encode() in file.read_bytes():
                os.kill(int(file.parent.name), signal.SIGKILL)
