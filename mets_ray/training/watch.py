"""A training worker's clocks: when to save, when to stop, when to give up, when to report to the driver."""

import faulthandler
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import ray
import ray.train
from ray.exceptions import RayError

from mets_ray.training.collectives import num_workers, worker_rank
from mets_ray.training.job import TrainJob
from mets_ray.training.messages import Stop
from mets_ray.training.state import Figures, State

_PROGRESS_EVERY_S = 0.5
_LOOK_FOR_PREEMPTION_EVERY_S = 5.0

T = TypeVar("T")


class Due(NamedTuple):
    """Due after a step: a checkpoint, a look for a preemption notice, the end. `leave`: without a checkpoint."""

    save: bool = False
    look: bool = False
    stop: bool = False
    leave: bool = False


class SaveClock:
    """When to save within an epoch. Rank 0's clock decides for all, since every worker must take part."""

    def __init__(self, job: TrainJob) -> None:
        train = job.config.train
        # Answered when the job is told to stop, and by a cluster that is going down.
        self._stopped = job.messages.stopped.remote() if worker_rank() == 0 else None
        self._steps = train.checkpoint_every_steps
        self._seconds = math.inf if train.checkpoint_every_minutes is None else 60 * train.checkpoint_every_minutes
        self._saved_at = self._looked_at = time.monotonic()
        self._known_notice = False

    def due(self, step: int) -> Due:
        """What is due after `step` steps of this epoch; nothing on other ranks."""
        if worker_rank() != 0:
            return Due()
        now = time.monotonic()
        look = now - self._looked_at > _LOOK_FOR_PREEMPTION_EVERY_S
        if look:
            self._looked_at = now
        by_steps = self._steps is not None and step % self._steps == 0
        stop = self.stop()
        return Due(by_steps or now - self._saved_at > self._seconds, look, stop is not None, stop == "leave")

    def stop(self) -> Stop | None:
        """How to stop, if the job was told to; always None on other ranks."""
        if self._stopped is None or not ray.wait([self._stopped], timeout=0)[0]:
            return None
        try:
            how: Stop = ray.get(self._stopped)
        except RayError:
            return None
        return how

    def is_preempted(self) -> bool:
        """Whether a node has received a preemption notice since the last call; a barrier, so not for every step."""
        notice = ray.train.get_preemption_info() is not None
        new, self._known_notice = notice and not self._known_notice, notice
        return new

    def saved(self) -> None:
        self._saved_at = time.monotonic()


class Watchdog:
    """Ends this process, with a trace of its threads on stderr, when a step takes longer than `timeout_s`.

    It runs in a C thread, so it works even while another thread never releases the GIL. A suspended process cannot end
    itself; the other workers then time out waiting for it and end, and Ray replaces all of them.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._stderr = os.dup(2)  # Ray replaces sys.stderr with its own object
        self.still_alive()

    def still_alive(self) -> None:
        faulthandler.dump_traceback_later(self._timeout_s, exit=True, file=self._stderr)

    def stop(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        os.close(self._stderr)


def timed(stream: Iterator[T]) -> Iterator[tuple[T, float]]:
    """Items, each with the seconds that the loop waited for it."""
    while True:
        began = time.perf_counter()
        item = next(stream, None)
        if item is None:
            return
        yield item, time.perf_counter() - began


class Reporter:
    """Reports rank 0's progress to the driver, at most twice a second, without waiting for a reply."""

    def __init__(self, messages: Any) -> None:
        self._messages = messages if worker_rank() == 0 else None
        self._told = 0.0

    def _tell(self, what: dict[str, Any]) -> None:
        if self._messages is not None:
            self._messages.tell.remote(what)

    def started(self, state: State) -> None:
        self._tell({"started": {"epoch": state.epoch, "step": state.step, "workers": num_workers()}})

    def step(self, step: int, loss: float) -> None:
        if time.monotonic() - self._told > _PROGRESS_EVERY_S:
            self._told = time.monotonic()
            self._tell({"step": step, "loss": loss})

    def stopped(self, state: State) -> None:
        self._tell({"stopped": {"epoch": state.epoch, "step": state.step}})

    def epoch(self, figures: Figures) -> None:
        self._tell({"figures": figures})


@dataclass(frozen=True)
class Watch:
    """A worker's three clocks."""

    reporter: Reporter
    watchdog: Watchdog
    saving: SaveClock
