"""The sections of the quality page on copies, reports and labels."""

from mets_ray.dataset.card import DatasetCard
from mets_ray.dataset.quality.counts import AGE_BANDS, SEXES, QualityCounts
from mets_ray.dataset.quality.duplicates import Duplicates, Shared
from mets_ray.dataset.quality.words import percent
from mets_ray.results.page import Cell, Section, Table
from mets_ray.text.languages import NAMES

LEAST_OF_A_TEXT = 5
"""Texts of fewer patients are not shown: a rare one may say something of one of them."""

_MOST_TEXTS = 20
_MOST_LABELS = 60
_MOST_CHARACTERS = 120


def copies_section(found: Duplicates, *, has_reports: bool) -> Section:
    """Signals and reports that are there more than once."""
    shared = {"equal signals": found.signals, "equal or almost equal signals": found.near_signals}
    if has_reports:
        shared["equal reports"] = found.reports
    text = (
        f"{found.patients_across_folds:,} of {found.patients:,} patients have records in more than one fold. Almost "
        "equal are signals whose coarse hashes differ in at most 2 of 64 bits: nearly all copies with a correlation "
        "above 0.999, as after another filter or rounding. Equal reports are usual; a retrieval score must count each "
        "as a hit."
    )
    header = ("", "different ones", "records", "shared with another fold", "with another patient")
    rows = [_shared_row(name, one) for name, one in shared.items()]
    return Section("Copies", text, (Table("What is there more than once", header, rows),))


def _shared_row(name: str, shared: Shared) -> tuple[Cell, ...]:
    return (name, shared.values, shared.records, shared.across_folds, shared.across_patients)


def reports_section(card: DatasetCard, counts: QualityCounts, found: Duplicates) -> Section:
    """Languages, and what is written most often."""
    languages = [(NAMES[name], count, percent(count, counts.records)) for name, count in counts.languages.most_common()]
    tables = [Table("Languages", ("language", "records", "share"), languages)]
    for caption, tally in (("Most frequent reports", counts.reports), ("Most frequent statements", counts.statements)):
        rows = [
            (_cut(text), count, percent(count, max(found.patients, count)))
            for text, count in tally.top(_MOST_TEXTS, least=LEAST_OF_A_TEXT)
        ]
        if rows:
            note = f" (each perhaps {tally.missing:,} more)" if tally.missing else ""
            tables.append(Table(caption + note, ("text", "patients", "share"), rows))
    empty = sum(card.rejected.get(reason, 0) for reason in ("empty_report", "no_findings"))
    text = (
        f"{found.distinct_reports:,} different reports. {empty:,} records were rejected because theirs is empty or "
        f"describes no finding; {counts.without_statements:,} have a report without statements. The language is told "
        f"by a table of frequent words (`mets_ray/text/languages.py`). Texts of fewer than {LEAST_OF_A_TEXT} patients "
        "are not shown."
    )
    return Section("Reports", text, tables)


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 1]}…"


def labels_section(card: DatasetCard, counts: QualityCounts) -> Section:
    """Labels by fold, age and sex."""
    by_label: dict[str, dict[tuple[str, str], int]] = {}
    for (label, kind, value), count in counts.labels.counts.items():
        by_label.setdefault(label, {})[kind, value] = count
    total = counts.label_totals
    shown = sorted(by_label, key=lambda label: (-total.get(label, 0), label))[:_MOST_LABELS]
    groups = {"fold": tuple(map(str, sorted(card.folds))), "age": AGE_BANDS, "sex": SEXES}
    tables = [
        Table(
            f"By {kind}",
            ("label", "all", *values),
            [
                (label, total.get(label, 0), *(by_label[label].get((kind, value), 0) for value in values))
                for label in shown
            ],
        )
        for kind, values in groups.items()
    ]
    more = f" The {_MOST_LABELS} most frequent of {len(by_label):,} are shown." if len(by_label) > len(shown) else ""
    text = f"{counts.without_labels:,} records have none. A record counts for each of its labels.{more}"
    return Section("Labels", text, tables, collapsed=True)
