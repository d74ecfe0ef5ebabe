"""JSON files that carry the hash of their own content, so that a changed bit is noticed when they are read.

The hash finds damage. A signature, HMAC-SHA256 of the hash with a key, finds forgery too.
"""

import hashlib
import hmac
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_DIGEST, _SIGNATURE = "digest", "signature"


@dataclass(frozen=True)
class Sealed:
    """The content of a JSON file without `digest` and `signature`.

    `digest` is of the content as it is, `stated` the one that the file carries; that and `signature` are "" in a file
    without them.
    """

    facts: dict[str, Any]
    digest: str
    stated: str
    signature: str

    def check(self, *, optional: bool = False) -> None:
        """Raise ValueError if the content is not what was sealed, or has no digest where it is not `optional`."""
        if self.stated != self.digest and (self.stated or not optional):
            raise ValueError(
                "its content is not what was written (another digest)" if self.stated else "it has no `digest`"
            )

    def is_signed_with(self, key: str) -> bool:
        """Whether the signature was made with this key."""
        return hmac.compare_digest(self.signature.encode(), _signature(self.digest, key).encode())


def digest_of(facts: dict[str, Any]) -> str:
    """sha256 of `facts` as JSON, independent of the order of keys and of blanks."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def digest_of_rows(rows: Iterable[dict[str, Any]]) -> str:
    """`digest_of({"": rows})`, one row after the other: a million of them are never in memory as JSON."""
    encode = json.JSONEncoder(sort_keys=True, ensure_ascii=False).encode
    digest = hashlib.sha256(b'{"": [')
    for number, row in enumerate(rows):
        digest.update((f", {encode(row)}" if number else encode(row)).encode())
    digest.update(b"]}")
    return digest.hexdigest()


def seal(text: str, key: str = "") -> bytes:
    """A JSON object with the `digest` of its content, and with a key its `signature`."""
    facts = json.loads(text)
    digest = digest_of(facts)
    seals = {_DIGEST: digest} | ({_SIGNATURE: _signature(digest, key)} if key else {})
    return json.dumps(facts | seals, indent=1, ensure_ascii=False).encode()


def unseal(data: bytes) -> Sealed:
    """The content of such a file, not checked yet. Raises ValueError if it is not a JSON object."""
    try:
        facts = json.loads(data)
        if not isinstance(facts, dict):
            raise ValueError(f"it holds a {type(facts).__name__}, not an object")
        stated, signature = str(facts.pop(_DIGEST, "")), str(facts.pop(_SIGNATURE, ""))
        return Sealed(facts, digest_of(facts), stated, signature)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def sealed_facts(data: bytes, schema_version: int, key: str = "") -> dict[str, Any]:
    """The content of a file of one schema version, checked, and with a key its signature too. Raises ValueError."""
    sealed = unseal(data)
    sealed.check()
    found = sealed.facts.get("schema_version")
    if found != schema_version:
        raise ValueError(f"its schema version is {found}, and {schema_version} is read")
    if key and not sealed.is_signed_with(key):
        raise ValueError("it is not signed with the key of bundles")
    return sealed.facts


def _signature(digest: str, key: str) -> str:
    return hmac.new(key.encode(), digest.encode(), hashlib.sha256).hexdigest()
