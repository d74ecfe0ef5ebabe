"""German and Swedish reports in English: phrase tables (`phrases/*.yaml`) say what each phrase means.

A report is read from left to right, always the longest phrase that fits; what no phrase matches is given back.

- `phrases`: what each says: a statement, several, or null for what says nothing about the heart.
- `regions`: `{region}` in a phrase stands for each of them, and in its statement for the English word.
- `qualifiers` change the statement right before them: `möglich`, "possible {}".
- `contexts`: heads with their items: `st & t abnormal, wahrscheinlich` puts "consider" before each region after it.
- `joins` stand before and between leads, which are added to the statement before them: `st-hebung in v1-3`.
- `negations`: a phrase that follows one is unknown, and not its opposite.
- `denials` stand behind what they deny: `linksschenkelblock nicht nachweisbar`.
- `doubts` stand in front of what they doubt, or say of an earlier time: `v.a. linksschenkelblock`, "possible {}".
- `conjunctions` join what is denied together: `weder lsb noch rsb`, `lsb und rsb nicht nachweisbar`.
- `fillers` may stand between a statement and what denies or qualifies it: `ist`, `im`, `derzeit`; where nouns have
  capitals (`capital_nouns`), other words that have none may stand before a denial.
- `spellings`: other spellings and short forms of single words.

A report is read by the table that knows most of its words, but taken for English where none knows a quarter. The
English table holds only phrases that say nothing, so that an empty report is known in English too.
"""

import itertools
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mets_ray.errors import ConfigError
from mets_ray.packaged import packaged_files
from mets_ray.text.phrase_table import WORD, Language, Word
from mets_ray.text.reader import Reader

ENGLISH = "english"

_LEAST_FOREIGN = 0.25
"""Of PTB-XL's fold 10, English reports share at most 0.17 of their words with a foreign table, others at least 0.35."""


@dataclass(frozen=True)
class Translation:
    """A report in English. `unknown` are the stretches, as written, that `unknown_words` of its `words` make up.

    `denied_words` of those belong to findings that the report denies, which the table knows but nobody may assert.
    """

    language: str
    statements: tuple[str, ...]
    unknown: tuple[str, ...] = ()
    words: int = 0
    unknown_words: int = 0
    denied_words: int = 0


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
        report = unicodedata.normalize("NFC", report)
        readings: list[Translation] = []
        for language in self.languages:
            readings.append(read_report(report, language))
            if _share(readings[-1]) == 1.0:  # no later table can know more
                break
        best = max(readings, key=_share, default=None)
        # A table that knows only numbers or remarks has not shown that the report is in its language.
        if best and _share(best) >= _LEAST_FOREIGN and (best.statements or best.denied_words or not best.unknown):
            return best
        words = len(WORD.findall(report))
        return Translation(ENGLISH, (report,) if words else (), words=words)


def read_report(report: str, language: Language) -> Translation:
    """What one language's table makes of a report."""
    reader = Reader(report, language)
    reader.read()
    statements = tuple(dict.fromkeys(said.text[0].upper() + said.text[1:] for said in reader.said))
    unknown = tuple(_stretches(report, reader.words, reader.known))
    unknown_words, denied_words = reader.known.count(False), reader.denied.count(True)
    return Translation(language.name, statements, unknown, len(reader.words), unknown_words, denied_words)


def _share(reading: Translation) -> float:
    """Of a report's words, those that the table knows."""
    foreign = reading.unknown_words - reading.denied_words
    return 1 - foreign / reading.words if reading.words else 0.0


def _stretches(report: str, words: Sequence[Word], known: Sequence[bool]) -> Iterator[str]:
    for is_known, run in itertools.groupby(range(len(words)), key=known.__getitem__):
        if not is_known:
            stretch = list(run)
            yield report[words[stretch[0]].start : words[stretch[-1]].end]
