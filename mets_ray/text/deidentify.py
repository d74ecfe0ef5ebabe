"""Names, dates, times, numbers and addresses that identify a person are found in reports and masked.

A table of rules (`identifiers/words.yaml`), and not a model for names: it loads nothing from the net, gives the same
answer on every machine, and says what it looks for. What it does not find is in docs/guide/deidentification.md.

Each find becomes its kind in brackets, `[date]`, which a report's cleaning, its sentences and the phrase tables leave
alone: `compared with the tracing of [date], no change`. Measurements stay: `PR 160 ms`, `rate 72`, `V1-V3`, `-30°`.
"""

import functools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict

from mets_ray.packaged import packaged_files, read_yaml

KINDS = ("name", "date", "time", "id", "phone", "email")
TOKENS = {kind: f"[{kind}]" for kind in KINDS}

_TOKEN = re.compile(r"\[(?:" + "|".join(KINDS) + r")\]")
_MOST_WORDS = 4  # of a name
_MOST_WORDS_OF_ONE_CASE = 2  # where capital letters do not tell where a name ends
_MOST_PARTS = 10  # with titles and particles
_MOST_PARTICLES = 3
_LINE = 200  # characters before and behind, in which the case of letters is looked at
_NAME_WORD = re.compile(r"(?:[^\W\d_]\.){2,4}|[^\W\d_][\w'’-]*\.?")
_BETWEEN = re.compile(r"[ \t]*,?[ \t]*")
_NUMBER_OF_A_NAME = re.compile(r"(?<=\[name\] )\(\d[\w-]*\)")
_CONTEXT = 40

# Plain words, written one after the other.
_List = Annotated[tuple[str, ...], BeforeValidator(str.split)]
_Set = Annotated[frozenset[str], BeforeValidator(str.split)]


class _Words(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    version: int
    signers: tuple[str, ...]
    labels: tuple[str, ...]
    titles: tuple[str, ...]
    title_parts: _Set
    particles: _Set
    beside_signers: _Set
    no_names: _Set
    months: dict[str, _List]
    date_openers: _List
    number_labels: tuple[str, ...]
    phone_labels: str


@dataclass(frozen=True)
class Masked:
    """A text with its finds replaced by tokens, and how many of each kind there were."""

    text: str
    counts: dict[str, int]


@functools.lru_cache(maxsize=4096)  # a shard's thousand reports share a few hundred texts and statements
def mask(text: str) -> Masked:
    """`text` with a token for each find. A text that holds none is returned as it is."""
    rules, counts = _rules(), Counter[str]()
    if "@" in text or any(map(str.isdigit, text)):
        for kind, pattern in rules.patterns:
            text, found = pattern.subn(rules.replacement(kind, pattern), text)
            counts[kind] += found
    for pattern in (rules.signer, rules.label, rules.title):
        if pattern is not rules.label or ":" in text:
            text, found = _mask_names(text, pattern, is_title=pattern is rules.title)
            counts["name"] += found
    if counts["name"]:
        text, found = _NUMBER_OF_A_NAME.subn(rf"({TOKENS['id']})", text)
        counts["id"] += found
    return Masked(text, {kind: counts[kind] for kind in KINDS if counts[kind]})


def holds_identifiers(text: str) -> bool:
    """Whether a text holds what `mask` finds, or a token in its place."""
    return bool(mask(text).counts) or _TOKEN.search(text) is not None


def mask_statements(statements: Sequence[str]) -> tuple[tuple[str, ...], dict[str, int]]:
    """Statements with tokens, and how many. One that says only who signed, and when, is no statement: it is dropped."""
    kept, counts = [], Counter[str]()
    for statement in statements:
        masked = mask(statement)
        counts.update(masked.counts)
        if not (masked.counts and _says_only_who(masked.text)):
            kept.append(masked.text)
    return tuple(dict.fromkeys(kept)), dict(counts)


def contexts(text: str) -> Iterator[tuple[str, str]]:
    """Each token of a masked text by its kind, with the words around it, for a person to check."""
    for match in _TOKEN.finditer(text):
        start, end = max(0, match.start() - _CONTEXT), match.end() + _CONTEXT
        yield match.group()[1:-1], " ".join(text[start:end].split())


def rules_version() -> int:
    """Raised with each change of the table, which may mask other words."""
    return _rules().words.version


def _says_only_who(text: str) -> bool:
    words = _rules().words
    rest = re.findall(r"[^\W_]+", _rules().signer.sub(" ", _TOKEN.sub(" ", text)).casefold())
    return words.beside_signers.union(words.title_parts).issuperset(rest)


# --- the rules


@dataclass(frozen=True)
class _Rules:
    words: _Words
    patterns: tuple[tuple[str, re.Pattern[str]], ...]
    signer: re.Pattern[str]
    label: re.Pattern[str]
    title: re.Pattern[str]

    @staticmethod
    def replacement(kind: str, pattern: re.Pattern[str]) -> str:
        """The token, behind what a pattern keeps: the label of a number."""
        return rf"\g<keep>{TOKENS[kind]}" if "keep" in pattern.groupindex else TOKENS[kind]


@functools.cache
def _rules() -> _Rules:
    file = packaged_files("text/identifiers")["words"]
    words = _Words.model_validate(read_yaml(file.read_bytes(), "text/identifiers/words.yaml"))
    return _Rules(
        words,
        tuple(_patterns(words)),
        signer=_compiled(rf"(?<!\w)(?:{_either(words.signers)})(?!\w)[ \t]*[:\-]?[ \t]*"),
        label=_compiled(rf"(?<!\w)(?:{_either(words.labels)})[ \t]*:[ \t]*"),
        title=re.compile(rf"(?<!\w)(?<!\d )(?:{_either(words.titles)})(?!\w)\.?[ \t]*"),
    )


_DAY, _MONTH = r"(?:0?[1-9]|[12]\d|3[01])", r"(?:0?[1-9]|1[0-2])"
_YEAR = r"(?:(?:19|20)\d\d|\d\d)"
_NOT_INSIDE, _NOT_ON = r"(?<![\w.,:/+-])", r"(?!\w|[.,:/-]\d)"
_CLOCK = r"(?:[01]?\d|2[0-3])"


def _patterns(words: _Words) -> Iterator[tuple[str, re.Pattern[str]]]:
    """In the order in which they are applied: what an earlier one took, no later one sees."""
    yield "email", _compiled(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
    separator = r"[\s()./-]"
    number = rf"(?:\+|\()?\d(?:{separator}{{0,2}}\d){{3,15}}"
    yield "phone", _compiled(rf"(?P<keep>(?<!\w)(?:{words.phone_labels})(?!\w)[ .:#]{{0,3}}){number}")
    yield "phone", _compiled(rf"(?<![\w+])\+\d{{1,3}}(?:{separator}{{0,2}}\d){{7,14}}(?!\w)")
    yield "phone", _compiled(r"(?<![\w.,/-])(?:\(\d{3}\) ?|\d{3}[-. ])\d{3}[-.]\d{4}(?![\w-])")
    yield "phone", _compiled(r"(?<![\w.,/-])0\d(?:[ .]\d\d){4}(?![\w-])")
    yield "phone", _compiled(r"(?<![\w.,/-])0\d{2,4}[ /-]{1,3}\d{3,}(?:[ -]\d{1,4})*(?![\w-])")
    label = rf"(?<!\w)(?:{_either(words.number_labels)})(?!\w)[ \t]{{0,2}}[.:#=]{{0,2}}[ \t]{{0,2}}"
    yield "id", _compiled(rf"(?P<keep>{label})(?=[\w/.-]{{0,40}}\d)[\w/.-]{{0,40}}\w")
    yield "id", _compiled(r"(?<![\w.,-])(?:\d{3}-\d\d-\d{4}|\d{6,8}[-+]\d{4})(?![\w-])")
    yield from (("date", _compiled(pattern)) for pattern in _dates(words))
    yield "time", _compiled(rf"{_NOT_INSIDE}{_CLOCK}:[0-5]\d(?::[0-5]\d)?(?:[ ]?(?:[ap]\.?m\b\.?|uhr|h))?{_NOT_ON}")
    yield "time", _compiled(rf"{_NOT_INSIDE}{_CLOCK}[.h][0-5]\d[ ]?(?:uhr|h\b|[ap]\.?m\b\.?)")
    yield "time", _compiled(rf"{_NOT_INSIDE}{_CLOCK}h[0-5]\d{_NOT_ON}")
    yield "time", _compiled(rf"{_NOT_INSIDE}(?:0?[1-9]|1[0-2])[ ]?[ap]\.?m\b\.?")
    yield "id", _compiled(r"(?<![\w.,+-])[A-Z]{0,3}\d{6,}(?![\w]|[.,]\d)")


def _dates(words: _Words) -> Iterator[str]:
    day_first = "|".join(rf"{_DAY}{mark}{_MONTH}{mark}{_YEAR}" for mark in (r"\.[ ]?", "/", "-"))
    yield rf"{_NOT_INSIDE}(?:{day_first}|{_MONTH}/{_DAY}/{_YEAR}|{_MONTH}-{_DAY}-(?:19|20)\d\d){_NOT_ON}"
    yield rf"{_NOT_INSIDE}(?:19|20)\d\d([-./]){_MONTH}\1{_DAY}(?:T[\d:.]+Z?)?{_NOT_ON}"
    # `12:9:91`, as typed into some machines: the last two digits are no seconds of a day in the eighties or nineties.
    yield rf"{_NOT_INSIDE}{_DAY}[:,]{_MONTH}[:,](?:[6-9]\d|(?:19|20)\d\d){_NOT_ON}"
    yield rf"{_NOT_INSIDE}(?:(?:19|20)\d\d|[0-9]\d)(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01]){_NOT_ON}"
    full, short = "|".join(words.months["full"]), "|".join(words.months["short"])
    ordinal = r"(?:\.|st|nd|rd|th|er|º)?[ ]?(?:of |de |di )?"
    four = r"(?:19|20)\d\d"
    yield rf"{_NOT_INSIDE}{_DAY}{ordinal}-?(?:{full})(?!\w)(?:,? ?(?:de |del )?(?:{four}|'?\d\d(?!\d)))?"
    yield rf"{_NOT_INSIDE}{_DAY}{ordinal}-?(?:{short})(?!\w)\.?[ ,-]*(?:de |del )?(?:{four}|'?\d\d(?![\d%./-]))"
    yield rf"(?<!\w)(?:{full}|{short})(?!\w)\.?[ ]{_DAY}(?:st|nd|rd|th)?,?[ ]{four}(?!\d)"
    yield rf"(?<!\w)(?:{full})[ ]{_DAY}(?:st|nd|rd|th)(?!\w)"
    yield rf"(?P<keep>(?<!\w)(?:{_either(words.date_openers)}) ){_DAY}\.{_MONTH}\.(?!\d)"


def _either(words: Sequence[str]) -> str:
    return "|".join(words)


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


# --- names


def _mask_names(text: str, pattern: re.Pattern[str], *, is_title: bool) -> tuple[str, int]:
    parts, at, count = [], 0, 0
    for match in pattern.finditer(text):
        if match.start() < at:
            continue
        end = _name_end(text, match.end(), is_certain=is_title)
        if end > match.end():
            parts += [text[at : match.start() if is_title else match.end()], TOKENS["name"]]
            at, count = end, count + 1
    return "".join([*parts, text[at:]]), count


def _name_end(text: str, at: int, *, is_certain: bool) -> int:
    """Where the name that begins at `at` ends; `at` itself where none does. `is_certain`: it follows a title.

    A name is words with capital letters, particles and titles between them, and one comma (`SMITH, JOHN`). Where the
    line knows no difference of case, the first two words that are no others' are taken for it.
    """
    before, behind = text[max(0, at - _LINE) : at].rpartition("\n")[2], text[at : at + _LINE].partition("\n")[0]
    one_case = not (any(map(str.isupper, before + behind)) and any(map(str.islower, before + behind)))
    most = _MOST_WORDS_OF_ONE_CASE if one_case else _MOST_WORDS
    words, end, commas, has_title = 0, at, 0, is_certain
    for _ in range(_MOST_PARTS):
        start, word = _next_word(text, end)
        commas += "," in text[end:start]
        if word is None or commas > 1:
            break
        plain = word.rstrip(".").casefold()
        if plain in _rules().words.title_parts and (words or has_title or word.endswith(".")):
            has_title = True
        elif not _is_name(word, one_case):
            if plain not in _rules().words.particles or not _goes_on(text, start + len(word), one_case):
                break
        else:
            words += 1
            if words > most:
                break
        end = start + len(word)
        if word.endswith(".") and "." not in word[:-1] and len(plain) > 2 and plain not in _rules().words.title_parts:
            return end - 1  # the dot of the sentence
    return end if words else at


def _next_word(text: str, at: int) -> tuple[int, str | None]:
    between = _BETWEEN.match(text, at)
    start = between.end() if between else at
    word = _NAME_WORD.match(text, start)
    if word is None or (word.group().endswith(".") and text[word.end() : word.end() + 1].isalnum()):
        return start, None
    return start, word.group()


def _is_name(word: str, one_case: bool) -> bool:
    """Whether a word may be a part of a name: by its first letter, or all initials, and by what it is not."""
    if word.endswith(".") and word.replace(".", "").isupper() and len(word) % 2 == 0 and word[1] == ".":
        return True  # initials: `A.`, `J.K.`
    letters = word.replace(".", "") if "." in word[:-1] else word[0]
    plain = word.rstrip(".").casefold()
    known = plain in _rules().words.no_names or plain in _rules().words.particles
    return not known and (one_case or letters.isupper())


def _goes_on(text: str, at: int, one_case: bool) -> bool:
    """Whether a name goes on behind a particle, or several: `von der Heide`."""
    for _ in range(_MOST_PARTICLES):
        start, word = _next_word(text, at)
        if word is None or word.casefold() not in _rules().words.particles:
            return word is not None and _is_name(word, one_case)
        at = start + len(word)
    return False
