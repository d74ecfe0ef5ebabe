"""S3 with patience: a request that fails by bad luck is asked again, for a minute and a half, in one place.

botocore's own retries end after some 100 failures of a process (a quota), which 32 reading threads use up in seconds,
and see no body that breaks off; s3fs repeats what botocore has already repeated, lists without repeating, and keeps no
count. So both ask once, and every call to the store, pages of a listing and parts of an upload too, goes through
`PatientCall`.
"""

import asyncio
import hashlib
import io
import logging
import random
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import s3fs
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
)
from botocore.parsers import ResponseParserError

PATIENCE_S = 90.0

_LONGEST_PAUSE_S = 8.0

_TRIES_OF_A_STRANGER = 2  # an endpoint that never answered is more likely wrong than down

_DOWNLOAD_PART_BYTES = 32 * 2**20

_DOWNLOAD_PARTS_IN_FLIGHT = 4

_TRANSIENT_STATUS = {429, 500, 502, 503, 504}

_TRANSIENT_CODES = {
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "TooManyRequestsException",
    "RequestTimeout",
    "RequestTimeoutException",
    "InternalError",
    "IncompleteBody",
    "XAmzContentSHA256Mismatch",
    "OperationAborted",
    "ConditionalRequestConflict",  # another conditional upload of the same name is under way
}

_UNREACHABLE = (EndpointConnectionError, ConnectTimeoutError)

_BROKEN = (
    HTTPClientError,  # a timeout, a closed connection, a body that breaks off
    IncompleteReadError,
    FlexibleChecksumError,
    ResponseParserError,
    aiohttp.ClientError,
    TimeoutError,
    ConnectionResetError,
)

_logger = logging.getLogger(__name__)

_retries = 0

Call = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]


def retries() -> int:
    """How many requests this process has sent again."""
    return _retries


class PatientS3FileSystem(s3fs.S3FileSystem):
    """s3fs whose client asks again. The class travels when Ray pickles it, what is set on an instance would not."""

    retries = 1  # s3fs's own rounds

    async def set_session(self, *args: Any, **kwargs: Any) -> Any:
        client = await super().set_session(*args, **kwargs)
        if not isinstance(client._make_api_call, PatientCall):
            client._make_api_call = PatientCall(client._make_api_call)
        return client

    async def _get_file(self, rpath: str, lpath: str, **_: Any) -> None:
        """In parts, each whole before it is written. s3fs would open the whole file first and leave its body unread."""
        size = await self._size(rpath)
        starts = range(0, size, _DOWNLOAD_PART_BYTES)
        with Path(lpath).open("wb") as file:
            for first in range(0, len(starts), _DOWNLOAD_PARTS_IN_FLIGHT):
                parts = [
                    self._cat_file(rpath, start=start, end=min(size, start + _DOWNLOAD_PART_BYTES))
                    for start in starts[first : first + _DOWNLOAD_PARTS_IN_FLIGHT]
                ]
                for data in await asyncio.gather(*parts):
                    file.write(data)


class PatientCall:
    """A client's `_make_api_call`, which every operation and every page goes through.

    Asked again, with growing and random pauses, for up to `PATIENCE_S`: 5xx, throttling, timeouts, connections and
    bodies that break off. A refused or unknown endpoint is that only once it has answered this client; what the store
    refuses (credentials, absent files) never is.
    """

    def __init__(self, call: Call, *, patience_s: float | None = None) -> None:
        self._call = call
        self._patience_s = PATIENCE_S if patience_s is None else patience_s
        self._has_answered = False

    async def __call__(self, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        global _retries
        if operation == "PutObject" and "IfNoneMatch" in parameters:
            # An upload that arrived though its answer did not must be known again as ours.
            metadata = parameters.get("Metadata", {}) | {"mets-ray-upload": uuid.uuid4().hex}
            parameters = parameters | {"Metadata": metadata}
        began, tries, told = time.monotonic(), 0, False
        while True:
            tries += 1
            try:
                response = await self._once(operation, parameters)
            except Exception as error:
                own = await self._own_upload(operation, parameters, error)
                if own is not None:
                    return own
                pause_s = random.uniform(0.5, 1.0) * min(_LONGEST_PAUSE_S, 0.1 * 2**tries)
                waited_s = time.monotonic() - began
                if not self._is_transient(error, tries) or waited_s + pause_s > self._patience_s:
                    raise
                if waited_s > self._patience_s / 10 and not told:
                    told = True
                    # Neither the address nor the message: an endpoint may hold a key, a message a name.
                    _logger.warning(
                        "S3 %s fails since %.0f s (%s): asked again until %.0f s", operation, waited_s, _kind(error),
                        self._patience_s,
                    )  # fmt: skip
                _retries += 1  # all clients of a process share one event loop thread
                await asyncio.sleep(pause_s)
            else:
                self._has_answered = True
                return response

    async def _once(self, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        # A copy: botocore puts a stream in the place of `Body`, which the next try would find read to its end.
        response = await self._call(operation, dict(parameters))
        if operation == "GetObject":
            # Read here, so that a body that breaks off is asked for again. s3fs reads each as a whole in any case.
            body = response["Body"]
            try:
                response["Body"] = _ReadBody(await body.read())
            finally:
                body.close()
        return response

    def _is_transient(self, error: Exception, tries: int) -> bool:
        if isinstance(error, ClientError):
            self._has_answered = True
            return _status(error) in _TRANSIENT_STATUS or _code(error) in _TRANSIENT_CODES
        if isinstance(error, _UNREACHABLE):
            return self._has_answered or tries < _TRIES_OF_A_STRANGER
        return isinstance(error, _BROKEN)

    async def _own_upload(self, operation: str, parameters: dict[str, Any], error: Exception) -> dict[str, Any] | None:
        """The answer of an upload that the store calls a conflict but which an earlier try of this call made.

        Asked at the first try too, because aiohttp itself repeats a PUT whose kept connection was closed.
        """
        if not isinstance(error, ClientError):
            return None
        conflict = "PreconditionFailed" if operation == "PutObject" else "NoSuchUpload"
        if operation not in ("PutObject", "CompleteMultipartUpload") or _code(error) not in (conflict, "412"):
            return None
        try:
            head = await self("HeadObject", {key: parameters[key] for key in ("Bucket", "Key")})
        except ClientError:
            return None
        if operation == "PutObject":
            mine = head.get("Metadata", {}).get("mets-ray-upload") == parameters["Metadata"].get("mets-ray-upload")
        else:
            mine = head["ETag"].strip('"') == _multipart_etag(parameters["MultipartUpload"]["Parts"])
        return head if mine else None


class _ReadBody:
    """A body that is already here, with the part of aiobotocore's interface that s3fs uses."""

    def __init__(self, data: bytes) -> None:
        self._stream = io.BytesIO(data)

    async def read(self, amount: int = -1) -> bytes:
        return self._stream.read(amount)

    def close(self) -> None:
        self._stream.close()


def _multipart_etag(parts: list[dict[str, Any]]) -> str:
    digests = b"".join(bytes.fromhex(part["ETag"].strip('"')) for part in parts)
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}"


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _kind(error: Exception) -> str:
    return f"{_status(error)} {_code(error)}" if isinstance(error, ClientError) else type(error).__name__
