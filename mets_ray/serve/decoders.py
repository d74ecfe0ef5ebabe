"""Threads that decode bodies, and how many bodies a replica holds at once."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from mets_ray.errors import RequestError

_T = TypeVar("_T")

SMALL_BYTES = 128 * 1024
"""Up to here a body is small: it takes a few milliseconds, and is not held back by large ones."""

_THREADS = 2  # of either kind: decoding takes several times a body's size in memory
_LARGE_BODIES = 16  # of the largest size; what waits behind so many would be past its deadline


class Decoders:
    """Small bodies have threads of their own, so that nobody's large ones make them wait.

    None of these threads is shared with the store or the language model, whose silence would take them all.
    """

    def __init__(self, max_body_bytes: int) -> None:
        self._small = ThreadPoolExecutor(_THREADS, "decode-small")
        self._large = ThreadPoolExecutor(_THREADS, "decode-large")
        self._free_bytes = _LARGE_BODIES * max_body_bytes

    async def run(self, decode: Callable[[bytes], _T], body: bytes) -> _T:
        """`decode(body)` in a thread. A request that is given up before its turn costs nothing."""
        threads = self._small if len(body) <= SMALL_BYTES else self._large
        return await asyncio.get_running_loop().run_in_executor(threads, decode, body)

    @contextlib.contextmanager
    def room(self) -> Iterator["Room"]:
        """Room for one body, until the end of the block."""
        room = Room(self)
        try:
            yield room
        finally:
            self._free_bytes += room.reserved

    def reserve(self, count: int) -> None:
        if count > self._free_bytes:
            raise RequestError(503, "busy", "this server is decoding many large bodies", hint="try again")
        self._free_bytes -= count


class Room:
    """What one body holds of the bytes that all large bodies share."""

    def __init__(self, decoders: Decoders) -> None:
        self._decoders = decoders
        self._size = 0
        self.reserved = 0

    def take(self, count: int) -> None:
        """Count bytes as they arrive, so that announcing many costs others nothing. Raises RequestError 503."""
        self._size += count
        if self._size > SMALL_BYTES:
            self._decoders.reserve(self._size - self.reserved)
            self.reserved = self._size
