"""Memory and CPU time of a process and all that it has started, and what this process has read."""

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
    """A context manager that samples the memory, in MB, and the CPU time of `process` and its descendants.

    `of_role`: the largest resident memory of one process of each role of `ROLES`, `driver` for `process` itself.
    `private_of_role`: without what it shares with others, such as libraries and Ray's object store. `total`: all
    private memory together and the largest shared one, at one time. `cpu_s`: of all of them, between entering and
    leaving; of one that ends in between, up to its last sample, because Ray's raylet does not keep what it had used.
    """

    process: psutil.Process
    of_role: dict[str, float] = field(default_factory=dict)
    private_of_role: dict[str, float] = field(default_factory=dict)
    total: float = 0.0
    _cpu_s: dict[int, tuple[float, float]] = field(default_factory=dict)  # by process: at first, and at last

    @property
    def cpu_s(self) -> float:
        return sum(last - first for first, last in self._cpu_s.values())

    def __enter__(self) -> "Peaks":
        self._sample()
        self._cpu_s = {one: (last, last) for one, (_, last) in self._cpu_s.items()}
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
                memory, times = one.memory_info(), one.cpu_times()
                role = "driver" if one.pid == self.process.pid else _role(one)
            except psutil.Error:
                continue
            first, _ = self._cpu_s.get(one.pid, (0.0, 0.0))
            self._cpu_s[one.pid] = first, times.user + times.system
            own = (memory.rss - memory.shared) / 1e6
            self.of_role[role] = max(self.of_role.get(role, 0.0), memory.rss / 1e6)
            self.private_of_role[role] = max(self.private_of_role.get(role, 0.0), own)
            private, shared = private + own, max(shared, memory.shared / 1e6)
        self.total = max(self.total, private + shared)


def _role(process: psutil.Process) -> str:
    title = " ".join(process.cmdline()) or process.name()
    return next((role for part, role in ROLES.items() if part in title), "other")


def bytes_read() -> int:
    """What this process has read from files so far, whether from the disk or from the page cache."""
    facts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(facts["rchar"])
