"""Where the next page of a search begins, as a text that a caller hands back. No server keeps anything for it."""

import base64
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from mets_ray import storage
from mets_ray.archive.query import Direction
from mets_ray.errors import ConfigError

_MOST_CHARACTERS = 1024
_AGAIN = "start the search again, without `cursor`"


class IndexChangedError(ConfigError):
    """A cursor of another version of the index: an index job has finished since, or has not been seen here yet."""


def search_digest(directions: Sequence[Direction], **conditions: object) -> str:
    """Identifies a search, so that a cursor of another one is refused.

    Words stand for their vectors: those of two machines differ in their last digits.
    """
    terms = [
        [one.words, one.weight, one.negated, [] if one.words else np.round(one.vector, 1).tolist()]
        for one in directions
    ]
    return storage.digest_of({"terms": terms} | conditions)[:16]


def write_cursor(digest: str, version: int, **position: object) -> str:
    """A position in the search with this digest, of this version of the index."""
    packed = json.dumps({"of": digest, "version": version} | position, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def read_cursor(cursor: str, digest: str, version: int, kinds: dict[str, type]) -> dict[str, Any]:
    """The position. kinds: its fields and their types. Raises ConfigError for another search's, and for no cursor;
    IndexChangedError for another version's."""
    try:
        if len(cursor) > _MOST_CHARACTERS:
            raise ValueError("too long")
        facts = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
        of, at, position = str(facts["of"]), facts["version"], {name: facts[name] for name in kinds}
        if not all(type(position[name]) is kind for name, kind in kinds.items()):
            raise ValueError("other fields")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ConfigError(f"`cursor` is {cursor[:40]!r}, which did not come from a search", hint=_AGAIN) from error
    if of != digest:
        raise ConfigError("`cursor` belongs to another search: other words, or another filter", hint=_AGAIN)
    if at != version:
        raise IndexChangedError("the index has changed since the page that gave `cursor`", hint=_AGAIN)
    return position
