"""From defaults, one YAML file and `key.sub=value` words to a checked `Config`, and back to YAML.

Defaults ← one YAML file ← words, in this order. Unknown keys are refused with a suggestion, and all faults are
reported at once.
"""

import typing
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ValidationError

from mets_ray.config.settings import HASH_PREFIX, Config, FoldsConfig
from mets_ray.config.source import SOURCES, SourceSettings, source_class
from mets_ray.config.suggest import nearest, settings_of
from mets_ray.config.words import apply_words, write_value
from mets_ray.errors import ConfigError
from mets_ray.packaged import read_yaml


def load_config(path: str | Path | None = None, words: Sequence[str] = ()) -> Config:
    """Defaults ← the YAML file at `path` ← `key.sub=value` words.

    Raises ConfigError that lists every fault at once.
    """
    tree = {} if path is None else read_file(path)
    apply_words(tree, words)
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_faults(error)) from error
    faults = list(_combinations(config))
    if faults:
        raise ConfigError("\n".join(fault for fault, _ in faults), hint="; ".join(hint for _, hint in faults))
    return config


def dump_config(config: Config) -> str:
    """YAML that `load_config` reads back to the same settings."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def dump_changes(config: Config) -> str:
    """YAML of what differs from the defaults, for people; `load_config` reads it back to the same settings."""
    changed = _changes(config.model_dump(mode="json"), Config().model_dump(mode="json"))
    return yaml.safe_dump(changed, sort_keys=False) if changed else ""


def describe_settings(sections: Collection[str] | None = None) -> str:
    """Two lines for every key, default and meaning: the tail of every command's `--help`.

    sections: those to describe beside the keys that stand in none; default: all.
    """
    lines = []
    for key, field in settings_of(Config):
        if sections is not None and "." in key and key.split(".")[0] not in sections:
            continue
        default = field.get_default(call_default_factory=True)
        if isinstance(default, SourceSettings):
            default = default.kind
        shown = list(default) if isinstance(default, tuple) else default
        choices = " | ".join(SOURCES) if key == "prepare.source" else _choices(field.annotation)
        value = write_value(shown)
        lines.append(f"  {key} = {value}")
        lines.append(f"      {field.description or ''}{f'  [{choices}]' if choices else ''}")
        if key == "prepare.source":
            lines += _describe_sources()
    return "\n".join(lines)


def read_file(path: str | Path) -> dict[str, Any]:
    """The tree of a YAML file of settings. Raises ConfigError for one that cannot be read or has a key twice."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"`--config {path}` cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"`--config {path}` is not UTF-8: {error.reason}") from error
    tree = read_yaml(text.encode(), f"`{path}`") or {}
    if not isinstance(tree, dict):
        raise ConfigError(f"`{path}` holds a {type(tree).__name__}, not a mapping of settings")
    return tree


def _changes(tree: dict[str, Any], default: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for key, value in tree.items():
        before = default.get(key)
        if value == before:
            continue
        if key == "source" and isinstance(value, dict):
            kind = str(value["kind"])  # those of another kind differ from their own defaults
            value = {"kind": kind} | _changes(value, source_class(kind)(kind=kind).model_dump(mode="json"))
        elif isinstance(value, dict) and isinstance(before, dict) and key != "resources":
            value = _changes(value, before)
        found[key] = value
    return found


def _describe_sources() -> Iterator[str]:
    for kind in SOURCES:
        model = source_class(kind)
        for name, field in model.model_fields.items():
            if name != "kind":
                choices = _choices(field.annotation)
                value = write_value(field.default)
                yield f"  prepare.source.{name} = {value}"
                yield f"      {kind}: {field.description or ''}{f'  [{choices}]' if choices else ''}"


def _choices(annotation: Any) -> str:
    """`a | b` of a Literal, also inside a union, an optional or a tuple."""
    if typing.get_origin(annotation) is Literal:
        return " | ".join(str(value) for value in typing.get_args(annotation))
    return next(filter(None, (_choices(part) for part in typing.get_args(annotation))), "")


def _faults(error: ValidationError) -> str:
    lines = []
    for fault in error.errors():
        # A union adds the name of the branch that failed to the location: keys alone are for people.
        parts = [str(part) for part in fault["loc"]]
        key = ".".join(part for part in parts if not part.startswith(("tuple", "str", "int", "list", "constrained")))
        if fault["type"] == "extra_forbidden":
            close = nearest(key)
            if close == key:  # of another kind of source
                lines.append(f"`{key}` is not a setting of this `prepare.source`")
            else:
                lines.append(f"`{key}` is not a setting" + (f"; did you mean `{close}`?" if close else ""))
        else:
            lines.append(f"`{key}` is {fault['input']!r}: {fault['msg'].removeprefix('Value error, ')}")
    return "\n".join(dict.fromkeys(lines))


def _combinations(config: Config) -> Iterator[tuple[str, str]]:
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
    fits = "sigmoid" if config.text.unit == "statement" else "one_hot or same_report"
    if config.loss not in fits.split(" or "):
        yield (
            f"`loss` is {config.loss}, and `text.unit` {config.text.unit} trains with {fits}",
            "leave `loss` out, or set text.unit to " + ("statement" if config.loss == "sigmoid" else "report"),
        )
    yield from _fold_faults(folds)


def _fold_faults(folds: FoldsConfig) -> Iterator[tuple[str, str]]:
    named = {"train": folds.train, "test": folds.test or ()}
    if not isinstance(folds.validation, str):
        named["validation"] = folds.validation
    for first, second in (("train", "test"), ("train", "validation"), ("validation", "test")):
        both = sorted(set(named.get(first, ())) & set(named.get(second, ())))
        if both:
            yield (
                f"fold {', '.join(map(str, both))} is in both `folds.{first}` and `folds.{second}`",
                f"take it out of one; {HASH_PREFIX}0.1 draws validation patients from the train folds",
            )
