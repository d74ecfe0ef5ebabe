"""Counts of work that are the same on every machine: function calls, and what a store is asked for."""

import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pyarrow.parquet as pq
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem


def calls_of(work: Callable[[], object]) -> int:
    """Calls of Python and C functions while `work` runs, in this thread and in those that it starts."""
    counter = itertools.count()  # `next` is atomic

    def profile(frame: object, event: str, argument: object) -> None:
        if event in ("call", "c_call"):
            next(counter)

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    return next(counter)


class StoreCounts:
    """What the store `memory://`, which takes the ways of a bucket, was asked for."""

    requests: int = 0
    bytes_read: int = 0
    row_groups: int = 0

    _ASKED: ClassVar = ("info", "_open", "cat_file", "ls", "exists", "pipe_file")

    @contextmanager
    def watching(self) -> Iterator["StoreCounts"]:
        """Count until the end of the block."""
        kept = [(owner, name, getattr(owner, name)) for owner, name in self._watched()]
        for owner, name, method in kept:
            setattr(owner, name, self._counted(owner, name, method))
        try:
            yield self
        finally:
            for owner, name, method in kept:
                setattr(owner, name, method)

    def _watched(self) -> list[tuple[Any, str]]:
        readers = [(MemoryFile, "read"), (pq.ParquetFile, "read_row_group"), (pq.ParquetFile, "read_row_groups")]
        return [(MemoryFileSystem, name) for name in self._ASKED] + readers

    def _counted(self, owner: Any, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            answer = method(*arguments, **named)
            if owner is pq.ParquetFile:
                self.row_groups += 1 if name == "read_row_group" else len(arguments[1])
                return answer
            self.requests += 1
            if name in ("read", "cat_file"):
                self.bytes_read += len(answer)
            return answer

        return call
