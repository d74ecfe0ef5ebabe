"""The id of the request that is being answered: in its answer, in its log lines and in its error body."""

import logging
import re
import uuid
from collections.abc import Sequence
from contextvars import ContextVar

_SAFE = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_current: ContextVar[str | None] = ContextVar("request_id", default=None)


def begin_request(given: Sequence[bytes]) -> str:
    """Give the current task its request id, and return it.

    given: the values of the request's `X-Request-ID`. One that is short and plain is taken over; anything else could
    forge a log line, so a new id is made.
    """
    chosen = given[0].decode() if len(given) == 1 and _SAFE.fullmatch(given[0]) else uuid.uuid4().hex
    _current.set(chosen)
    return chosen


def current_request_id() -> str | None:
    """The id of the request that this task answers; None outside of a request."""
    return _current.get()


class _NamesTheRequest(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        request_id = _current.get()
        if request_id is not None:
            record.request_id = request_id
            record.msg = f"[request {request_id}] {record.msg}"
        return True


_FILTER = _NamesTheRequest()


def name_requests_in_log(logger: logging.Logger) -> None:
    """Let each line of `logger` begin with the id of its request. Calling it again changes nothing."""
    logger.addFilter(_FILTER)
