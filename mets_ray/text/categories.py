"""The kind of finding that a statement is: what a report says of a place or a degree, it says of the kind as well.

To a language model "1st degree AV block" and "Left bundle branch block" have little in common, and a prompt for a whole
kind, as "Conduction disturbance", finds few statements that are like it. The kinds are those of the recommendations of
AHA, ACC and HRS for statements of electrocardiographs (Mason et al. 2007, part II, table 1,
doi:10.1161/CIRCULATIONAHA.106.180201): H and I, M, K, L.
"""

import functools
import re
from collections.abc import Sequence

_INFARCT, _ST_T = "Myocardial infarction", "ST and T wave changes"
_CATEGORIES: dict[str, re.Pattern[str]] = {
    "Conduction disturbance": re.compile(
        r"bundle[- ]branch|\b[lri]+bbb\b|fascicular|hemiblock|conduction (?:delay|defect|disturb)|"
        r"differences conduction|\b(?:a-?v|atrio-?ventricular)[- ]block|mobitz|wenckebach|heart block|pre-?excit|wolff|"
        r"\bwpw\b|(?:long|prolonged) p[rq]\b|\bp[rq] (?:interval )?(?:is )?(?:long|prolong|extension)|"
        r"(?<!aberrant )intraventricular",
        re.IGNORECASE,
    ),
    # Where ST or T is what a statement begins with, "myocardial damage" is what may have changed it.
    _INFARCT: re.compile(
        r"infarct|\bmi\b|\bn?stemi\b|^(?!(?:st|t)\b).*myocardial damage|"
        r"(?<!positional )(?<!narrow )\bqs? (?:complex|wave)",
        re.IGNORECASE,
    ),
    "Hypertrophy or enlargement": re.compile(
        r"hypertrophy|\b[lr]vh\b|enlargement|overload|atrial abnormality|high (?!t\b).*voltage|voltage criteria|"
        r"voltages are high",
        re.IGNORECASE,
    ),
    _ST_T: re.compile(
        r"\bst\b|\bt[- ](?:wave|voltage)|st-t|ischa?emi(?!c (?:heart|attack))|injury|repolari[sz]ation|digitalis|"
        r"electrolyte|\bqtc?\b.*(?:long|short|abnormal|borderline|lengthen)|"
        r"(?:long|short|abnormal|borderline)\w*(?: \w+){0,2} qtc?\b",
        re.IGNORECASE,
    ),
}
# What a statement itself takes for normal: "Minimal voltage criteria for LVH, may be normal variant", "ST isoelectric".
_NORMAL = re.compile(
    r"normal variant|\b(?:probably|is|are|of|within) normal\b|\bnormal for\b|"
    r"^normal (?:st|t|q|qtc?|p[rq]|qrs)\b[^,;]*$|"
    r"^(?:the )?(?:st|t|q|qtc?|p[rq]|qrs)\b[^,;]*\b(?:normal|isoelectric|unremarkable)\W*$",
    re.IGNORECASE,
)
_CLAUSE_ENDS = re.compile(r"[.;(]|:(?!\d)|\bbut\b|\bminor\b", re.IGNORECASE)
_DENIES = re.compile(r"\b(?:no|without|neither|absence of|free of|negative for)\b", re.IGNORECASE)
_OR = re.compile(r"\bn?or\b", re.IGNORECASE)
# Gone, or the ratio at which a sound AV node conducts a flutter. "Cannot be excluded" is a doubt, and stays.
_NOT_THERE = re.compile(
    r"\b(?:resolved|absent|unlikely)\b|^(?!.*\b(?:not|cannot)\b).*\b(?:excluded|ruled out)\b|"
    r"\bflutter with (?:variable|\d:1) a-?v[- ]block",
    re.IGNORECASE,
)


def categories_of(statements: Sequence[str]) -> tuple[str, ...]:
    """The kinds of finding that some statements of a report are, each once, in a fixed order.

    Changes of ST and T that belong to an infarct ("anterior infarct with ST elevation") are no kind of their own. What
    a statement takes for normal or denies is none.
    """
    found = {name for one in statements for name in _categories(one)}
    return tuple(name for name in _CATEGORIES if name in found)


@functools.lru_cache(maxsize=100_000)  # reports are many, and share some thousand statements
def _categories(statement: str) -> tuple[str, ...]:
    if _NORMAL.search(statement):
        return ()
    said = ", ".join(part for clause in _CLAUSE_ENDS.split(statement) for part in _asserted(clause))
    found = [name for name, pattern in _CATEGORIES.items() if pattern.search(said)]
    return tuple(name for name in found if name != _ST_T or _INFARCT not in found)


def _asserted(clause: str) -> list[str]:
    """The parts of a clause, between commas, that say what is there. A denial reaches to the next comma, or over a list
    that ends in "or": "no infarct, ischemia or hypertrophy"."""
    while denial := _DENIES.search(clause):
        listed = max((found.end() for found in _OR.finditer(clause, denial.end())), default=denial.end())
        _, comma, rest = clause[listed:].partition(",")
        clause = f"{clause[: denial.start()]}{comma}{rest}"
    return [part.strip() for part in clause.split(",") if not _NOT_THERE.search(part)]
