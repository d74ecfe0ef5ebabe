"""Class lists: given with a request, stored in the bundle, or registered at run time under `state_uri`.

<state_uri>/prompt_sets/<name>/<version>.json               one file per version, created once and never changed
<state_uri>/text_features/<fingerprint>/<sha256>.safetensors  the LM's features of its texts, computed once
"""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import safetensors.numpy
from pydantic import BaseModel, ConfigDict, ValidationError

from mets_ray import storage
from mets_ray.errors import ConfigError, DatasetError, RequestError
from mets_ray.model.bundle import BundleFacts
from mets_ray.model.predictor import Predictor
from mets_ray.serve.settings import WORDINGS_PER_CLASS, ServeConfig
from mets_ray.text.embeddings import part_folder
from mets_ray.text.reports import apply_template, text_hash

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")

_ATTEMPTS = 20  # when other replicas write versions of the same name at the same moment


@dataclass(frozen=True)
class ClassList:
    """The classes that a request chooses between: full texts by class, template applied."""

    classes: Mapping[str, tuple[str, ...]]
    template: str | None = None
    name: str | None = None
    version: int = 0

    @property
    def label(self) -> str | None:
        """`name@version`, or None for classes given in the request itself."""
        return None if self.name is None else f"{self.name}@{self.version}"

    @property
    def texts(self) -> list[str]:
        return [text for wordings in self.classes.values() for text in wordings]


class _Stored(BaseModel):
    """One version as stored. The time of writing is the file's modification time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    name: str
    version: int
    classes: dict[str, tuple[str, ...]]
    hypothesis_template: str | None


def class_list(
    classes: Mapping[str, Sequence[str]], template: str | None, config: ServeConfig, *, default_template: str
) -> ClassList:
    """`classes` checked against the limits of `config`, the template applied to each wording.

    Raises RequestError 422 for no, too many, blank, repeated or too long classes and for a template without one `{}`.
    """
    if not classes:
        raise RequestError(422, "no_classes", "there are no classes to choose between", hint="give at least one")
    if len(classes) > config.max_classes:
        raise RequestError(
            422, "too_many_classes", f"there are {len(classes)} classes; at most {config.max_classes} are allowed"
        )
    total = sum(len(wordings) for wordings in classes.values())
    if total > WORDINGS_PER_CLASS * config.max_classes:
        raise RequestError(
            422,
            "too_many_classes",
            f"there are {total} wordings; at most {WORDINGS_PER_CLASS * config.max_classes} are allowed",
        )
    template = default_template if template is None else template
    for text in [*classes, *(wording for wordings in classes.values() for wording in wordings), template]:
        if not any(character.isalnum() for character in text) and text is not template:
            raise RequestError(422, "blank_class", f"the class or wording {text!r} contains no word")
        if len(text) > config.max_label_chars:
            raise RequestError(
                422,
                "class_too_long",
                f"a text has {len(text)} characters; at most {config.max_label_chars} are allowed",
            )
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise RequestError(
                422, "not_unicode", "a text contains a lone surrogate, which is not a character"
            ) from error
    try:
        filled = {name: tuple(apply_template(template, text) for text in texts) for name, texts in classes.items()}
    except ConfigError as error:
        raise RequestError(422, "bad_template", error.fact, hint="write it like `The ECG shows {}`") from error
    if empty := [name for name, wordings in filled.items() if not wordings]:
        raise RequestError(422, "blank_class", f"the class `{empty[0]}` has no wording")
    return ClassList(filled, template)


def labels_as_classes(labels: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Each label is its own class and its own wording. Raises RequestError 422 if one is repeated."""
    repeated = [label for label, times in Counter(labels).items() if times > 1]
    if repeated:
        raise RequestError(
            422, "repeated_class", f"{len(repeated)} of the candidate labels are repeated, first `{min(repeated)}`"
        )
    return {label: (label,) for label in labels}


def bundle_prompt_sets(facts: BundleFacts) -> dict[str, ClassList]:
    """Every task of every prompt set in the bundle, as `set:task`."""
    return {
        f"{name}:{task}": ClassList(classes, None, f"{name}:{task}", prompt_set.version)
        for name, prompt_set in facts.prompt_sets.items()
        for task, classes in prompt_set.tasks.items()
    }


class PromptSets:
    """All named class lists: those of the bundle, and those registered under `state_uri`.

    A name without a version means its newest one. The store is listed again after `prompt_set_refresh_s`, so another
    replica's new version is seen by then at the latest. `name@version` is always exact: versions never change.
    """

    def __init__(self, predictor: Predictor, config: ServeConfig) -> None:
        self._predictor = predictor
        self._config = config
        self._bundle = bundle_prompt_sets(predictor.facts)
        self._registered: dict[str, ClassList] = {}  # by `name@version`
        self._newest: dict[str, tuple[int, float]] = {}  # name → (version, when the store was listed)
        self._locks: dict[str, asyncio.Lock] = {}

    async def find(self, reference: str) -> ClassList:
        """The class list behind `name` or `name@version`. Raises RequestError 404, or 422 if a task must be named."""
        name, at, version_text = reference.partition("@")
        if at and not (version_text.isdecimal() and len(version_text) < 9):
            raise self._unknown(reference)
        version = int(version_text) if at else None
        known = self._bundle.get(self._bundle_name(name))
        if known is not None:
            if version not in (None, known.version):
                raise self._unknown(reference)
            return known
        if self._config.state_uri is None or not _NAME.fullmatch(name):
            raise self._unknown(reference)
        if version is None:
            version = await self._newest_version(name)
        if version < 1:
            raise self._unknown(reference)
        found = self._registered.get(f"{name}@{version}")
        return found if found is not None else await self._read(name, version)

    async def register(self, name: str, given: ClassList) -> tuple[ClassList, bool]:
        """Store `given`, whose features must be known, as a new version of `name`. Returns (stored, whether it is new).

        The same content as the newest version makes no new one. Raises RequestError 409 for a name of the bundle, 422
        for an invalid name, 403 without `state_uri`, 503 if too many clients write the same name.
        """
        if self._config.state_uri is None:
            raise RequestError(
                403,
                "no_state",
                "this server does not store prompt sets: its `state_uri` is not set",
                hint="set state_uri",
            )
        if not _NAME.fullmatch(name):
            raise RequestError(
                422,
                "bad_name",
                f"`{name[:80]}` is not a valid prompt set name",
                hint="use a-z, 0-9, - and _, at most 64",
            )
        if any(name == known.partition(":")[0] for known in self._bundle):
            raise RequestError(
                409, "reserved_name", f"`{name}` is a prompt set of the bundle", hint="choose another name"
            )
        async with self._lock(name):
            await asyncio.to_thread(self._write_features, given.texts, self._predictor.features(given.texts))
            for _ in range(_ATTEMPTS):
                newest = await asyncio.to_thread(self._list_newest, name)
                if newest:
                    before = self._registered.get(f"{name}@{newest}") or await self._read(name, newest)
                    if before.classes == given.classes and list(before.classes) == list(given.classes):
                        self._newest[name] = (newest, time.monotonic())
                        return before, False
                stored = ClassList(given.classes, given.template, name, newest + 1)
                if await asyncio.to_thread(self._create, stored):
                    self._know(stored)
                    return stored, True
        raise RequestError(503, "busy", f"`{name}` is being written by many clients at once", hint="try again")

    async def known(self) -> list[tuple[ClassList, str]]:
        """All lists with their origin: the bundle's, then the newest version of each registered name."""
        names = []
        if self._config.state_uri is not None:
            names = await asyncio.to_thread(self._list_names)
        registered = await asyncio.gather(*map(self.find, names))
        return [(item, "bundle") for item in self._bundle.values()] + [(item, "registered") for item in registered]

    def _bundle_name(self, name: str) -> str:
        tasks = [known for known in self._bundle if known.partition(":")[0] == name]
        if len(tasks) > 1:
            raise RequestError(
                422, "ambiguous_prompt_set", f"`{name}` has {len(tasks)} tasks", hint=f"choose one: {', '.join(tasks)}"
            )
        return tasks[0] if tasks else name

    def _unknown(self, reference: str) -> RequestError:
        names = sorted({*self._bundle, *self._newest})
        return RequestError(
            404, "unknown_prompt_set", f"there is no prompt set `{reference[:80]}`", hint=f"known: {', '.join(names)}"
        )

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    async def _newest_version(self, name: str) -> int:
        version, asked_at = self._newest.get(name, (0, -np.inf))
        if time.monotonic() - asked_at < self._config.prompt_set_refresh_s:
            return version
        version = await asyncio.to_thread(self._list_newest, name)
        if version:  # unknown names are not cached: the next request may find them, and there is no limit on names
            self._newest[name] = (version, time.monotonic())
        return version

    async def _read(self, name: str, version: int) -> ClassList:
        uri = self._version_uri(name, version)
        try:
            stored = _Stored.model_validate_json(await asyncio.to_thread(storage.read_bytes, uri))
        except storage.MissingFileError as error:
            raise self._unknown(f"{name}@{version}") from error
        except ValidationError as error:
            raise DatasetError(f"`{uri}` is not a prompt set of this version of mets_ray") from error
        found = ClassList(stored.classes, stored.hypothesis_template, name, version)
        if self._predictor.missing_texts(found.texts):
            features = await asyncio.to_thread(self._read_features, found.texts)
            if features is not None:
                self._predictor.keep_features(found.texts, features)
        self._know(found)
        return found

    def _know(self, found: ClassList) -> None:
        assert found.name is not None
        self._registered[f"{found.name}@{found.version}"] = found
        if found.version >= self._newest.get(found.name, (0, 0.0))[0]:
            self._newest[found.name] = (found.version, time.monotonic())

    def _list_newest(self, name: str) -> int:
        files = storage.list_files(storage.join(self._folder(), name), suffix=".json")
        return max((int(stem) for uri in files if (stem := _stem(uri)).isdecimal()), default=0)

    def _list_names(self) -> list[str]:
        return sorted({uri.split("/")[-2] for uri in storage.list_files(self._folder(), suffix=".json")})

    def _create(self, stored: ClassList) -> bool:
        assert stored.name is not None
        content = _Stored(
            name=stored.name,
            version=stored.version,
            classes=dict(stored.classes),
            hypothesis_template=stored.template,
        )
        data = content.model_dump_json(indent=1).encode()
        return storage.create_bytes(self._version_uri(stored.name, stored.version), data)

    def _write_features(self, texts: list[str], features: np.ndarray) -> None:
        storage.write_bytes(self._features_uri(texts), safetensors.numpy.save({"features": features}))

    def _read_features(self, texts: list[str]) -> np.ndarray | None:
        """None if the set was registered with another LM: the current one embeds it at first use."""
        try:
            return safetensors.numpy.load(storage.read_bytes(self._features_uri(texts)))["features"]
        except storage.MissingFileError:
            return None

    def _folder(self) -> str:
        assert self._config.state_uri is not None
        return storage.join(self._config.state_uri, "prompt_sets")

    def _version_uri(self, name: str, version: int) -> str:
        return storage.join(self._folder(), name, f"{version:08d}.json")

    def _features_uri(self, texts: list[str]) -> str:
        assert self._config.state_uri is not None
        store_uri = storage.join(self._config.state_uri, "text_features")
        folder = part_folder(store_uri, self._predictor.facts.text_fingerprint)
        return storage.join(folder, f"{text_hash(chr(0).join(texts))}.safetensors")


def _stem(uri: str) -> str:
    return uri.rsplit("/", 1)[-1].removesuffix(".json")
