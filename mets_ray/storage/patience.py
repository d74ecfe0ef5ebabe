"""How long the calls of a block may wait for a store: jobs wait a minute and a half, a server with clients cannot."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_ENDS_AT: ContextVar[float | None] = ContextVar("ends_at", default=None)


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """All requests to S3 of this block together take at most so long, retries included; then they raise as unreachable.

    It holds for the calling thread (or task). Local files and the libraries of other stores keep their own timeouts.
    """
    token = _ENDS_AT.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _ENDS_AT.reset(token)


def seconds_left() -> float | None:
    """What is left of the block's patience; None outside such a block."""
    ends_at = _ENDS_AT.get()
    return None if ends_at is None else max(0.0, ends_at - time.monotonic())
