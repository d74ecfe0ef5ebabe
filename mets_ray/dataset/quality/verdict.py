"""What a person should look at before training on a data set: each finding with what to do about it."""

from collections.abc import Iterator

from mets_ray.console import counted
from mets_ray.dataset.card import DatasetCard
from mets_ray.dataset.quality.counts import BOUNDS, EDGES, QualityCounts, quantiles
from mets_ray.dataset.quality.duplicates import Duplicates
from mets_ray.dataset.quality.words import is_electrodes, percent, suspect_words
from mets_ray.results.page import Finding
from mets_ray.text.languages import NAMES, UNKNOWN

_FEW_RECORDS = 1000
_FEW_OF_A_LABEL = 10
_PLAUSIBLE_MV = (0.3, 6.0)  # the median over all leads from peak to peak; of PTB-XL it is 1.4 mV
_MOST_SHOWN = 8
_TRANSLATED = {"en", "de", "sv"}

# Of the bounds: what the finding is called, the share of records from which a person should look, and what to do.
_SIGNAL_FINDINGS = {
    "faint": ("Leads without a signal", 0.02, "Look at some: an electrode may have been off, or the gain be wrong."),
    "flat": ("Flat stretches", 0.02, "Look at some: padding, or an electrode that came off."),
    "clipped": ("Clipping", 0.02, "Look at some: the amplifier, or the range of the stored numbers, was too small."),
    "offset": ("Offsets", 0.02, "Keep `prepare.highpass_hz`, which removes them."),
    "hum_50hz": (
        "50 Hz hum",
        0.05,
        "At `prepare.sampling_rate_hz=100` nothing of it is left; see where it comes from.",
    ),
    "hum_60hz": (
        "60 Hz hum",
        0.05,
        "At `prepare.sampling_rate_hz=100` nothing of it is left; see where it comes from.",
    ),
    "wander": ("Baseline wander", 0.05, "Set `prepare.highpass_hz=0.5`, which removes it."),
}


def verdict(card: DatasetCard, counts: QualityCounts, duplicates: Duplicates) -> list[Finding]:
    """The findings, the worst first."""
    found = [
        *_data(card),
        *_rejected(card),
        *_signals(card, counts),
        *_leads(counts),
        *_folds(card, duplicates),
        *_copies(duplicates),
        *(_reports(counts, duplicates) if card.has_reports else ()),
        *_labels(counts),
    ]
    return sorted(found, key=lambda finding: ("stop", "look", "fine").index(finding.level))


def _data(card: DatasetCard) -> Iterator[Finding]:
    if card.synthetic:
        yield Finding(
            "look", "Synthetic data", "No ECG here is a patient's.", "Scores on it say nothing about real ones."
        )
    if card.shuffled_reports:
        remedy = "Train on this only as a control: the bundle must score at chance."
        yield Finding("look", "Shuffled reports", "Each record has another record's report.", remedy)
    if not card.has_reports:
        yield Finding("look", "No reports", "This data set is for evaluation; it cannot train.")
    if card.records_out < _FEW_RECORDS:
        remedy = "Enough to try things out or to evaluate; pretraining needs tens of thousands."
        yield Finding("look", "Few records", f"{card.records_out:,} records.", remedy)


def _rejected(card: DatasetCard) -> Iterator[Finding]:
    rejected = card.records_in - card.records_out
    if not rejected:
        yield Finding("fine", "Nothing rejected", f"All {card.records_in:,} records were taken.")
        return
    ranked = sorted(card.rejected.items(), key=lambda item: (-item[1], item[0]))
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in ranked[:_MOST_SHOWN])
    text = f"{rejected:,} of {card.records_in:,} ({percent(rejected, card.records_in)}): {reasons}."
    if rejected <= 0.01 * card.records_in:
        yield Finding("fine", "Rejected records", text)
        return
    remedy = "See below how to fix each one. Records that are lost for one reason are not lost at random."
    yield Finding("look" if rejected <= 0.1 * card.records_in else "stop", "Rejected records", text, remedy)


def _signals(card: DatasetCard, counts: QualityCounts) -> Iterator[Finding]:
    (median,) = quantiles(counts.distributions["amplitude_mv"].sum(axis=0), EDGES["amplitude_mv"], (0.5,))
    low, high = _PLAUSIBLE_MV
    text = f"{median:.2g} mV from peak to peak, the median of all leads."
    if low <= median <= high:
        yield Finding("fine", "Amplitudes", text)
    else:
        remedy = f"ECGs have {low:g} to {high:g} mV: check the unit and the gain of the source."
        yield Finding("stop", "Implausible amplitudes", text, remedy)
    for name, (title, most, remedy) in _SIGNAL_FINDINGS.items():
        measured, flagged = counts.measured[name], counts.flagged[name]
        if not measured or (name in ("wander", "offset") and card.highpass_hz is not None):
            continue
        text = f"{flagged:,} of {measured:,} records ({percent(flagged, measured)}) have {BOUNDS[name].words}."
        if flagged > most * measured:
            yield Finding("look", title, text, remedy)
        else:
            yield Finding("fine", title, text)


def _leads(counts: QualityCounts) -> Iterator[Finding]:
    told = counts.measured["limb leads"]
    in_files = {name: count for name, count in counts.suspects.items() if not is_electrodes(name)}
    at_patients = {name: count for name, count in counts.suspects.items() if is_electrodes(name)}
    where = "Their ids are in `quality/`, column `suspect`."
    if not told:
        text = "No record has six limb leads of its own, so they cannot be compared."
        yield Finding("look", "Order of the leads", text, "Look at the ECGs at the end of this page.")
    elif in_files:
        wrong = sum(in_files.values())
        text = f"{wrong:,} of {told:,} records ({percent(wrong, told)}): {_listed(in_files)}."
        remedy = f"Correct the names or the order of the leads in the source. {where}"
        title = "Limb leads that contradict each other"
        yield Finding("stop" if wrong > 0.01 * told else "look", title, text, remedy)
    else:
        yield Finding("fine", "Limb leads", f"In all {told:,} records that have six of their own, they fit together.")
    if at_patients:
        wrong = sum(at_patients.values())
        text = f"{wrong:,} of {counts.records:,} records ({percent(wrong, counts.records)}): {_listed(at_patients)}."
        if wrong > 0.01 * counts.records:
            remedy = f"Look at some: paced beats and large infarcts may look alike (PTB-XL has 0.3%). {where}"
            yield Finding("look", "Electrodes that may be exchanged", text, remedy)
        else:
            yield Finding("fine", "Electrodes that may be exchanged", f"{text} {where}")


def _listed(suspects: dict[str, int]) -> str:
    ranked = sorted(suspects.items(), key=lambda item: (-item[1], item[0]))
    return "; ".join(f"{count:,} × {suspect_words(name)}" for name, count in ranked[:_MOST_SHOWN])


def _folds(card: DatasetCard, duplicates: Duplicates) -> Iterator[Finding]:
    if len(card.folds) < 2:
        text = "All records lie in one fold, so nothing is left to test on."
        yield Finding(
            "look", "One fold", text, "Give some patients another fold, unless all are for training or testing."
        )
    if not duplicates.patients_across_folds:
        yield Finding("fine", "Patients", f"Each of {duplicates.patients:,} patients lies in one fold.")
        return
    text = (
        f"{duplicates.patients_across_folds:,} of {duplicates.patients:,} patients have records in more than one fold."
    )
    remedy = "Give all records of a patient one fold: otherwise the test includes patients that trained the model."
    yield Finding("stop", "Patients in several folds", text, remedy)


def _copies(duplicates: Duplicates) -> Iterator[Finding]:
    equal, near = duplicates.signals, duplicates.near_signals
    if not near.records:
        yield Finding("fine", "Copies of signals", "No signal occurs twice.")
        return
    text = (
        f"{near.records:,} records share their signal, or almost, with another one ({equal.records:,} exactly); "
        f"{near.across_folds:,} with one of another fold, {near.across_patients:,} with one of another patient."
    )
    where = "`signal_hash` and `coarse_hash` in `quality/` name them."
    if near.across_folds:
        remedy = f"Remove the copies, or give them one fold: a test would include ECGs that trained the model. {where}"
        yield Finding("stop", "Copies of signals across folds", text, remedy)
    else:
        yield Finding("look", "Copies of signals", text, f"Remove what was exported twice. {where}")


def _reports(counts: QualityCounts, duplicates: Duplicates) -> Iterator[Finding]:
    records = counts.records
    most = max(counts.reports.counts.values(), default=0)
    patients = max(duplicates.patients, most)
    text = (
        f"{counted(duplicates.distinct_reports, 'different report')} of {counted(records, 'record')}; the most "
        f"frequent one is that of {percent(most, patients)} of the patients."
    )
    if most > 0.2 * patients:
        remedy = "Records of a batch will often share their text. Keep `text.unit=statement`, which is made for this."
        yield Finding("look", "One report for many", text, remedy)
    else:
        yield Finding("fine", "Reports", text)
    if counts.without_statements > 0.01 * records:
        share = percent(counts.without_statements, records)
        text = f"{counts.without_statements:,} records ({share}) have a report without statements: it counts as one."
        yield Finding("look", "Reports without statements", text, "See below which languages and texts these are.")
    languages = {name: count for name, count in counts.languages.most_common() if name != UNKNOWN}
    frequent = {name: count for name, count in languages.items() if count > 0.01 * records}
    text = f"{', '.join(f'{NAMES[name]} {percent(count, records)}' for name, count in frequent.items())}."
    if set(frequent) - _TRANSLATED:
        remedy = "Choose a `text.model` that knows these languages, or translate the statements in the source."
        yield Finding("look", "Languages of the reports", text, remedy)
    elif frequent:
        yield Finding("fine", "Languages of the reports", text)


def _labels(counts: QualityCounts) -> Iterator[Finding]:
    totals = counts.label_totals
    if not totals:
        yield Finding("look", "No labels", "No record has a label. Training needs none; evaluation does.")
        return
    rare = sorted(label for label, count in totals.items() if count < _FEW_OF_A_LABEL)
    text = f"{counted(len(totals), 'label')}; {counts.without_labels:,} of the records have none."
    if not rare:
        yield Finding("fine", "Labels", text)
        return
    more = ", …" if len(rare) > _MOST_SHOWN else ""
    text += f" {len(rare):,} occur in fewer than {_FEW_OF_A_LABEL} records: {', '.join(rare[:_MOST_SHOWN])}{more}."
    yield Finding("look", "Rare labels", text, "Their scores will depend on single patients.")
