"""English text from the GE Marquette 12SL statements of PTB-XL+.

Each ECG has a list of acronyms; `mapping/12slv23ToSNOMED.csv` gives an acronym's text. A statement is a group of
acronyms, such as `SRTH;MSAR`, "Sinus rhythm with marked sinus arrhythmia". Criteria follow a statement in parentheses:
"Left ventricular hypertrophy with repolarization abnormality ( R in aVL, Sokolow-Lyon )".
"""

import functools
from collections.abc import Set
from dataclasses import dataclass
from typing import NamedTuple

from mets_ray import storage
from mets_ray.errors import RecordError
from mets_ray.sources.cells import literal, whole_number
from mets_ray.sources.csv_table import read_table

_OPEN, _CLOSE, _COMMA = "LPAREN", "RPAREN", "COMMA"
_MARKS = {_OPEN: " (", _CLOSE: " )", _COMMA: ","}

# Used by PTB-XL+ but missing from its mapping. 12SL writes it only after a hypertrophy; the related QRSW-2ST, which the
# mapping has, is "with QRS widening and repolarization abnormality", and QRSW alone "with QRS widening".
_UNLISTED = {"2ST": "with repolarization abnormality"}

# First words that stay capitalized inside a statement.
_PROPER_NAMES = ("Wolff", "Cornell", "Sokolow", "Romhilt", "Mobitz")


@dataclass(frozen=True)
class Statements12SL:
    """`statements`: rendered, by ecg_id. `unlisted`: tokens missing from the mapping, with the ecg_id of each use.
    `unreadable`: how many rows of the table cannot be read, so that their ECGs have no statements."""

    statements: dict[int, tuple[str, ...]]
    unlisted: dict[str, tuple[int, ...]]
    texts: dict[str, str]
    files: tuple[bytes, bytes]
    unreadable: int = 0

    def text(self, token: str) -> str:
        return _text(token, self.texts)


def read_statements(labels_uri: str, wanted: Set[int] | None = None) -> Statements12SL:
    """Render the rows of `12sl_statements.csv` below `labels_uri`, the `labels` folder of PTB-XL+.

    wanted: the ids of the ECGs that are asked for; None for all. The table has five rows for each different list, so
    each list is read once. No token is dropped: one that the mapping lacks is read as in `_UNLISTED`, otherwise as
    itself in lower case, and is listed in `unlisted`. `unreadable` counts all rows. Raises DatasetError for a table
    that cannot be read.
    """
    mapping_uri = storage.join(labels_uri, "mapping/12slv23ToSNOMED.csv")
    mapping = read_table(mapping_uri, ("Acronym", "FullText"))
    texts = {
        cells["Acronym"]: " ".join(cells["FullText"].split())
        for _, cells in mapping.rows
        if cells["Acronym"] and cells["FullText"]
    }
    table = read_table(storage.join(labels_uri, "12sl_statements.csv"), ("ecg_id", "statements", "statements_cat"))
    statements: dict[int, tuple[str, ...]] = {}
    unlisted: dict[str, list[int]] = {}
    unreadable = 0
    lists = functools.cache(_read_lists)
    rendered: dict[tuple[str, str], tuple[str, ...]] = {}
    for _, cells in table.rows:
        both = cells["statements"], cells["statements_cat"]
        try:
            ecg_id = whole_number(cells["ecg_id"], "ecg_id")
            found = lists(*both)
        except RecordError:
            found = None
        if found is None:
            unreadable += 1
        elif wanted is None or ecg_id in wanted:
            if both not in rendered:
                rendered[both] = render_statements(found.tokens, found.groups, texts)
            statements[ecg_id] = rendered[both]
            for token in found.tokens:
                if token not in texts and token not in _MARKS:
                    unlisted.setdefault(token, []).append(ecg_id)
    return Statements12SL(
        statements,
        {token: tuple(ids) for token, ids in unlisted.items()},
        texts,
        (table.data, mapping.data),
        unreadable,
    )


class _Lists(NamedTuple):
    tokens: list[str]
    groups: list[list[str]]


def _read_lists(statements: str, statements_cat: str) -> _Lists | None:
    """The two cells of a row; None where they cannot be read, or disagree."""
    try:
        tokens = [str(token) for token in literal(statements, "statements", list)]
        groups = [str(group).split(";") for group in literal(statements_cat, "statements_cat", list)]
    except RecordError:
        return None
    return _Lists(tokens, groups) if _agree(tokens, groups) else None


def _agree(tokens: list[str], groups: list[list[str]]) -> bool:
    return [token for token in tokens if token not in _MARKS] == [token for group in groups for token in group]


def render_statements(tokens: list[str], groups: list[list[str]], texts: dict[str, str]) -> tuple[str, ...]:
    """Statements of one ECG. `tokens` are in order, with parentheses; `groups` are the same without parentheses.

    A group is a separate statement, except for criteria in parentheses and for groups whose text begins in lower case
    or with a comma (`SRTH`, `OCC;CSEC`, `PVC`): these belong to the previous statement.
    Raises ValueError if `tokens` and `groups` disagree.
    """
    starts = _starts(groups)
    if not _agree(tokens, groups):
        raise ValueError(f"`statements_cat` {groups} does not have the acronyms of `statements` {tokens}")
    statements: list[str] = []
    position = 0
    inside = False
    for token in tokens:
        if token in _MARKS:
            mark = _MARKS[token]
            statements = [*statements[:-1], (statements[-1] if statements else "") + mark]
            inside = inside or token == _OPEN
            inside = inside and token != _CLOSE
            continue
        text = _text(token, texts)
        begins = position in starts and not inside and not (text[:1].islower() or text[:1] == ",")
        position += 1
        if begins or not statements:
            statements.append(text)
        else:
            gap = "" if text[:1] == "," else " "
            statements[-1] += gap + (text if inside else _inner(text))
    return tuple(statements)


def _starts(groups: list[list[str]]) -> set[int]:
    """Positions, among all acronyms, at which a group begins."""
    starts, position = set(), 0
    for group in groups:
        starts.add(position)
        position += len(group)
    return starts


def _text(token: str, texts: dict[str, str]) -> str:
    return texts.get(token) or _UNLISTED.get(token) or token.lower()


def _inner(text: str) -> str:
    """`Anterior infarct` → `anterior infarct` inside a statement; abbreviations (`ST`, `T wave`) and names stay."""
    if text[:1].isupper() and text[1:2].islower() and not text.startswith(_PROPER_NAMES):
        return text[0].lower() + text[1:]
    return text
