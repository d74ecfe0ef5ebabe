"""YAML that travels in the package: found by name, parsed without repeated keys, its head checked."""

import difflib
import importlib.resources
from collections.abc import Sequence
from importlib.resources.abc import Traversable
from typing import Any

import yaml

from mets_ray.errors import ConfigError


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML keeps the last of equal keys without a word; a class written twice must be seen."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for position, key in enumerate(keys):
            if key in keys[:position]:
                raise ConfigError(f"`{key}` stands twice", where=f"line {node.value[position][0].start_mark.line + 1}")
        return super().construct_mapping(node, deep=deep)


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """A hint: the nearest of the known words, or all of them where none is near."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean `{close[0]}`?" if close else f"known are {', '.join(f'`{name}`' for name in known)}"


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


def read_yaml(content: bytes, where: str) -> dict[str, Any]:
    """The tree of a prompt or label file, its head checked. Raises ConfigError; `where` is what it calls the file."""
    try:
        tree = yaml.load(content, Loader=_UniqueKeyLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: bytes, and dates like 2026-13-01
        raise ConfigError(f"this is not YAML: {error}", where=where) from error
    except ConfigError as error:
        raise ConfigError(error.fact, where=f"{where}, {error.where}") from None
    return require_head(tree, where)


def require_head(tree: Any, where: str) -> dict[str, Any]:
    """`tree`, a mapping of `name`, `version`, `source` and `tasks`, each of its kind, and no more; or ConfigError."""
    if not isinstance(tree, dict):
        raise ConfigError(f"the file holds a {type(tree).__name__}, not a mapping", where=where)
    require_keys(tree, ("name", "version", "source", "tasks"), "the file", where)
    for key, kind in (("name", str), ("version", int), ("source", str), ("tasks", dict)):
        if not isinstance(tree[key], kind) or isinstance(tree[key], bool) or not tree[key]:
            raise ConfigError(f"`{key}` is {tree[key]!r}, not a {kind.__name__} with content", where=where)
    return tree


def require_keys(mapping: dict[Any, Any], keys: tuple[str, ...], name: str, where: str) -> None:
    """Raise ConfigError unless `mapping`, called `name` in the message, has exactly `keys`."""
    for key in mapping:
        if key not in keys:
            raise ConfigError(f"`{key}` is not a key of {name}", where=where, hint=did_you_mean(str(key), keys))
    for key in keys:
        if key not in mapping:
            raise ConfigError(f"{name} lacks the key `{key}`", where=where, hint=f"add `{key}:`")


def texts_by_class(mapping: Any, name: str, where: str) -> dict[str, tuple[str, ...]]:
    """`{class: [text, ...]}`, checked: no list empty, no text blank or of another type (YAML reads `NO` as false).

    name: the mapping's place in the file, "" for the whole file. Raises ConfigError.
    """
    if not isinstance(mapping, dict) or not mapping:
        raise ConfigError(f"`{name}` is {mapping!r}, not a mapping of classes to lists", where=where)
    for class_name, texts in mapping.items():
        if not isinstance(class_name, str):
            raise ConfigError(f"`{name}` has the class {class_name!r}, not text", where=where, hint="put it in quotes")
        key = f"{name}.{class_name}" if name else class_name
        if not isinstance(texts, list) or not texts:
            raise ConfigError(
                f"`{key}` is {texts!r}, not a list of texts", where=where, hint="give the class a text, or take it out"
            )
        for text in texts:
            if not isinstance(text, str) or not text.strip():
                raise ConfigError(
                    f"`{key}` holds {text!r}, not a text with words", where=where, hint="write words, or take it out"
                )
            # json and yaml both read half of a surrogate pair, which has no UTF-8 and so neither hash nor tokens.
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise ConfigError(
                    f"`{key}` holds {text!r}, with half a character that UTF-8 cannot write",
                    where=where,
                    hint="write the character itself and not its \\u escape",
                )
    return {class_name: tuple(texts) for class_name, texts in mapping.items()}
