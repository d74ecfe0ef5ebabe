"""The only place that knows Lance: a table in a folder or a bucket, and its errors as ours.

`<archive>/ecgs.lance` is a plain Lance table, so LanceDB and DuckDB read it too.
"""

import importlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mets_ray import storage
from mets_ray.errors import ConfigError, DatasetError, MetsError, first_line

TABLE_NAME = "ecgs.lance"
_QUOTED = re.compile(r"'[^']*'")
_AGAIN = "if files were deleted, index the scores again into another folder; if the store was down, try again"
_PANIC = "PanicException"


def lance() -> Any:
    """The library. Raises ConfigError if the extra `archive` is not installed."""
    os.environ.setdefault("LANCE_LOG", "error")  # it warns of its own defaults on stderr
    try:
        return importlib.import_module("lance")
    except ImportError as error:
        raise ConfigError(
            f"searching an archive needs Lance: {error}", hint="pip install 'mets_ray[archive]'"
        ) from error


def table_uri(uri: str) -> str:
    """Where an archive's table lies, as Lance is told."""
    place = storage.join(uri, TABLE_NAME)
    return storage.absolute(place.removeprefix("file://")) if storage.is_local(place) else place


def storage_options(uri: str) -> dict[str, str] | None:
    """What Lance does not take from the environment by itself: the endpoint of an S3 that is not Amazon's.

    Credentials and regions it reads from the same variables as `storage` does.
    """
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not uri.startswith(("s3://", "s3a://")) or not endpoint:
        return None
    options = {"aws_endpoint": endpoint, "aws_region": os.environ.get("AWS_REGION", _default_region())}
    return options | {"allow_http": "true"} if endpoint.startswith("http://") else options


def _default_region() -> str:
    return os.environ.get("AWS_DEFAULT_REGION", "us-east-1")


def open_table(uri: str, version: int | None = None, cache_bytes: int | None = None) -> Any:
    """The table of an archive at a version; default: the newest. Raises DatasetError if it cannot be opened.

    cache_bytes: of its indices in memory.
    """
    library = lance()
    with table_faults(uri):
        session = None if cache_bytes is None else library.Session(index_cache_size_bytes=cache_bytes)
        options = storage_options(uri)
        return library.dataset(table_uri(uri), version=version, storage_options=options, session=session)


@contextmanager
def table_faults(uri: str) -> Iterator[None]:
    """Turn whatever Lance raises into a DatasetError that quotes it."""
    try:
        yield
    except MetsError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != _PANIC:
            raise
        # Lance quotes the whole filter, which may name a patient.
        text = _QUOTED.sub("'…'", first_line(error) if isinstance(error, Exception) else str(error))
        gone = isinstance(error, FileNotFoundError) or "not found" in text.lower()
        fact = "a file of the index is gone" if gone else "the index cannot be used"
        raise DatasetError(f"{fact}: {type(error).__name__}: {text[:400]}", where=uri, hint=_AGAIN) from error
