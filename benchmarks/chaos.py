"""Compare training under a storm of SIGKILLs with the same training undisturbed: what is lost, and what is not.

    python benchmarks/chaos.py --minutes 2        # or: make chaos MINUTES=2
    python benchmarks/chaos.py --minutes 30       # what docs and README quote

Two workers, streaming text, so that training workers, LM actors and data tasks all run at the same time. One of them is
killed at random every minute or so. In runs of 10 minutes or more, every fourth kill is a raylet, with everything on
its node; the node comes back after half a minute. The last line of stdout is one JSON object; both loss curves are
plotted in <runs>/chaos/chaos.png.
"""

import argparse
import collections
import json
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from safetensors.torch import load_file

from mets_ray.config.load import load_config
from mets_ray.config.settings import Config
from mets_ray.console import say
from mets_ray.training.batch_log import read_batches

BATCH_SIZE = 32
WORDS = [
    "prepare.source.records=600",
    "encoder.width=8",
    "text.unit=report",
    "text.mode=streaming",
    "text.max_actors=1",
    "text.num_cpus_per_actor=0.5",
    f"train.batch_size={BATCH_SIZE}",
    "train.num_workers=2",
    "train.max_failures=1000",
    "train.step_timeout_s=120",
    "train.checkpoint_every_minutes=0.1",
    "train.log_batches=true",
]
# Processes on a node, by the titles that Ray gives them.
VICTIMS = {"worker": ("RayTrainWorker",), "lm": ("MapWorker(",), "data": ("MapBatches(",)}
RAYLETS_FROM_MINUTES = 10.0
NODE_COMES_BACK_S = 30.0
CALIBRATION_EPOCHS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    result_stream = os.fdopen(os.dup(1), "w")  # Ray reports each death on stdout, which is only for the result
    os.dup2(2, 1)
    os.environ |= {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5", "METS_RAY_SHARED_FILESYSTEM": "1"}
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30"}
    folder = Path(".runs/chaos").absolute()
    shutil.rmtree(folder, ignore_errors=True)
    with _Cluster(raylets=arguments.minutes >= RAYLETS_FROM_MINUTES) as cluster:
        from mets_ray.pipelines.prepare import find_or_make_dataset

        dataset_uri = find_or_make_dataset(_config(folder), "chaos")
        calibration = _train(folder / "calibration", dataset_uri, epochs=CALIBRATION_EPOCHS)
        epoch_s = min(BATCH_SIZE * 15 / figures["ecg_per_s"] for figures in calibration.history[1:]) + 4.0
        # Restarts cost about a third of the disturbed time, so this many epochs outlast the storm.
        epochs = max(5, round(0.7 * 60 * arguments.minutes / epoch_s))
        say(f"chaos: {epochs} epochs, undisturbed first")
        undisturbed = _train(folder / "undisturbed", dataset_uri, epochs=epochs)
        storm = _Storm(cluster, folder / "disturbed", minutes=arguments.minutes, seed=arguments.seed)
        disturbed = storm.over(lambda: _train(folder / "disturbed", dataset_uri, epochs=epochs))
    _draw(folder / "chaos.png", undisturbed, disturbed, storm)
    kills = collections.Counter(kind for kind, _ in storm.kills)
    print(
        json.dumps(
            {
                "kills": sum(kills.values()),
                "kills_by_kind": dict(kills),
                "resumes": disturbed.restarts,
                "records_seen_once": _seen_once(disturbed.run_uri, epochs),
                "same_batches": read_batches(disturbed.run_uri) == read_batches(undisturbed.run_uri),
                "bitwise_equal": _weights_equal(disturbed.run_uri, undisturbed.run_uri),
                "final_loss": disturbed.history[-1]["loss"],
                "undisturbed_loss": undisturbed.history[-1]["loss"],
                "epochs": epochs,
                "disturbed_minutes": storm.seconds / 60,
                "picture": str(folder / "chaos.png"),
            }
        ),
        file=result_stream,
        flush=True,
    )


def _config(folder: Path, *words: str) -> Config:
    return load_config(None, [*WORDS, f"run_uri={folder}", *words])


def _train(folder: Path, dataset_uri: str, *, epochs: int) -> Any:
    from mets_ray.training.fit import fit

    return fit(_config(folder, f"dataset_uri={dataset_uri}", f"train.epochs={epochs}"), dataset_uri)


class _Cluster:
    """Ray on this machine: a head, and a second node that may be killed. CPUs are logical: both share the cores."""

    def __init__(self, *, raylets: bool) -> None:
        self._with_node = raylets
        self._node: Any = None

    def __enter__(self) -> "_Cluster":
        import ray
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": True})
        if self._with_node:
            self.add_node()
        ray.init(address=self._cluster.address, log_to_driver=False, logging_level="ERROR")
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        ray.shutdown()
        self._cluster.shutdown()

    def add_node(self) -> None:
        self._node = self._cluster.add_node(num_cpus=2)

    def kill_raylet(self) -> bool:
        if self._node is None:
            return False
        node, self._node = self._node, None
        self._cluster.remove_node(node, allow_graceful=False)
        return True

    @property
    def lacks_a_node(self) -> bool:
        return self._with_node and self._node is None


class _Storm:
    """Kills random processes until its time is over, while training runs in a separate thread."""

    def __init__(self, cluster: _Cluster, folder: Path, *, minutes: float, seed: int) -> None:
        self._cluster = cluster
        self._folder = folder
        self._minutes = minutes
        self._draw = random.Random(seed)
        self.kills: list[tuple[str, float]] = []
        self.seconds = 0.0

    def over(self, train: Callable[[], Any]) -> Any:
        """Returns what `train` returns. Nodes must be added in the main thread, so training runs in another."""
        done: list[Any] = []

        def run() -> None:
            try:
                done.append(train())
            except BaseException as error:
                done.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        while not list(self._folder.glob("*/checkpoint-*")) and thread.is_alive():
            time.sleep(0.2)
        began = time.monotonic()
        next_kill, raylet_died, turn = began + self._pause(), 0.0, 0
        while thread.is_alive():
            time.sleep(0.5)
            now = time.monotonic()
            if self._cluster.lacks_a_node and now - raylet_died > NODE_COMES_BACK_S:
                self._cluster.add_node()
            if now - began > 60 * self._minutes or now < next_kill:
                continue
            turn += 1
            killed = turn % 4 == 0 and self._cluster.kill_raylet()
            if killed:
                raylet_died = now
            kind = "raylet" if killed else self._kill_process()
            if kind:
                self.kills.append((kind, now - began))
                say(f"chaos: killed {kind} after {now - began:.0f} s")
                next_kill = now + self._pause()
        thread.join()
        self.seconds = time.monotonic() - began
        if isinstance(done[0], BaseException):
            raise done[0]
        return done[0]

    def _pause(self) -> float:
        # About three kills in a short storm; at least one every two minutes in a long one.
        return min(self._draw.uniform(45.0, 90.0), self._draw.uniform(0.15, 0.3) * 60 * self._minutes)

    def _kill_process(self) -> str | None:
        # The first two kills are workers: even a short storm must hit them twice.
        kinds = list(VICTIMS)
        kind = "worker" if len(self.kills) < 2 else self._draw.choice(kinds)
        for process in self._draw.sample(found := _processes(VICTIMS[kind]), len(found)):
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
            return kind
        return None


def _processes(titles: tuple[str, ...]) -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            title = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if title.startswith("ray::") and any(name in title for name in titles):
            found.append(process)
    return found


def _seen_once(run_uri: str, epochs: int) -> bool:
    """Whether each epoch of the surviving history holds no record twice, and whole batches only."""
    batches = read_batches(run_uri)
    for epoch in range(epochs):
        ids = [name for (of, _), names in batches.items() if of == epoch for name in names]
        if not ids or len(set(ids)) < len(ids) or len(ids) % BATCH_SIZE:
            return False
    return True


def _weights_equal(one_uri: str, other_uri: str) -> bool:
    one, other = (
        load_file(max(Path(uri).glob("checkpoint-*"), key=lambda path: path.name) / "model.safetensors")
        for uri in (one_uri, other_uri)
    )
    return set(one) == set(other) and all(bool((one[name] == other[name]).all()) for name in one)


def _draw(path: Path, undisturbed: Any, disturbed: Any, storm: _Storm) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    for result, label, style in ((undisturbed, "undisturbed", "-"), (disturbed, "under kills", "--")):
        epochs = [figures["epoch"] for figures in result.history]
        axes.plot(epochs, [figures["loss"] for figures in result.history], style, label=label, linewidth=2)
    axes.set(
        xlabel="epoch",
        ylabel="training loss",
        title=f"{len(storm.kills)} kills and {disturbed.restarts} restarts in {storm.seconds / 60:.0f} minutes "
        "(SYNTHETIC data)",
    )
    axes.legend()
    axes.grid(color="#dddddd")
    figure.savefig(path)


if __name__ == "__main__":
    main()
