"""German and Swedish reports in English: phrase tables (`phrases/*.yaml`) say what each phrase means.

A report is read from left to right, always the longest phrase that fits; what no phrase matches is given back.

- `phrases`: what each says: a statement, several, or null for what says nothing about the heart.
- `regions`: `{region}` in a phrase stands for each of them, and in its statement for the English word.
- `qualifiers` change the statement right before them: `möglich`, "possible {}".
- `contexts`: heads with their items: `st & t abnormal, wahrscheinlich` puts "consider" before each region after it.
- `joins` stand before and between leads, which are added to the statement before them: `st-hebung in v1-3`.
- `negations`: a phrase that follows one is unknown, and not its opposite.
- `spellings`: other spellings and short forms of single words.

A report is read by the table that knows most of its words, but taken for English where none knows a quarter. The
English table holds only phrases that say nothing, so that an empty report is known in English too.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mets_ray.errors import ConfigError
from mets_ray.packaged import packaged_files
from mets_ray.text.phrase_table import NOTHING, WORD, Language, Meaning, Word

ENGLISH = "english"

_LEADS = {name.casefold(): name for name in ("I", "II", "III", "aVR", "aVL", "aVF", *(f"V{n}" for n in range(1, 7)))}
_LEADS |= {"l": "aVL", "f": "aVF"}
_CHEST = frozenset("123456")
_LEAST_FOREIGN = 0.25
"""Of PTB-XL's fold 10, English reports share at most 0.17 of their words with a foreign table, others at least 0.35."""


@dataclass(frozen=True)
class Translation:
    """A report in English. `unknown` are the stretches, as written, that `unknown_words` of its `words` make up."""

    language: str
    statements: tuple[str, ...]
    unknown: tuple[str, ...] = ()
    words: int = 0
    unknown_words: int = 0


@dataclass(frozen=True)
class PhraseTable:
    """The tables of some languages; `translate` picks one for each report."""

    languages: tuple[Language, ...]
    files: tuple[bytes, ...] = ()

    @classmethod
    def load(cls, *names: str) -> "PhraseTable":
        """The packaged tables by name, all of them where none is named. Raises ConfigError."""
        files = packaged_files("text/phrases")
        for name in names:
            if name not in files:
                raise ConfigError(f"no phrase table is called `{name}`", hint=f"known are {', '.join(sorted(files))}")
        contents = {name: files[name].read_bytes() for name in names or sorted(files)}
        return cls(tuple(Language.parse(held, name) for name, held in contents.items()), tuple(contents.values()))

    def translate(self, report: str) -> Translation:
        """What the report says, each statement once, in its order; an English report is one statement, untouched.

        Clean it with `clean_report` first, which removes PTB-XL's notes with label codes: they are no part of a report.
        """
        readings = [read_report(report, language) for language in self.languages]
        best = max(readings, key=_share, default=None)
        # A table that knows only numbers or remarks has not shown that the report is in its language.
        if best and _share(best) > _LEAST_FOREIGN and (best.statements or not best.unknown):
            return best
        words = len(WORD.findall(report))
        return Translation(ENGLISH, (report,) if words else (), words=words)


def read_report(report: str, language: Language) -> Translation:
    """What one language's table makes of a report."""
    reader = _Reader(report, language)
    state: _State = reader.searching
    while reader.at < len(reader.words):
        state = state()
    statements = tuple(dict.fromkeys(statement[0].upper() + statement[1:] for statement in reader.said))
    unknown = tuple(_stretches(report, reader.words, reader.known))
    return Translation(language.name, statements, unknown, len(reader.words), reader.known.count(False))


_State = Callable[[], "_State"]


@dataclass(frozen=True)
class _Found:
    meaning: Meaning
    end: int
    is_item: bool


class _Reader:
    """A report read phrase by phrase. A state is a method that reads on at `at` and returns the next state.

    searching        nothing has been said that a qualifier or leads could belong to; a head without a statement of its
                     own may be open
    after_statement  the words just read made the last statement: it may be qualified, and take leads
    after_head       the same, and it is a head's own statement, which gives way to the first item
    after_negation   the next phrase is denied, so it is unknown
    """

    def __init__(self, report: str, language: Language) -> None:
        self.said: list[str] = []
        self.words = language.words(report)
        self.known = [False] * len(self.words)
        self.at = 0
        self._report = report
        self._language = language
        self._texts = [word.text for word in self.words]
        self._head = NOTHING

    def searching(self) -> _State:
        found = self._next()
        return self._take(found, self.searching) if found else self._skip()

    def after_statement(self) -> _State:
        found = self._next(may_qualify=True)
        if found is None:
            return self._add_leads() or self._skip()
        if found.meaning.qualifies:
            return self._qualify(found)
        return self._take(found, self.after_statement)

    def after_head(self) -> _State:
        found = self._next(may_qualify=True)
        if found is None:
            return self._add_leads() or self._skip()
        if found.meaning.qualifies:
            return self._qualify(found)
        if found.is_item:
            self.said.pop()
        return self._take(found, self.after_head)

    def after_negation(self) -> _State:
        found = self._next()
        if found is None:
            self.at += 1
            return self.after_negation
        self.at = found.end
        return self.searching

    def _next(self, *, may_qualify: bool = False) -> _Found | None:
        """The longest phrase from here on, unless it means nothing in this place."""
        found = self._longest(self.at, self._head)
        if found is None or (found.meaning.qualifies and not may_qualify):
            return None
        if found.meaning.opens and not found.meaning.statements:
            item = self._longest(found.end, found.meaning) if found.end < len(self.words) else None
            if item is None or not item.is_item:
                return None
        return found

    def _longest(self, at: int, head: Meaning) -> _Found | None:
        own, phrases = head.items, self._language.phrases
        end = max(own.longest(self._texts, at), phrases.longest(self._texts, at))
        phrase: str | None = " ".join(self._texts[at:end])
        if not phrase:
            end, phrase = len(self._texts), self._language.completion(" ".join(self._texts[at:]), own)
        if phrase is None:
            return None
        meaning = own.meanings.get(phrase) or phrases.meanings[phrase]
        # By meaning: a phrase that says the same as an item of the open head is read as that item.
        return _Found(meaning, end, meaning in own.meanings.values())

    def _take(self, found: _Found, unchanged: _State) -> _State:
        """Say what a phrase means; where that is nothing, the state is `unchanged`."""
        meaning, state = found.meaning, unchanged
        if found.is_item:
            self.said.append(self._head.opens.format(*meaning.statements))
            state = self.after_statement
        elif meaning.opens:
            self.said.extend(meaning.statements)
            self._head = meaning
            state = self.after_head if meaning.statements else self.searching
        elif meaning.statements:
            self.said.extend(meaning.statements)
            self._head = NOTHING
            state = self.after_statement
        self._move_to(found.end)
        return state

    def _qualify(self, found: _Found) -> _State:
        self.said[-1] = found.meaning.qualifies.format(_inner(self.said[-1]))
        self._move_to(found.end)
        return self.after_statement

    def _add_leads(self) -> _State | None:
        leads = _leads(self.words, self.at, self._report, self._language.joins)
        if leads is None:
            return None
        text, end = leads
        self.said[-1] += f" in {text}"
        self._move_to(end)
        return self.after_statement

    def _skip(self) -> _State:
        """Leave a word unknown, and forget what it could have belonged to."""
        word = self._texts[self.at]
        self.at += 1
        self._head = NOTHING
        return self.after_negation if word in self._language.negations else self.searching

    def _move_to(self, end: int) -> None:
        self.known[self.at : end] = [True] * (end - self.at)
        self.at = end


def _leads(words: Sequence[Word], at: int, report: str, joins: Mapping[str, str]) -> tuple[str, int] | None:
    """The leads from `at` on, in their usual letters, and where they end."""
    leads: list[str] = []
    end, separator = at, ""
    for index, word in enumerate(words[at:], at):
        if word.text in joins and not (leads and word.text in _LEADS):  # `i` is "in" in Swedish, and a lead
            separator = joins[word.text]
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


def _share(reading: Translation) -> float:
    return 1 - reading.unknown_words / reading.words if reading.words else 0.0


def _inner(statement: str) -> str:
    """A statement as it stands within another: `Inferior infarct` loses its capital, `T wave inversion` keeps it."""
    first = statement.split()[0]
    return statement[0].lower() + statement[1:] if first[1:].islower() else statement


def _stretches(report: str, words: Sequence[Word], known: Sequence[bool]) -> Iterator[str]:
    for is_known, run in itertools.groupby(range(len(words)), key=known.__getitem__):
        if not is_known:
            stretch = list(run)
            yield report[words[stretch[0]].start : words[stretch[-1]].end]
