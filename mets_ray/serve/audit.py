"""The audit log: one line for each write, each scoring and each query of the archive.

It names who and what, by hashes where that is data.

The lines go to the logger `ray.serve.audit` and thus to Ray Serve's own log, as JSON after the word `audit`.
"""

import hashlib
import json
import logging
import re
from typing import Any

from fastapi import Request
from starlette.types import Message, Receive, Scope

from mets_ray.serve.access import Found

logger = logging.getLogger("ray.serve.audit")

_KEY = "mets_ray.audit"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def note(request: Request, *, prompt_set: str | None = None, classes: Any = None, head: str | None = None) -> None:
    """Add to the line of this request: the prompt set that was used or written, the head that was used, or the classes,
    of which only the hash of their JSON is kept."""
    facts = request.scope.get(_KEY, {})
    if head is not None:
        facts["head"] = head
    if prompt_set is not None:
        facts["prompt_set"] = prompt_set
    if classes is not None:
        facts["classes_sha256"] = _hash(classes)


def note_query(request: Request, **asked: Any) -> None:
    """Add what was asked of the archive, by the hash of its JSON: `words` become `words_sha256`. None is left out."""
    facts = request.scope.get(_KEY, {})
    for name, value in asked.items():
        if value is not None:
            facts[f"{name}_sha256"] = _hash(value)


def note_classes(request: Request, labels: list[str] | None, template: str | None, prompt_set: str | None) -> None:
    """`note` for the classes of a scoring: those that the request gives itself, or the prompt set that was used."""
    note(request, prompt_set=prompt_set, classes=None if labels is None else [labels, template])


class AuditLine:
    """What becomes known of one request while it is answered."""

    def __init__(self, scope: Scope, route: Found, request_id: str) -> None:
        self._facts: dict[str, Any] = {
            "request_id": request_id,
            "who": None,
            "needs": route.need,
            "method": scope["method"],
            "route": route.pattern,
            "prompt_set": _plain(route.path_params.get("name")),
        }
        self._hash = hashlib.sha256()
        self._bytes = 0
        self._whole = False
        scope[_KEY] = self._facts

    def names(self, who: str) -> None:
        """The holder of the token."""
        self._facts["who"] = who

    def reads(self, receive: Receive) -> Receive:
        """`receive`, with the body hashed part by part as it comes in."""

        async def hashed() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                body = message.get("body", b"")
                self._hash.update(body)
                self._bytes += len(body)
                self._whole = not message.get("more_body", False)
            return message

        return hashed

    def write(self, status: int, model_version: str) -> None:
        """Write the line. `status` is 0 if the client went away before there was an answer."""
        facts = self._facts | {
            "status": status,
            "model_version": model_version,
            "body_bytes": self._bytes,
            "body_sha256": self._hash.hexdigest() if self._whole else None,
        }
        logger.info("audit %s", json.dumps(facts))


def _hash(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(name: object) -> str | None:
    """The name in the path if it can be one of a prompt set; other text could be anything."""
    return name if isinstance(name, str) and _NAME.fullmatch(name) else None
