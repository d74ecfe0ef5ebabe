"""Filters on an archive's columns: a small language that is read here, so that no text of a caller reaches the index.

    age > 60 and sex = 'female' and not device in ('MAC 5500', 'CS-12') and leads_missing is empty
    statement_ids has 'sinus rhythm' or fold between 9 and 10

A filter is parsed into comparisons of known columns with literals, and written anew as the expression that Lance takes.
Of what is not known no comparison is true, and "not" turns that: `not device in ('MAC')` keeps ECGs of unknown devices.
Times are compared as they are written, without regard to time zones.
"""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from mets_ray.archive.schema import FILTER_COLUMNS, Kind
from mets_ray.errors import ConfigError
from mets_ray.packaged import did_you_mean, nearest
from mets_ray.text.reports import text_id

MOST_CHARACTERS = 4096
_DEEPEST = 32
_MOST_TOKENS = 1000

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?(?![\w.]))
      | (?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")
      | (?P<word>[A-Za-z_]\w*)
      | (?P<sign><=|>=|<>|!=|==|=|<|>|\(|\)|,)
    )""",
    re.VERBOSE,
)
_COMPARISONS = {"=": "=", "==": "=", "!=": "<>", "<>": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_TIMES = frozenset({"recorded_at"})
_TIME = re.compile(
    r"\d{4}(-\d\d(-\d\d([T ]\d\d(:\d\d(:\d\d(\.\d+)?)?)?(Z|[+-]\d\d:?\d\d)?)?)?)?"
)  # ISO 8601, or its beginning
_WORDS = frozenset({"and", "or", "not", "in", "is", "null", "empty", "between", "has"})
_HINT = "compare columns with numbers and quoted texts: age > 60 and sex = 'female'; columns: " + ", ".join(
    FILTER_COLUMNS
)


class _Token(NamedTuple):
    """kind: number, text, word, sign or end."""

    kind: str
    value: str


def read_filter(where: str | None) -> str | None:
    """The expression for Lance; None for None and for blanks.

    Raises ConfigError for an unknown column, a literal of another kind than its column, and all that is not in the
    language: functions, sub-queries, semicolons, comments.
    """
    if where is None or not where.strip():
        return None
    if len(where) > MOST_CHARACTERS:
        raise ConfigError(
            f"`where` has {len(where):,} characters; at most {MOST_CHARACTERS:,} are read",
            hint="filter in several searches",
        )
    return _Parser(_tokens(where)).read()


def quoted(text: str) -> str:
    """A literal of the expression language."""
    return "'" + text.replace("'", "''") + "'"


def _tokens(where: str) -> list[_Token]:
    tokens, at, text = [], 0, where.rstrip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise _fault(f"`where` cannot be read from {text[at:].strip()[:40]!r} on")
        assert found.lastgroup is not None
        tokens.append(_Token(found.lastgroup, found[found.lastgroup]))
        at = found.end()
    if len(tokens) > _MOST_TOKENS:
        raise _fault(f"`where` has {len(tokens):,} words and signs; at most {_MOST_TOKENS:,} are read")
    return tokens


def _fault(fact: str) -> ConfigError:
    return ConfigError(fact, hint=_HINT)


class _Parser:
    """or: and ("or" and)*; and: not ("and" not)*; not: "not" not | "(" or ")" | comparison."""

    def __init__(self, tokens: Sequence[_Token]) -> None:
        self._tokens = [*tokens, _Token("end", "the end")]
        self._at = 0

    def read(self) -> str:
        expression = self._or(0)
        if self._next.kind != "end":
            raise _fault(f"`where` has {self._next.value[:40]!r} after a complete condition")
        return expression

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self) -> _Token:
        token = self._next
        self._at += token.kind != "end"
        return token

    def _takes(self, word: str) -> bool:
        """Whether the next token is this word or sign, which is then passed."""
        matches = self._next.kind in ("word", "sign") and self._next.value.lower() == word
        self._at += matches
        return matches

    def _expect(self, word: str) -> None:
        if not self._takes(word):
            raise _fault(f"`where` has {self._next.value[:40]!r} in the place of `{word}`")

    def _or(self, depth: int) -> str:
        if depth > _DEEPEST:
            raise _fault(f"`where` has more than {_DEEPEST} parentheses in each other")
        parts = [self._and(depth)]
        while self._takes("or"):
            parts.append(self._and(depth))
        return parts[0] if len(parts) == 1 else f"({' OR '.join(parts)})"

    def _and(self, depth: int) -> str:
        parts = [self._not(depth)]
        while self._takes("and"):
            parts.append(self._not(depth))
        return parts[0] if len(parts) == 1 else f"({' AND '.join(parts)})"

    def _not(self, depth: int) -> str:
        negations = 0
        while self._takes("not"):
            negations += 1
        if self._takes("("):
            condition = self._or(depth + 1)
            self._expect(")")
        else:
            condition = self._comparison()
        return _negated(condition) if negations % 2 else condition

    def _comparison(self) -> str:
        column, kind = self._column()
        negated = self._takes("not")
        if self._takes("is"):
            return self._is(column, kind, negated)
        if self._takes("has"):
            condition = f"array_has({column}, {self._literal(column, _element(column, kind))})"
        elif kind in ("texts", "integers"):
            raise _fault(f"`{column}` is a list: write `{column} has …` or `{column} is empty`")
        elif column in _TIMES:
            condition = self._time(column)
        elif self._takes("in"):
            condition = f"{column} IN ({', '.join(self._literals(column, kind))})"
        elif self._takes("between"):
            low = self._literal(column, kind)
            self._expect("and")
            condition = f"({column} >= {low} AND {column} <= {self._literal(column, kind)})"
        elif self._next.kind == "sign" and self._next.value in _COMPARISONS and not negated:
            sign = _COMPARISONS[self._take().value]
            condition = f"{column} {sign} {self._literal(column, kind)}"
            condition = f"coalesce({condition}, true)" if sign == "<>" else condition
        else:
            raise _fault(f"`where` has {self._next.value[:40]!r} after `{column}`, in the place of a comparison")
        return _negated(condition) if negated else condition

    def _time(self, column: str) -> str:
        """A comparison with a time or its beginning: '2001-06-03' is the whole day."""
        if self._takes("in"):
            return f"({' OR '.join(_within(column, one) for one in self._literals(column, 'text'))})"
        if self._takes("between"):
            low = self._literal(column, "text")
            self._expect("and")
            return f"({column} >= {low} AND {column} <= {_end_of(self._literal(column, 'text'))})"
        if self._next.kind != "sign" or self._next.value not in _COMPARISONS:
            raise _fault(f"`where` has {self._next.value[:40]!r} after `{column}`, in the place of a comparison")
        sign = _COMPARISONS[self._take().value]
        literal = self._literal(column, "text")
        if sign in ("=", "<>"):
            return _within(column, literal) if sign == "=" else _negated(_within(column, literal))
        return f"{column} {sign} {_end_of(literal) if sign in ('<=', '>') else literal}"

    def _is(self, column: str, kind: Kind, negated: bool) -> str:
        negated ^= self._takes("not")
        if self._takes("empty"):
            if kind not in ("texts", "integers"):
                raise _fault(f"`{column}` is no list, so it is never `empty`: write `{column} is null`")
            return f"array_length({column}) > 0" if negated else f"coalesce(array_length({column}), 0) = 0"
        self._expect("null")
        return f"{column} IS {'NOT ' if negated else ''}NULL"

    def _column(self) -> tuple[str, Kind]:
        token = self._take()
        if token.kind != "word" or token.value.lower() in _WORDS:
            raise _fault(f"`where` has {token.value[:40]!r} in the place of a column")
        if self._next == _Token("sign", "("):
            raise _fault(f"`where` calls `{token.value[:40]}`: there are no functions")
        if token.value not in FILTER_COLUMNS:
            name, columns = token.value[:40], list(FILTER_COLUMNS)
            hint = did_you_mean(name, columns)
            if nearest(name, columns) is not None:  # it names that one alone
                hint += f" The columns: {', '.join(f'`{column}`' for column in columns)}"
            raise ConfigError(f"`where` names `{name}`, which is not a column of an archive", hint=hint)
        return token.value, FILTER_COLUMNS[token.value]

    def _literals(self, column: str, kind: Kind) -> list[str]:
        self._expect("(")
        found = [self._literal(column, kind)]
        while self._takes(","):
            found.append(self._literal(column, kind))
        self._expect(")")
        return found

    def _literal(self, column: str, kind: Kind) -> str:
        token = self._take()
        if token.kind not in ("number", "text"):
            raise _fault(f"`where` has {token.value[:40]!r} in the place of a value for `{column}`")
        text = token.value[1:-1].replace(token.value[0] * 2, token.value[0]) if token.kind == "text" else ""
        if column == "statement_ids" and token.kind == "text":
            return str(text_id(text))
        if (kind == "text") != (token.kind == "text"):
            wanted = "a text in quotes" if kind == "text" else "a number"
            raise _fault(f"`where` compares `{column}` with {token.value[:40]}: it takes {wanted}")
        if column in _TIMES:
            return quoted(_time_text(column, text))
        if kind == "text":
            return quoted(text)
        if kind == "integer":
            return self._integer(column, token.value)
        number = float(token.value)
        if not math.isfinite(number):
            raise _fault(f"`where` compares `{column}` with {token.value[:40]}, which is too large")
        return repr(number)

    def _integer(self, column: str, value: str) -> str:
        number = float(value)
        bits = 64 if column == "statement_ids" else 32
        if not number.is_integer() or abs(number) >= 2 ** (bits - 1):
            raise _fault(f"`where` compares `{column}` with {value[:40]}: it takes whole numbers of {bits} bits")
        return str(int(value) if value.lstrip("+-").isdigit() else int(number))


def _negated(condition: str) -> str:
    """Of what is not known, no condition is true, and so its negation is."""
    return f"(NOT coalesce({condition}, false))"


def _time_text(column: str, text: str) -> str:
    if not _TIME.fullmatch(text):
        raise _fault(f"`where` compares `{column}` with {text[:40]!r}: write '2001-06-03' or '2001-06-03T10:30:00'")
    return text.replace(" ", "T")


def _end_of(literal: str) -> str:
    """The last text that begins with a literal, so that a day ends at midnight and not before its first minute."""
    return literal[:-1] + "~'"


def _within(column: str, literal: str) -> str:
    return f"({column} >= {literal} AND {column} <= {_end_of(literal)})"


def _element(column: str, kind: Kind) -> Kind:
    if kind == "texts":
        return "text"
    if kind == "integers":
        return "integer"
    raise _fault(f"`{column}` is no list: write `{column} = …`")
