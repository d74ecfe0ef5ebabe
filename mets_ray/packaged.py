"""YAML that travels in the package: found by name, and read without repeated keys."""

import difflib
import importlib.resources
from collections.abc import Hashable, Sequence
from importlib.resources.abc import Traversable
from typing import Any

import yaml

from mets_ray.errors import ConfigError


class _UniqueKeys(yaml.constructor.SafeConstructor):
    """PyYAML keeps the last of equal keys and says nothing; a class that is written twice must be refused."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue  # PyYAML refuses it
            if key in seen:
                raise ConfigError(f"`{key}` appears twice", where=f"line {key_node.start_mark.line + 1}")
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


class _UniqueKeyLoader(_UniqueKeys, yaml.SafeLoader):
    pass


class _FastLoader(_UniqueKeys, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    pass


def nearest(word: str, known: Sequence[str]) -> str | None:
    """The known word that looks most like this one, or None where none is near."""
    return next(iter(difflib.get_close_matches(word, known, n=1)), None)


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """A hint: the nearest of the known words, or all of them where none is near."""
    near = nearest(word, known)
    return f"known are {', '.join(f'`{name}`' for name in known)}" if near is None else f"did you mean `{near}`?"


def packaged_files(folder: str) -> dict[str, Traversable]:
    """The YAML files of a folder of the package, by name."""
    return {
        entry.name.removesuffix(".yaml"): entry
        for entry in importlib.resources.files("mets_ray").joinpath(folder).iterdir()
        if entry.name.endswith(".yaml")
    }


def packaged_bytes(folder: str, name: str) -> bytes:
    """The YAML file `name` of a folder of the package. Raises ConfigError for an unknown name."""
    files = packaged_files(folder)
    if name not in files:
        kind = {"tasks/prompts": "prompt set", "tasks/label_sets": "label set"}[folder]
        raise ConfigError(f"no packaged {kind} is called `{name}`", hint=did_you_mean(name, sorted(files)))
    return files[name].read_bytes()


def read_yaml(content: bytes, where: str, *, is_ours: bool = False) -> Any:
    """What a YAML file holds. Raises ConfigError for broken YAML and repeated keys; `where` names the file in it.

    is_ours: a large file of the package, which libyaml reads five times as fast. It has no bound for nested lists, so
    what others wrote is read in Python.
    """
    try:
        return yaml.load(content, Loader=_FastLoader if is_ours else _UniqueKeyLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: bytes, and dates like 2026-13-01
        raise ConfigError(f"this is not YAML: {error}", where=where) from error
    except ConfigError as error:
        raise ConfigError(error.fact, where=f"{where}, {error.where}") from None
