"""Memory, CPU time and reading of a process and all that it has started."""

import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import psutil

_EVERY_S = 0.3

# What Ray calls its processes: part of their title → role.
ROLES: Mapping[str, str] = {
    "RayTrainWorker": "worker",
    "MapWorker(": "actor",
    "ServeReplica:": "replica",
    "MapBatches(": "task",
    "ray::IDLE": "task",  # between two tasks
    "ray::": "other_ray",
    "raylet": "other_ray",
    "gcs_server": "other_ray",
    "ray/": "other_ray",
}


@dataclass
class Peaks:
    """A context manager that samples the memory of `process` and its descendants, in MB.

    `of_role`: the largest resident memory of one process of each role of `ROLES`, `driver` for `process` itself.
    `private_of_role`: without what it shares with others, such as libraries and Ray's object store. `total`: all
    private memory together and the largest shared one, at one time.
    """

    process: psutil.Process
    of_role: dict[str, float] = field(default_factory=dict)
    private_of_role: dict[str, float] = field(default_factory=dict)
    total: float = 0.0

    def __enter__(self) -> "Peaks":
        self._sample()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()
        with suppress(psutil.NoSuchProcess):
            self._sample()

    def _watch(self) -> None:
        while not self._done.wait(_EVERY_S):
            with suppress(psutil.NoSuchProcess):
                self._sample()

    def _sample(self) -> None:
        private, shared = 0.0, 0.0
        for one in (self.process, *self.process.children(recursive=True)):
            try:
                memory = one.memory_info()
                role = "driver" if one.pid == self.process.pid else _role(one)
            except psutil.Error:
                continue
            own = (memory.rss - memory.shared) / 1e6
            self.of_role[role] = max(self.of_role.get(role, 0.0), memory.rss / 1e6)
            self.private_of_role[role] = max(self.private_of_role.get(role, 0.0), own)
            private, shared = private + own, max(shared, memory.shared / 1e6)
        self.total = max(self.total, private + shared)


def _role(process: psutil.Process) -> str:
    title = " ".join(process.cmdline()) or process.name()
    return next((role for part, role in ROLES.items() if part in title), "other")


def cpu_s(process: psutil.Process) -> float:
    """CPU seconds of a process, of all that it has started, and of those among them that have ended."""
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        with suppress(psutil.Error):
            total += sum(one.cpu_times()[:4])  # user, system, and those of ended children
    return total


def bytes_read() -> int:
    """What this process has read from files so far, whether from the disk or from the page cache."""
    facts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(facts["rchar"])
