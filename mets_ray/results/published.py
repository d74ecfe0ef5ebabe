"""Published results (`published.yaml`) with the source of each number, for comparison with results measured here."""

import functools
import importlib.resources
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PublishedBalanced(_Row):
    """One row of the METS paper's tables; `label_share` is the share of labels used in training, 0 for zero-shot."""

    method: str
    label_share: float
    accuracy: float
    precision: float
    recall: float
    f1: float

    @property
    def name(self) -> str:
        return f"{self.method}, {'zero-shot' if self.label_share == 0 else f'{self.label_share:.0%} of labels'}"


class PublishedAuroc(_Row):
    """Zero-shot macro AUROC of one system by task."""

    system: str
    macro: dict[str, float]
    mean: float | None = None
    reading: Literal["paper", "cited", "recalled"]
    source: str
    note: str = ""


class Published(_Row):
    """The contents of `published.yaml`."""

    balanced_source: str
    balanced_per_class: dict[str, int]
    balanced: dict[str, tuple[PublishedBalanced, ...]]
    auroc: tuple[PublishedAuroc, ...]


@functools.cache
def published() -> Published:
    """The packaged table of published results."""
    content = importlib.resources.files("mets_ray").joinpath("results/published.yaml").read_text(encoding="utf-8")
    return Published.model_validate(yaml.safe_load(content))
