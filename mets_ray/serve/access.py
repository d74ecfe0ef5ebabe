"""Which callers a route lets in. The route that will answer decides, never the text of the path."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from mets_ray.errors import RequestError
from mets_ray.serve.tokens import Caller

Need = Literal["nothing", "any token", "score", "register", "search"]

# Routes by their pattern. A route that is in none of these sets needs a token, and for a method that may change
# something a token with the scope `register`: a forgotten route is closed, not open.
_PAGES = frozenset({"/", "/archive", "/static", "/static-offline-docs", "/docs", "/docs/oauth2-redirect"})
_OPEN = _PAGES | {"/openapi.json", "/healthz", "/readyz"}
TIMELINE = "/v1/timeline"
_SCORING = frozenset({"/v1/zero-shot", "/v1/zero-shot/batch", "/v1/predict", "/v1/embed", "/v1/ecg", TIMELINE})
COHORT = "/v1/cohort"
# Whose records these are is told to nobody without this scope, not even by reading.
_ARCHIVE = frozenset({"/v1/search", COHORT, "/v1/archive", "/v1/archive/ecg/{record_id:path}"})
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


class AccessError(RequestError):
    """A request without the token or the scope that its route needs; `challenge` is its `WWW-Authenticate`."""

    def __init__(self, status: int, reason: str, fact: str, *, hint: str, challenge: str) -> None:
        super().__init__(status, reason, fact, hint=hint)
        self.challenge = challenge


def need_of(pattern: str, method: str) -> Need:
    """What a caller must have for `method` on the route with this pattern."""
    if pattern in _OPEN and method in ("GET", "HEAD"):
        return "nothing"
    if pattern in _ARCHIVE:
        return "search"
    if method in _READING:
        return "any token"
    return "score" if pattern in _SCORING and method == "POST" else "register"


def is_audited(need: Need) -> bool:
    """Whether a request with this need leaves a line in the audit log."""
    return need in ("score", "register", "search")


@dataclass(frozen=True)
class Found:
    """The route that will answer a request, by its pattern, which is empty for none; and what it needs."""

    need: Need
    pattern: str = ""
    path_params: Mapping[str, Any] = field(default_factory=dict)


def find_route(routes: Sequence[BaseRoute], scope: Scope) -> Found:
    """The route that will answer this request. `routes` are matched in the router's order and by its own rules.

    A request that no route answers (404, 405) needs a token as well. One that is only redirected to an open route, by a
    missing or extra slash at its end, does not.
    """
    match, pattern, path_params = _matched(routes, scope)
    if match is Match.FULL:
        return Found(need_of(pattern, scope["method"]), pattern, path_params)
    if match is Match.NONE and scope["path"] != "/":
        path = scope["path"]
        other = path.rstrip("/") if path.endswith("/") else f"{path}/"
        match, pattern, _ = _matched(routes, {**scope, "path": other})
        if match is Match.FULL and need_of(pattern, scope["method"]) == "nothing":
            return Found("nothing")
    return Found("any token")


def require(caller: Caller | None, need: Need) -> None:
    """Raise AccessError 401 without a valid token, 403 for one without the scope that is needed."""
    if need == "nothing":
        return
    if caller is None:
        raise AccessError(
            401, "no_token", "the token is missing or wrong", hint="Authorization: Bearer …", challenge="Bearer"
        )
    if need != "any token" and need not in caller.scopes:
        raise AccessError(
            403,
            "wrong_scope",
            f"the token `{caller.name}` does not have the scope `{need}`",
            hint="use another token, or add the scope to this one",
            challenge=f'Bearer error="insufficient_scope", scope="{need}"',
        )


def _matched(routes: Sequence[BaseRoute], scope: Scope) -> tuple[Match, str, Mapping[str, Any]]:
    """How the router will find this request's route, the route's pattern, and the values of its parameters."""
    best = Match.NONE
    for route in routes:
        match, found = route.matches(scope)
        if match is Match.FULL:
            return match, getattr(route, "path", ""), found.get("path_params", {})
        if match is Match.PARTIAL:
            best = match
    return best, "", {}
