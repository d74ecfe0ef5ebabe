"""What surrounds every request: who is let in, its id, the deadline, metrics, and every error as JSON with a reason."""

import asyncio
import logging
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mets_ray.errors import DatasetError, RecordError, RequestError
from mets_ray.serve.access import COHORT, TIMELINE, AccessError, Need, find_route, is_audited, require
from mets_ray.serve.audit import AuditLine
from mets_ray.serve.messages import ErrorAnswer, ErrorFacts
from mets_ray.serve.request_id import begin_request
from mets_ray.serve.service import error_facts
from mets_ray.serve.settings import ServeConfig
from mets_ray.serve.sites import add_security_headers, check_site
from mets_ray.serve.tokens import Tokens

logger = logging.getLogger("ray.serve")


class Telemetry(Protocol):
    """Counters of requests."""

    def began(self) -> None: ...

    def ended(self, route: str, status: int, latency_ms: float) -> None: ...

    def rejected(self, reason: str) -> None: ...


class Guard:
    """ASGI middleware around all routes, and around the requests that none of them answers.

    `tokens` None: no token is asked for, and only this machine's own names and pages are let in.
    names_requests: False if what stands before the app adds `X-Request-ID` to answers itself, as Ray Serve does.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        config: ServeConfig,
        tokens: Tokens | None,
        telemetry: Telemetry,
        model_version: Callable[[], str],
        names_requests: bool,
    ) -> None:
        self._app = app
        self._config = config
        self._tokens = tokens
        self._telemetry = telemetry
        self._model_version = model_version
        self._names_requests = names_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # there is no such route, and none could be opened by a token
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        given = [value for name, value in scope["headers"] if name == b"x-request-id"]
        answer = _Answer(send, given, self._config.retry_after_s, with_id=self._names_requests)
        if scope["method"] == "HEAD":
            answer.has_body = False
            scope = {**scope, "method": "GET"}
        found = find_route(scope["app"].routes, scope)
        audit = AuditLine(scope, found, answer.request_id) if is_audited(found.need) else None
        deadline_s = self._deadline_s(found.pattern)
        self._telemetry.began()
        try:
            async with asyncio.timeout(deadline_s):
                self._let_in(scope, found.need, audit)
                await self._app(scope, receive if audit is None else audit.reads(receive), answer.send)
        except TimeoutError:
            fact = f"no answer within {deadline_s:g} s"
            await self._refuse(RequestError(503, "deadline", fact, hint="try again later"), answer, scope, receive)
        except RequestError as error:
            await self._refuse(error, answer, scope, receive)
        except ClientDisconnect:
            pass  # there is nobody to answer, and nothing failed: the status stays 0
        except Exception as error:
            _log_fault(scope, error)
            fault = RequestError(500, "internal_error", "the server failed; see its log")
            await self._refuse(fault, answer, scope, receive)
        finally:
            route = found.pattern or _route(scope)
            self._telemetry.ended(route, answer.status, 1000 * (time.perf_counter() - began))
            if audit is not None:
                audit.write(answer.status, self._model_version())

    def _deadline_s(self, pattern: str) -> float:
        by_itself_s = {TIMELINE: self._config.timeline_deadline_s, COHORT: self._config.archive_cohort_deadline_s}
        return self._config.deadline_s + by_itself_s.get(pattern, 0.0)  # these end by themselves before, with an error

    def _let_in(self, scope: Scope, need: Need, audit: AuditLine | None) -> None:
        """Raises RequestError 401 or 403."""
        if self._tokens is None or self._config.allowed_hosts:
            check_site(scope, self._config.allowed_host_names)
        if self._tokens is not None:
            caller = self._tokens.caller([value for name, value in scope["headers"] if name == b"authorization"])
            if caller is not None and audit is not None:
                audit.names(caller.name)
            require(caller, need)

    async def _refuse(self, error: RequestError, answer: "_Answer", scope: Scope, receive: Receive) -> None:
        self._telemetry.rejected(error.reason)
        if answer.status == 0:
            response = _error_response(error.status, error_facts(error))
            if isinstance(error, AccessError):
                response.headers["WWW-Authenticate"] = error.challenge
            await response(scope, receive, answer.send)


class _Answer:
    """What is sent to the client: each answer gets the request's id, the security headers, and Retry-After."""

    def __init__(self, send: Send, given_ids: Sequence[bytes], retry_after_s: int, *, with_id: bool) -> None:
        self.request_id = begin_request(given_ids)
        self.status = 0
        self.has_body = True
        self._send = send
        self._retry_after_s = retry_after_s
        # Ray Serve repeats the client's id; where another one was made, it must be in the answer as well.
        self._with_id = with_id or given_ids != [self.request_id.encode()]

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            add_security_headers(message)
            headers = MutableHeaders(scope=message)
            if self._with_id:
                headers["X-Request-ID"] = self.request_id
            if self.status in (429, 503):
                headers["Retry-After"] = str(self._retry_after_s)
        elif message["type"] == "http.response.body" and not self.has_body:
            message = {**message, "body": b""}
        await self._send(message)


def _log_fault(scope: Scope, error: Exception) -> None:
    # The message is never logged: it could quote an ECG or a report.
    trace = "".join(traceback.format_tb(error.__traceback__))
    logger.error("%s %s failed: %s\n%s", scope["method"], _route(scope), type(error).__name__, trace)


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
        return answer(422, _query_faults(error.errors()))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        reason = {404: "no_such_route", 405: "method_not_allowed"}.get(error.status_code, "http_error")
        response = answer(error.status_code, ErrorFacts(reason=reason, message=str(error.detail), hint="see /docs"))
        response.headers.update(error.headers or {})
        return response


def _query_faults(faults: Sequence[Any]) -> ErrorFacts:
    lines = []
    for fault in faults[:3]:
        place = ".".join(str(part) for part in fault["loc"] if part != "query")
        lines.append(f"`{place}`: {fault['msg']}" if place else str(fault["msg"]))
    more = len(faults) - len(lines)
    message = f"the query string is invalid: {'; '.join(lines)}" + (f"; and {more} more" if more else "")
    return ErrorFacts(reason="bad_fields", message=message, hint="see /docs")


def _error_response(status: int, facts: ErrorFacts) -> Response:
    return Response(ErrorAnswer(error=facts).model_dump_json(), status_code=status, media_type="application/json")


def _route(scope: Scope) -> str:
    """The route's pattern, `/v1/prompt-sets/{name}`, so that there are few metric series whatever clients request."""
    return str(getattr(scope.get("route"), "path", "unknown"))
