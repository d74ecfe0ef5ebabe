"""The HTTP routes. They do not use Ray: the same app runs under plain uvicorn."""

import asyncio
import base64
import hashlib
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel
from starlette.staticfiles import StaticFiles

from mets_ray.errors import RequestError
from mets_ray.model.windows import Windows
from mets_ray.serve import audit, messages
from mets_ray.serve.bodies import JsonEcg
from mets_ray.serve.examples import Examples
from mets_ray.serve.guard import Guard, Telemetry, add_error_answers
from mets_ray.serve.openapi import (
    BATCH_BODY,
    ECG_BODY,
    EMBED_BODY,
    PREDICT_BODY,
    PROMPT_SET_BODY,
    TIMELINE_BODY,
    ZERO_SHOT_BODY,
    describe,
)
from mets_ray.serve.query_route import post_with_query
from mets_ray.serve.reading import Reader
from mets_ray.serve.request_id import name_requests_in_log
from mets_ray.serve.service import Service, Timings
from mets_ray.serve.timeline import Timelines
from mets_ray.serve.tokens import Tokens

if TYPE_CHECKING:
    from mets_ray.serve.archive.questions import ArchiveCalls

EcgQuery = Annotated[messages.SignalParameters, Query()]
ZeroShotQuery = Annotated[messages.ZeroShotQuery, Query()]
PredictQuery = Annotated[messages.PredictQuery, Query()]
TimelineQuery = Annotated[messages.TimelineQuery, Query()]

_PAGE = Path(__file__).parent / "page"
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
}
# Swagger UI sets styles in its elements; its one script in the page is allowed by its hash.
_DOCS_POLICY = (
    "default-src 'self'; script-src 'self' 'sha256-{script}'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "frame-ancestors 'none'"
)


def create_app(
    service: Service, telemetry: Telemetry, *, archive: "ArchiveCalls | None" = None, names_requests: bool = True
) -> FastAPI:
    """The application of one replica. archive: searched with what the model says; `names_requests`: see Guard.

    Raises ConfigError if `auth` is bearer and there is no token, or tokens that cannot be used.
    """
    config = service.config
    tokens = None if config.auth == "none" else Tokens(config)
    app = FastAPIOffline(
        title="mets_ray",
        summary="Which of these diagnoses fits this ECG? Classes are just text.",
        description=messages.NOTICE_CALIBRATED if service.is_calibrated else messages.NOTICE_UNCALIBRATED,
        version="1",
        docs_url=None,
        redoc_url=None,
        # Ray traces and counts requests. FastAPI's own spans hold the query string, which names classes.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    reader = Reader(service.limits, service.predictor.windows)
    _add_scoring(app, service, reader)  # first, because a request's route is looked for in this order
    _add_model(app, service, reader)
    _add_pages(app, service)
    if archive is not None:
        _add_archive(app, service, reader, archive)
    _add_docs(app)
    add_error_answers(app, telemetry)
    describe(app, bearer=config.auth == "bearer")
    app.add_middleware(
        Guard,
        config=config,
        tokens=tokens,
        telemetry=telemetry,
        model_version=lambda: service.predictor.model_version,
        names_requests=names_requests,
    )
    name_requests_in_log(logging.getLogger("ray.serve"))
    return app


def _add_pages(app: FastAPI, service: Service) -> None:
    app.mount("/static", _PageFiles(directory=_PAGE), name="static")

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(_PAGE / "index.html", headers=_PAGE_HEADERS)

    @app.get("/healthz", summary="The process is alive")
    async def healthz() -> messages.Health:
        return messages.Health(status="ok")

    @app.get("/readyz", summary="Whether the model, the language model and the store answer; 503 if the model does not")
    async def readyz(response: Response) -> messages.Readiness:
        found = await service.readiness()
        response.status_code = 503 if found.model == "failing" else 200
        return found

    known = Examples(service.bundle_uri, max(10.0, service.predictor.facts.duration_s))

    @app.get("/v1/examples", summary="ECGs to try: real ones of the bundle, and synthetic ones")
    async def examples() -> messages.ExamplesAnswer:
        return messages.ExamplesAnswer(examples=await asyncio.to_thread(known.listed))

    @app.get(
        "/v1/examples/{name}", summary="One of these ECGs in the form that a request takes", response_model=JsonEcg
    )
    async def one_example(name: str) -> Response:
        found = await asyncio.to_thread(known.as_json, name)
        if found is None:
            raise RequestError(404, "unknown_example", "there is no example with this name", hint="see /v1/examples")
        return Response(found, media_type="application/json")


def _add_archive(app: FastAPI, service: Service, reader: Reader, archive: "ArchiveCalls") -> None:
    # Here, because it needs what a server without an archive does without: the extra `archive`, and data sets.
    from mets_ray.serve.archive.routes import add_archive

    add_archive(app, service, reader, archive)

    @app.get("/archive", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(_PAGE / "archive.html", headers=_PAGE_HEADERS)


def _add_docs(app: FastAPI) -> None:
    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        root = request.scope.get("root_path", "")
        page = get_swagger_ui_html(
            openapi_url=f"{root}{app.openapi_url}",
            title=app.title,
            swagger_js_url=f"{root}/static-offline-docs/swagger-ui-bundle.js",
            swagger_css_url=f"{root}/static-offline-docs/swagger-ui.css",
            swagger_favicon_url=f"{root}/static/icon.svg",
        )
        (script,) = re.findall(rb"<script>(.*?)</script>", bytes(page.body), re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(script).digest()).decode()
        page.headers["Content-Security-Policy"] = _DOCS_POLICY.format(script=digest)
        return page


def _add_scoring(app: FastAPI, service: Service, reader: Reader) -> None:
    timelines = Timelines(service)

    @post_with_query(app, "/v1/zero-shot", summary="Score one ECG against classes", openapi_extra=ZERO_SHOT_BODY)
    async def zero_shot(request: Request, query: ZeroShotQuery) -> Response:
        timings = Timings()
        options, windows = await reader.one(request, query, timings)
        answer = await service.zero_shot(windows, options, timings)
        _note_classes(request, options, answer.prompt_set)
        return _json(answer)

    @post_with_query(
        app, "/v1/zero-shot/batch", summary="Score several ECGs against the same classes", openapi_extra=BATCH_BODY
    )
    async def zero_shot_batch(request: Request, query: ZeroShotQuery) -> Response:
        timings = Timings()
        options, ecgs = await reader.several(request, query)
        timings.stop("decode", timings.began)
        answer = await service.batch(ecgs, options, timings)
        _note_classes(request, options, answer.prompt_set)
        return _json(answer)

    @post_with_query(app, "/v1/predict", summary="Score one ECG with a head of the bundle", openapi_extra=PREDICT_BODY)
    async def predict(request: Request, query: PredictQuery) -> Response:
        timings = Timings()
        options, windows = await reader.for_head(request, query, timings)
        answer = await service.predict(windows, options, timings)
        audit.note(request, head=answer.head)
        return _json(answer)

    @post_with_query(
        app,
        "/v1/timeline",
        summary="Score a long recording window by window: lines of JSON, as they become known",
        openapi_extra=TIMELINE_BODY,
    )
    async def timeline(request: Request, query: TimelineQuery) -> Response:
        return await timelines.answer(request, query)

    @post_with_query(app, "/v1/embed", summary="Embed an ECG or texts into the shared space", openapi_extra=EMBED_BODY)
    async def embed(request: Request, query: EcgQuery) -> Response:
        asked = await reader.ecg_or_texts(request, query)
        return _json(await service.embed_ecg(asked) if isinstance(asked, Windows) else await service.embed_texts(asked))

    @post_with_query(app, "/v1/ecg", summary="The first window as the model sees it", openapi_extra=ECG_BODY)
    async def preview(request: Request, query: EcgQuery) -> Response:
        return _json(service.preview(await reader.ecg(request, query)))


def _add_model(app: FastAPI, service: Service, reader: Reader) -> None:
    @app.get("/v1/model", summary="What this server runs: bundle, signal, language model, prompt sets, intended use")
    async def model() -> messages.ModelAnswer:
        return await service.model()

    @app.get("/v1/prompt-sets", summary="List the prompt sets, page by page")
    async def list_prompt_sets(query: Annotated[messages.PromptSetPage, Query()]) -> messages.PromptSetsAnswer:
        return await service.listed(after=query.after, limit=query.limit)

    @app.put("/v1/prompt-sets/{name}", summary="Register a class list", openapi_extra=PROMPT_SET_BODY)
    async def put_prompt_set(name: str, request: Request) -> Response:
        asked = await reader.prompt_set(request)
        answer, is_new = await service.register(name, asked)
        audit.note(request, prompt_set=answer.prompt_set, classes=asked.model_dump())
        return _json(answer, status=201 if is_new else 200)

    @app.delete("/v1/prompt-sets/{name}", summary="Retire a class list: no version of it resolves any more")
    async def delete_prompt_set(name: str, request: Request) -> messages.RetiredAnswer:
        retired = await service.retire(name)
        audit.note(request, prompt_set=f"{name}@{retired.retired_through_version}")
        return retired


class _PageFiles(StaticFiles):
    """Revalidated on each visit (304 if unchanged), so that a page never mixes two versions."""

    def file_response(self, *arguments: Any, **named: Any) -> Response:
        response = super().file_response(*arguments, **named)
        response.headers["Cache-Control"] = "no-cache"
        return response


def _note_classes(request: Request, options: messages.Options, prompt_set: str | None) -> None:
    audit.note_classes(request, options.candidate_labels, options.hypothesis_template, prompt_set)


def _json(answer: BaseModel, status: int = 200) -> Response:
    return Response(answer.model_dump_json(), status_code=status, media_type="application/json")
