"""A lease on a folder: one job writes there at a time, and a second one learns who it is and since when.

`<folder>/lease/<number>.json` belongs to whoever created it, and the highest number holds the folder. So a lease needs
nothing of a store but "create if absent", which local disks and S3 have; where a store has not, the holder finds
another one's name in its file at the next beat. The holder counts beats in its file. Whoever wants the folder watches
that count by its own monotonic clock, so clocks of two machines need not agree. A count that stands still for
`timeout_s` is a dead holder's; on the same machine, the process table answers at once.
"""

import json
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from mets_ray.console import say
from mets_ray.errors import DatasetError
from mets_ray.storage.faults import MissingFileError
from mets_ray.storage.files import create_bytes, exists, list_files, read_bytes, write_bytes
from mets_ray.storage.stores import filesystem
from mets_ray.storage.uris import join

TIMEOUT_S = 60.0
"""How long a holder may be without a beat before another job takes its folder."""

_BEATS_PER_TIMEOUT = 6
_LOOK_EVERY_S = 1.0
_RELEASE_WITHIN_S = 5.0  # a beat that hangs in a store's retries must not hold up a job's end


class FolderInUseError(DatasetError):
    """Another job writes to the folder."""


class Holder(BaseModel):
    """What a lease's file says: who holds the folder, since when, and a sign of life."""

    model_config = ConfigDict(frozen=True)

    id: str
    job: str
    host: str
    process: int
    machine: str
    """Boot and process namespace; empty where the system does not tell."""
    started: str
    """When the process started, in the machine's own unit: with `process`, it identifies the process for good."""
    since: str
    timeout_s: float
    beats: int = 0
    released: bool = False

    @classmethod
    def this_process(cls, job: str, timeout_s: float) -> "Holder":
        return cls(
            id=uuid.uuid4().hex,
            job=job,
            host=socket.gethostname(),
            process=os.getpid(),
            machine=_machine(),
            started=_process_start(os.getpid()) or "",
            since=datetime.now(UTC).isoformat(timespec="seconds"),
            timeout_s=timeout_s,
        )

    def __str__(self) -> str:
        return f"`{self.job}` on {self.host} (process {self.process}) since {self.since}"

    @property
    def is_running_here(self) -> bool | None:
        """Whether its process lives, or None where only its beats can tell: on another machine."""
        if not self.machine or not self.started or self.machine != _machine():
            return None
        return _process_start(self.process) == self.started


class Lease:
    """A folder held by this process. A thread beats from `begin` until `release`."""

    def __init__(self, folder_uri: str, number: int, holder: Holder) -> None:
        self._folder_uri = folder_uri
        self._number = number
        self._holder = holder
        self._uri = _file_uri(folder_uri, number)
        self._lock = threading.RLock()  # a release that was interrupted is repeated by the same thread
        self._ended = threading.Event()
        self._taken_by: str | None = None
        self._is_kept = False
        self._is_released = False
        self._interrupts = threading.current_thread() is threading.main_thread()

    def begin(self) -> None:
        """Beat from now on."""
        threading.Thread(target=self._beat_on, name="lease", daemon=True).start()

    @property
    def is_lost(self) -> bool:
        """Whether another job has taken the folder."""
        return self._taken_by is not None

    def confirm(self) -> None:
        """Raise FolderInUseError if another job has taken the folder; call it before a write that ends the work."""
        with self._lock:
            self._beat()
        self.raise_if_lost()

    def raise_if_lost(self) -> None:
        """As `confirm`, from what the last beat found."""
        if self._taken_by is not None:
            raise FolderInUseError(
                f"`{self._folder_uri}` was taken over by {self._taken_by}: this job gave no sign of life for "
                f"{self._holder.timeout_s:g} s, because it was suspended or its store did not answer",
                hint="let the other job finish",
            )

    def keep(self, kept: bool = True) -> None:
        """Do not release it: what still writes to the folder ends with this process, and so does the lease."""
        self._is_kept = kept

    def release(self) -> None:
        """Give the folder back. A store that does not answer is no reason to wait: the lease then ends by itself."""
        if self._is_kept or self._is_released:
            return
        self._ended.set()
        if not self._lock.acquire(timeout=_RELEASE_WITHIN_S):
            return
        try:
            if self._taken_by is None:
                with suppress(DatasetError):
                    write_bytes(self._uri, _packed(self._holder.model_copy(update={"released": True})))
            self._is_released = True
        finally:
            self._lock.release()

    def _beat_on(self) -> None:
        while not self._ended.wait(self._holder.timeout_s / _BEATS_PER_TIMEOUT):
            with self._lock:
                if self._ended.is_set():
                    return
                with suppress(DatasetError):  # the store does not answer: the next beat may come through
                    self._beat()
                if self.is_lost:
                    if self._interrupts and not self._ended.is_set():
                        # Wakes the main thread wherever it waits; `hold` raises the reason. With the lock, so that the
                        # signal comes before `release` is done: later it would interrupt somebody else's work.
                        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                    return

    def _beat(self) -> None:
        """A sign of life, unless the folder is another job's by now."""
        try:
            found = _read(self._uri)
        except MissingFileError:
            found = None
        if exists(_file_uri(self._folder_uri, self._number + 1)) or found is None or found.id != self._holder.id:
            newest = _newest(self._folder_uri)
            self._taken_by = "another job" if newest is None else str(newest[1])
            return
        self._holder = self._holder.model_copy(update={"beats": self._holder.beats + 1})
        write_bytes(self._uri, _packed(self._holder))


@contextmanager
def hold(folder_uri: str, job: str, *, timeout_s: float = TIMEOUT_S, wait: bool = False) -> Iterator[Lease]:
    """Hold a folder while the block runs.

    job: what others are told. timeout_s: how long this process may be without a sign of life. wait: until another job
    is done, instead of raising FolderInUseError. A lease that is lost while the block runs in the main thread
    interrupts it, and is raised here as FolderInUseError. Raises DatasetError where the store does not answer.
    """
    holder = Holder.this_process(job, timeout_s)
    lease: Lease | None = None

    def give_back() -> None:
        if lease is None:
            _disown(folder_uri, holder)
        else:
            lease.release()

    try:
        try:
            lease = _acquire(folder_uri, holder, wait)
            lease.begin()
            yield lease
        finally:
            give_back()
    except KeyboardInterrupt:
        give_back()  # it may have come while the first call ran
        if lease is not None:
            lease.raise_if_lost()
        raise


def _acquire(folder_uri: str, holder: Holder, wait: bool) -> Lease:
    told = False
    while True:
        newest = _newest(folder_uri)
        number, other = newest or (0, None)
        if other is None or other.released or not _is_alive(folder_uri, number, other):
            created = create_bytes(_file_uri(folder_uri, number + 1), _packed(holder))
            # Read again: since the look above, others may have held the folder and removed all numbers but a higher
            # one, and a store without "create if absent" lets two create one file.
            if created and (newest := _newest(folder_uri)) and newest[1].id == holder.id:
                _remove_older(folder_uri, number + 1)
                return Lease(folder_uri, number + 1, holder)
            continue
        if not wait:
            raise FolderInUseError(
                f"`{folder_uri}` is in use by {other}",
                hint="wait for that job or stop it, or choose another folder; a job that was killed loses its folder "
                f"{other.timeout_s:g} s after its last sign of life",
            )
        if not told:
            say(f"waiting for `{folder_uri}`, in use by {other}")
            told = True
        time.sleep(_LOOK_EVERY_S)


def _disown(folder_uri: str, holder: Holder) -> None:
    """Release what `_acquire` may have created before it was interrupted, or before the store stopped answering."""
    with suppress(DatasetError):
        newest = _newest(folder_uri)
        if newest is not None and newest[1].id == holder.id:
            write_bytes(_file_uri(folder_uri, newest[0]), _packed(holder.model_copy(update={"released": True})))


def _is_alive(folder_uri: str, number: int, other: Holder) -> bool:
    """Whether a holder that has not released its folder lives; where only its beats can tell, they are waited for."""
    running = other.is_running_here
    if running is not None:
        return running
    say(f"`{folder_uri}` is held by {other}: looking for a sign of life, for up to {other.timeout_s:g} s")
    # Longer than the holder's own limit by a look, because a beat may be written just before its end.
    ends = time.monotonic() + other.timeout_s + _LOOK_EVERY_S
    while time.monotonic() < ends:
        time.sleep(min(_LOOK_EVERY_S, other.timeout_s / _BEATS_PER_TIMEOUT))
        newest = _newest(folder_uri)
        if newest is None or newest[1].released:
            return False
        if newest != (number, other):
            return True
    return False


def _newest(folder_uri: str) -> tuple[int, Holder] | None:
    """The highest number and what its file says; a damaged file is a dead holder's."""
    while True:
        number = max(_numbers(folder_uri), default=None)
        if number is None:
            return None
        try:
            return number, _read(_file_uri(folder_uri, number))
        except MissingFileError:  # removed since it was listed, by the holder of a higher number
            continue


def _numbers(folder_uri: str) -> list[int]:
    names = [Path(uri).stem for uri in list_files(join(folder_uri, "lease"), suffix=".json")]
    return [int(name) for name in names if name.isdigit()]


def _read(uri: str) -> Holder:
    data = read_bytes(uri)
    try:
        return Holder.model_validate_json(data)
    except ValidationError:
        return Holder(
            id="",
            job="unknown",
            host="unknown",
            process=0,
            machine="",
            started="",
            since="unknown",
            timeout_s=TIMEOUT_S,
        )


def _packed(holder: Holder) -> bytes:
    return json.dumps(holder.model_dump(), indent=1).encode()


def _file_uri(folder_uri: str, number: int) -> str:
    return join(folder_uri, "lease", f"{number:06d}.json")


def _remove_older(folder_uri: str, number: int) -> None:
    """Only now, so that the highest number of all times is always there."""
    for older in _numbers(folder_uri):
        if older < number:
            fs, path = filesystem(_file_uri(folder_uri, older))
            with suppress(OSError):
                fs.rm_file(path)


def _machine() -> str:
    """This boot of this machine and this namespace of processes; empty where there is no /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _process_start(process: int) -> str | None:
    """When a process of this machine started, in clock ticks; None if it is gone, or only its exit status is left."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
