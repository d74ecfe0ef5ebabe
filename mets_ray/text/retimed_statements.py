"""What the report of an ECG says once its beats were moved (`ecg.retiming`): some statements go, others come."""

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mets_ray.text.abbreviations import spell_out

_SINUS = re.compile(r"\bsinus\b", re.IGNORECASE)
# Alone, or with "normal ECG": what else the statement says would be lost with it.
_RHYTHM_ALONE = re.compile(
    r"(?:(?:normal|regular|marked|borderline)\s+)*sinus (?:rhythm|bradycardia)"
    r"(?:[\s,.;:]+(?:otherwise )?(?:normal|borderline) ecg)?[\s,.;]*",
    re.IGNORECASE,
)
_SLOW = re.compile(r"bradycardia", re.IGNORECASE)
_NORMAL = re.compile(
    r"\b(?:normal|borderline) (?:ecg|ekg|electrocardiogram|tracing)\b|\b(?:ecg|ekg|tracing) (?:is |was )?normal\b"
    r"|within normal limits|\bwnl\b|no definite pathology|^(?:otherwise )?unremarkable(?: ecg| ekg| tracing)?\W*$"
    r"|^(?:otherwise )?normal\W*$|within normal (?:range|bounds)"
    r"|^(?:normal|regular) (?:intervals?|(?:a-?v )?conduction|rhythm|rate(?: and rhythm)?)\W*$"
    r"|^(?:intervals?|(?:a-?v )?conduction|rhythm|rate(?: and rhythm)?) (?:is |are )?(?:normal|regular)\W*$"
    r"|^no (?:significant |definite )?abnormalit(?:y|ies)(?: (?:seen|found|detected))?\W*$",
    re.IGNORECASE,
)
# Beats of another origin, a rhythm that is not regular, or intervals that are long already.
_RULES_OUT = re.compile(
    r"fibrillat|flutter|premature|ectop|extrasystol|escape|pac(?:e[dr]|ing)|pacemaker|tachy|arrhythm|bigem|trigem|"
    r"irregular(?! rr intervals$)|"
    r"\ba-?v\b.*block|heart block|junctional(?! st\b)|\bpr\b|\bqtc?\b|pre-?excitation|pause|rapid|atrioventricular|"
    r"mobitz|wenckebach|sino-?atrial|arrest|fusion|aberr|idioventric|wide qrs rhythm|no p waves|wandering|dissociation|"
    r"couplet|parasyst|\bnodal\b|\bs-?a\b.*block|\bpq\b|\bwpw\b|wolff|delta wave|"
    r"\b(?:a-?fib|afl|svt|vt|pac|apc|pvc|vpc|s?ves)\b",
    re.IGNORECASE,
)

# As reports say it: each is one way, and all of its statements are true. {} is the rhythm.
_WORDINGS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "premature_atrial": (
        ("{} with premature atrial complexes",),
        ("{} with premature atrial complexes", "Premature atrial contraction(s)"),
    ),
    "long_pr": (
        ("{} with 1st degree AV block",),
        ("{} with 1st degree AV block", "Prolonged PR interval"),
    ),
}
# What `ecg.measured_statements` says of the intervals, and what it would say of them then.
_MEASURED = re.compile(r"(?:ir)?regular rr intervals", re.IGNORECASE)
_MEASURED_THEN: Mapping[str, tuple[str, ...]] = {
    "premature_atrial": ("Irregular RR intervals", "Premature beats"),
    "long_pr": ("Regular RR intervals",),
}
MOST_WAYS = max(map(len, _WORDINGS.values()))
"""To say any one finding."""


@dataclass(frozen=True)
class Retimed:
    """What is said of an ECG that got `finding`, in one of the ways to say it, counted from 0."""

    finding: str
    way: int
    statements: tuple[str, ...]


def retimed_statements(statements: Sequence[str], known: Mapping[str, str]) -> Iterator[Retimed]:
    """The statements of the ECGs that get each finding, in place of what they had.

    Nothing where the statements do not say that it is a regular sinus rhythm, or say it in one breath with a finding.
    known: how the data set's own reports
    spell their statements, by the case-folded ones; ways that they never use are left out, or all but the first.
    """
    sinus = [statement for statement in statements if _SINUS.search(statement)]
    if not sinus or not all(map(_RHYTHM_ALONE.fullmatch, sinus)):
        return
    if any(map(_rules_out, statements)):
        return
    rhythm = "Sinus bradycardia" if any(_SLOW.search(statement) for statement in sinus) else "Sinus rhythm"
    kept = [statement for statement in statements if statement not in sinus and not _NORMAL.search(statement)]
    measured = [statement for statement in kept if _MEASURED.fullmatch(statement)]
    kept = [statement for statement in kept if statement not in measured]
    for finding, wordings in _WORDINGS.items():
        ways = [tuple(statement.format(rhythm) for statement in wording) for wording in wordings]
        usual = [way for way in ways if all(statement.casefold() in known for statement in way)]
        for number, way in enumerate(usual or ways[:1]):
            spelt = (known.get(statement.casefold(), statement) for statement in way)
            yield Retimed(finding, number, (*spelt, *kept, *(_MEASURED_THEN[finding] if measured else ())))


@functools.lru_cache(maxsize=100_000)  # reports are distinct, and share some thousand statements
def _rules_out(statement: str) -> bool:
    return _RULES_OUT.search(spell_out(statement)) is not None


def retimed_key(report_id: int, finding: str, way: int) -> str:
    """Stands for the text of the report that an ECG with `report_id` gets: `ReportStatements.build` takes texts."""
    return f"{report_id} {finding} {way}"
