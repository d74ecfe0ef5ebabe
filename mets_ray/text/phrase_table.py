"""One language's phrases, as `phrases/*.yaml` holds them, checked and made ready for lookup.

Phrases are compared as plain words: case, umlauts and their transcriptions, blanks and punctuation make no difference.
"""

import bisect
import dataclasses
import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from mets_ray.errors import ConfigError
from mets_ray.packaged import read_yaml

# `>` and `<` tell "more than 5 per minute" from fewer. `#` is an umlaut lost on the way into PTB-XL: `f#r`, `#bergang`.
WORD = re.compile(r"(?:[^\W_]|#)+|[<>]")

_LETTERS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "#": "ue"})

_SHORTEST_CUT = 8
"""A last, incomplete phrase needs this many letters to be completed: fewer match too much."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Head(_Model):
    says: str
    alone: str | None = None


class _Context(_Model):
    heads: dict[str, _Head]
    items: dict[str, str]


class _File(_Model):
    name: str
    version: int
    source: str
    spellings: dict[str, str] = {}
    regions: dict[str, str] = {}
    negations: tuple[str, ...] = ()
    denials: tuple[str, ...] = ()
    doubts: dict[str, str] = {}
    conjunctions: tuple[str, ...] = ()
    fillers: tuple[str, ...] = ()
    capital_nouns: bool = False
    joins: dict[str, str] = {}
    qualifiers: dict[str, str] = {}
    contexts: tuple[_Context, ...] = ()
    phrases: dict[str, str | tuple[str, ...] | None]


class Word(NamedTuple):
    """A word of a report in plain spelling, and the stretch of the report that it comes from."""

    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Meaning:
    """What a phrase means: statements, a qualifier, a denial, a doubt, or a head that its items follow."""

    statements: tuple[str, ...] = ()
    qualifies: str = ""  # template for the statement before it
    denies: bool = False  # the statement before it
    doubts: str = ""  # template for the statements right behind it
    opens: str = ""  # template for each of its items
    items: "Phrases" = field(default_factory=lambda: Phrases({}))


@dataclass(frozen=True)
class Phrases:
    """Meanings by phrase, in plain words with one blank between each."""

    meanings: Mapping[str, Meaning]

    @functools.cached_property
    def _trie(self) -> dict[str, Any]:
        """By a phrase's first word, what may follow it, in the same way; "" stands where a phrase ends."""
        root: dict[str, Any] = {}
        for phrase in self.meanings:
            node = root
            for word in phrase.split():
                node = node.setdefault(word, {})
            node[""] = {}
        return root

    @functools.cached_property
    def _statements(self) -> frozenset[tuple[str, ...]]:
        return frozenset(meaning.statements for meaning in self.meanings.values())

    @functools.cached_property
    def _sorted(self) -> list[str]:
        return sorted(self.meanings)

    def begin_with(self, word: str) -> bool:
        """Whether any phrase begins with this whole word."""
        return word in self._trie

    def says(self, meaning: "Meaning") -> bool:
        """Whether any phrase means this."""
        return meaning.statements in self._statements and meaning in self.meanings.values()

    def longest(self, words: Sequence[str], at: int) -> int:
        """Where the longest phrase that begins at `at` ends; `at` itself where none does."""
        node, longest = self._trie.get(words[at]), at
        while node is not None:
            at += 1
            if "" in node:
                longest = at
            node = node.get(words[at]) if at < len(words) else None
        return longest

    def beginning_with(self, letters: str) -> Iterator[str]:
        """The phrases whose first letters these are."""
        for phrase in self._sorted[bisect.bisect_left(self._sorted, letters) :]:
            if not phrase.startswith(letters):
                return
            yield phrase


NOTHING = Meaning()


@dataclass(frozen=True)
class Language:
    """A phrase table, checked."""

    name: str
    spellings: Mapping[str, str]
    negations: frozenset[str]
    conjunctions: frozenset[str]
    fillers: frozenset[str]
    capital_nouns: bool
    joins: Mapping[str, str]
    phrases: Phrases

    @classmethod
    def parse(cls, content: bytes, name: str) -> "Language":
        """From the bytes of a YAML file. Raises ConfigError."""
        where = f"phrase table `{name}`"
        try:
            file = _File.model_validate(read_yaml(content, where, is_ours=True))
        except ValidationError as error:
            raise ConfigError(f"this is no phrase table: {error}", where=where, hint="see translate.py") from error
        spellings = {plain(word): " ".join(WORD.findall(plain(right))) for word, right in file.spellings.items()}

        def by_words(meanings: Iterable[tuple[str, Meaning]]) -> Phrases:
            return _phrases(meanings, spellings, file.regions, where)

        entries = [(phrase, Meaning(_as_tuple(said))) for phrase, said in file.phrases.items()]
        entries += [(phrase, Meaning(qualifies=template)) for phrase, template in file.qualifiers.items()]
        entries += [(phrase, Meaning(denies=True)) for phrase in file.denials]
        entries += [(phrase, Meaning(doubts=template)) for phrase, template in file.doubts.items()]
        for context in file.contexts:
            items = by_words((item, Meaning((said,))) for item, said in context.items.items())
            entries += [
                (phrase, Meaning(_as_tuple(head.alone), opens=head.says, items=items))
                for phrase, head in context.heads.items()
            ]
        negations, conjunctions, fillers = (
            frozenset(map(plain, words)) for words in (file.negations, file.conjunctions, file.fillers)
        )
        joins = {plain(word): separator for word, separator in file.joins.items()}
        return cls(
            name=name,
            spellings=spellings,
            negations=negations,
            conjunctions=conjunctions,
            fillers=fillers,
            capital_nouns=file.capital_nouns,
            joins=joins,
            phrases=by_words(entries),
        )

    @functools.cached_property
    def first_denying(self) -> frozenset[str]:
        """The first words of what denies or qualifies: no other word needs a look at what it changes."""
        changing = (phrase for phrase, meaning in self.phrases.meanings.items() if meaning.denies or meaning.qualifies)
        return self.negations | {phrase.split()[0] for phrase in changing}

    @functools.cached_property
    def openers(self) -> frozenset[str]:
        """The words that can mean something without a head before them; of others, only a last one is looked at."""
        return self.first_denying.union(phrase.split()[0] for phrase in self.phrases.meanings)

    def words(self, text: str) -> list[Word]:
        """The words of a text, in this language's usual spelling."""
        return _words(text, self.spellings)

    def completion(self, rest: str, items: Phrases) -> str | None:
        """The phrase or item that `rest`, the end of a report, was cut off from, where it can mean one thing only."""
        if len(rest) < _SHORTEST_CUT:
            return None
        meanings = {phrase: self.phrases.meanings[phrase] for phrase in self.phrases.beginning_with(rest)}
        meanings |= {phrase: items.meanings[phrase] for phrase in items.beginning_with(rest)}
        if not meanings:
            return None
        shortest = min(meanings, key=len)
        meaning = meanings[shortest]
        same = all(one == meaning or phrase.startswith(f"{shortest} ") for phrase, one in meanings.items())
        # A lone word may be whole, and begin another phrase by chance; that does no harm where nothing is said.
        return shortest if same and (" " in rest or meaning == NOTHING) else None


def plain(text: str) -> str:
    """Without case, umlauts written out."""
    folded = text.casefold()
    return folded if folded.isascii() and "#" not in folded else folded.translate(_LETTERS)


def by_region(
    phrase: str, statements: tuple[str, ...], regions: Mapping[str, str]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """A phrase and its statements once for each region, where it has `{region}`."""
    if "{region}" not in phrase:
        yield phrase, statements
        return
    for region, english in regions.items():
        yield phrase.replace("{region}", region), tuple(one.replace("{region}", english) for one in statements)


def _phrases(
    meanings: Iterable[tuple[str, Meaning]], spellings: Mapping[str, str], regions: Mapping[str, str], where: str
) -> Phrases:
    found: dict[str, Meaning] = {}
    for phrase, meaning in meanings:
        for spelt, statements in by_region(phrase, meaning.statements, regions):
            one = dataclasses.replace(meaning, statements=statements)
            words = " ".join(word.text for word in _words(spelt, spellings))
            if not words or found.setdefault(words, one) != one:
                raise ConfigError(
                    f"`{phrase}` holds no word, or has two meanings", where=where, hint="give each phrase one entry"
                )
    return Phrases(found)


def _words(text: str, spellings: Mapping[str, str]) -> list[Word]:
    return [
        spelt
        for word in _plain_words(text)
        for spelt in (
            [Word(part, word.start, word.end) for part in spellings[word.text].split()]
            if word.text in spellings
            else (word,)
        )
    ]


@functools.lru_cache(maxsize=4)  # each language's table reads the same report in turn
def _plain_words(text: str) -> tuple[Word, ...]:
    if text.isascii() and "#" not in text:  # then `plain` changes no length, and need not be called for each word
        folded = plain(text)
        return tuple(
            Word(folded[match.start() : match.end()], match.start(), match.end()) for match in WORD.finditer(text)
        )
    return tuple(Word(plain(match.group()), match.start(), match.end()) for match in WORD.finditer(text))


def _as_tuple(said: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (said,) if isinstance(said, str) else said or ()
