"""Registered class lists as files under `state_uri`, each with a hash that is checked whenever it is read.

prompt_sets/<name>/<version>.json                        one file per version, created once and never changed
retired/<name>/<version>.json                            versions up to this number are retired; only its name counts
text_features/<LM>/<name>/<sha256>.safetensors           the LM's features of a version's texts, named after the texts

What is here may have been cut short, changed or put here by others: a file that cannot be used is a DamagedFileError
with its name, and hides no other. Nothing here waits, shares or caches.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Float16
from pydantic import BaseModel, ConfigDict, ValidationError

from mets_ray import storage
from mets_ray.errors import DatasetError, RequestError
from mets_ray.model.bundle import BundleFacts
from mets_ray.serve.class_lists import ClassList, check_filled
from mets_ray.serve.settings import MIB, WORDINGS_PER_CLASS, ServeConfig
from mets_ray.text.embeddings import part_folder

SCHEMA_VERSION = 2
"""Of a version's file. Schema 1, which had no hash, is read as well; its features are computed again."""

MAX_VERSION = 10_000_000

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_VERSION_FILE = re.compile(r"([0-9]{8})\.json")
_MAX_VERSION_BYTES = 4 * MIB
_FOREIGN = 100
_HEADER_BYTES = 4096  # of a safetensors file with one array


def is_name(name: str) -> bool:
    """Whether a prompt set may be called so: a-z, 0-9, - and _, at most 64."""
    return _NAME.fullmatch(name) is not None


class DamagedFileError(storage.DamagedFileError):
    """A file that is there and cannot be used. `file`: its path below `state_uri`."""

    def __init__(self, file: str, fact: str) -> None:
        super().__init__(f"`{file}` cannot be used: {fact}")
        self.file = file


class _Version(BaseModel):
    """One version as stored. The time of writing is the file's modification time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    name: str
    version: int
    classes: dict[str, tuple[str, ...]]
    hypothesis_template: str | None
    sha256: str | None = None

    def hash(self) -> str:
        """Of all that the file says, in one spelling. A list, because the order of classes counts."""
        facts = [self.schema_version, self.name, self.version, list(self.classes.items()), self.hypothesis_template]
        return _sha256(facts)


@dataclass(frozen=True)
class Folder:
    """The files of one name. versions: all numbers that are taken, ascending. retired: the highest retired, or 0."""

    versions: tuple[int, ...] = ()
    retired: int = 0
    foreign: tuple[str, ...] = ()

    @property
    def live(self) -> tuple[int, ...]:
        """Numbers that are not retired. What has such a number need not be readable."""
        return tuple(version for version in self.versions if version > self.retired)

    def next_version(self, newest_readable: int) -> int:
        """A free number above the newest version that can be read, and above the retired ones."""
        number, taken = max(newest_readable, self.retired) + 1, set(self.versions)
        while number in taken:
            number += 1
        return number


@dataclass(frozen=True)
class Names:
    """All names with files of their own, sorted, and the first of what is beside them that is no prompt set."""

    names: tuple[str, ...]
    foreign: tuple[str, ...]


class PromptSetFiles:
    """The files below one `state_uri`.

    All methods wait for the store, so they belong on a thread. Names must pass `is_name`. Each raises DatasetError if
    the store does not answer or refuses.
    """

    def __init__(self, state_uri: str, facts: BundleFacts, config: ServeConfig) -> None:
        self._state_uri = state_uri
        self._facts = facts
        self._config = config

    def names(self) -> Names:
        entries = storage.list_folder(storage.join(self._state_uri, "prompt_sets"))
        sets = tuple(entry.name for entry in entries if entry.is_folder and is_name(entry.name))
        others = {entry.name for entry in entries}.difference(sets)
        return Names(sets, _foreign(f"prompt_sets/{name}" for name in sorted(others)))

    def count_retired(self) -> int:
        """How many names have a retired version."""
        return len(storage.list_folder(self._uri("retired")))

    def look(self, name: str) -> Folder:
        """Which versions of `name` there are. Raises DamagedFileError if a file has the place of its folder."""
        versions, foreign = self._numbers(f"prompt_sets/{name}")
        try:
            retired, _ = self._numbers(f"retired/{name}")
        except DatasetError as error:
            if not isinstance(error, DamagedFileError) and not isinstance(error.__cause__, NotADirectoryError):
                raise
            # A file where only folders belong. The files of what was retired are gone, so none of it resolves again.
            return Folder(versions, 0, (*foreign, "retired"))
        return Folder(versions, max(retired, default=0), foreign)

    def read(self, name: str, version: int) -> ClassList:
        """One version. Raises MissingFileError, and DamagedFileError for a file that is not as it was written."""
        file = _version_file("prompt_sets", name, version)
        data = self._read(file, _MAX_VERSION_BYTES)
        try:
            stored = _Version.model_validate_json(data)
        except ValidationError as error:
            fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
            raise DamagedFileError(file, f"it is not a prompt set: {fault['msg']}") from error
        if stored.schema_version > SCHEMA_VERSION or stored.schema_version < 1:
            raise DamagedFileError(
                file, f"it has schema version {stored.schema_version}, this mets_ray reads up to {SCHEMA_VERSION}"
            )
        if stored.sha256 != (stored.hash() if stored.schema_version > 1 else None):
            raise DamagedFileError(file, "its content is not what its sha256 was made of")
        if (stored.name, stored.version) != (name, version):
            raise DamagedFileError(file, "it says that it is another prompt set or version")
        found = ClassList(stored.classes, stored.hypothesis_template, name, version)
        try:
            check_filled(found, self._config)
        except RequestError as error:
            raise DamagedFileError(file, error.fact) from error
        return found

    def create(self, new: ClassList) -> bool:
        """Store a version; False if another writer has taken its number.

        Raises RequestError 422 if its file would be larger than those that are read.
        """
        assert new.name is not None
        facts = {"name": new.name, "version": new.version, "classes": new.classes, "hypothesis_template": new.template}
        stored = _Version.model_validate(facts)
        data = stored.model_copy(update={"sha256": stored.hash()}).model_dump_json(indent=1).encode()
        if len(data) > _MAX_VERSION_BYTES:
            raise RequestError(
                422, "too_large", f"the list takes {len(data)} bytes; at most {_MAX_VERSION_BYTES} are stored"
            )
        uri = self._uri(_version_file("prompt_sets", new.name, new.version))
        return storage.create_bytes(uri, data)

    def read_features(self, name: str, texts: Sequence[str]) -> Float16[np.ndarray, "text feature"] | None:
        """The features of a version's texts; None if they were never computed with this bundle's LM.

        Raises DamagedFileError.
        """
        file = self._features_file(name, texts)
        shape = (len(texts), self._facts.text_features)
        try:
            data = self._read(file, _array_bytes(*shape))
        except storage.MissingFileError:
            return None
        try:
            features = safetensors.numpy.load(data)["features"]
            # The library reads metadata from files only: this is its format, checked just now.
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            written = header["__metadata__"]["sha256"]
        except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
            raise DamagedFileError(file, "it is not a safetensors file with `features` and their sha256") from error
        if features.dtype != np.float16 or features.shape != shape:
            raise DamagedFileError(file, f"it holds {features.dtype} {features.shape}, not float16 {shape}")
        if written != self._features_hash(texts, features):
            raise DamagedFileError(file, "its features are not what its sha256 was made of")
        return features

    def keep_features(self, name: str, texts: Sequence[str], features: Float16[np.ndarray, "text feature"]) -> None:
        """Store features unless they are there; a damaged file of them is replaced."""
        features = np.ascontiguousarray(features, dtype=np.float16)
        metadata = {"sha256": self._features_hash(texts, features)}
        data = safetensors.numpy.save({"features": features}, metadata)
        file = self._features_file(name, texts)
        if storage.create_bytes(self._uri(file), data):
            return
        try:
            self.read_features(name, texts)
        except DamagedFileError:
            storage.write_bytes(self._uri(file), data)

    def retire(self, name: str) -> Folder:
        """Make no version of `name` resolve any more and delete its files. Returns what was there.

        The numbers stay taken. Safe to repeat, and needed again where it broke off.
        """
        folder = self.look(name)
        if folder.live:
            through = folder.live[-1]
            facts = json.dumps({"name": name, "retired_through_version": through}).encode()
            storage.create_bytes(self._uri(_version_file("retired", name, through)), facts)
        storage.delete_files([self._uri(_version_file("prompt_sets", name, version)) for version in folder.versions])
        for features in self._feature_folders(name):
            storage.delete_files(storage.list_files(features))
        return folder

    def name_bytes(self, name: str) -> int:
        """Bytes of the versions and features of `name`."""
        folders = [self._uri(f"prompt_sets/{name}"), *self._feature_folders(name)]
        return sum(map(self._bytes, folders))

    def all_bytes(self) -> int:
        """Bytes of all prompt sets."""
        return sum(self._bytes(self._uri(part)) for part in ("prompt_sets", "retired", "text_features"))

    def _bytes(self, uri: str) -> int:
        # What is larger than any file of ours is not ours: one such file would use up everybody's quota.
        features = _array_bytes(WORDINGS_PER_CLASS * self._config.max_classes, self._facts.text_features)
        return storage.folder_bytes(uri, max_file_bytes=max(_MAX_VERSION_BYTES, features))

    def _read(self, file: str, max_bytes: int) -> bytes:
        try:
            return storage.read_bytes(self._uri(file), max_bytes=max_bytes)
        except (storage.MissingFileError, storage.UnreachableError):
            raise
        except DatasetError as error:  # a folder, a pipe, larger than any of ours, refused
            uri = self._uri(file)
            raise DamagedFileError(file, error.fact.replace(f"`{uri}`", "it").replace(uri, file)) from error

    def _numbers(self, folder: str) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """(the numbers of the versions in a folder, what else is there)."""
        numbers, foreign = [], []
        for entry in self._list(folder):
            found = _VERSION_FILE.fullmatch(entry.name)
            if found and 0 < int(found[1]) <= MAX_VERSION:
                numbers.append(int(found[1]))
            else:
                foreign.append(f"{folder}/{entry.name}")
        return tuple(numbers), _foreign(foreign)

    def _list(self, folder: str) -> list[storage.Entry]:
        try:
            return storage.list_folder(self._uri(folder))
        except storage.NotAFolderError as error:
            raise DamagedFileError(folder, "it is a file, not a folder") from error

    def _uri(self, file: str) -> str:
        return storage.join(self._state_uri, file)

    def _features_file(self, name: str, texts: Sequence[str]) -> str:
        return f"{self._lm_folder}/{name}/{_sha256(list(texts))}.safetensors"

    def _feature_folders(self, name: str) -> list[str]:
        """Of this bundle's LM and of earlier ones."""
        root = self._uri("text_features")
        return [storage.join(root, entry.name, name) for entry in storage.list_folder(root) if entry.is_folder]

    @property
    def _lm_folder(self) -> str:
        return part_folder("text_features", self._facts.text_fingerprint)

    def _features_hash(self, texts: Sequence[str], features: np.ndarray) -> str:
        hashed = hashlib.sha256(_spelt([self._facts.text_fingerprint, list(texts), features.shape]))
        hashed.update(features.tobytes())
        return hashed.hexdigest()


def _foreign(files: Iterable[str]) -> tuple[str, ...]:
    """As many as need to be named."""
    return tuple(itertools.islice(files, _FOREIGN))


def _array_bytes(texts: int, features: int) -> int:
    """The most that a safetensors file with one float16 array takes."""
    return 2 * texts * features + _HEADER_BYTES


def _version_file(folder: str, name: str, version: int) -> str:
    return f"{folder}/{name}/{version:08d}.json"


def _spelt(value: Any) -> bytes:
    """One spelling for one value: text joined by any character could be the text of another list."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode()


def _sha256(value: Any) -> str:
    return hashlib.sha256(_spelt(value)).hexdigest()
