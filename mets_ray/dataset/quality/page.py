"""The quality page of a prepared data set: its sections, in the order in which a reader needs them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mets_ray.dataset.card import DatasetCard
from mets_ray.dataset.quality.counts import AGE_BANDS, NOT_TOLD, SEXES, QualityCounts
from mets_ray.dataset.quality.duplicates import Duplicates
from mets_ray.dataset.quality.rejections import Rejection
from mets_ray.dataset.quality.signal_sections import leads_section, signals_section
from mets_ray.dataset.quality.text_sections import copies_section, labels_section, reports_section
from mets_ray.dataset.quality.words import percent
from mets_ray.results.page import Cell, Finding, Page, Picture, Section, Table

_MOST_ROWS = 20
_FACTS = {
    "format": "File formats",
    "device": "Devices",
    "site": "Sites",
    "rate": "Sampling rates",
    "length": "Lengths",
    "derived leads": "Leads that were computed from I and II",
}


@dataclass(frozen=True)
class Sample:
    """An ECG of the data set as a picture."""

    record_id: str
    png: bytes


@dataclass(frozen=True)
class Quality:
    """All that the page shows."""

    card: DatasetCard
    counts: QualityCounts
    duplicates: Duplicates
    rejections: Sequence[Rejection]
    verdict: Sequence[Finding]
    samples: Sequence[Sample]


def quality_page(quality: Quality, made: str) -> Page:
    """The page. made: when and with what."""
    card, counts = quality.card, quality.counts
    sections = [
        _records(quality),
        *_rejected(quality.rejections),
        _sources(counts),
        signals_section(counts, card.highpass_hz),
        leads_section(counts),
        copies_section(quality.duplicates, has_reports=card.has_reports),
        *([reports_section(card, counts, quality.duplicates)] if card.has_reports else ()),
        *([labels_section(card, counts)] if counts.labels.total else ()),
        _samples(quality.samples),
        *_notes(card),
    ]
    notice = "These are patients' ECGs and reports; handle this page as such."
    facts = {
        "data set": f"{card.source}, {card.signal}, {len(card.shards):,} shards, fingerprint {card.fingerprint[:16]}",
        "made": made,
        "command": card.command or "(called from Python)",
    }
    return Page(
        f"Quality of {'SYNTHETIC ' if card.synthetic else ''}{card.source}",
        () if card.synthetic else (notice,),
        facts=facts,
        sections=sections,
        verdict=quality.verdict,
    )


def verdict_page(verdict: Sequence[Finding]) -> Page:
    """The findings that a person should look at, for the terminal, and how many others there are."""
    fine = sum(finding.level == "fine" for finding in verdict)
    rows = [(one.level.upper(), one.title, one.text) for one in verdict if one.level != "fine"]
    rows.append(("fine", f"{fine} others", ""))
    return Page("Quality", sections=(Section("Before training", "", (Table("", ("", "what", "found"), rows),)),))


def _records(quality: Quality) -> Section:
    card, people = quality.card, quality.counts.people
    rejected = card.records_in - card.records_out
    header = ("records", "share")
    rows: list[Sequence[Cell]] = [
        ("in", card.records_in, ""),
        ("out", card.records_out, percent(card.records_out, card.records_in)),
        ("rejected", rejected, percent(rejected, card.records_in)),
    ]
    folds = [(str(fold), count, percent(count, card.records_out)) for fold, count in sorted(card.folds.items())]
    tables = [Table("In and out", ("", *header), rows), Table("By fold", ("fold", *header), folds)]
    for caption, kind, values in (("By age", "age", AGE_BANDS), ("By sex", "sex", SEXES)):
        groups = [(value, people[kind, value], percent(people[kind, value], card.records_out)) for value in values]
        tables.append(Table(caption, (kind, *header), groups))
    return Section("Records", f"{quality.duplicates.patients:,} patients.", tables)


def _rejected(rejections: Sequence[Rejection]) -> Iterator[Section]:
    if not rejections:
        return
    rows = [
        (
            rejection.reason,
            rejection.records,
            "; ".join(f"{record_id}: {detail}" for record_id, detail in rejection.examples),
            rejection.mending,
        )
        for rejection in rejections
    ]
    text = "All of them are in `rejected/`, with their reports. Mend what can be mended and run the same command again."
    header = ("reason", "records", "examples", "how to mend it")
    yield Section("What was rejected", text, (Table("Reasons", header, rows),))


def _sources(counts: QualityCounts) -> Section:
    title = "As the records came"
    if not counts.from_source:
        return Section(title, "Not known: this data set was prepared before records were measured as they come.")
    told = {name: tally for name, tally in counts.facts.items() if set(tally.counts) - {NOT_TOLD}}
    tables = []
    for name, tally in told.items():
        found = tally.top(_MOST_ROWS)
        rows = [(value, count, percent(count, counts.from_source)) for value, count in found]
        if rest := tally.total - sum(count for _, count in found):
            rows.append(("others", rest, percent(rest, counts.from_source)))
        tables.append(Table(_FACTS[name], (name, "records", "share"), rows))
    untold = [name for name in ("format", "device") if name not in told]
    return Section(title, f"Not stated by the source: {', '.join(untold)}." if untold else "", tables)


def _samples(samples: Sequence[Sample]) -> Section:
    pictures = [Picture(sample.png, f"12-lead ECG of record {sample.record_id}, as it is stored") for sample in samples]
    text = (
        "As they are stored, chosen at random (the same for the same data set). Do they look like ECGs? As a rule aVR "
        "is negative, and from V1 to V6 the R wave grows."
    )
    return Section(f"{len(pictures)} ECGs", text, (), pictures)


def _notes(card: DatasetCard) -> Iterator[Section]:
    if card.notes:
        yield Section("How the data were read", "\n".join(f"{note[0].upper()}{note[1:]}." for note in card.notes))
