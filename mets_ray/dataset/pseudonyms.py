"""Pseudonyms for the ids of records and patients: HMAC-SHA256 with a key that only its owner has."""

import hashlib
import hmac
import os
from dataclasses import dataclass, field
from typing import Literal

from mets_ray.errors import ConfigError

KEY_VARIABLE = "METS_RAY_PSEUDONYM_KEY"
_FEWEST_KEY_BYTES = 16
_HINT = f'export {KEY_VARIABLE}="$(openssl rand -hex 32)", and keep it apart from the data set'


@dataclass(frozen=True)
class Pseudonyms:
    """With the same key an id has the same pseudonym in every data set; without the key there is no way back."""

    key: bytes = field(repr=False)

    @classmethod
    def from_environment(cls) -> "Pseudonyms":
        """With the key in `METS_RAY_PSEUDONYM_KEY`. Raises ConfigError where there is none, or a short one."""
        key = os.environ.get(KEY_VARIABLE, "").encode()
        if not key:
            raise ConfigError(
                f"`prepare.pseudonymise` is set, but the environment variable {KEY_VARIABLE} is not", hint=_HINT
            )
        if len(key) < _FEWEST_KEY_BYTES:
            raise ConfigError(
                f"the key in {KEY_VARIABLE} has {len(key)} bytes; it needs at least {_FEWEST_KEY_BYTES}",
                hint=_HINT,
            )
        return cls(key)

    def of(self, kind: Literal["record", "patient", "key"], identifier: str) -> str:
        """32 hexadecimal digits for the id of a `kind`: the record 17 and the patient 17 have different ones."""
        return hmac.new(self.key, f"{kind}\0{identifier}".encode(), hashlib.sha256).hexdigest()[:32]

    @property
    def key_id(self) -> str:
        """Tells two keys apart, and says nothing about either."""
        return self.of("key", "")
