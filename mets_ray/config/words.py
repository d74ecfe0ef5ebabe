"""`key.sub=value` words of a command line: each value read as its setting's type says, never as YAML guesses."""

import types
import typing
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import yaml
from pydantic import BaseModel

from mets_ray.config.settings import Config
from mets_ray.config.source import SourceSettings, source_class
from mets_ray.config.suggest import suggestion
from mets_ray.errors import ConfigError

_SOURCE = "prepare.source"


def apply_words(tree: dict[str, Any], words: Sequence[str]) -> None:
    """Put `words` into a tree of settings, in their order; `prepare.source=KIND` goes before what is below it.

    Text is taken as the shell hands it over. `null` unsets a setting that may be absent. Lists are `[1,2]` or `1,2`,
    mappings `{lm_gpu: 1}`. Raises ConfigError for a word without `=`, an unknown key, or a list that cannot be read.
    """
    pairs = [split_word(word) for word in words]
    for key, value in sorted(pairs, key=lambda pair: pair[0] != _SOURCE):
        if key == _SOURCE and not value.startswith("{"):
            _choose_source(tree, value)
        else:
            _put(tree, key, value)


def split_word(word: str) -> tuple[str, str]:
    """(key, value) of a `key=value` word. Raises ConfigError for any other word."""
    key, equals, value = word.partition("=")
    if not equals or not key:
        raise ConfigError(f"`{word}` is not of the form key=value", hint="write for example train.epochs=5")
    return key, value


def _choose_source(tree: dict[str, Any], kind: str) -> None:
    """The source of this kind; settings that the file has for the same kind stay."""
    prepare = tree.setdefault("prepare", {})
    source = prepare.get("source")
    known = source.get("kind") if isinstance(source, dict) else source
    if known != kind or not isinstance(source, dict):
        prepare["source"] = {"kind": kind}


def _put(tree: dict[str, Any], key: str, value: str) -> None:
    *parents, last = key.split(".")
    model: type[BaseModel] = Config
    at = tree
    for depth, parent in enumerate(parents):
        child = _section(model, parent, at)
        if child is None:
            raise ConfigError(f"`{key}` is not a setting", hint=suggestion(key))
        if not isinstance(at.get(parent), dict):
            # `source: ptbxl` in a file is short for a mapping with this kind.
            at[parent] = {"kind": at[parent]} if isinstance(at.get(parent), str) else {}
        if ".".join(parents[: depth + 1]) == _SOURCE:
            at[parent].setdefault("kind", "synthetic")
        at, model = at[parent], child
    field = model.model_fields.get(last)
    # An unknown last word stays as it is: with all other faults it is found when the tree is checked.
    at[last] = value if field is None else read_value(key, value, field.annotation)


def _section(model: type[BaseModel], name: str, tree: dict[str, Any]) -> type[BaseModel] | None:
    """The model of the section `name`; of a source, the class of the kind that the tree names."""
    field = model.model_fields.get(name)
    annotation = None if field is None else field.annotation
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return None
    if annotation is SourceSettings:
        source = tree.get(name)
        return source_class(source.get("kind", "synthetic") if isinstance(source, dict) else source or "synthetic")
    return annotation


def read_value(key: str, value: str, annotation: Any) -> Any:
    """The value of a `key=value` word as the type `annotation` says; pydantic checks it later.

    Raises ConfigError for a list or a mapping that cannot be read.
    """
    kinds = set(_kinds(annotation))
    if value == "null" and type(None) in kinds:
        return None
    if value[:1] in ("[", "{") and kinds & {tuple, dict}:
        try:
            # All scalars stay text, which pydantic reads by type: YAML would make `no` false and 010 eight.
            return yaml.load(value, Loader=yaml.BaseLoader)
        except yaml.YAMLError as error:
            raise ConfigError(
                f"`{key}` is `{value}`, a list or mapping that cannot be read: {error}", hint="write [1,2] or {a: 1}"
            ) from error
    if tuple in kinds and not kinds & {str, int, float}:
        return [part.strip() for part in value.split(",") if part.strip()]
    return value if str in kinds else _number(value)


def _number(value: str) -> Any:
    """`010` is 10; what is no number stays text, and is refused or read (`true`) by its type."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(value)
    return value


def _kinds(annotation: Any) -> Iterator[type]:
    """The outer types that a value may have: `tuple[int, ...] | str` → tuple, str."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        yield from _kinds(typing.get_args(annotation)[0])
    elif origin in (typing.Union, types.UnionType):
        for part in typing.get_args(annotation):
            yield from _kinds(part)
    elif origin is typing.Literal:
        yield from {type(value) for value in typing.get_args(annotation)}
    else:
        yield origin or annotation


def write_value(value: Any) -> str:
    """A value as one writes it on the command line."""
    return str(yaml.safe_dump(value, default_flow_style=True)).strip().removesuffix("...").strip()
