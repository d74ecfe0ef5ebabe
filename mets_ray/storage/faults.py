"""What went wrong in a store, as a DatasetError that says what the store answered.

A file that is absent from a store that answers is the subclass MissingFileError, so that a reader can count one absent
record and still stop when the store is down, which is an UnreachableError; one that has other bytes than were written
is a DamagedFileError.
"""

import functools
import os
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec

from mets_ray.errors import DatasetError, MetsError
from mets_ray.storage.uris import is_local

# By name, so that no store's library need be installed.
_REFUSED = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "TokenRetrievalError",
    "UnauthorizedSSOTokenError",
    "DefaultCredentialsError",
    "RefreshError",
    "ClientAuthenticationError",
}
_UNREACHABLE = {
    "EndpointConnectionError",
    "ConnectTimeoutError",
    "ConnectionError",
    "HTTPClientError",
    "ClientConnectionError",
    "FSTimeoutError",
    "ServiceRequestError",
    "TimeoutError",
}


class MissingFileError(DatasetError):
    """The store answers, and has no such file."""


class NotAFileError(DatasetError):
    """A folder or a pipe has the place of a file."""


class TooLargeError(DatasetError):
    """The file has more bytes than its reader allows."""


class NotAFolderError(DatasetError):
    """A file has the place of a folder."""


class UnreachableError(DatasetError):
    """The store does not answer, or answers with server errors only."""


class DamagedFileError(DatasetError):
    """The file is there, and is not what was written."""


@contextmanager
def store_faults(uri: str, fs: fsspec.AbstractFileSystem | None = None) -> Iterator[None]:
    """Turn whatever a store's library raises into a DatasetError that quotes it."""
    try:
        yield
    except MetsError:
        raise
    except FileNotFoundError as error:
        if fs is not None:
            _require_bucket(fs, fs._strip_protocol(uri))
        raise MissingFileError(f"`{uri}` does not exist") from error
    except NotADirectoryError as error:
        fact = f"`{uri}` is not there: a part of its path is a file and no folder"
        raise DatasetError(fact, hint="give the folder itself, not a file in it") from error
    except Exception as error:
        fault = DatasetError
        names = {kind.__name__ for link in _causes(error) for kind in type(link).__mro__}
        if isinstance(error, PermissionError) or names & _REFUSED:
            fact, hint = f"access to `{uri}` is refused", "check the credentials in the environment and their rights"
            hint = "check the file's permissions" if is_local(uri) else hint
        elif names & _UNREACHABLE:
            fact, hint = f"the store of `{uri}` cannot be reached", "check the network and AWS_ENDPOINT_URL"
            fault = UnreachableError
        elif any(_status(link) >= 500 for link in _causes(error)):
            fact, hint = f"the store of `{uri}` answers with server errors", "the request was retried; try later"
            fault = UnreachableError
        else:
            fact, hint = f"`{uri}` cannot be used", ""
        raise fault(f"{fact}: {type(error).__name__}: {error}", hint=hint) from error


def _status(error: BaseException) -> int:
    metadata: dict[str, Any] = getattr(error, "response", None) or {}
    return int(metadata.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) if isinstance(metadata, dict) else 0


def _causes(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__


def _require_bucket(fs: fsspec.AbstractFileSystem, path: str) -> None:
    """Raise DatasetError where S3 has no such bucket, which it does not tell from a missing file by itself."""
    if "s3" in fs.protocol:
        _require_s3_bucket(fs, posixpath.normpath(path).split("/")[0], os.getpid())


@functools.lru_cache(maxsize=64)
def _require_s3_bucket(fs: Any, bucket: str, _process: int) -> None:
    # lru_cache keeps no exception, so only the presence of a bucket is remembered.
    try:
        fs.call_s3("head_bucket", Bucket=bucket)
    except PermissionError:
        return  # files may be readable without the right to list the bucket
    except FileNotFoundError as error:
        raise DatasetError(
            f"there is no bucket `{bucket}`",
            where=f"s3://{bucket}",
            hint="check the URI and the endpoint, or create the bucket",
        ) from error
