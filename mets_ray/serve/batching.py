"""Windows of different requests in one forward pass.

Not `ray.serve.batch`: in Ray 2.60 it closes a batch before it waits for a free slot, so with no wait time 32 clients
got batches of 4 while 16 were waiting. It also records six metrics per batch on the event loop that serves HTTP.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Float32, Int16


class Batches:
    """`await batches(window)`: int16 [lead, sample] to its unit vector; waiting windows share the next forward pass.

    Each of the `threads` runs a separate pass. Two passes on one thread each were faster than one pass on two threads
    (490 against 320 ECGs per second in batches of 8 on 2 cores), because no thread waits at a barrier for a core that
    is serving HTTP. A window that arrives while nothing is being computed gets all threads.

    embed: windows [window, lead, sample] to vectors [window, dimension]; called from several threads.
    wait_s: how long a pass that could start waits for more windows.
    counted: called with the size of each batch.
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
        self._waiting: asyncio.Queue[tuple[np.ndarray, asyncio.Future[np.ndarray]]] = asyncio.Queue()
        self._workers: list[asyncio.Task[None]] = []
        self._computing = 0

    async def __call__(self, window: Int16[np.ndarray, "lead sample"]) -> Float32[np.ndarray, " dimension"]:
        """The vector. Raises what `embed` raises."""
        if not self._workers:  # not in __init__, where no event loop is running
            self._workers = [asyncio.create_task(self._work()) for _ in range(self._threads)]
        future: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((window, future))
        return await future

    async def _work(self) -> None:
        while True:
            batch = [await self._waiting.get()]
            try:
                async with asyncio.timeout(self._wait_s):  # at 0 it takes what is already queued
                    while len(batch) < self._batch_size:
                        batch.append(await self._waiting.get())
            except TimeoutError:
                pass
            await self._compute([(window, future) for window, future in batch if not future.done()])

    async def _compute(self, batch: list[tuple[np.ndarray, asyncio.Future[np.ndarray]]]) -> None:
        if not batch:  # all clients have disconnected
            return
        self._counted(len(batch))
        executor = self._alone if len(batch) == 1 and self._computing == 0 else self._shared
        windows = [window for window, _ in batch]
        self._computing += 1
        try:
            vectors = await asyncio.get_running_loop().run_in_executor(executor, lambda: self._embed(np.stack(windows)))
        except Exception as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
        else:
            for (_, future), vector in zip(batch, vectors, strict=True):
                if not future.done():
                    future.set_result(vector)
        finally:
            self._computing -= 1


def torch_pool(workers: int, *, torch_threads: int) -> ThreadPoolExecutor:
    """Threads that call torch. Its thread count belongs to the calling thread; changing it builds a new thread team."""
    return ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(torch_threads,))
