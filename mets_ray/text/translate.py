"""German and Swedish reports in English: phrase tables (`phrases/*.yaml`) that say what each phrase means.

A table reads a report from left to right, always the longest phrase that fits, and gives back what it does not know.
Spelling counts for little: case, umlauts and their transcriptions, blanks and punctuation make no difference.

- `phrases`: what each says: a statement, several, or null for what says nothing about the heart.
- `regions`: `{region}` in a phrase stands for each of them, and in its statement for the English word.
- `qualifiers`: what they join is the statement right before them: `möglich`, "possible {}".
- `contexts`: heads with their items: `st & t abnormal, wahrscheinlich` puts "consider" before each region after it.
- `joins` stand before and between leads, which join the statement before them: `st-hebung in v1-3`.
- `negations`: a phrase that follows one is unknown, and not its opposite.
- `spellings`: other spellings and short forms of single words.

A report is read by the table that knows most of its words, but taken for English where none knows a quarter. The
English table holds only phrases that say nothing, so that an empty report is known in English too.
"""

import dataclasses
import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from mets_ray.errors import ConfigError
from mets_ray.packaged import packaged_files

ENGLISH = "english"

# `>` and `<` tell "more than 5 per minute" from fewer. `#` is an umlaut lost on the way into PTB-XL: `f#r`, `#bergang`.
_WORD = re.compile(r"(?:[^\W_]|#)+|[<>]")

_LETTERS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "#": "ue"})

_LEADS = {name.casefold(): name for name in ("I", "II", "III", "aVR", "aVL", "aVF", *(f"V{n}" for n in range(1, 7)))}
_LEADS |= {"l": "aVL", "f": "aVF"}

_CHEST = frozenset("123456")

_LEAST_FOREIGN = 0.25
"""Of PTB-XL's fold 10, English reports share at most 0.17 of their words with a foreign table, others at least 0.35."""

_SHORTEST_CUT = 8
"""Letters of a last, incomplete phrase that are taken for the whole; fewer fit too much."""


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
    joins: dict[str, str] = {}
    qualifiers: dict[str, str] = {}
    contexts: tuple[_Context, ...] = ()
    phrases: dict[str, str | tuple[str, ...] | None]


@dataclass(frozen=True)
class Translation:
    """A report in English. `unknown` are the stretches, as they stand, that `unknown_words` of its `words` make up."""

    language: str
    statements: tuple[str, ...]
    unknown: tuple[str, ...] = ()
    words: int = 0
    unknown_words: int = 0


@dataclass(frozen=True)
class _Word:
    text: str
    start: int
    end: int


@dataclass(frozen=True)
class _Meaning:
    statements: tuple[str, ...] = ()
    joins: str = ""  # a qualifier: what becomes of the statement before it
    opens: str = ""  # a head: what becomes of its items
    items: Mapping[str, "_Meaning"] = field(default_factory=dict)


@dataclass(frozen=True)
class PhraseTable:
    """The tables of some languages; `translate` picks one for each report."""

    languages: tuple["_Language", ...]
    files: tuple[bytes, ...] = ()

    @classmethod
    def load(cls, *names: str) -> "PhraseTable":
        """The packaged tables by name, all of them where none is named. Raises ConfigError."""
        files = packaged_files("text/phrases")
        for name in names:
            if name not in files:
                raise ConfigError(f"no phrase table is called `{name}`", hint=f"known are {', '.join(sorted(files))}")
        contents = {name: files[name].read_bytes() for name in names or sorted(files)}
        return cls(tuple(_Language.parse(held, name) for name, held in contents.items()), tuple(contents.values()))

    def translate(self, report: str) -> Translation:
        """What the report says, each statement once, in its order; an English report is one statement, untouched.

        `report.clean_report` comes first: it takes off PTB-XL's notes with label codes, which are no part of a report.
        """
        readings = [language.read(report) for language in self.languages]
        best = max(readings, key=_share, default=None)
        # What knows numbers only, or remarks, has not shown whose language it is.
        if best and _share(best) > _LEAST_FOREIGN and (best.statements or not best.unknown):
            return best
        words = len(_WORD.findall(report))
        return Translation(ENGLISH, (report,) if words else (), words=words)


@dataclass(frozen=True)
class _Language:
    name: str
    spellings: Mapping[str, str]
    negations: frozenset[str]
    joins: Mapping[str, str]
    meanings: Mapping[str, _Meaning]

    @functools.cached_property
    def longest(self) -> int:
        """Words of the longest phrase."""
        heads = [meaning.items for meaning in self.meanings.values()]
        return max(len(phrase.split()) for phrases in (self.meanings, *heads) for phrase in phrases)

    @classmethod
    def parse(cls, content: bytes, name: str) -> "_Language":
        where = f"phrase table `{name}`"
        try:
            file = _File.model_validate(yaml.safe_load(content))
        except (yaml.YAMLError, ValidationError) as error:
            raise ConfigError(f"this is no phrase table: {error}", where=where, hint="see translate.py") from error
        spellings = {_plain(word): " ".join(_WORD.findall(_plain(right))) for word, right in file.spellings.items()}

        def by_words(meanings: Iterable[tuple[str, _Meaning]]) -> dict[str, _Meaning]:
            found: dict[str, _Meaning] = {}
            for phrase, meaning in meanings:
                for spelt, statements in _by_region(phrase, meaning.statements, file.regions):
                    one = dataclasses.replace(meaning, statements=statements)
                    words = " ".join(word.text for word in _words(spelt, spellings))
                    if not words or found.setdefault(words, one) != one:
                        raise ConfigError(f"`{phrase}` says nothing or two things", where=where, hint="leave one entry")
            return found

        return cls(
            name,
            spellings,
            frozenset(map(_plain, file.negations)),
            {_plain(word): separator for word, separator in file.joins.items()},
            by_words(
                [
                    *((phrase, _Meaning(_as_tuple(said))) for phrase, said in file.phrases.items()),
                    *((phrase, _Meaning(joins=template)) for phrase, template in file.qualifiers.items()),
                    *(
                        (phrase, _Meaning(_as_tuple(head.alone), opens=head.says, items=items))
                        for context in file.contexts
                        for items in [by_words((item, _Meaning((said,))) for item, said in context.items.items())]
                        for phrase, head in context.heads.items()
                    ),
                ]
            ),
        )

    def read(self, report: str) -> Translation:
        words = _words(report, self.spellings)
        known = [False] * len(words)
        said: list[str] = []
        head = _Meaning()
        # fresh: the words before made said[-1]. alone: it is a head's that no item has followed yet.
        at, fresh, alone, denied = 0, False, False, False
        while at < len(words):
            found, end = self._longest(words, at, head.items)
            if found and ((found.joins and not fresh) or (found.opens and not self._says_something(found, words, end))):
                found = None
            if found is None and fresh and (leads := self._leads(words, at, report)):
                text, end = leads
                said[-1] += f" in {text}"
                alone = False
            elif found is None or denied:
                denied = found is None and (denied or words[at].text in self.negations)
                at, fresh, head = end if found else at + 1, False, _Meaning()
                continue
            elif found.joins:
                said[-1] = found.joins.format(_inner(said[-1]))
                alone = False
            elif found.opens:
                said.extend(found.statements)
                head, fresh, alone = found, bool(found.statements), bool(found.statements)
            elif found in head.items.values():
                if alone:
                    said.pop()
                said.append(head.opens.format(*found.statements))
                fresh, alone = True, False
            elif found.statements:
                said.extend(found.statements)
                head, fresh, alone = _Meaning(), True, False
            known[at:end] = [True] * (end - at)
            at = end
        statements = tuple(dict.fromkeys(statement[0].upper() + statement[1:] for statement in said))
        return Translation(
            self.name, statements, tuple(_stretches(report, words, known)), len(words), known.count(False)
        )

    def _says_something(self, head: _Meaning, words: Sequence[_Word], end: int) -> bool:
        return bool(head.statements) or self._longest(words, end, head.items)[0] in head.items.values()

    def _longest(self, words: Sequence[_Word], at: int, items: Mapping[str, _Meaning]) -> tuple[_Meaning | None, int]:
        """What the longest phrase from `at` on means, and where it ends."""
        for end in range(min(len(words), at + self.longest), at, -1):
            phrase = " ".join(word.text for word in words[at:end])
            if meaning := items.get(phrase) or self.meanings.get(phrase):
                return meaning, end
        return self._cut_off(" ".join(word.text for word in words[at:]), items), len(words)

    def _cut_off(self, rest: str, items: Mapping[str, _Meaning]) -> _Meaning | None:
        """What a report's last, incomplete phrase means, if it can be one thing only."""
        wholes = {phrase: one for phrase, one in {**self.meanings, **items}.items() if phrase.startswith(rest)}
        if not wholes or len(rest) < _SHORTEST_CUT:
            return None
        shortest = min(wholes, key=len)
        meaning = wholes[shortest]
        same = all(one == meaning or phrase.startswith(f"{shortest} ") for phrase, one in wholes.items())
        # A lone word may be whole, and part of another by chance; that does no harm where nothing is said.
        return meaning if same and (" " in rest or meaning == _Meaning()) else None

    def _leads(self, words: Sequence[_Word], at: int, report: str) -> tuple[str, int] | None:
        """The leads from `at` on, in their usual letters, and where they end."""
        leads: list[str] = []
        end, separator = at, ""
        for index, word in enumerate(words[at:], at):
            if word.text in self.joins and not (leads and word.text in _LEADS):  # `i` is "in" in Swedish, and a lead
                separator = self.joins[word.text]
                continue
            lead = _LEADS.get(word.text)
            if leads and leads[-1].startswith("V") and word.text in _CHEST:  # `v2,3`
                lead = f"V{word.text}"
            if lead is None or (len(word.text) == 1 and lead != "I" and index == at):
                break
            if leads:
                dash = report[words[index - 1].end : word.start].strip() == "-"
                leads.append("-" if dash else separator or ", ")
            leads.append(lead)
            end, separator = index + 1, ""
        return ("".join(leads), end) if leads else None


def _by_region(
    phrase: str, statements: tuple[str, ...], regions: Mapping[str, str]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    if "{region}" not in phrase:
        yield phrase, statements
        return
    for region, english in regions.items():
        yield phrase.replace("{region}", region), tuple(one.replace("{region}", english) for one in statements)


def _share(reading: Translation) -> float:
    return 1 - reading.unknown_words / reading.words if reading.words else 0.0


def _plain(text: str) -> str:
    return text.casefold().translate(_LETTERS)


def _words(text: str, spellings: Mapping[str, str]) -> list[_Word]:
    found = ((_plain(match.group()), match) for match in _WORD.finditer(text))
    return [
        _Word(part, match.start(), match.end()) for word, match in found for part in spellings.get(word, word).split()
    ]


def _inner(statement: str) -> str:
    """A statement as it stands within another: `Inferior infarct` loses its capital, `T wave inversion` keeps it."""
    first = statement.split()[0]
    return statement[0].lower() + statement[1:] if first[1:].islower() else statement


def _as_tuple(said: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (said,) if isinstance(said, str) else said or ()


def _stretches(report: str, words: Sequence[_Word], known: Sequence[bool]) -> Iterator[str]:
    for is_known, run in itertools.groupby(range(len(words)), key=known.__getitem__):
        if not is_known:
            stretch = list(run)
            yield report[words[stretch[0]].start : words[stretch[-1]].end]
