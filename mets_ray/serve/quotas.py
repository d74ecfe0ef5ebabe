"""How much class lists may take in the store: by name and in all."""

import time
from functools import partial

from mets_ray.errors import RequestError
from mets_ray.serve.prompt_set_files import MAX_VERSION, Folder
from mets_ray.serve.prompt_set_store import PromptSetStore
from mets_ray.serve.settings import ServeConfig

_COUNTED_FOR_S = 60.0
_RETIRED_TIMES = 10  # each retired name keeps a file of a few bytes, or its versions' numbers could be used again


class Quotas:
    """Checked before a version is written. Replicas that write at the same moment may exceed them by that much."""

    def __init__(self, store: PromptSetStore, config: ServeConfig) -> None:
        self._store = store
        self._config = config
        self._all_bytes, self._counted_at = 0, float("-inf")

    async def check(self, name: str, folder: Folder, version: int, *, adds: int) -> None:
        """Raise RequestError 409 if version `version` of `name`, with `adds` bytes, would exceed a quota."""
        config, files = self._config, self._store.files
        versions = len(folder.live)
        if version > MAX_VERSION or versions >= config.max_prompt_set_versions:
            raise _exceeded("too_many_versions", f"`{name}` has {versions} versions", "max_prompt_set_versions")
        if not folder.live:
            names = await self._store.call(("count names",), lambda: len(files.names().names))
            if names >= config.max_prompt_sets:
                raise _exceeded("too_many_prompt_sets", f"{names} names are registered", "max_prompt_sets")
            retired = await self._store.call(("count retired",), files.count_retired)
            if retired >= _RETIRED_TIMES * config.max_prompt_sets and not folder.retired:
                limit = f"{_RETIRED_TIMES} x max_prompt_sets"
                raise _exceeded("too_many_prompt_sets", f"{retired} names are retired", limit)
        used = await self._store.call(("bytes", name), partial(files.name_bytes, name))
        if used + adds > config.max_prompt_set_bytes:
            fact = f"`{name}` takes {used} bytes and would take {adds} more"
            raise _exceeded("prompt_set_too_large", fact, "max_prompt_set_bytes")
        if time.monotonic() - self._counted_at > _COUNTED_FOR_S:
            self._all_bytes = await self._store.call(("all bytes",), files.all_bytes)
            self._counted_at = time.monotonic()
        if self._all_bytes + adds > config.max_state_bytes:
            fact = f"all prompt sets take {self._all_bytes} bytes and would take {adds} more"
            raise _exceeded("store_full", fact, "max_state_bytes")
        self._all_bytes += adds

    def count_again(self) -> None:
        """Something was deleted."""
        self._counted_at = float("-inf")


def _exceeded(reason: str, fact: str, setting: str) -> RequestError:
    return RequestError(
        409,
        reason,
        f"{fact}; the limit is `{setting}`",
        hint="retire what is not used: DELETE /v1/prompt-sets/{name}",
    )
