"""What a setting is, said beside its type: a place in storage, or a setting that a resumed run may change."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mets_ray.bundles import is_packaged

PositiveInt = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]

EncoderArchitecture = Literal["seresnet1d_18", "resnet1d_18"]
"""Of the ECG encoder; see `mets_ray.model.ecg_encoder.EcgEncoder`."""

EncoderRuntime = Literal["auto", "torch", "onnxruntime", "openvino", "openvino_bf16"]
"""What computes the ECG encoder on a CPU; `auto` is the fastest that is installed and does not round to bfloat16."""

ThresholdKind = Literal["best_f1", "sensitivity", "specificity"]
"""What the threshold of a class is chosen by (`metrics.thresholds`)."""


class Section(BaseModel):
    """A frozen group of settings that knows no other keys than its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Place:
    """Marks a `str` as the URI of a file or folder.

    written: the job writes there. names: other values that the setting takes, which are no URIs: `files` if every URI
    ends in one of `_FILE_SUFFIXES` (prompt sets), `folders` if a value is a path only where that folder exists (LMs),
    `bundles` if it may be the name of a packaged bundle.
    """

    written: bool = False
    names: Literal["none", "files", "folders", "bundles"] = "none"

    def holds(self, value: str) -> bool:
        """Whether `value` is a URI and not one of the setting's names."""
        if self.names == "none" or "://" in value:
            return True
        if self.names == "bundles":
            return not is_packaged(value)
        return value.lower().endswith(_FILE_SUFFIXES) if self.names == "files" else Path(value).is_dir()


_FILE_SUFFIXES = (".yaml", ".yml", ".json", ".csv")

Uri = Annotated[str, Place()]
OutputUri = Annotated[str, Place(written=True)]
NameOrFile = Annotated[str, Place(names="files")]
NameOrFolder = Annotated[str, Place(names="folders")]
NameOrBundle = Annotated[str, Place(names="bundles")]


class FreeAtResume:
    """Marks a setting that says where and how a run goes, not what it computes: a resumed run may change it."""


FREE_AT_RESUME = FreeAtResume()


@dataclass(frozen=True)
class PlaceSetting:
    """One URI of a configuration: its key, its value, and whether the job writes there."""

    key: str
    uri: str
    written: bool


def places(settings: BaseModel, prefix: str = "") -> Iterator[PlaceSetting]:
    """Every URI that `settings` and the sections in it name. Those that are not set are skipped."""
    for name, value, place in _fields(settings):
        key = f"{prefix}{name}"
        if isinstance(value, BaseModel):
            yield from places(value, f"{key}.")
        elif place is not None:
            many = isinstance(value, tuple)
            for number, one in enumerate(value if many else (value,)):
                if one and place.holds(one):
                    yield PlaceSetting(f"{key}[{number}]" if many else key, one, place.written)


def with_places(settings: Any, change: Any) -> Any:
    """The same settings with every URI replaced by `change(uri)`."""
    update: dict[str, Any] = {}
    for name, value, place in _fields(settings):
        if isinstance(value, BaseModel):
            update[name] = with_places(value, change)
        elif place is not None and isinstance(value, tuple):
            update[name] = tuple(change(one) if place.holds(one) else one for one in value)
        elif place is not None and value and place.holds(value):
            update[name] = change(value)
    return settings.model_copy(update=update)


def free_at_resume(settings: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Keys of the settings and of whole sections that a resumed run may change."""
    for name, field in settings.model_fields.items():
        if any(isinstance(mark, FreeAtResume) for mark in field.metadata):
            yield f"{prefix}{name}"
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from free_at_resume(field.annotation, f"{prefix}{name}.")


def _fields(settings: BaseModel) -> Iterator[tuple[str, Any, Place | None]]:
    for name, field in type(settings).model_fields.items():
        yield name, getattr(settings, name), _place([field.annotation, *field.metadata])


def _place(marks: list[Any]) -> Place | None:
    """The `Place` among the marks of a type, also below `| None` and in `tuple[..., ...]`."""
    for mark in marks:
        if isinstance(mark, Place):
            return mark
        inner = [*getattr(mark, "__metadata__", ()), *getattr(mark, "__args__", ())]
        if inner and (found := _place(inner)):
            return found
    return None
