"""Libraries of the extra `clinical`, loaded when a file needs them."""

import importlib
from types import ModuleType

from mets_ray.errors import RecordError


def library(name: str) -> ModuleType:
    """The module `name`. Raises RecordError `missing_library`, with the extra to install."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise RecordError(
            "missing_library",
            f"this file format needs `{name.partition('.')[0]}`, which is not installed",
            hint="pip install 'mets-ray[clinical]'",
        ) from error
