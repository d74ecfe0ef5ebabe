"""Zero-shot ECG recognition from reports (METS) on Ray.

>>> import mets_ray
>>> predictor = mets_ray.load_bundle("runs/pretrain-20261125-101500-1a2b/bundle")
>>> ecg = mets_ray.read_ecg("records100/00000/00001_lr")
>>> predictor.zero_shot(ecg, ["atrial fibrillation", "sinus rhythm"])[0].class_name

Importing this loads neither torch nor Ray; each name is loaded when it is first used (PEP 562).
"""

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mets_ray.archive.archive import open_archive
    from mets_ray.ecg.ecg import Ecg
    from mets_ray.ecg.read import read_ecg
    from mets_ray.errors import (
        CheckpointError,
        ConfigError,
        DatasetError,
        MetsError,
        RecordError,
        RequestError,
    )
    from mets_ray.model.predictor import load_predictor as load_bundle

try:
    __version__ = version("mets_ray")
except PackageNotFoundError:  # run from a checkout, or from the copy that `ray job submit` unpacks
    __version__ = "0+unknown"

_HOMES = {
    "Ecg": "mets_ray.ecg.ecg",
    "read_ecg": "mets_ray.ecg.read",
    "open_archive": "mets_ray.archive.archive",
    "load_bundle": "mets_ray.model.predictor:load_predictor",
    "CheckpointError": "mets_ray.errors",
    "ConfigError": "mets_ray.errors",
    "DatasetError": "mets_ray.errors",
    "MetsError": "mets_ray.errors",
    "RecordError": "mets_ray.errors",
    "RequestError": "mets_ray.errors",
}

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DatasetError",
    "Ecg",
    "MetsError",
    "RecordError",
    "RequestError",
    "__version__",
    "load_bundle",
    "open_archive",
    "read_ecg",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mets_ray' has no attribute {name!r}")
    module, _, there = _HOMES[name].partition(":")
    found = getattr(importlib.import_module(module), there or name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
