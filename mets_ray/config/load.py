"""From defaults, one YAML file and `key.sub=value` words to a checked `Config`, and back to YAML."""

import difflib
import types
import typing
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ValidationError

from mets_ray.config.settings import HASH_PREFIX, Config
from mets_ray.errors import ConfigError


def load_config(path: str | Path | None = None, overrides: typing.Sequence[str] = ()) -> Config:
    """Defaults ← the YAML file at `path` ← `key.sub=value` words.

    Raises ConfigError that lists every fault at once.
    """
    tree: dict[str, Any] = {}
    if path is not None:
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"`--config {path}` cannot be read: {error.strerror}") from error
        try:
            tree = yaml.safe_load(text) or {}
        except yaml.YAMLError as error:
            raise ConfigError(f"`{path}` is not YAML: {error}") from error
        if not isinstance(tree, dict):
            raise ConfigError(f"`{path}` holds a {type(tree).__name__}, not a mapping of settings")
    for word in overrides:
        _override(tree, word)
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(*_faults(error)) from error
    faults = list(_combinations(config))
    if faults:
        raise ConfigError("\n".join(fault for fault, _ in faults), hint="; ".join(hint for _, hint in faults))
    return config


def dump_config(config: Config) -> str:
    """YAML that `load_config` reads back to the same settings."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def describe_settings() -> str:
    """One line for every key: default and meaning (the tail of every job's `--help`)."""
    lines = []
    for key, field in _walk(Config):
        default = field.get_default(call_default_factory=True)
        shown = list(default) if isinstance(default, tuple) else default
        choices = _choices(field.annotation)
        meaning = field.description or ""
        value = yaml.safe_dump(shown, default_flow_style=True).strip().removesuffix("...").strip()
        lines.append(f"  {key} = {value}")
        lines.append(f"      {meaning}{f'  [{choices}]' if choices else ''}")
    return "\n".join(lines)


def _walk(model: type[BaseModel], prefix: str = "") -> typing.Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _walk(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def _choices(annotation: Any) -> str:
    if typing.get_origin(annotation) is Literal:
        return " | ".join(str(value) for value in typing.get_args(annotation))
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return next(filter(None, (_choices(part) for part in typing.get_args(annotation))), "")
    return ""


def _override(tree: dict[str, Any], word: str) -> None:
    key, equals, value = word.partition("=")
    if not equals or not key:
        raise ConfigError(f"`{word}` is not of the form key=value", hint="write for example train.epochs=5")
    *parents, last = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"`{key}` goes below `{parent}`, which is a value")
    try:
        tree[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"`{word}` has a value that is not YAML: {error}") from error


def _faults(error: ValidationError) -> tuple[str]:
    known = [key for key, _ in _walk(Config)]
    lines = []
    for fault in error.errors():
        # A union adds the name of the branch that failed to the location: keys alone are for people.
        key = ".".join(str(part) for part in fault["loc"] if not str(part).startswith(("tuple", "str", "int", "list")))
        if fault["type"] == "extra_forbidden":
            close = difflib.get_close_matches(key, known, n=1) or _same_leaf(key, known)
            lines.append(f"`{key}` is not a setting" + (f"; did you mean `{close[0]}`?" if close else ""))
        else:
            lines.append(f"`{key}` is {fault['input']!r}: {fault['msg'].removeprefix('Value error, ')}")
    return ("\n".join(dict.fromkeys(lines)),)


def _same_leaf(key: str, known: list[str]) -> list[str]:
    leaves = {name.rsplit(".", 1)[-1]: name for name in known}
    return [leaves[leaf] for leaf in difflib.get_close_matches(key.rsplit(".", 1)[-1], leaves, n=1)]


def _combinations(config: Config) -> typing.Iterator[tuple[str, str]]:
    """Faults that no single key shows: (fact, hint)."""
    train, folds = config.train, config.folds
    if train.batch_size % train.lanes:
        below = max(train.lanes, train.batch_size // train.lanes * train.lanes)
        yield (
            f"`train.batch_size` is {train.batch_size}, which {train.lanes} lanes cannot share equally",
            f"use a multiple of {train.lanes}, for example {below} or {below + train.lanes}",
        )
    if train.lanes < train.most_workers:
        yield (
            f"`train.lanes` is {train.lanes}, fewer than the {train.most_workers} of `train.num_workers`",
            f"set train.lanes to at least {train.most_workers}",
        )
    if train.least_workers > train.most_workers:
        yield (
            f"`train.num_workers` is {list(train.num_workers)}, the least above the most",  # type: ignore[arg-type]
            f"write train.num_workers=[{train.most_workers},{train.least_workers}]",
        )
    if train.compile and config.encoder.activation_checkpointing:
        yield (
            "`train.compile` and `encoder.activation_checkpointing` are both true, and torch.compile itself plans what "
            "to recompute",
            "set one of them to false",
        )
    if config.text.max_actors < config.text.min_actors:
        yield (
            f"`text.max_actors` is {config.text.max_actors}, below `text.min_actors` {config.text.min_actors}",
            f"set text.max_actors to at least {config.text.min_actors}",
        )
    if config.text.template.count("{}") != 1:
        yield (f"`text.template` is {config.text.template!r}, without exactly one {{}}", "put {} where the report goes")
    named = {"train": folds.train, "test": folds.test}
    if not isinstance(folds.validation, str):
        named["validation"] = folds.validation
    for first, second in (("train", "test"), ("train", "validation"), ("validation", "test")):
        both = sorted(set(named.get(first, ())) & set(named.get(second, ())))
        if both:
            yield (
                f"fold {', '.join(map(str, both))} stands in `folds.{first}` and in `folds.{second}`",
                f"take it out of one; {HASH_PREFIX}0.1 draws validation patients from the train folds",
            )
