"""What a replica knows of the registered class lists: read from their files when needed, kept within bounds."""

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from cachetools import LRUCache

from mets_ray import storage
from mets_ray.errors import DatasetError
from mets_ray.serve.class_lists import ClassList
from mets_ray.serve.prompt_set_files import DamagedFileError, Folder, Names, PromptSetFiles
from mets_ray.serve.settings import ServeConfig
from mets_ray.serve.store_calls import StoreCalls

_T = TypeVar("_T")

logger = logging.getLogger("ray.serve")

_KNOWN_NAMES = 4096
_NEW_NAMES_AT_ONCE = 4  # of the store's threads, so that a flood of unknown names leaves some for known ones
_TEXT_BYTES = 100  # of a text beside its characters


@dataclass(frozen=True)
class Known:
    """What the store said about a name, and when.

    newest: the newest version that can be read, or 0. damaged: what is wrong with those after it. Text, because an
    error would keep the file's content alive.
    """

    folder: Folder
    newest: int
    damaged: tuple[str, ...]
    asked_at: float

    @property
    def age_s(self) -> float:
        return time.monotonic() - self.asked_at


class PromptSetStore:
    """The files of the registered lists, as far as requests may wait for them.

    All methods that ask the store raise UnreachableError when it is silent, and DatasetError for its other faults.
    """

    def __init__(self, files: PromptSetFiles, config: ServeConfig) -> None:
        self.files = files
        self._config = config
        self._calls = StoreCalls(min(config.store_patience_s, config.deadline_s / 2))
        self._lists = LRUCache[tuple[str, int], ClassList](config.prompt_set_cache_bytes, getsizeof=_bytes)
        self._known = LRUCache[str, Known](_KNOWN_NAMES)
        self._new_names = asyncio.Semaphore(_NEW_NAMES_AT_ONCE)
        self._background: set[asyncio.Task[None]] = set()

    @property
    def is_answering(self) -> bool:
        """Whether the store answered when it was asked last."""
        return self._calls.is_answering

    @property
    def cached_bytes(self) -> int:
        """Bytes of the lists in memory, at most `prompt_set_cache_bytes`."""
        return int(self._lists.currsize)

    @property
    def known_names(self) -> list[str]:
        """Of the store as this replica knows it, retired ones among them."""
        return sorted(self._known)

    async def names(self) -> Names:
        return await self._calls("names", self.files.names)

    async def look(self, name: str) -> Known:
        """Ask which versions there are, and which is the newest that can be read."""
        ask = partial(self._calls, ("look", name), partial(self.files.look, name))
        if name in self._known:
            folder = await ask()
        else:
            async with self._new_names:
                folder = await ask()
        newest, damaged = 0, list[str]()
        for version in reversed(folder.live[-self._config.max_prompt_set_versions :]):
            try:
                await self.read(name, version)
            except DamagedFileError as error:
                damaged.append(error.fact)
            except storage.MissingFileError:  # retired in this moment
                continue
            else:
                newest = version
                break
        return self._learn(name, Known(folder, newest, tuple(damaged), time.monotonic()))

    async def known_or_stale(self, name: str) -> tuple[Known, bool]:
        """What is known about a name, and whether the store could not be asked again though it was time to."""
        known = self._known.get(name)
        if known is None:
            return await self.look(name), False
        if known.age_s < self._config.prompt_set_refresh_s:
            return known, False
        if not self.is_answering:  # nobody waits for a store that is known to be silent
            self._look_later(name)
            return known, True
        try:
            return await self.look(name), False
        except DamagedFileError:
            raise
        except DatasetError:
            return known, True

    async def read(self, name: str, version: int) -> ClassList:
        """A version, from memory or from its file. Raises DamagedFileError, MissingFileError."""
        found = self._lists.get((name, version))
        if found is None:
            found = await self._calls(("read", name, version), partial(self.files.read, name, version))
            self.keep(found)
        return found

    async def exact(self, name: str, version: int) -> tuple[ClassList | None, bool]:
        """A version, or None if there is none, and whether it is retired. Raises as `read`.

        What is in memory cannot have been changed, but retired: that is asked if it is time to and the store answers.
        """
        found, known = self._lists.get((name, version)), self._known.get(name)
        is_old = known is None or known.age_s >= self._config.prompt_set_refresh_s
        if found is not None and not (is_old and self.is_answering):
            if is_old:
                self._look_later(name)
            return found, False
        if found is not None:
            try:
                known = await self.look(name)
            except DamagedFileError:
                raise
            except DatasetError:
                return found, False
            is_live = version in known.folder.live
            return (found, False) if is_live else (None, version <= known.folder.retired)
        if known is None or is_old or version not in known.folder.versions:
            known = await self.look(name)
        if version not in known.folder.live:
            return None, version <= known.folder.retired
        return await self.read(name, version), False

    async def call(self, key: tuple[str, ...], call: Callable[[], _T]) -> _T:
        """Another call of `files`; calls with the same key at the same time are one."""
        return await self._calls(key, call)

    async def write(self, call: Callable[[], _T]) -> _T:
        """A call of `files` that changes them, and is never shared."""
        return await self._calls(object(), call)

    def later(self, call: Callable[[], Any]) -> None:
        """A call of `files` that nobody waits for, and whose failure is only logged."""
        self._in_background(self.write(call))

    def keep(self, found: ClassList) -> None:
        """Keep a version in memory."""
        assert found.name is not None
        if _bytes(found) <= self._lists.maxsize:
            self._lists[found.name, found.version] = found

    def written(self, new: ClassList, folder: Folder) -> None:
        """This replica has written `new`; `folder` is what was there afterwards."""
        self.keep(new)
        if new.name is not None and folder.live[-1:] == (new.version,):
            self._learn(new.name, Known(folder, new.version, (), time.monotonic()))

    def retired(self, name: str, through: int) -> None:
        """This replica has retired `name`."""
        self._learn(name, Known(Folder(retired=through), 0, (), time.monotonic()))

    def _learn(self, name: str, known: Known) -> Known:
        before = self._known.get(name)
        if known.damaged and (before is None or known.damaged != before.damaged):
            logger.warning("%s (%d damaged versions of `%s`)", known.damaged[0], len(known.damaged), name)
        if known.folder.retired:
            for key in [key for key in self._lists if key[0] == name and key[1] <= known.folder.retired]:
                del self._lists[key]
        if known.folder.versions or known.folder.retired:  # unknown names are not kept: there is no end of them
            self._known[name] = known
        else:
            self._known.pop(name, None)
        return known

    def _look_later(self, name: str) -> None:
        if self._calls.may_ask:
            self._in_background(self.look(name))

    def _in_background(self, work: Coroutine[Any, Any, Any]) -> None:
        async def logging_faults() -> None:
            try:
                await work
            except DatasetError as error:
                logger.warning("%s", error.fact)

        task = asyncio.create_task(logging_faults())
        self._background.add(task)  # the loop itself keeps weak references only
        task.add_done_callback(self._background.discard)


def _bytes(one: ClassList) -> int:
    texts = [*one.classes, *one.texts]
    return _TEXT_BYTES * (1 + len(texts)) + sum(map(sys.getsizeof, texts))
