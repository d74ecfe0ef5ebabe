"""Fill `<!-- settings: module:Class -->` in a page with tables made from that pydantic model.

The tables are made at every build from the model itself, so the page cannot fall behind the code.
"""

import importlib
import re
import sys
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

MARKER = re.compile(r"<!-- settings: (?P<module>[\w.]+):(?P<name>\w+) -->")

_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs calls this for every page before it renders Markdown."""

    def tables(found: re.Match[str]) -> str:
        model = getattr(importlib.import_module(found["module"]), found["name"])
        return "\n".join(section(model))

    return MARKER.sub(tables, markdown)


def section(model: type[BaseModel], prefix: str = "", title: str = "") -> Iterator[str]:
    """Markdown lines of one model: its own keys as a table, then a section for each model below it."""
    if title:
        yield f"\n### {title}\n"
        first_paragraph, *_ = (model.__doc__ or "").split("\n\n")
        yield f"{_one_line(first_paragraph)}\n"
    below = {name: _models(field.annotation) for name, field in model.model_fields.items()}
    rows = [name for name, kinds in below.items() if "" not in kinds and not (name == "kind" and prefix)]
    if rows:
        yield "| key | default | values | meaning |"
        yield "| --- | --- | --- | --- |"
    for name in rows:
        field = model.model_fields[name]
        values = " | ".join(f"`{kind}`" for kind in below[name]) or _values(field)
        cells = (f"`{prefix}{name}`", _default(field), values, _one_line(field.description or ""))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    for name, kinds in below.items():
        for kind, of_kind in kinds.items():
            yield from section(of_kind, f"{prefix}{name}.", f"`{prefix}{name}{f'={kind}' if kind else ''}`")


def _models(annotation: Any) -> dict[str, type[BaseModel]]:
    """The models below a key, by kind; one without kinds is under the empty name."""
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return {}
    # `prepare.source`: the settings of each kind are a class of their own, which the module's table names.
    module = sys.modules[annotation.__module__]
    if annotation.__name__ == "SourceSettings":
        return {kind: module.source_class(kind) for kind in module.SOURCES}
    return {"": annotation}


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    default = getattr(default, "kind", default)
    shown = list(default) if isinstance(default, tuple) else default
    text = yaml.safe_dump(shown, default_flow_style=True, allow_unicode=True, width=10_000)
    return f"`{text.strip().removesuffix('...').strip()}`"


def _values(field: FieldInfo) -> str:
    """Type and bounds in words."""
    return " | ".join(dict.fromkeys(_words(field.annotation, field.metadata)))


def _words(annotation: Any, metadata: Iterable[Any] = ()) -> list[str]:
    """What a value may be, one word or phrase each. `metadata` may hold bounds, as in `Annotated[int, Field(ge=1)]`."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _words(parts[0], [*parts[1:], *metadata])
    if _is_union(annotation):
        return [word for part in parts for word in _words(part, metadata)]
    if origin is typing.Literal:
        return [f"`{value}`" for value in parts]
    if origin in (tuple, list):
        inside = " | ".join(dict.fromkeys(word for part in parts if part is not ... for word in _words(part)))
        return [f"list of {inside}"]
    if origin is dict:
        return ["mapping"]
    if annotation is type(None):
        return ["`null`"]
    names = {bool: "`true` | `false`", int: "integer", float: "number", str: "text"}
    name = names.get(annotation, getattr(annotation, "__name__", str(annotation)))
    return [" ".join([name, *_bounds(metadata)])]


def _bounds(metadata: Iterable[Any]) -> Iterator[str]:
    for part in metadata:
        if isinstance(part, FieldInfo):
            yield from _bounds(part.metadata)
        for name, sign in _BOUNDS.items():
            if getattr(part, name, None) is not None:
                yield f"{sign} {getattr(part, name):g}"


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def _one_line(text: str) -> str:
    return " ".join(text.split())
