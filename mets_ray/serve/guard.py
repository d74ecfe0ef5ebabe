"""What surrounds every request: the token, the deadline, metrics, and every error as JSON with a reason."""

import asyncio
import hmac
import logging
import os
import time
import traceback
from collections.abc import Sequence
from typing import Any, Protocol

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mets_ray.errors import ConfigError, DatasetError, RecordError, RequestError
from mets_ray.serve.messages import ErrorAnswer, ErrorFacts
from mets_ray.serve.service import error_facts
from mets_ray.serve.settings import ServeConfig

logger = logging.getLogger("ray.serve")


class Telemetry(Protocol):
    """Counters of requests."""

    def began(self) -> None: ...

    def ended(self, route: str, status: int, latency_ms: float) -> None: ...

    def rejected(self, reason: str) -> None: ...


def read_token(config: ServeConfig) -> str | None:
    """The bearer token, or None where `auth` is none. Raises ConfigError if it is required and missing."""
    if config.auth == "none":
        return None
    token = os.environ.get(config.token_env, "")
    if not token.strip():
        raise ConfigError(
            f"`auth` is bearer, but the environment variable {config.token_env} of the replicas is empty",
            hint=f"set {config.token_env} where the cluster starts, or use auth=none on 127.0.0.1",
        )
    return token.strip()


class Guard:
    """ASGI middleware. `/v1` needs the token if one is set; the page, its files, health and docs do not."""

    def __init__(
        self, app: ASGIApp, *, token: str | None, deadline_s: float, retry_after_s: int, telemetry: Telemetry
    ) -> None:
        self._app = app
        self._expected = None if token is None else f"Bearer {token}".encode()
        self._deadline_s = deadline_s
        self._retry_after_s = retry_after_s
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if status in (429, 503):
                    message["headers"] = [
                        *message.get("headers", []),
                        (b"retry-after", str(self._retry_after_s).encode()),
                    ]
            await send(message)

        self._telemetry.began()
        try:
            async with asyncio.timeout(self._deadline_s):
                if self._is_refused(scope):
                    raise RequestError(401, "no_token", "the token is missing or wrong", hint="Authorization: Bearer …")
                await self._app(scope, receive, watched)
        except TimeoutError:
            error = RequestError(503, "deadline", f"no answer within {self._deadline_s:g} s", hint="try again later")
            await self._answer_unless_begun(error, status, scope, receive, watched)
        except RequestError as error:
            await self._answer_unless_begun(error, status, scope, receive, watched)
        except Exception as error:
            # The message is never logged: it could quote an ECG or a report.
            logger.error(
                "%s %s failed: %s\n%s",
                scope["method"],
                _route(scope),
                type(error).__name__,
                "".join(traceback.format_tb(error.__traceback__)),
            )
            fault = RequestError(500, "internal_error", "the server failed; see its log")
            await self._answer_unless_begun(fault, status, scope, receive, watched)
        finally:
            self._telemetry.ended(_route(scope), status, 1000 * (time.perf_counter() - began))

    def _is_refused(self, scope: Scope) -> bool:
        if self._expected is None or not scope["path"].startswith("/v1"):
            return False
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        return not hmac.compare_digest(given, self._expected)

    async def _answer_unless_begun(
        self, error: RequestError, status: int, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._telemetry.rejected(error.reason)
        if status == 0:
            await _error_response(error.status, error_facts(error))(scope, receive, send)


def add_error_answers(app: FastAPI, telemetry: Telemetry) -> None:
    """Turn the exceptions that routes raise on purpose into error responses. All others reach the Guard."""

    def answer(status: int, facts: ErrorFacts) -> Response:
        telemetry.rejected(facts.reason)
        return _error_response(status, facts)

    @app.exception_handler(RequestError)
    async def request_error(request: Request, error: RequestError) -> Response:
        return answer(error.status, error_facts(error))

    @app.exception_handler(RecordError)
    async def record_error(request: Request, error: RecordError) -> Response:
        return answer(422, error_facts(error))

    @app.exception_handler(DatasetError)
    async def storage_error(request: Request, error: DatasetError) -> Response:
        logger.error("%s: %s", _route(request.scope), error.fact)
        return answer(503, ErrorFacts(reason="storage", message="the prompt set store does not respond"))

    @app.exception_handler(RequestValidationError)
    async def query_error(request: Request, error: RequestValidationError) -> Response:
        return answer(422, _fields("the query string", error.errors()))

    @app.exception_handler(ValidationError)
    async def body_error(request: Request, error: ValidationError) -> Response:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        if faults[0]["type"] == "json_invalid":
            return answer(400, ErrorFacts(reason="malformed_body", message=f"the body is not JSON: {faults[0]['msg']}"))
        return answer(422, _fields("the body", faults))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        reason = {404: "no_such_route", 405: "method_not_allowed"}.get(error.status_code, "http_error")
        response = answer(error.status_code, ErrorFacts(reason=reason, message=str(error.detail), hint="see /docs"))
        response.headers.update(error.headers or {})
        return response


def _fields(where: str, faults: Sequence[Any]) -> ErrorFacts:
    lines = []
    for fault in faults[:3]:
        place = ".".join(str(part) for part in fault["loc"] if part not in ("query", "body"))
        lines.append(f"`{place}`: {fault['msg']}" if place else str(fault["msg"]))
    more = len(faults) - len(lines)
    message = f"{where} is invalid: {'; '.join(lines)}" + (f"; and {more} more" if more else "")
    return ErrorFacts(reason="bad_fields", message=message, hint="see /docs")


def _error_response(status: int, facts: ErrorFacts) -> Response:
    response = Response(ErrorAnswer(error=facts).model_dump_json(), status_code=status, media_type="application/json")
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _route(scope: Scope) -> str:
    """The route's pattern, `/v1/prompt-sets/{name}`, so that there are few metric series whatever clients request."""
    return str(getattr(scope.get("route"), "path", "unknown"))
