"""Windows of different requests in one forward pass.

Not `ray.serve.batch`: in Ray 2.60 it closes a batch before it waits for a free slot, so with no wait time 32 clients
got batches of 4 while 16 were waiting. It also records six metrics per batch on the event loop that serves HTTP.
"""

import asyncio
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float32, Int16

_T = TypeVar("_T")

# While first windows fill every pass, one that waits for its turn is still computed in the eighth pass.
_TURNS_PER_PASS = 1 / 8


class _Waiting(NamedTuple):
    """A window in the queue. No two have the same number, so windows themselves are never compared."""

    turn: float
    number: int
    window: np.ndarray
    future: asyncio.Future[np.ndarray]


class Batches:
    """`await batches(window, place)`: int16 [lead, sample] to its unit vector; waiting windows share the next pass.

    place: the window's number in its request. Windows are computed in turns: the first ones of all requests that wait
    come before the second ones, so that one request of hundreds of windows does not hold up those of one window.

    Each of the `threads` runs a separate pass. Two passes on one thread each were faster than one pass on two threads
    (490 against 320 ECGs per second in batches of 8 on 2 cores), because no thread waits at a barrier for a core that
    is serving HTTP. A window that arrives while nothing is being computed gets all threads.

    embed: windows [window, lead, sample] to vectors [window, dimension]; called from several threads.
    wait_s: how long a pass that could start waits for more windows.
    counted: called with the size of each batch.

    `failed_in_a_row`: passes that failed, or gave something else than numbers, since the last good one.
    """

    def __init__(
        self,
        embed: Callable[[np.ndarray], np.ndarray],
        *,
        batch_size: int,
        wait_s: float,
        threads: int,
        counted: Callable[[int], None],
    ) -> None:
        self._embed = embed
        self._batch_size = batch_size
        self._wait_s = wait_s
        self._threads = threads
        self._counted = counted
        self._shared, self._alone = torch_pool(threads, torch_threads=1), torch_pool(1, torch_threads=threads)
        self._waiting: asyncio.PriorityQueue[_Waiting] = asyncio.PriorityQueue()
        self._numbers = itertools.count()
        self._turn = 0.0  # of the window that was taken last; who arrives now begins in this turn
        self._workers: list[asyncio.Task[None]] = []
        self._computing = 0
        self.failed_in_a_row = 0

    async def __call__(
        self, window: Int16[np.ndarray, "lead sample"], place: int = 0
    ) -> Float32[np.ndarray, " dimension"]:
        """The vector. Raises what `embed` raises."""
        if not self._workers:  # not in __init__, where no event loop is running
            self._workers = [asyncio.create_task(self._work()) for _ in range(self._threads)]
        future: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait(_Waiting(self._turn + place, next(self._numbers), window, future))
        return await future

    def on_a_thread(self, call: Callable[[], _T]) -> _T:
        """What `call` returns on one of the threads that compute passes of several windows."""
        return self._shared.submit(call).result()

    def on_every_thread(self, prepare: Callable[[int], object]) -> None:
        """Call `prepare` on each thread that computes passes, with the largest number of windows that it will get."""
        for pool, threads, windows in ((self._shared, self._threads, self._batch_size), (self._alone, 1, 1)):
            together = threading.Barrier(threads)  # so that no thread takes two of the calls

            def call(together: threading.Barrier = together, windows: int = windows) -> None:
                together.wait()
                prepare(windows)

            for done in [pool.submit(call) for _ in range(threads)]:
                done.result()

    async def probe(self, window: Int16[np.ndarray, "lead sample"]) -> Float32[np.ndarray, " dimension"]:
        """The vector, computed beside the queue and without being counted. Raises what `embed` raises."""
        vectors = await asyncio.get_running_loop().run_in_executor(self._shared, self._embed, window[None])
        vector: np.ndarray = vectors[0]
        return vector

    async def _work(self) -> None:
        while True:
            batch = [await self._take()]
            self._turn += _TURNS_PER_PASS
            try:
                async with asyncio.timeout(self._wait_s):  # at 0 it takes what is already queued
                    while len(batch) < self._batch_size:
                        batch.append(await self._take())
            except TimeoutError:
                pass
            await self._compute([waiting for waiting in batch if not waiting.future.done()])

    async def _take(self) -> "_Waiting":
        taken = await self._waiting.get()
        self._turn = max(self._turn, taken.turn)
        return taken

    async def _compute(self, batch: list["_Waiting"]) -> None:
        if not batch:  # all clients have disconnected
            return
        self._counted(len(batch))
        executor = self._alone if len(batch) == 1 and self._computing == 0 else self._shared
        windows = [waiting.window for waiting in batch]
        self._computing += 1
        try:
            vectors = await asyncio.get_running_loop().run_in_executor(executor, lambda: self._embed(np.stack(windows)))
            if not np.isfinite(vectors).all():
                raise FloatingPointError("the encoder returned something other than numbers")
        except Exception as error:
            self.failed_in_a_row += 1
            for waiting in batch:
                if not waiting.future.done():
                    waiting.future.set_exception(error)
        else:
            self.failed_in_a_row = 0
            for waiting, vector in zip(batch, vectors, strict=True):
                if not waiting.future.done():
                    waiting.future.set_result(vector)
        finally:
            self._computing -= 1


def torch_pool(workers: int, *, torch_threads: int) -> ThreadPoolExecutor:
    """Threads that call torch. Its thread count belongs to the calling thread; changing it builds a new thread team."""
    return ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(torch_threads,))
