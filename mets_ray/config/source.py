"""`prepare.source`: the table of sources, and how settings find the class that knows their source."""

import importlib
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SerializeAsAny

from mets_ray.config.kinds import Section
from mets_ray.errors import ConfigError


class SourceSettings(Section):
    """Settings of one source of ECGs; each kind of source adds its own (`mets_ray.sources.source.Source`)."""

    kind: str = Field(description="which source; or one of your own as package.module:Class")


SOURCES = {
    "synthetic": "mets_ray.sources.synthetic:Synthetic",
    "ptbxl": "mets_ray.sources.ptbxl:PtbXl",
    "files": "mets_ray.sources.files:Files",
    "mimic": "mets_ray.sources.mimic:MimicIvEcg",
    "mitbih": "mets_ray.sources.mitbih:MitBih",
    "cinc": "mets_ray.sources.cinc:Cinc",
    "code15": "mets_ray.sources.code15:Code15",
    "sph": "mets_ray.sources.sph:Sph",
}
"""The table of sources: `prepare.source.kind` → the class that knows the source, loaded when it is named."""


RENAMED = {"wfdb": "files"}
"""Kinds of earlier versions, which are still read."""


def source_class(kind: str) -> type[SourceSettings]:
    """The class of a kind of `SOURCES`, or of an import path such as `my_package.my_module:MySource`.

    Raises ConfigError where there is none.
    """
    kind = RENAMED.get(kind, kind)
    module_name, colon, class_name = SOURCES.get(kind, kind).partition(":")
    if not colon:
        raise ConfigError(
            f"`prepare.source` is `{kind}`, which is not a source",
            hint=f"choose from {', '.join(SOURCES)}, or name your own as package.module:Class",
        )
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"`prepare.source` is `{kind}`, which cannot be imported: {error}",
            hint="put the module where Python finds it: in the working folder of the job, or installed",
        ) from error
    if not (isinstance(found, type) and issubclass(found, SourceSettings)):
        raise ConfigError(
            f"`prepare.source` is `{kind}`, which is no subclass of mets_ray.sources.source.Source",
            hint="see `docs/extend/source.md`",
        )
    return found


def as_source(value: Any) -> Any:
    """Settings of a source from its kind alone, or from a mapping with `kind`. Raises ValueError, and ConfigError
    as `source_class`.
    """
    if isinstance(value, SourceSettings):
        return value
    tree = {"kind": value} if isinstance(value, str) else value
    if not isinstance(tree, dict) or not isinstance(tree.get("kind"), str):
        raise ValueError("give the kind of source and its settings, for example {kind: ptbxl, uri: ...}")
    kind = str(tree["kind"])
    kind = RENAMED.get(kind, kind)
    return source_class(kind).model_validate(tree | {"kind": kind})


AnySource = Annotated[SerializeAsAny[SourceSettings], BeforeValidator(as_source)]
