"""The groups that an evaluation tells its scores by: what a data set knows of its patients and of its recordings."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from mets_ray.dataset.quality.records import RecordQuality, record_qualities
from mets_ray.ecg.signal_features import HEART_RATE, LEADS_RECORDED, feature_names
from mets_ray.evaluation.inputs import EvaluationInputs
from mets_ray.metrics.subgroups import LEAST_PATIENTS, Grouping, Subgroups, score_subgroups
from mets_ray.pipelines.embed import EmbeddedRecords

Bands = tuple[tuple[float, str], ...]
"""Where each band begins, and its name."""

AGE_BANDS: Bands = ((0, "0 to 17"), (18, "18 to 39"), (40, "40 to 59"), (60, "60 to 79"), (80, "80 and above"))
HEART_RATE_BANDS: Bands = ((0, "below 60 per min"), (60, "60 to 99 per min"), (100, "100 per min and above"))
LEAD_BANDS: Bands = ((0, "1 or 2 leads"), (3, "3 to 6 leads"), (7, "7 to 11 leads"), (12, "12 leads"))
SEXES = ("female", "male")
NO_FAULT, FAULT = "no fault found", "a fault found"

_ABSENT = "not in this data set"
_MOST_NAMED = 8  # of devices and sites; a group more has all others


def find_subgroups(inputs: EvaluationInputs) -> Subgroups:
    """Scores by sex, age, device, site, heart rate, signal quality and number of leads, of the test records."""
    return score_subgroups(
        inputs.scores,
        groupings(inputs.records, _qualities(inputs), inputs.dataset.card.leads),
        inputs.records.record_ids,
        samples=inputs.config.evaluate.bootstrap_samples,
        seed=inputs.config.seed,
    )


def groupings(
    records: EmbeddedRecords, qualities: Mapping[str, RecordQuality], leads: Sequence[str]
) -> tuple[Grouping, ...]:
    """All ways to divide `records`. qualities: by the id of the stored row; none for an older data set."""
    names = feature_names(leads)
    told = [qualities.get(row_id) for row_id in records.row_ids]
    measured = {name: records.signal_features[:, names.index(name)].tolist() for name in (HEART_RATE, LEADS_RECORDED)}
    return (
        _grouping("sex", [sex if sex in SEXES else None for sex in records.sexes], SEXES),
        _in_bands("age", records.ages, AGE_BANDS),
        _by_name("device", [one.device if one else None for one in told], records.patients),
        _by_name("site", [one.site if one else None for one in told], records.patients),
        _in_bands("heart rate", measured[HEART_RATE], HEART_RATE_BANDS),
        _grouping("signal quality", [_fault(one) for one in told], (NO_FAULT, FAULT)),
        _in_bands("leads recorded", measured[LEADS_RECORDED], LEAD_BANDS),
    )


def _qualities(inputs: EvaluationInputs) -> dict[str, RecordQuality]:
    paths = {group.path for group in inputs.dataset.row_groups(inputs.test)}
    return record_qualities(inputs.dataset.uri, [inputs.dataset.shards[path] for path in sorted(paths)])


def _grouping(attribute: str, groups: Sequence[str | None], order: Iterable[str]) -> Grouping:
    return Grouping(attribute, tuple(groups), tuple(order), "" if any(groups) else _ABSENT)


def _in_bands(attribute: str, values: Sequence[float | None], bands: Bands) -> Grouping:
    starts = [start for start, _ in bands]

    def band(value: float | None) -> str | None:
        place = -1 if value is None or not np.isfinite(value) else int(np.searchsorted(starts, value, side="right")) - 1
        return None if place < 0 else bands[place][1]

    return _grouping(attribute, [band(value) for value in values], (name for _, name in bands))


def _by_name(attribute: str, values: Sequence[str | None], patients: np.ndarray) -> Grouping:
    """The names with the most patients, and one group of all others."""
    pairs = {(value, patient) for value, patient in zip(values, patients.tolist(), strict=True) if value}
    counts = sorted(Counter(value for value, _ in pairs).items(), key=lambda one: (-one[1], one[0]))
    kept = [name for name, count in counts if count >= LEAST_PATIENTS][:_MOST_NAMED]
    rest = len(counts) - len(kept)
    others = f"{rest} other{'s' * (rest > 1)}"
    groups = [(value if value in kept else others) if value else None for value in values]
    return _grouping(attribute, groups, (*kept, *([others] if rest else ())))


def _fault(quality: RecordQuality | None) -> str | None:
    return None if quality is None else FAULT if quality.faults else NO_FAULT
