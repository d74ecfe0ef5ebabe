"""The bearer tokens of a server: who holds each of them, and what it may do."""

import hashlib
import hmac
import logging
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from mets_ray.errors import ConfigError
from mets_ray.packaged import read_yaml
from mets_ray.serve.settings import ServeConfig

logger = logging.getLogger("ray.serve")

TokenScope = Literal["score", "register", "search"]
ALL_SCOPES: frozenset[TokenScope] = frozenset({"score", "register", "search"})

_SHORTEST = 16
_LARGEST_FILE_BYTES = 1024 * 1024
# Two changes within a file system's clock tick look alike: a file this young is read again, whatever its time says.
_UNSETTLED_NS = 2_000_000_000


@dataclass(frozen=True)
class Caller:
    """The holder of a token, as the audit log names it."""

    name: str
    scopes: frozenset[TokenScope]


class _Entry(BaseModel):
    """One token of a list: itself, or its SHA-256, so that the list can be stored without the secret."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    token: Annotated[str, Field(min_length=_SHORTEST, pattern=r"^[!-~]+$")] | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")] | None = None
    scopes: Annotated[tuple[TokenScope, ...], Field(min_length=1)] = ("score",)

    @model_validator(mode="after")
    def _one_of_two(self) -> "_Entry":
        if (self.token is None) == (self.sha256 is None):
            raise ValueError("give exactly one of `token` and `sha256`")
        if self.digest == _digest(""):
            raise ValueError("`sha256` is that of an empty token")
        return self

    @property
    def digest(self) -> bytes:
        return _digest(self.token) if self.token is not None else bytes.fromhex(self.sha256 or "")


_ENTRIES = TypeAdapter(list[_Entry])
_FORM = "write a list such as `- {name: ward-3, sha256: …, scopes: [score]}`; `token` instead of `sha256` works too"


class Tokens:
    """All tokens that open this server, kept as SHA-256 only: of two environment variables and of a file.

    The file is looked at with each request and read again once it has changed. If it cannot be used then, the tokens
    before it stay in force and the log says why.
    """

    def __init__(self, config: ServeConfig) -> None:
        """Raises ConfigError if there is no token, or one that is too short, or two of the same name or value."""
        self._fixed = _of_environment(config)
        self._known: Mapping[bytes, Caller] = _joined(self._fixed)
        self._path = None if config.tokens_file is None else Path(config.tokens_file)
        self._seen: tuple[int, ...] | None = None
        self._content: bytes | None = None
        self._fault = ""
        if self._path is not None:
            self._read(self._path)
        if not self._known:
            raise ConfigError(
                f"`auth` is bearer, but the environment variable {config.token_env} of the replicas is empty",
                hint=f"set {config.token_env} where the cluster starts, or tokens_file, or use auth=none on 127.0.0.1",
            )

    def caller(self, authorization: Sequence[bytes]) -> Caller | None:
        """Who sent these values of `Authorization`; None unless there is one, with a token that is known."""
        if self._path is not None:
            self._refresh(self._path)
        scheme, _, token = authorization[0].partition(b" ") if len(authorization) == 1 else (b"", b"", b"")
        if scheme.lower() != b"bearer":
            return None
        given = hashlib.sha256(token.strip()).digest()
        found = None
        for digest, caller in self._known.items():  # to the end, so that the time taken tells nothing
            if hmac.compare_digest(digest, given):
                found = caller
        return found

    def _refresh(self, path: Path) -> None:
        try:
            self._read(path)
            self._fault = ""
        except ConfigError as error:
            if error.fact != self._fault:
                logger.error("the tokens stay as they were: %s", error)
            self._fault = error.fact

    def _read(self, path: Path) -> None:
        """Take over the file's tokens if it has changed. Raises ConfigError if they cannot be used."""
        try:
            facts = path.stat()
            seen = (facts.st_mtime_ns, facts.st_ino, facts.st_size)
            if seen == self._seen:
                return
            with path.open("rb") as file:
                content = file.read(_LARGEST_FILE_BYTES + 1)
        except OSError as error:
            raise ConfigError(f"`tokens_file` {path} cannot be read: {error.strerror}") from error
        if content != self._content:
            known = _joined([*self._fixed, *_of_list(content, f"`tokens_file` {path}")])
            if self._content is not None:
                logger.info("%d tokens are in force: %s has changed", len(known), path)
            self._known, self._content = known, content
        self._seen = seen if time.time_ns() - facts.st_mtime_ns > _UNSETTLED_NS else None


def _of_environment(config: ServeConfig) -> list[tuple[bytes, Caller]]:
    tokens = []
    single = os.environ.get(config.token_env, "").strip()
    if single:
        if len(single) < _SHORTEST:
            logger.warning(
                "the token in %s has fewer than %d characters: it can be guessed", config.token_env, _SHORTEST
            )
        tokens.append((_digest(single), Caller(config.token_env, ALL_SCOPES)))
    several = os.environ.get(config.tokens_env, "")
    if several.strip():
        tokens += _of_list(several.encode(errors="surrogateescape"), f"the environment variable {config.tokens_env}")
    return tokens


def _of_list(content: bytes, where: str) -> list[tuple[bytes, Caller]]:
    """The tokens of a YAML or JSON list. Its errors quote nothing of it: it holds secrets."""
    if len(content) > _LARGEST_FILE_BYTES:
        raise ConfigError(f"{where} has more than {_LARGEST_FILE_BYTES} bytes")
    try:
        entries = _ENTRIES.validate_python(read_yaml(content, where))
    except ConfigError as error:
        mark = getattr(error.__cause__, "problem_mark", None)
        line = "" if mark is None else f", line {mark.line + 1}"
        raise ConfigError(f"{where} is not YAML, or has a key twice{line}", hint=_FORM) from None
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False, include_context=False)[0]
        place = [f"token {part + 1}" if isinstance(part, int) else part for part in fault["loc"][:2]]
        known = [part for part in place if part in _Entry.model_fields or part.startswith("token ")]
        raise ConfigError(f"{where}: {', '.join([*known, fault['msg']])}", hint=_FORM) from None
    if not entries:
        raise ConfigError(f"{where} holds no token", hint=_FORM)
    return [(entry.digest, Caller(entry.name, frozenset(entry.scopes))) for entry in entries]


def _joined(tokens: Sequence[tuple[bytes, Caller]]) -> dict[bytes, Caller]:
    names = Counter(caller.name for _, caller in tokens)
    if twice := [name for name, times in names.items() if times > 1]:
        raise ConfigError(f"two tokens are called `{twice[0]}`", hint="give each holder a name of its own")
    known: dict[bytes, Caller] = {}
    for digest, caller in tokens:
        if digest in known:
            raise ConfigError(
                f"`{known[digest].name}` and `{caller.name}` are the same token",
                hint="give each holder a token of its own",
            )
        known[digest] = caller
    return known


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()
