"""A report read phrase by phrase with one language's table; `translate` says what the table's parts mean."""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mets_ray.text.phrase_table import NOTHING, Language, Meaning, Word
from mets_ray.text.sentence_ends import sentence_spans

_LEADS = {name.casefold(): name for name in ("I", "II", "III", "aVR", "aVL", "aVF", *(f"V{n}" for n in range(1, 7)))}
_LEADS |= {"l": "aVL", "f": "aVF"}
_CHEST = frozenset("123456")
_DASHES = frozenset("-‐‑‒–—−")

_CLAUSE_MARK = re.compile(r"[,;:.!?()]")
_FARTHEST = 8
"""So many words at most stand between a finding and what denies it."""

_WITHOUT_LEADS = re.compile(r"\b(?:AV|heart) block\b", re.IGNORECASE)
"""The numeral behind it is a degree or a type: `a-v block i-ii`, `typ mobitz i`."""

_NEVER_LISTED = re.compile(r"(?:otherwise |probably )?(?:normal|sinus)\b|.*\baxis$", re.IGNORECASE)
"""A rhythm or an axis before `lsb und rsb nicht nachweisbar`, or behind `kein lsb und`, is none of what is denied."""


@dataclass
class Said:
    """A statement and the words that it was read from."""

    text: str
    start: int
    end: int


class _Found(NamedTuple):
    meaning: Meaning
    end: int
    is_item: bool


_State = Callable[[], "_State"]


class Reader:
    """`read` a report: then `said` is what it says, `known` which of its `words` were understood, and `denied` which
    of the others are findings that it denies.

    A state is a method that reads on at `_at` and returns the next state:

    searching        nothing has been said that a qualifier or leads could belong to; a head without a statement of its
                     own may be open
    after_statement  the words just read made the last statement: it may be qualified, denied, and take leads
    after_head       the same, and it is a head's own statement, which gives way to the first item
    after_negation   the next phrase is denied, so it is unknown
    """

    def __init__(self, report: str, language: Language) -> None:
        self.said: list[Said] = []
        self.words = language.words(report)
        self.known = [False] * len(self.words)
        self.denied = [False] * len(self.words)
        self._at = 0
        self._report = report
        self._language = language
        self._texts = [word.text for word in self.words]
        self._head = NOTHING
        self._negation = 0

    def read(self) -> None:
        """To the report's end."""
        state: _State = self.searching
        while self._at < len(self.words):
            state = state()

    def searching(self) -> _State:
        if self._head is NOTHING:  # most words of a report in another language
            last, openers = len(self._texts) - 1, self._language.openers
            while self._at < last and self._texts[self._at] not in openers:
                self._at += 1
        found = self._next()
        return self._take(found, self.searching) if found else self._skip()

    def after_statement(self) -> _State:
        return self._after(self.after_statement)

    def after_head(self) -> _State:
        return self._after(self.after_head, gives_way=True)

    def _after(self, state: _State, *, gives_way: bool = False) -> _State:
        """Read on in `state`, behind a statement that `gives_way` to an item of its head."""
        found = self._next(follows_statement=True)
        if found is None or found.meaning.denies:
            return self._add_leads() or self._qualified_farther_on() or self._skip()
        if found.meaning.qualifies:
            return self._qualify(found)
        if gives_way and found.is_item:
            self.said.pop()
        return self._take(found, state)

    def after_negation(self) -> _State:
        if self._begins_sentence(self._at):
            return self.searching
        found = self._next()
        if found is None:
            self._at += 1
            return self.after_negation
        self._mark_denied(self._negation, found.end)
        self._at = found.end
        listed = found.meaning.statements and not _is_never_listed(found.meaning) and self._list_goes_on(found.end)
        return self.after_negation if listed else self.searching

    def _next(self, *, follows_statement: bool = False) -> _Found | None:
        """The longest phrase from here on, unless it means nothing in this place."""
        found = self._longest(self._at, self._head)
        if found is None or ((found.meaning.qualifies or found.meaning.denies) and not follows_statement):
            return None
        if found.meaning.opens and not found.meaning.statements:
            item = self._longest(found.end, found.meaning) if found.end < len(self.words) else None
            if item is None or not item.is_item:
                return None
        return found

    def _longest(self, at: int, head: Meaning) -> _Found | None:
        own, phrases = head.items, self._language.phrases
        first = self._texts[at]
        # Only a last word may be the beginning of another.
        if at + 1 < len(self._texts) and not (phrases.begin_with(first) or own.begin_with(first)):
            return None
        end = max(own.longest(self._texts, at), phrases.longest(self._texts, at))
        phrase: str | None = " ".join(self._texts[at:end])
        if not phrase:
            end, phrase = len(self._texts), self._language.completion(" ".join(self._texts[at:]), own)
        if phrase is not None and (template := phrases.meanings.get(phrase, NOTHING).doubts):
            if doubted := self._doubted(template, end):
                return doubted
            end, phrase = len(self._texts), self._language.completion(" ".join(self._texts[at:]), own)
        if phrase is None:
            return None
        meaning = own.meanings.get(phrase) or phrases.meanings[phrase]
        # By meaning: a phrase that says the same as an item of the open head is read as that item.
        return _Found(meaning, end, own.says(meaning))

    def _doubted(self, template: str, at: int) -> _Found | None:
        """The finding that begins at `at`, as the doubt before it makes it: `v.a. lsb`, `dd: vorhofflimmern`."""
        if at >= len(self.words) or self._mark_before(at) not in ("", ":"):
            return None
        meaning, end = self._phrase(at)
        if meaning.opens or not meaning.statements:
            return None
        return _Found(Meaning(tuple(template.format(_inner(one)) for one in meaning.statements)), end, is_item=False)

    def _take(self, found: _Found, unchanged: _State) -> _State:
        """Say what a phrase means; where that is nothing, the state is `unchanged`."""
        meaning, state = found.meaning, unchanged
        if found.is_item:
            self._say((self._head.opens.format(*meaning.statements),), found.end)
            state = self.after_statement
        elif meaning.opens:
            self._say(meaning.statements, found.end)
            self._head = meaning
            state = self.after_head if meaning.statements else self.searching
        elif meaning.statements:
            self._say(meaning.statements, found.end)
            self._head = NOTHING
            state = self.after_statement
        self._move_to(found.end)
        return state

    def _say(self, statements: Sequence[str], end: int) -> None:
        self.said.extend(Said(text, self._at, end) for text in statements)

    def _qualify(self, found: _Found) -> _State:
        said = self.said[-1]
        said.text, said.end = found.meaning.qualifies.format(_inner(said.text)), found.end
        self._move_to(found.end)
        return self.after_statement

    def _add_leads(self) -> _State | None:
        leads = _leads(self.words, self._at, self._report, self._language.joins)
        if leads is None or _WITHOUT_LEADS.search(self.said[-1].text):
            return None
        text, end = leads
        self.said[-1].text += f" in {text}"
        self.said[-1].end = end
        self._move_to(end)
        return self.after_statement

    def _skip(self) -> _State:
        """Leave a word unknown, and forget what it could have belonged to."""
        at = self._at
        self._head = NOTHING
        end = self._changes(at) if self._texts[at] in self._language.first_denying else at
        if end > at + 1 or (end > at and self._texts[at] not in self._language.negations):
            if self._begins_sentence(at) or self._points_forward(at, end):
                return self._deny_next(at, end)
            self._at = end  # it denies, or doubts, the unknown words before it
            return self.searching
        self._at += 1
        in_front = self._texts[at] in self._language.negations and self._mark_before(at + 1) in ("", ":", "(")
        return self._deny_next(at, at + 1) if in_front else self.searching

    def _deny_next(self, at: int, end: int) -> _State:
        self._negation, self._at = at, end
        return self.after_negation

    def _move_to(self, end: int) -> None:
        self.known[self._at : end] = [True] * (end - self._at)
        self._at = end

    # What stands behind a statement and changes it, be it some words farther on.

    def _qualified_farther_on(self) -> _State | None:
        """Read `ist im ekg nicht nachweisbar` or `kann nicht ausgeschlossen werden` behind a statement."""
        at, only_fillers = self._at, True
        while at < min(self._at + _FARTHEST, len(self.words)) and not (at > self._at and self._mark_before(at)):
            word = self._texts[at]
            meaning, end = self._phrase(at)
            if meaning.qualifies and only_fillers and not self._mark_before(self._at):
                self._move_to(at)
                return self._qualify(_Found(meaning, end, is_item=False))
            if meaning.denies or (word in self._language.negations and self._ends_clause(at + 1)):
                return self._deny(at, max(end, at + 1))
            if word in self._language.negations and self._mark_before(at) in (":", "?") and not self._says_more(at):
                return self._deny(at, at + 1)  # `lsb: kein anhalt`
            if meaning.statements or meaning.opens or meaning.doubts:
                return None
            only_fillers = only_fillers and word in self._language.fillers
            if at == self._at and end == at and not only_fillers and not self._may_go_on_with(at):
                return None
            at = max(end, at + 1)
        return None

    def _may_go_on_with(self, at: int) -> bool:
        """Whether an unknown word can be on the way from a finding to its denial, and is not itself what is denied.

        Where nouns have capitals and the finding is written with one, a word without is no noun: `Vorhofflimmern trat
        nicht auf`. A rhythm or an axis is no subject of a denial either: `Sinusrhythmus regelmäßig nicht erkennbar`.
        """
        if self._texts[at] in self._language.conjunctions:
            return True
        said = self.said[-1]
        tells = (
            self._language.capital_nouns
            and not self._report.isupper()
            and any(map(self._is_capital, range(said.start, said.end)))
        )
        return tells and not (self._is_capital(at) or self._mark_before(at) or _NEVER_LISTED.match(said.text))

    def _is_capital(self, at: int) -> bool:
        return self._report[self.words[at].start].isupper()

    def _deny(self, cue: int, end: int) -> _State | None:
        """Take back the last statement, which the words from `cue` to `end` deny; None where they deny others."""
        mark = self._mark_before(self._at)
        if self._points_forward(cue, end) or (
            any(map(self._begins_sentence, range(self._at, cue + 1))) and not self._ends_clause(end)
        ):
            return None
        if mark in (",", ".", ";") and end - cue == 1 and not self._ends_clause(end):
            return None
        start = self.said[-1].start
        self._take_back(start, end)
        conjoined = self._texts[self._at] in self._language.conjunctions
        while self.said and not _NEVER_LISTED.match(self.said[-1].text):
            between = self._texts[self.said[-1].end : start]
            joined = bool(between) and all(word in self._language.conjunctions for word in between)
            conjoined = conjoined or joined
            gap = self._mark_before(start) if not between else ""
            if not joined and gap != "/" and not (gap == "," and conjoined):
                break
            start = self.said[-1].start
            self._take_back(start, end)
        self._head = NOTHING
        self._at = end
        return self.searching

    def _take_back(self, start: int, end: int) -> None:
        while self.said and self.said[-1].start == start:
            self.said.pop()
        self._mark_denied(start, end)

    def _mark_denied(self, start: int, end: int) -> None:
        self.known[start:end] = [False] * (end - start)
        self.denied[start:end] = [True] * (end - start)

    def _phrase(self, at: int) -> tuple[Meaning, int]:
        """What the longest phrase from `at` on means, and its end; nothing, and `at`, where there is none."""
        phrases = self._language.phrases
        end = phrases.longest(self._texts, at)
        return (phrases.meanings[" ".join(self._texts[at:end])] if end > at else NOTHING), end

    def _changes(self, at: int) -> int:
        """The end of what begins at `at` and denies or qualifies what is before it."""
        meaning, end = self._phrase(at)
        return end if meaning.denies or meaning.qualifies else at

    def _points_forward(self, cue: int, end: int) -> bool:
        """Whether a denial is of what follows: `ausgeschlossen: lsb`, `sinusrhythmus, nicht nachweisbar ist lsb`."""
        if end >= len(self.words):
            return False
        if self._mark_before(end) == ":":
            return True
        may_stand_in_front = end - cue == 1 and self._texts[cue] in self._language.negations
        if not (may_stand_in_front or self._mark_before(cue)) or self._mark_before(cue) in (":", "("):
            return False
        return self._says_more(end)

    def _says_more(self, at: int) -> bool:
        """Whether something is said from `at` on before the clause ends."""
        farthest = min(at + _FARTHEST, len(self.words))
        while at < farthest and not self._mark_before(at):
            meaning, end = self._phrase(at)
            if meaning.statements or meaning.opens:
                return True
            at = max(end, at + 1)
        return False

    def _list_goes_on(self, at: int) -> bool:
        """Whether what follows a denied phrase is denied with it: `kein lsb, rsb oder hemiblock`."""
        while at < len(self.words):
            mark = self._mark_before(at)
            joined = not mark and self._texts[at] in self._language.conjunctions
            meaning, end = self._phrase(at + joined) if at + joined < len(self.words) else (NOTHING, at)
            if joined or mark == "/":
                return not _is_never_listed(meaning)
            if mark != "," or not meaning.statements or _is_never_listed(meaning):
                return False
            at = end
        return False

    def _ends_clause(self, at: int) -> bool:
        return at >= len(self.words) or bool(self._mark_before(at))

    def _mark_before(self, at: int) -> str:
        """The first mark that parts the word at `at` from the one before it; "" where they belong together."""
        if at in (0, len(self.words)):
            return ""
        gap = self._report[self.words[at - 1].end : self.words[at].start]
        if "/" in gap:
            return "/"
        if gap.strip().startswith(".") and not self._begins_sentence(at):
            return ""  # an abbreviation
        found = _CLAUSE_MARK.search(gap)
        return found.group() if found else ""

    def _begins_sentence(self, at: int) -> bool:
        return at < len(self.words) and at in self._sentence_beginnings

    @functools.cached_property
    def _sentence_beginnings(self) -> frozenset[int]:
        ends = [end for _, end in sentence_spans(self._report)]
        found, at = {0}, 0
        for end in ends:
            while at < len(self.words) and self.words[at].start < end:
                at += 1
            found.add(at)
        return frozenset(found)


def _is_never_listed(meaning: Meaning) -> bool:
    return any(_NEVER_LISTED.match(text) for text in meaning.statements)


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
            dash = report[words[index - 1].end : word.start].strip() in _DASHES
            leads.append("-" if dash else separator or ", ")
        leads.append(lead)
        end, separator = index + 1, ""
    return ("".join(leads), end) if leads else None


def _inner(statement: str) -> str:
    """A statement as it stands within another: `Inferior infarct` loses its capital, `T wave inversion` keeps it."""
    first = statement.split()[0]
    return statement[0].lower() + statement[1:] if first[1:].islower() else statement
