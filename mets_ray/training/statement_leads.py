"""Which leads show what a statement says, so that a view without any of them is not asked for it.

Half of the training ECGs lose leads (`augment.lead_dropout`). What their reports say of the anterior wall can then be
neither seen nor ruled out, and an encoder that must answer all the same learns to guess from the leads that are left.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

from mets_ray.ecg.ecg import LEADS
from mets_ray.ecg.lead_sets import TERRITORIES

_LIMB, _CHEST = LEADS[:6], LEADS[6:]

# The wall or the group of leads that a statement names. A fascicle is no wall, and a septum that is thick shows
# elsewhere too.
_PLACES: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = (
    (re.compile(r"\binfer(?:o|ior)", re.IGNORECASE), TERRITORIES["inferior"]),
    (
        re.compile(r"\bantero|\banterior\b(?![ -](?:fascic|hemi))|\bsept(?:al|um)\b(?! hypertrophy)", re.IGNORECASE),
        TERRITORIES["anterior"],
    ),
    (re.compile(r"\bhigh lateral\b", re.IGNORECASE), ("I", "aVL")),
    (re.compile(r"(?<!high )\b(?:\w+o-?)?lateral(?:ly)?\b", re.IGNORECASE), TERRITORIES["lateral"]),
    (re.compile(r"\bchest leads?\b|\bprecordial|\br[ -]wave progression", re.IGNORECASE), _CHEST),
    (re.compile(r"\blimb leads?\b", re.IGNORECASE), _LIMB),
)
# "V4", and all of "V1-V4", "V1 to 4" and "V4,5,6".
_CHEST_LEADS = re.compile(r"\bV[1-6]\b(?:\s*(?:,|/|and|&|-|to|through)\s*V?[1-6]\b)*", re.IGNORECASE)
_RANGE = re.compile(r"([1-6])\s*(?:-|to|through)\s*V?([1-6])", re.IGNORECASE)
_AUGMENTED = re.compile(r"\bav([rlf])\b", re.IGNORECASE)
# "II" alone may be the degree of a block: it is a lead beside another one, or where the statement speaks of leads.
_ROMAN = re.compile(r"(?<!type )(?<!mobitz )(?<!degree )\b(i{1,3})\b", re.IGNORECASE)


def leads_of(statement: str) -> frozenset[str]:
    """The leads that show what a statement says; none where it names no place, and any lead may show it."""
    found = {lead for pattern, leads in _PLACES if pattern.search(statement) for lead in leads}
    for named in _CHEST_LEADS.findall(statement):
        numbers = {int(number) for number in re.findall("[1-6]", named)}
        for first, last in _RANGE.findall(named):
            numbers.update(range(int(first), int(last)))
        found.update(f"V{number}" for number in numbers)
    found.update(f"aV{letter.upper()}" for letter in _AUGMENTED.findall(statement))
    if found or re.search(r"\bleads?\b", statement, re.IGNORECASE):
        found.update(roman.upper() for roman in _ROMAN.findall(statement))
    return frozenset(found)


@dataclass(frozen=True)
class StatementLeads:
    """Statement i, of the ascending `ids` (`text_id`), is seen in those leads of the model where `shows[i]` is true.

    All of them where it names no place, or only leads that the model has not.
    """

    ids: Int64[np.ndarray, "statement"]
    shows: Bool[np.ndarray, "statement lead"]

    @classmethod
    def build(cls, texts: Mapping[int, str], leads: Sequence[str]) -> "StatementLeads":
        """texts: statements by id. leads: those of the model, in its order."""
        ids = sorted(texts)
        named = [leads_of(texts[one]) for one in ids]
        shows = np.asarray([[lead in of for lead in leads] for of in named], dtype=np.bool_).reshape(-1, len(leads))
        shows[~shows.any(axis=1)] = True
        return cls(np.asarray(ids, dtype=np.int64), shows)

    def seen(
        self, columns: Int64[np.ndarray, "column"], kept: Bool[np.ndarray, "row lead"]
    ) -> Bool[np.ndarray, "row column"]:
        """Whether a row's view has a lead that shows each statement. columns: ids. kept: the leads of each view."""
        of_columns = self.shows[np.searchsorted(self.ids, columns)]
        found: np.ndarray = kept @ of_columns.T  # of truth values: whether any lead is both kept and one of these
        return found
