"""S3 with retries in one place: a request that meets a passing fault is sent again, for up to a minute and a half.

botocore's own retries have a quota of some 100 failures in a process, which 32 reading threads use up in seconds, and
do not cover a body that breaks off; s3fs retries what botocore has retried already, never retries listings, and counts
nothing. So both send each request once, and every call to the store, pages of a listing and parts of an upload
included, goes through `RetryingCall`.
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

from mets_ray.storage.patience import seconds_left
from mets_ray.storage.resends import RESENDS

RETRY_FOR_S = 90.0

_LONGEST_PAUSE_S = 8.0

_TRIES_BEFORE_AN_ANSWER = 2  # an endpoint that never answered is more likely wrong than down

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

Call = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]


class RetryingS3FileSystem(s3fs.S3FileSystem):
    """s3fs whose client retries. A class of its own, because what is set on an instance is lost when Ray pickles it."""

    retries = 1  # s3fs's own rounds

    async def set_session(self, *args: Any, **kwargs: Any) -> Any:
        client = await super().set_session(*args, **kwargs)
        if not isinstance(client._make_api_call, RetryingCall):
            client._make_api_call = RetryingCall(client._make_api_call)
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


class RetryingCall:
    """A client's `_make_api_call`, which every operation and every page goes through.

    Retried, with growing and random pauses, for up to `RETRY_FOR_S`: 5xx, throttling, timeouts, connections and bodies
    that break off. An endpoint that refuses connections or is unknown is retried for that long only once it has
    answered this client; what the store refuses (credentials, absent files) is never retried. Within
    `storage.patience` it ends with the block's time, whatever it is waiting for.
    """

    def __init__(self, call: Call, *, retry_for_s: float | None = None) -> None:
        self._call = call
        self._retry_for_s = RETRY_FOR_S if retry_for_s is None else retry_for_s
        self._has_answered = False

    async def __call__(self, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        if operation == "PutObject" and "IfNoneMatch" in parameters:
            # Marks the upload as ours, for the case that it arrives and its answer is lost.
            metadata = parameters.get("Metadata", {}) | {"mets-ray-upload": uuid.uuid4().hex}
            parameters = parameters | {"Metadata": metadata}
        # fsspec runs this on a thread of its own, and asyncio copies the caller's context there.
        async with asyncio.timeout(seconds_left()):
            return await self._until_answered(operation, parameters)

    async def _until_answered(self, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
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
                if not self._is_transient(error, tries) or waited_s + pause_s > self._retry_for_s:
                    raise
                if waited_s > self._retry_for_s / 10 and not told:
                    told = True
                    # Neither the address nor the message: an endpoint may hold a key, a message a name.
                    _logger.warning(
                        "S3 %s has failed for %.0f s (%s): retried for up to %.0f s", operation, waited_s, _kind(error),
                        self._retry_for_s,
                    )  # fmt: skip
                RESENDS.add()
                await asyncio.sleep(pause_s)
            else:
                self._has_answered = True
                return response

    async def _once(self, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        # A copy: botocore puts a stream in the place of `Body`, which the next try would find read to its end.
        response = await self._call(operation, dict(parameters))
        if operation == "GetObject":
            # Read here, so that a body that breaks off is retried. s3fs reads each as a whole in any case.
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
            return self._has_answered or tries < _TRIES_BEFORE_AN_ANSWER
        return isinstance(error, _BROKEN)

    async def _own_upload(self, operation: str, parameters: dict[str, Any], error: Exception) -> dict[str, Any] | None:
        """The answer to an upload that the store calls a conflict, where an earlier try of this call made it.

        Checked at the first try too, because aiohttp itself sends a PUT again whose kept-alive connection was closed.
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
    """A body in memory, with the part of aiobotocore's interface that s3fs uses."""

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
