"""What FastAPI cannot infer, because routes read their bodies themselves: bodies by content type, errors, the token."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from mets_ray.ecg.formats import FORMATS
from mets_ray.serve import messages
from mets_ray.serve.access import need_of
from mets_ray.serve.archive import messages as archive
from mets_ray.serve.bodies import JsonEcg

_REF = "#/components/schemas/{model}"
_MODELS: tuple[type[BaseModel], ...] = (
    JsonEcg,
    messages.ZeroShotRequest,
    messages.BatchRequest,
    messages.PredictRequest,
    messages.TimelineRequest,
    messages.EmbedRequest,
    messages.PromptSetRequest,
    messages.ErrorAnswer,
    messages.ZeroShotAnswer,
    messages.BatchAnswer,
    messages.PredictAnswer,
    messages.TimelineHead,
    messages.TimelineWindow,
    messages.TimelineSummary,
    messages.TimelineError,
    messages.EmbedAnswer,
    messages.EcgAnswer,
    messages.PromptSetAnswer,
    archive.SearchRequest,
    archive.SearchAnswer,
    archive.CohortRequest,
    archive.CohortAnswer,
    archive.CohortRecord,
    archive.CohortError,
)
_BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_FILES: dict[str, Any] = {
    "application/x-npy": _BINARY,
    "application/zip": _BINARY,
    "text/csv": {"schema": {"type": "string"}},
    "application/octet-stream": _BINARY,
    **{kind: _BINARY for one in FORMATS for kind in one.media_types},
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
        }
    },
}
_ERRORS = {
    400: "malformed body",
    401: "the token is missing or wrong",
    403: "the token lacks the scope, the request comes from a foreign site, or this server does not store prompt sets "
    "or show reports",
    404: "no such prompt set, head, example or record",
    409: "the name is a prompt set of the bundle, or the store's quota is used up",
    410: "the prompt set is retired",
    413: "larger than this server accepts",
    415: "unsupported content type",
    422: "well-formed but unusable: unknown unit, missing leads, NaN, ...",
    429: "too many requests are waiting; see Retry-After",
    500: "the server failed, or a stored prompt set, an example or a file of the archive is damaged",
    503: "overloaded or past the deadline; see Retry-After",
}


def _body(model: type[BaseModel], **others: Any) -> dict[str, Any]:
    json_body = {"application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}}}
    return {"requestBody": {"required": True, "content": json_body | others}}


def _answer(model: type[BaseModel], *statuses: int) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}}}
    return {"responses": {str(status): {"description": "Answer", "content": content} for status in statuses}}


ZERO_SHOT_BODY = _body(messages.ZeroShotRequest, **_FILES) | _answer(messages.ZeroShotAnswer, 200)
BATCH_BODY = _body(messages.BatchRequest, **{"application/x-npy": _BINARY}) | _answer(messages.BatchAnswer, 200)
_LINES = {
    "200": {
        "description": "One JSON object a line, its kind in `line`: a TimelineHead, a TimelineWindow for each "
        "window in order of time, a TimelineSummary; a TimelineError in place of what could not be completed",
        "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
    }
}
TIMELINE_BODY = _body(messages.TimelineRequest, **_FILES) | {"responses": _LINES}
PREDICT_BODY = _body(messages.PredictRequest, **_FILES) | _answer(messages.PredictAnswer, 200)
EMBED_BODY = _body(messages.EmbedRequest, **_FILES) | _answer(messages.EmbedAnswer, 200)
ECG_BODY = _body(JsonEcg, **_FILES) | _answer(messages.EcgAnswer, 200)
PROMPT_SET_BODY = _body(messages.PromptSetRequest) | _answer(messages.PromptSetAnswer, 200, 201)

SEARCH_BODY = _body(archive.SearchRequest, **_FILES) | _answer(archive.SearchAnswer, 200)
COHORT_BODY = _body(archive.CohortRequest) | {
    "responses": {
        "200": {
            "description": "A CohortAnswer; for `ndjson` a CohortRecord a line, then a CohortAnswer, or a CohortError "
            "in place of what could not be completed",
            "content": {
                "application/json": {"schema": {"$ref": _REF.format(model="CohortAnswer")}},
                "application/x-ndjson": {"schema": {"type": "string"}},
            },
        }
    }
}


def describe(app: FastAPI, *, bearer: bool) -> None:
    """Complete the app's OpenAPI document with body schemas, error responses and the bearer token."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            _, definitions = models_json_schema([(model, "validation") for model in _MODELS], ref_template=_REF)
            for name, schema in definitions["$defs"].items():
                schemas.setdefault(name, schema)
            error = {"application/json": {"schema": {"$ref": _REF.format(model="ErrorAnswer")}}}
            for path, operations in document["paths"].items():
                for method, operation in operations.items():
                    need = need_of(path, method.upper())
                    if need == "nothing":
                        continue
                    operation["responses"] |= {
                        str(status): {"description": meaning, "content": error} for status, meaning in _ERRORS.items()
                    }
                    if bearer:
                        operation["security"] = [{"bearer": [] if need == "any token" else [need]}]
            if bearer:
                document["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
        return app.openapi_schema  # type: ignore[return-value]

    app.openapi = openapi  # type: ignore[method-assign]
