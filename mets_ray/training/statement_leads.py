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
from mets_ray.text.reports import text_id

_LIMB, _CHEST = LEADS[:6], LEADS[6:]

# Criteria of hypertrophy and the leads that they are measured in. They say more than "limb leads" beside them.
_CRITERIA: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = (
    (re.compile(r"\bsokolow\b", re.IGNORECASE), ("V1", "V5", "V6")),
    (re.compile(r"\bcornell\b", re.IGNORECASE), ("aVL", "V3")),
)
_SCORE = re.compile(r"\bromhilt\b", re.IGNORECASE)  # it counts points from limb and chest leads
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
    (re.compile(r"\b(?:chest|v) leads?\b|\bprecordial|\br[ -]wave progression", re.IGNORECASE), _CHEST),
    (re.compile(r"\blimb leads?\b", re.IGNORECASE), _LIMB),
)
# "V4", and all of "V1-V4", "V1 to 4" and "V4,5,6".
_CHEST_LEADS = re.compile(r"\bV[1-6]\b(?:\s*(?:,|/|and|&|-|to|through)\s*V?[1-6]\b)*", re.IGNORECASE)
_RANGE = re.compile(r"([1-6])\s*(?:-|to|through)\s*V?([1-6])", re.IGNORECASE)
_AUGMENTED = re.compile(r"\bav([rlf])\b", re.IGNORECASE)
# "II" alone may be the degree of a block: it is a lead beside another one, or where the statement speaks of leads.
_ROMAN = re.compile(r"(?<!type )(?<!mobitz )(?<!degree )\b(i{1,3})\b", re.IGNORECASE)
_OF_LEADS = re.compile(r"\bleads?\b|\bin i{1,3}\b", re.IGNORECASE)


def leads_of(statement: str) -> frozenset[str]:
    """The leads that show what a statement says; none where it names no place, and any lead may show it."""
    if _SCORE.search(statement):
        return frozenset()
    found = {lead for pattern, leads in _CRITERIA if pattern.search(statement) for lead in leads}
    if not found:
        found = {lead for pattern, leads in _PLACES if pattern.search(statement) for lead in leads}
    for named in _CHEST_LEADS.findall(statement):
        numbers = {int(number) for number in re.findall("[1-6]", named)}
        for first, last in _RANGE.findall(named):
            numbers.update(range(int(first), int(last)))
        found.update(f"V{number}" for number in numbers)
    found.update(f"aV{letter.upper()}" for letter in _AUGMENTED.findall(statement))
    if found or _OF_LEADS.search(statement):
        found.update(roman.upper() for roman in _ROMAN.findall(statement))
    return frozenset(found)


@dataclass(frozen=True)
class StatementLeads:
    """Statement i, of the ascending `ids` (`text_id`), is seen in those leads of the model where `shows[i]` is true.

    All of them where it names no place, or only leads that the model has not.

    What a kind of finding is seen in depends on what the report says: an ECG with an anterior infarct has a "Myocardial
    infarction" in the leads of the anterior wall. `kind_shows[j, k]` is that of kind `kind_ids[k]` for the ECGs with
    report `report_ids[j]`, both ascending; all leads for a kind that the report does not say.

    `limb`: which leads of the model are limb leads.
    """

    ids: Int64[np.ndarray, "statement"]
    shows: Bool[np.ndarray, "statement lead"]
    limb: Bool[np.ndarray, "lead"]
    report_ids: Int64[np.ndarray, "report"]
    kind_ids: Int64[np.ndarray, "kind"]
    kind_shows: Bool[np.ndarray, "report kind lead"]

    @classmethod
    def build(
        cls,
        texts: Mapping[int, str],
        leads: Sequence[str],
        kinds: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
    ) -> "StatementLeads":
        """texts: statements by id. leads: those of the model, in its order. kinds: see `kinds_said`."""
        ids = sorted(texts)
        shows_of = {texts[one]: _shows(texts[one], leads) for one in ids}
        of_reports = {text_id(report): of for report, of in (kinds or {}).items() if of}
        report_ids, kind_ids = sorted(of_reports), sorted({text_id(kind) for of in of_reports.values() for kind in of})
        kind_shows = np.ones((len(report_ids), len(kind_ids), len(leads)), dtype=np.bool_)
        for row, report in enumerate(report_ids):
            for kind, said in of_reports[report].items():
                any_of = np.any([shows_of[one] for one in said], axis=0)
                kind_shows[row, kind_ids.index(text_id(kind))] = any_of
        return cls(
            np.asarray(ids, dtype=np.int64),
            np.asarray([shows_of[texts[one]] for one in ids], dtype=np.bool_).reshape(-1, len(leads)),
            np.isin(leads, _LIMB),
            np.asarray(report_ids, dtype=np.int64),
            np.asarray(kind_ids, dtype=np.int64),
            kind_shows,
        )

    def seen(
        self,
        report_ids: Int64[np.ndarray, "row"],
        columns: Int64[np.ndarray, "column"],
        kept: Bool[np.ndarray, "row lead"],
    ) -> Bool[np.ndarray, "row column"]:
        """Whether a row's view has a lead that shows each statement.

        report_ids: of the rows. columns: ids of statements, ascending. kept: the leads of each view. Any two limb leads
        determine all six (Einthoven, Goldberger).
        """
        kept = kept | (self.limb & (kept[:, self.limb].sum(axis=1) >= 2)[:, None])
        found: np.ndarray = kept @ self.shows[np.searchsorted(self.ids, columns)].T  # whether any lead is in both
        rows, at_report = _places(report_ids, self.report_ids)
        of_columns, at_kind = _places(columns, self.kind_ids)
        shown = self.kind_shows[np.ix_(at_report, at_kind)]
        found[np.ix_(rows, of_columns)] = (shown & kept[rows, None, :]).any(axis=-1)
        return found


def _shows(statement: str, leads: Sequence[str]) -> Bool[np.ndarray, "lead"]:
    found: np.ndarray = np.isin(leads, list(leads_of(statement)))
    return found if found.any() else np.ones(len(leads), dtype=np.bool_)


def _places(
    ids: Int64[np.ndarray, "one"], known: Int64[np.ndarray, "known"]
) -> tuple[Int64[np.ndarray, "found"], Int64[np.ndarray, "found"]]:
    """Which `ids` are known, and where they lie in `known`, ascending."""
    at = np.searchsorted(known, ids).clip(max=max(len(known) - 1, 0))
    found = np.flatnonzero(known[at] == ids) if len(known) else np.empty(0, dtype=np.int64)
    return found, at[found]
