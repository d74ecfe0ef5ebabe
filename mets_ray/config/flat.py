"""Flat settings of a command that is no Ray job: defaults ← a YAML tree ← `key=value` words."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from mets_ray.config.words import read_value, split_word, write_value
from mets_ray.errors import ConfigError
from mets_ray.packaged import did_you_mean

Settings = TypeVar("Settings", bound=BaseModel)


def read_flat(model: type[Settings], tree: Mapping[str, Any], words: Sequence[str]) -> Settings:
    """The settings `model` from a tree and the words that win over it. Raises ConfigError that lists every fault."""
    values = dict(tree)
    for word in words:
        key, value = split_word(word)
        field = model.model_fields.get(key)
        values[key] = value if field is None else read_value(key, value, field.annotation)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        known = list(model.model_fields)
        lines = [
            f"`{fault['loc'][0]}` is not a setting; {did_you_mean(str(fault['loc'][0]), known)}"
            if fault["type"] == "extra_forbidden"
            else f"`{fault['loc'][0]}` is not set"
            if fault["type"] == "missing"
            else f"`{'.'.join(map(str, fault['loc']))}`: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors()
        ]
        raise ConfigError("\n".join(lines)) from error


def describe_flat(model: type[BaseModel]) -> str:
    """Two lines for every key, default and meaning: the tail of `--help`."""
    return "\n".join(
        f"  {name} = {default}\n      {field.description}"
        for name, field in model.model_fields.items()
        for default in ["(required)" if field.is_required() else write_value(field.get_default())]
    )
