"""Calls to a store that may be silent: on threads of their own, shared, and waited for with patience."""

import asyncio
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

from mets_ray import storage
from mets_ray.errors import DatasetError

_T = TypeVar("_T")

_THREADS = 8

# After a failure one call in so many seconds asks whether the store answers again; the others fail at once.
_PAUSE_S = 1.0


class _Running(NamedTuple):
    """A call that has not ended. until: when those who wait for it lose patience."""

    on_thread: Future[Any]
    ended: asyncio.Future[Any]
    until: float


class StoreCalls:
    """`await calls(key, call)`: what `call()` returns from a thread, or DatasetError after `patience_s`.

    A store that is silent can hold threads and requests for as long as it likes. So these threads serve nothing else,
    requests with the same key wait for one call, nobody waits longer than `patience_s`, and after a failure the others
    are refused at once until a call succeeds again.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="store")
        self._running: dict[Hashable, _Running] = {}
        self._has_failed = False
        self._refused_until = 0.0

    @property
    def is_answering(self) -> bool:
        """Whether the last call that ended, or that somebody lost patience with, was answered."""
        return not self._has_failed

    @property
    def may_ask(self) -> bool:
        """Whether a call would be made now, and not be refused at once."""
        return not self._has_failed or time.monotonic() >= self._refused_until

    async def __call__(self, key: Hashable, call: Callable[[], _T]) -> _T:
        """Raises what `call` raises, and UnreachableError if the store does not answer in time."""
        running = self._running.get(key) or self._start(key, call)
        await asyncio.wait([running.ended], timeout=max(0.0, running.until - time.monotonic()))
        if running.ended.done() and not running.ended.cancelled():
            result: _T = running.ended.result()
            return result
        running.on_thread.cancel()  # if it still waits for a thread; a call that runs cannot be stopped
        self._failed()
        raise storage.UnreachableError(f"the store of prompt sets did not answer within {self._patience_s:g} s")

    def _start(self, key: Hashable, call: Callable[[], Any]) -> "_Running":
        if not self.may_ask:
            raise storage.UnreachableError("the store of prompt sets did not answer a moment ago")
        now = time.monotonic()
        self._refused_until = now + self._patience_s  # if it has failed before, this call alone asks again

        def within_patience() -> Any:
            with storage.patience(self._patience_s):
                return call()

        on_thread: Future[Any] = self._threads.submit(within_patience)
        running = _Running(on_thread, asyncio.wrap_future(on_thread), now + self._patience_s)
        self._running[key] = running
        running.ended.add_done_callback(lambda ended: self._ended(key, ended))
        return running

    def _ended(self, key: Hashable, ended: asyncio.Future[Any]) -> None:
        self._running.pop(key, None)
        if ended.cancelled():
            return
        error = ended.exception()
        if isinstance(error, storage.UnreachableError):
            self._failed()
        elif error is None or isinstance(error, DatasetError):  # what it says of one file is an answer
            self._has_failed = False

    def _failed(self) -> None:
        self._has_failed = True
        self._refused_until = time.monotonic() + _PAUSE_S
