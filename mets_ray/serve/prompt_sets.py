"""All named class lists: those of the bundle, and those registered at run time under `state_uri`."""

import asyncio
import re
import time
from functools import partial
from typing import NamedTuple
from weakref import WeakValueDictionary

from mets_ray import storage
from mets_ray.errors import DatasetError, RequestError
from mets_ray.model.predictor import Predictor
from mets_ray.serve.class_lists import ClassList, bundle_prompt_sets
from mets_ray.serve.prompt_set_files import DamagedFileError, Names, PromptSetFiles, is_name
from mets_ray.serve.prompt_set_store import PromptSetStore
from mets_ray.serve.quotas import Quotas
from mets_ray.serve.settings import MIB, ServeConfig

Warned = tuple[str, str]
"""(reason, message), as in `Windows.warnings`."""

_VERSION = re.compile(r"[1-9][0-9]{0,7}")

_ATTEMPTS = 20  # when other replicas write versions of the same name at the same moment
_PAGE_AT_ONCE = 6
_PAGE_BYTES = 1 * MIB  # of class names: a page ends there, whatever its limit
_NAMED_FILES = 10


class Found(NamedTuple):
    """A class list, and what the client should know about it."""

    chosen: ClassList
    warnings: tuple[Warned, ...] = ()


class Page(NamedTuple):
    """Registered lists in the order of their names. following: the last name of this page if there are more."""

    lists: tuple[ClassList, ...] = ()
    following: str | None = None
    warnings: tuple[Warned, ...] = ()


class PromptSets:
    """Finds, registers, retires and lists class lists.

    A name without a version means the newest one that can be read. The store is asked again after
    `prompt_set_refresh_s`, so what other replicas write is seen by then at the latest. `name@version` is always exact:
    versions never change, and a number is used once. What is known is served while the store is silent.
    """

    def __init__(self, predictor: Predictor, config: ServeConfig) -> None:
        self._predictor = predictor
        self._page_s = config.deadline_s / 2
        self._bundle = bundle_prompt_sets(predictor.facts)
        self._store: PromptSetStore | None = None
        if config.state_uri is not None:
            self._store = PromptSetStore(PromptSetFiles(config.state_uri, predictor.facts, config), config)
            self._quotas = Quotas(self._store, config)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def store(self) -> PromptSetStore | None:
        """The registered lists; None without `state_uri`."""
        return self._store

    @property
    def bundle_lists(self) -> list[ClassList]:
        """The lists of the bundle, each named `set:task`."""
        return list(self._bundle.values())

    async def find(self, reference: str) -> Found:
        """The class list behind `name` or `name@version`.

        Raises RequestError 404, 410 for a retired one, 422 if a task must be named, 500 if its file is damaged, and
        DatasetError if the store is needed and does not answer.
        """
        name, at, digits = reference.partition("@")
        if at and not _VERSION.fullmatch(digits):
            raise self._unknown(reference)
        version = int(digits) if at else None
        known = self._bundle.get(self._bundle_name(name))
        if known is not None:
            if version not in (None, known.version):
                raise self._unknown(reference)
            return Found(known)
        if self._store is None or not is_name(name):
            raise self._unknown(reference)
        try:
            if version is None:
                return await self._newest(self._store, name)
            found, is_retired = await self._store.exact(name, version)
        except DamagedFileError as error:
            raise _damaged(error.fact) from error
        except storage.MissingFileError as error:  # retired in this moment
            raise self._unknown(reference) from error
        if found is None:
            raise _retired(reference) if is_retired else self._unknown(reference)
        return Found(found)

    async def recall(self, chosen: ClassList) -> RequestError | DatasetError | None:
        """Load the stored features of a registered list, or return what went wrong.

        A fault matters only if no LM can compute the features again.
        """
        if self._store is None or chosen.name is None or chosen.name in self._bundle:
            return None
        key = ("features", chosen.name, str(chosen.version))
        try:
            features = await self._store.call(key, partial(self._store.files.read_features, chosen.name, chosen.texts))
        except DamagedFileError as error:
            return _damaged(error.fact)
        except DatasetError as error:
            return error
        if features is not None:
            self._predictor.keep_features(chosen.texts, features)
        return None

    def repair(self, chosen: ClassList) -> None:
        """Store the features of a registered list again, after the request. They must be known."""
        assert self._store is not None
        assert chosen.name is not None
        features = self._predictor.features(chosen.texts)
        self._store.later(partial(self._store.files.keep_features, chosen.name, chosen.texts, features))

    def _writable(self, name: str) -> PromptSetStore:
        """The store, if `name` may be registered and retired there."""
        if self._store is None:
            raise RequestError(
                403,
                "no_state",
                "this server does not store prompt sets: its `state_uri` is not set",
                hint="set state_uri",
            )
        if not is_name(name):
            raise RequestError(
                422,
                "bad_name",
                f"{name[:80]!r} is not a valid prompt set name",
                hint="use a-z, 0-9, - and _, at most 64",
            )
        if any(name == known.partition(":")[0] for known in self._bundle):
            raise RequestError(
                409, "reserved_name", f"`{name}` is a prompt set of the bundle", hint="choose another name"
            )
        return self._store

    async def register(self, name: str, given: ClassList) -> tuple[ClassList, bool]:
        """Store `given`, whose features must be known, as a new version of `name`. Returns (stored, whether it is new).

        The same content as the newest version makes no new one. Raises RequestError 403 without `state_uri`, 409 for a
        name of the bundle and beyond a quota, 422 for an invalid name, 503 if too many clients write the same name;
        DatasetError if the store does not answer.
        """
        store = self._writable(name)
        features = self._predictor.features(given.texts)
        keep = partial(store.files.keep_features, name, given.texts, features)
        adds = features.nbytes + sum(len(text.encode()) for text in given.texts)
        async with self._lock(name):
            try:
                for attempt in range(_ATTEMPTS):
                    known = await store.look(name)
                    if known.newest:
                        before = await store.read(name, known.newest)
                        if before.is_same_as(given):
                            await store.write(keep)  # mended if they were damaged
                            return before, False
                    version = known.folder.next_version(known.newest)
                    if attempt == 0:  # the features first: who sees the version needs them
                        await self._quotas.check(name, known.folder, version, adds=adds)
                        await store.write(keep)
                    new = ClassList(given.classes, given.template, name, version)
                    if await self._is_written(store, new):
                        return new, True
            except DamagedFileError as error:
                raise _damaged(error.fact) from error
        raise RequestError(503, "busy", f"`{name}` is being written by many clients at once", hint="try again")

    async def retire(self, name: str) -> int:
        """Make no version of `name` resolve any more and delete its files. Returns the last version. Safe to repeat.

        Raises as `register`, and RequestError 404 for a name that never was.
        """
        store = self._writable(name)
        async with self._lock(name):
            try:
                folder = await store.write(partial(store.files.retire, name))
            except DamagedFileError as error:
                raise _damaged(error.fact) from error
            through = max(folder.retired, *folder.live, 0)
            if through == 0:
                raise self._unknown(name)
            store.retired(name, through)
            self._quotas.count_again()
        return through

    async def page(self, *, after: str = "", limit: int) -> Page:
        """The newest readable version of each of up to `limit` registered names after `after`.

        It ends earlier where the answer becomes large or takes long; `following` says where the next page begins.
        Raises nothing for what is in the store, nor for its silence: then it lists what is known, with a warning.
        """
        if self._store is None:
            return Page()
        warnings: list[Warned] = []
        try:
            names = await self._store.names()
        except DatasetError:
            warnings.append(_silent("only sets that this replica knows are listed"))
            names = Names(tuple(self._store.known_names), ())
        if names.foreign:
            warnings.append(_foreign(names.foreign))
        lists: list[ClassList] = []
        asked, done, size = [name for name in names.names if name > after], 0, 0
        until = time.monotonic() + self._page_s
        while done < min(len(asked), limit) and size < _PAGE_BYTES and time.monotonic() < until:
            some = asked[done : min(done + _PAGE_AT_ONCE, limit)]
            done += len(some)
            for found in await asyncio.gather(*(self._listed(self._store, name) for name in some)):
                lists += found.lists
                warnings += found.warnings
                size += sum(len(class_name) for one in found.lists for class_name in one.classes)
        following = asked[done - 1] if 0 < done < len(asked) else None
        return Page(tuple(lists), following, tuple(dict.fromkeys(warnings)))

    async def _listed(self, store: PromptSetStore, name: str) -> Page:
        """The one list of a name, or a warning in its place."""
        try:
            known, is_stale = await store.known_or_stale(name)
            warnings = [_unusable(fact) for fact in known.damaged[:_NAMED_FILES]]
            if known.folder.foreign:
                warnings.append(_foreign(known.folder.foreign))
            if is_stale:
                warnings.append(_silent("there may be newer versions"))
            lists = (await store.read(name, known.newest),) if known.newest else ()
        except storage.MissingFileError:
            return Page()
        except DamagedFileError as error:
            return Page(warnings=(_unusable(error.fact),))
        except DatasetError:
            return Page(warnings=(_silent(f"`{name}` is not listed"),))
        return Page(lists, None, tuple(warnings))

    async def _newest(self, store: PromptSetStore, name: str) -> Found:
        known, is_stale = await store.known_or_stale(name)
        if not known.newest:
            if known.damaged:
                raise _damaged(known.damaged[0])
            raise _retired(name) if known.folder.retired else self._unknown(name)
        warnings = [_unusable(fact, f"; `{name}@{known.newest}` is used instead") for fact in known.damaged[:1]]
        if is_stale:
            warnings.append(_silent(f"`{name}@{known.newest}` was the newest version {known.age_s:.0f} s ago"))
        return Found(await store.read(name, known.newest), tuple(warnings))

    async def _is_written(self, store: PromptSetStore, new: ClassList) -> bool:
        assert new.name is not None
        try:
            is_mine = await store.write(partial(store.files.create, new))
        except storage.MissingFileError:  # another replica retired the name and removed the folder in this moment
            return False
        if not is_mine:
            return False
        folder = await store.write(partial(store.files.look, new.name))
        if new.version <= folder.retired:  # as above, a moment later
            return False
        store.written(new, folder)
        return True

    def _bundle_name(self, name: str) -> str:
        tasks = [known for known in self._bundle if known.partition(":")[0] == name]
        if len(tasks) > 1:
            raise RequestError(
                422, "ambiguous_prompt_set", f"`{name}` has {len(tasks)} tasks", hint=f"choose one: {', '.join(tasks)}"
            )
        return tasks[0] if tasks else name

    def _unknown(self, reference: str) -> RequestError:
        hint = f"known: {', '.join(self._bundle)}" + (", and those of /v1/prompt-sets" if self._store else "")
        return RequestError(404, "unknown_prompt_set", f"there is no prompt set {reference[:80]!r}", hint=hint)

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())


def _damaged(fact: str) -> RequestError:
    return RequestError(500, "damaged_file", fact, hint="register the set again: it gets the next version")


def _retired(reference: str) -> RequestError:
    return RequestError(
        410, "retired_prompt_set", f"`{reference}` is retired", hint="use another, or register the name again"
    )


def _unusable(fact: str, instead: str = "") -> Warned:
    return "damaged_file", f"{fact}{instead}"


def _foreign(files: tuple[str, ...]) -> Warned:
    named = ", ".join(f"{file[:100]!r}" for file in files[:_NAMED_FILES])
    more = ", and others" if len(files) > _NAMED_FILES else ""
    return "foreign_file", f"no prompt set is in {named}{more}"


def _silent(meaning: str) -> Warned:
    return "store_silent", f"the store of prompt sets cannot be read now: {meaning}"
