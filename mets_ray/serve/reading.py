"""Request bodies, read in full within the limits and turned into what is scored: options, windows of ECGs, texts."""

from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from fastapi import Request

from mets_ray.ecg.ecg import Ecg
from mets_ray.errors import RecordError, RequestError
from mets_ray.model.windows import Windows
from mets_ray.serve import messages
from mets_ray.serve.archive.messages import CohortRequest, SearchOptions, SearchQuery, SearchRequest
from mets_ray.serve.bodies import (
    BodyLimits,
    BodyParameters,
    JsonEcg,
    check_count,
    decode_body,
    media_type,
    parse_json,
)
from mets_ray.serve.decoders import SMALL_BYTES, Decoders
from mets_ray.serve.json_rows import MAX_OTHER_BYTES
from mets_ray.serve.service import Timings

_T = TypeVar("_T")
_Query = TypeVar("_Query", messages.ZeroShotQuery, messages.PredictQuery)
_Question = TypeVar("_Question", SearchRequest, CohortRequest)
_Asked = TypeVar("_Asked", messages.ZeroShotRequest, messages.PredictRequest)


class Reader:
    """Reads the bodies of one replica. limits: what a body may hold at most. cut: an ECG to the model's input.

    Decoding and cutting are one step, in the same thread: an ECG takes several times its body in memory, its windows do
    not, and they are what waits for the encoder.
    """

    def __init__(self, limits: BodyLimits, cut: Callable[[Ecg], Windows]) -> None:
        self._limits = limits
        self._cut = cut
        self._decoders = Decoders(limits.max_body_bytes)

    async def one(
        self, request: Request, query: messages.ZeroShotQuery, timings: Timings
    ) -> tuple[messages.Options, Windows]:
        """The options and the ECG of a request: from a JSON body, or from the query string and a file.

        Raises RequestError for an unreadable body or query and for more large bodies than there is room for,
        RecordError for an unusable ECG.
        """
        return await self._one(request, query, messages.ZeroShotRequest, timings)

    async def for_head(
        self, request: Request, query: messages.PredictQuery, timings: Timings
    ) -> tuple[messages.HeadOptions, Windows]:
        """As `one`, for a head of the bundle."""
        return await self._one(request, query, messages.PredictRequest, timings)

    async def _one(
        self, request: Request, query: _Query, model: type[_Asked], timings: Timings
    ) -> tuple[_Query | _Asked, Windows]:
        def cut(ecg: Ecg) -> Windows:
            since = timings.stop("decode", timings.began)
            windows = self._cut(ecg)
            timings.stop("preprocess", since)
            return windows

        if not _is_json(request):
            return query, await self._file(request, query, lambda ecgs: cut(_only(ecgs)))

        def parse(body: bytes) -> tuple[_Asked, Windows]:
            asked = parse_json(model, body, self._limits)
            return asked, cut(asked.ecg.to_ecg(self._limits))

        return await self._json(request, parse)

    async def several(
        self, request: Request, query: messages.ZeroShotQuery
    ) -> tuple[messages.Options, list[Windows | RecordError | RequestError]]:
        """As `one`, for several ECGs. An unusable ECG of a JSON body or of an array is replaced by its error."""
        if not _is_json(request):
            return query, await self._file(request, query, lambda ecgs: [self._cut_or_error(ecg) for ecg in ecgs])

        def parse(body: bytes) -> tuple[messages.Options, list[Windows | RecordError | RequestError]]:
            asked = parse_json(messages.BatchRequest, body, self._limits)
            check_count(len(asked.ecgs), self._limits)
            return asked, [self._cut_or_error(ecg) for ecg in asked.ecgs]

        return await self._json(request, parse)

    async def ecg_or_texts(self, request: Request, query: messages.SignalParameters) -> Windows | list[str]:
        """What to embed. Raises as `one`."""
        if not _is_json(request):
            return await self.ecg(request, query)

        def parse(body: bytes) -> Windows | list[str]:
            asked = parse_json(messages.EmbedRequest, body, self._limits)
            return asked.texts or [] if asked.ecg is None else self._cut(asked.ecg.to_ecg(self._limits))

        return await self._json(request, parse)

    async def ecg(self, request: Request, query: messages.SignalParameters) -> Windows:
        """The one ECG of a file. Raises RequestError 422 if the file holds several, and as `one`."""
        return await self._file(request, query, lambda ecgs: self._cut(_only(ecgs)))

    async def prompt_set(self, request: Request) -> messages.PromptSetRequest:
        """A class list to register. Raises RequestError 415 for a body that is not JSON, and as `one`."""
        if not _is_json(request):
            raise RequestError(415, "unsupported_media_type", "a prompt set is sent as application/json")

        def parse(body: bytes) -> messages.PromptSetRequest:
            return parse_json(messages.PromptSetRequest, body, self._limits)

        return await self._decoded(request, parse, max_bytes=MAX_OTHER_BYTES)

    async def search(self, request: Request, query: SearchQuery) -> tuple[SearchOptions, Windows | None]:
        """What the archive is asked, and the ECG of the question if it has one. Raises as `one`."""
        if not _is_json(request):
            return query, await self.ecg(request, query)
        return await self._json(request, lambda body: self._question(SearchRequest, body))

    async def cohort(self, request: Request) -> tuple[CohortRequest, Windows | None]:
        """As `search`, for a question in JSON. Raises RequestError 415 for another body."""
        if not _is_json(request):
            raise RequestError(415, "unsupported_media_type", "a cohort is asked for in application/json")
        return await self._json(request, lambda body: self._question(CohortRequest, body))

    def _question(self, model: type[_Question], body: bytes) -> tuple[_Question, Windows | None]:
        asked = parse_json(model, body, self._limits)
        return asked, None if asked.ecg is None else self._cut(asked.ecg.to_ecg(self._limits))

    async def _json(self, request: Request, parse: Callable[[bytes], _T]) -> _T:
        if request.query_params:
            raise RequestError(
                400,
                "query_beside_json",
                f"`{next(iter(request.query_params))}` is in the query string of a JSON request",
                hint="put it in the JSON body",
            )
        return await self._decoded(request, parse)

    async def _file(self, request: Request, query: messages.SignalParameters, use: Callable[[list[Ecg]], _T]) -> _T:
        content_type = request.headers.get("content-type", "")
        leads = None if query.leads is None else tuple(lead.strip() for lead in query.leads.split(","))
        parameters = BodyParameters(query.unit, query.sampling_rate_hz, leads)

        def decode(body: bytes) -> _T:
            return use(decode_body(content_type, body, parameters, self._limits))

        return await self._decoded(request, decode, inline=media_type(content_type) == "application/x-npy")

    async def _decoded(
        self, request: Request, decode: Callable[[bytes], _T], *, inline: bool = False, max_bytes: int | None = None
    ) -> _T:
        """inline: whether a small body may be decoded here. Only npy is known to take no longer than its size says."""
        limit = min(max_bytes or self._limits.max_body_bytes, self._limits.max_body_bytes)
        with self._decoders.room() as room:
            body = await read_body(request, limit, room.take)
            if inline and len(body) <= SMALL_BYTES:
                return decode(body)
            return await self._decoders.run(decode, body)

    def _cut_or_error(self, ecg: Ecg | JsonEcg) -> Windows | RecordError | RequestError:
        try:
            return self._cut(ecg.to_ecg(self._limits) if isinstance(ecg, JsonEcg) else ecg)
        except (RecordError, RequestError) as error:  # the latter of its form: rows of unequal length, too few leads
            return error


def _only(ecgs: list[Ecg]) -> Ecg:
    if len(ecgs) != 1:
        raise RequestError(
            422, "several_ecgs", f"the body holds {len(ecgs)} ECGs", hint="send them to /v1/zero-shot/batch"
        )
    return ecgs[0]


def _is_json(request: Request) -> bool:
    return media_type(request.headers.get("content-type", "")) == "application/json"


async def read_body(request: Request, max_bytes: int, take: Callable[[int], None]) -> bytes:
    """The whole body. Raises RequestError as `body_parts`.

    take: called with the bytes of each part before it is kept.
    """
    parts: list[bytes] = []
    async for part in body_parts(request, max_bytes, hint="send int16 as application/x-npy, or a shorter signal"):
        take(len(part))
        parts.append(part)
    return b"".join(parts)


async def body_parts(request: Request, max_bytes: int, *, hint: str) -> AsyncIterator[bytes]:
    """The body as it arrives. Raises RequestError 413 as soon as more than `max_bytes` are announced or received."""
    too_large = RequestError(413, "too_large", f"the body has more than {max_bytes} bytes", hint=hint)
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > max_bytes:
        raise too_large
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > max_bytes:
            raise too_large
        yield part
