"""The HTTP routes: bodies in, answers out, errors in words. No Ray: the same app runs under plain uvicorn."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import FileResponse
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel
from starlette.staticfiles import StaticFiles

from mets_ray.ecg.ecg import Ecg
from mets_ray.errors import RecordError, RequestError
from mets_ray.serve import messages
from mets_ray.serve.bodies import BodyParameters, JsonEcg, check_count, decode_body, media_type, parse_json
from mets_ray.serve.examples import example, list_examples
from mets_ray.serve.guard import Guard, Telemetry, add_error_answers, read_token
from mets_ray.serve.openapi import BATCH_BODY, ECG_BODY, EMBED_BODY, PROMPT_SET_BODY, ZERO_SHOT_BODY, describe
from mets_ray.serve.service import Service, Timings

T = TypeVar("T")

EcgQuery = Annotated[messages.SignalParameters, Query()]

ZeroShotQuery = Annotated[messages.ZeroShotQuery, Query()]

_PAGE = Path(__file__).parent / "page"

_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

# More than this is decoded in a thread, where it does not hold up the other requests, and few at a time, because a
# JSON number takes ten times its characters in memory. Files always are: wfdb reads from disk.
_INLINE_BYTES = 128 * 1024

_DECODERS = 2


def create_app(service: Service, telemetry: Telemetry) -> FastAPI:
    """The application of one replica. Raises ConfigError where `auth` is bearer and there is no token."""
    config = service.config
    app = FastAPIOffline(
        title="mets_ray",
        summary="Which of these diagnoses fits this ECG? Classes are just text.",
        description=messages.NOTICE,
        version="1",
        redoc_url=None,
    )
    _add_pages(app, service)
    _add_scoring(app, service)
    _add_model(app, service)
    add_error_answers(app, telemetry)
    describe(app, bearer=config.auth == "bearer")
    app.add_middleware(
        Guard,
        token=read_token(config),
        deadline_s=config.deadline_s,
        retry_after_s=config.retry_after_s,
        telemetry=telemetry,
    )
    return app


def _add_pages(app: FastAPI, service: Service) -> None:
    app.mount("/static", _PageFiles(directory=_PAGE), name="static")

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(_PAGE / "index.html", headers=_PAGE_HEADERS)

    @app.get("/healthz", summary="The process answers")
    async def healthz() -> messages.Health:
        return messages.Health(status="ok")

    @app.get("/readyz", summary="The model is loaded and has computed once: replicas take no requests before")
    async def readyz() -> messages.Health:
        return messages.Health(status="ok")

    @app.get("/v1/examples", summary="Made-up ECGs to try")
    async def examples() -> messages.ExamplesAnswer:
        return messages.ExamplesAnswer(examples=await asyncio.to_thread(list_examples))

    @app.get("/v1/examples/{name}", summary="A made-up ECG, as a request carries it", response_model=JsonEcg)
    async def one_example(name: str) -> Response:
        found = await asyncio.to_thread(example, name, max(10.0, service.engine.facts.duration_s))
        if found is None:
            raise RequestError(404, "unknown_example", "there is no example of this name", hint="see /v1/examples")
        return _json(found)


def _add_scoring(app: FastAPI, service: Service) -> None:
    limits = service.limits
    decoders = asyncio.Semaphore(_DECODERS)

    async def read(request: Request, parse: Callable[[bytes], T], *, inline: bool) -> T:
        body = await read_body(request, limits.max_body_bytes)
        if inline and len(body) <= _INLINE_BYTES:
            return parse(body)
        async with decoders:
            return await asyncio.to_thread(parse, body)

    async def read_files(request: Request, query: messages.SignalParameters) -> list[Ecg]:
        content_type = request.headers.get("content-type", "")
        leads = None if query.leads is None else tuple(lead.strip() for lead in query.leads.split(","))
        parameters = BodyParameters(query.unit, query.sampling_rate_hz, leads)
        inline = media_type(content_type) == "application/x-npy"
        return await read(request, lambda body: decode_body(content_type, body, parameters, limits), inline=inline)

    async def read_one(request: Request, query: messages.SignalParameters) -> Ecg:
        ecgs = await read_files(request, query)
        if len(ecgs) != 1:
            raise RequestError(
                422, "several_ecgs", f"the body holds {len(ecgs)} ECGs", hint="send them to /v1/zero-shot/batch"
            )
        return ecgs[0]

    @app.post("/v1/zero-shot", summary="Score one ECG against classes", openapi_extra=ZERO_SHOT_BODY)
    async def zero_shot(request: Request, query: ZeroShotQuery) -> Response:
        timings = Timings()
        options: messages.Options = query
        if _is_json(request):
            _refuse_query(request)

            def parse(body: bytes) -> tuple[messages.Options, Ecg]:
                asked = parse_json(messages.ZeroShotRequest, body, limits)
                return asked, asked.ecg.to_ecg(limits)

            options, ecg = await read(request, parse, inline=True)
        else:
            ecg = await read_one(request, query)
        timings.stop("decode", timings.began)
        return _json(await service.zero_shot(ecg, options, timings))

    @app.post("/v1/zero-shot/batch", summary="Score several ECGs against the same classes", openapi_extra=BATCH_BODY)
    async def zero_shot_batch(request: Request, query: ZeroShotQuery) -> Response:
        timings = Timings()
        options: messages.Options = query
        ecgs: list[Ecg | RecordError]
        if _is_json(request):
            _refuse_query(request)

            def parse(body: bytes) -> tuple[messages.Options, list[Ecg | RecordError]]:
                asked = parse_json(messages.BatchRequest, body, limits)
                check_count(len(asked.ecgs), limits)
                return asked, [_ecg_or_error(ecg, service) for ecg in asked.ecgs]

            options, ecgs = await read(request, parse, inline=True)
        else:
            ecgs = list(await read_files(request, query))
        timings.stop("decode", timings.began)
        return _json(await service.batch(ecgs, options, timings))

    @app.post("/v1/embed", summary="Embed an ECG or texts into the shared space", openapi_extra=EMBED_BODY)
    async def embed(request: Request, query: EcgQuery) -> Response:
        if not _is_json(request):
            return _json(await service.embed_ecg(await read_one(request, query)))
        _refuse_query(request)

        def parse(body: bytes) -> list[str] | Ecg:
            asked = parse_json(messages.EmbedRequest, body, limits)
            return asked.texts or [] if asked.ecg is None else asked.ecg.to_ecg(limits)

        asked = await read(request, parse, inline=True)
        return _json(await service.embed_ecg(asked) if isinstance(asked, Ecg) else await service.embed_texts(asked))

    @app.post("/v1/ecg", summary="The first window as the model sees it", openapi_extra=ECG_BODY)
    async def preview(request: Request, query: EcgQuery) -> Response:
        return _json(await service.preview(await read_one(request, query)))


def _add_model(app: FastAPI, service: Service) -> None:
    @app.get("/v1/model", summary="What serves here: bundle, signal, language model, prompt sets, intended use")
    async def model() -> messages.ModelAnswer:
        return await service.model()

    @app.put("/v1/prompt-sets/{name}", summary="Register a class list", openapi_extra=PROMPT_SET_BODY)
    async def put_prompt_set(name: str, request: Request) -> Response:
        if not _is_json(request):
            raise RequestError(415, "unsupported_media_type", "a prompt set is sent as application/json")
        body = await read_body(request, service.limits.max_body_bytes)
        asked = parse_json(messages.PromptSetRequest, body, service.limits)
        answer, is_new = await service.register(name, asked)
        return _json(answer, status=201 if is_new else 200)


class _PageFiles(StaticFiles):
    """Asked for again at each visit (304 if unchanged), so that a page is never half of an older version."""

    def file_response(self, *arguments: Any, **named: Any) -> Response:
        response = super().file_response(*arguments, **named)
        response.headers["Cache-Control"] = "no-cache"
        return response


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The whole body. Raises RequestError 413 as soon as more than `max_bytes` are announced or have come."""
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
        413, "too_large", f"the body has more than {max_bytes} bytes", hint="send int16 as application/x-npy, or less"
    )


def _is_json(request: Request) -> bool:
    return media_type(request.headers.get("content-type", "")) == "application/json"


def _refuse_query(request: Request) -> None:
    if request.query_params:
        raise RequestError(
            400,
            "query_beside_json",
            f"`{next(iter(request.query_params))}` stands in the query string of a JSON request",
            hint="put it into the JSON body",
        )


def _ecg_or_error(ecg: JsonEcg, service: Service) -> Ecg | RecordError:
    try:
        return ecg.to_ecg(service.limits)
    except RecordError as error:
        return error


def _json(answer: BaseModel, status: int = 200) -> Response:
    return Response(answer.model_dump_json(), status_code=status, media_type="application/json")
