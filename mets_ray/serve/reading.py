"""Request bodies, read in full within the limits and turned into ECGs, options and texts."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from fastapi import Request

from mets_ray.ecg.ecg import Ecg
from mets_ray.errors import RecordError, RequestError
from mets_ray.serve import messages
from mets_ray.serve.bodies import (
    BodyLimits,
    BodyParameters,
    JsonEcg,
    check_count,
    decode_body,
    media_type,
    parse_json,
)

_T = TypeVar("_T")

# Larger bodies are decoded in a thread, so that they do not block other requests, and only a few at a time: a JSON
# number takes ten times its characters in memory. Files are always decoded in a thread: wfdb reads from disk.
_INLINE_BYTES = 128 * 1024
_DECODERS = 2


class Reader:
    """Reads the bodies of one replica. limits: what a body may hold at most."""

    def __init__(self, limits: BodyLimits) -> None:
        self._limits = limits
        self._decoders = asyncio.Semaphore(_DECODERS)

    async def one(self, request: Request, query: messages.ZeroShotQuery) -> tuple[messages.Options, Ecg]:
        """The options and the ECG of a request: from a JSON body, or from the query string and a file.

        Raises RequestError for an unreadable body or query, RecordError for an unusable ECG, pydantic's ValidationError
        for JSON that does not match the schema.
        """
        if not _is_json(request):
            return query, await self.ecg(request, query)

        def parse(body: bytes) -> tuple[messages.Options, Ecg]:
            asked = parse_json(messages.ZeroShotRequest, body, self._limits)
            return asked, asked.ecg.to_ecg(self._limits)

        return await self._json(request, parse)

    async def several(
        self, request: Request, query: messages.ZeroShotQuery
    ) -> tuple[messages.Options, list[Ecg | RecordError]]:
        """As `one`, for several ECGs. In a JSON body, an unusable ECG is replaced by its error."""
        if not _is_json(request):
            return query, list(await self._files(request, query))

        def parse(body: bytes) -> tuple[messages.Options, list[Ecg | RecordError]]:
            asked = parse_json(messages.BatchRequest, body, self._limits)
            check_count(len(asked.ecgs), self._limits)
            return asked, [self._ecg_or_error(ecg) for ecg in asked.ecgs]

        return await self._json(request, parse)

    async def ecg_or_texts(self, request: Request, query: messages.SignalParameters) -> Ecg | list[str]:
        """What to embed. Raises as `one`."""
        if not _is_json(request):
            return await self.ecg(request, query)

        def parse(body: bytes) -> Ecg | list[str]:
            asked = parse_json(messages.EmbedRequest, body, self._limits)
            return asked.texts or [] if asked.ecg is None else asked.ecg.to_ecg(self._limits)

        return await self._json(request, parse)

    async def ecg(self, request: Request, query: messages.SignalParameters) -> Ecg:
        """The one ECG of a file. Raises RequestError 422 if the file holds several, and as `one`."""
        ecgs = await self._files(request, query)
        if len(ecgs) != 1:
            raise RequestError(
                422, "several_ecgs", f"the body holds {len(ecgs)} ECGs", hint="send them to /v1/zero-shot/batch"
            )
        return ecgs[0]

    async def prompt_set(self, request: Request) -> messages.PromptSetRequest:
        """A class list to register. Raises RequestError 415 for a body that is not JSON, and as `one`."""
        if not _is_json(request):
            raise RequestError(415, "unsupported_media_type", "a prompt set is sent as application/json")
        body = await read_body(request, self._limits.max_body_bytes)
        return parse_json(messages.PromptSetRequest, body, self._limits)

    async def _json(self, request: Request, parse: Callable[[bytes], _T]) -> _T:
        if request.query_params:
            raise RequestError(
                400,
                "query_beside_json",
                f"`{next(iter(request.query_params))}` is in the query string of a JSON request",
                hint="put it in the JSON body",
            )
        return await self._decoded(request, parse, inline=True)

    async def _files(self, request: Request, query: messages.SignalParameters) -> list[Ecg]:
        content_type = request.headers.get("content-type", "")
        leads = None if query.leads is None else tuple(lead.strip() for lead in query.leads.split(","))
        parameters = BodyParameters(query.unit, query.sampling_rate_hz, leads)

        def decode(body: bytes) -> list[Ecg]:
            return decode_body(content_type, body, parameters, self._limits)

        return await self._decoded(request, decode, inline=media_type(content_type) == "application/x-npy")

    async def _decoded(self, request: Request, decode: Callable[[bytes], _T], *, inline: bool) -> _T:
        """inline: whether a small body may be decoded here rather than in a thread."""
        body = await read_body(request, self._limits.max_body_bytes)
        if inline and len(body) <= _INLINE_BYTES:
            return decode(body)
        async with self._decoders:
            return await asyncio.to_thread(decode, body)

    def _ecg_or_error(self, ecg: JsonEcg) -> Ecg | RecordError:
        try:
            return ecg.to_ecg(self._limits)
        except RecordError as error:
            return error


def _is_json(request: Request) -> bool:
    return media_type(request.headers.get("content-type", "")) == "application/json"


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The whole body. Raises RequestError 413 as soon as more than `max_bytes` are announced or received."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > max_bytes:
        raise _too_large(max_bytes)
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > max_bytes:
            raise _too_large(max_bytes)
        parts.append(part)
    return b"".join(parts)


def _too_large(max_bytes: int) -> RequestError:
    return RequestError(
        413,
        "too_large",
        f"the body has more than {max_bytes} bytes",
        hint="send int16 as application/x-npy, or a shorter signal",
    )
