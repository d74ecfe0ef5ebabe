"""JSON files that carry the hash of their own content, so that a changed bit is noticed when they are read."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

_DIGEST = "digest"


@dataclass(frozen=True)
class Sealed:
    """The content of a JSON file without its `digest`. `stated`: whether the file had one; `digest` is of the content
    in any case."""

    facts: dict[str, Any]
    digest: str
    stated: bool


def digest_of(facts: dict[str, Any]) -> str:
    """sha256 of `facts` as JSON, independent of the order of keys and of blanks."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def seal(text: str) -> bytes:
    """A JSON object with its `digest` as the last key."""
    facts = json.loads(text)
    return json.dumps(facts | {_DIGEST: digest_of(facts)}, indent=1, ensure_ascii=False).encode()


def unseal(data: bytes, *, required: bool = False) -> Sealed:
    """The content of such a file.

    Raises ValueError if it is not a JSON object, its digest is that of another content, or it is `required` and absent.
    """
    try:
        facts = json.loads(data)
        if not isinstance(facts, dict):
            raise ValueError(f"it holds a {type(facts).__name__}, not an object")
        stated = facts.pop(_DIGEST, None)
        digest = digest_of(facts)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if stated is None and required:
        raise ValueError("it has no `digest`")
    if stated is not None and stated != digest:
        raise ValueError("its content is not what was written (another digest)")
    return Sealed(facts, digest, stated is not None)
