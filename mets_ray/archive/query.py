"""What is asked of an archive: terms in words with weights and "not", and the directions that they become."""

import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from mets_ray.errors import ConfigError
from mets_ray.model.calibrated_classes import CalibratedClasses

MOST_TERMS = 16
MOST_CHARACTERS = 4096
_MOST_WEIGHT = 100.0
_WEIGHT = re.compile(r"\s*\^\s*(?P<weight>[^\s^]+)\s*$")
_NOT = re.compile(r"not\s+(?=\S)", re.IGNORECASE)
_SYNTAX = (
    'write terms between semicolons: "left bundle branch block; first degree AV block ^0.5; not atrial fibrillation"'
)


class RecordKey(NamedTuple):
    """A record of an archive; `source` where several have its id."""

    record_id: str
    source: str | None = None


@dataclass(frozen=True)
class Term:
    """One thing to look for, in words.

    weight: how much it counts beside the other terms. negated: look for ECGs that do not show it. wordings: complete
    texts whose embeddings are averaged, as those of a prompt set's class; default: `words` alone, or in
    the template of a bundle that was trained on whole reports.
    """

    words: str
    weight: float = 1.0
    negated: bool = False
    wordings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.words.strip():
            raise ConfigError("a search term has no words", hint=_SYNTAX)
        if len(self.words) > MOST_CHARACTERS:
            raise ConfigError(
                f"a search term has {len(self.words):,} characters; at most {MOST_CHARACTERS:,} are taken",
                hint="describe one finding in a few words; a whole report is `Query.of_report`",
            )
        if not 0.0 < self.weight <= _MOST_WEIGHT:
            raise ConfigError(
                f"the weight of {self.words[:80]!r} is {self.weight}",
                hint=f"use a number above 0 and at most {_MOST_WEIGHT:g}; to look for the absence, begin with `not`",
            )


@dataclass(frozen=True)
class Query:
    """Terms that an ECG is to fit together. Raises ConfigError for no term, too many, or only negated ones."""

    terms: tuple[Term, ...]

    def __post_init__(self) -> None:
        if not self.terms:
            raise ConfigError("the search has no words", hint=_SYNTAX)
        if len(self.terms) > MOST_TERMS:
            raise ConfigError(
                f"the search has {len(self.terms)} terms; at most {MOST_TERMS} are taken", hint="leave some out"
            )
        if all(term.negated for term in self.terms):
            raise ConfigError(
                "the search says only what is not wanted",
                hint="add a term to look for, or filter with `where`: most of an archive lacks any one finding",
            )

    @classmethod
    def parse(cls, text: str) -> "Query":
        """Terms between semicolons or on lines of their own; `not` before a term, `^2` behind it for its weight.

        Raises ConfigError for empty words and for weights that are no numbers.
        """
        parts = [part.strip() for part in re.split(r"[;\n]", text)]
        return cls(tuple(_parse_term(part) for part in parts if part))


class Direction(NamedTuple):
    """A term as the unit vector that embeddings are compared with.

    words: what it stands for, shown with the results. class_name: the calibrated class that the words name, as
    `set:task/class`, and its calibration; "" and None where there is none, and `not_calibrated` says why.
    """

    vector: Float32[np.ndarray, " dimension"]
    words: str = ""
    weight: float = 1.0
    negated: bool = False
    class_name: str = ""
    calibrated: CalibratedClasses | None = None
    not_calibrated: str = ""


def _parse_term(part: str) -> Term:
    weight = 1.0
    if found := _WEIGHT.search(part):
        try:
            weight = float(found["weight"])
        except ValueError as error:
            raise ConfigError(f"`^{found['weight'][:40]}` is not a weight", hint=_SYNTAX) from error
        part = part[: found.start()]
    without = _NOT.sub("", part, count=1) if _NOT.match(part) else part
    return Term(without.strip(), weight, negated=without is not part)
