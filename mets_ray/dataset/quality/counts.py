"""The figures of a data set: of each shard by itself, then added up.

What is kept in memory does not grow with the data set, apart from 36 bytes of hashes for each record.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int

from mets_ray.dataset.quality.duplicates import RecordKeys
from mets_ray.dataset.quality.tally import Tally


@dataclass(frozen=True)
class Bound:
    """Beyond `value` of a column of `quality/`, in any lead, a record is worth a look; `words` name such a lead."""

    column: str
    value: float
    words: str
    is_least: bool = False

    def is_beyond(self, values: Float[np.ndarray, "*shape"]) -> Bool[np.ndarray, "*shape"]:
        """False for nan, which is what was not measured."""
        return np.asarray(values < self.value if self.is_least else values >= self.value)


BOUNDS = {
    "faint": Bound("amplitude_mv", 0.1, "a lead below 0.1 mV from peak to peak", is_least=True),
    "flat": Bound("flat_s", 1.0, "a lead that does not change for a second or longer"),
    "clipped": Bound(
        "clipped_s", 0.04, "a lead that stays for 40 ms at its highest or lowest sample, 1 mV or more from its mean"
    ),
    "offset": Bound("offset_mv", 1.0, "a lead whose mean lies 1 mV or more from zero"),
    "wander": Bound("wander_share", 0.5, "a lead with more power below 0.5 Hz than from there to 40 Hz"),
    "hum_50hz": Bound("hum_50hz_ratio", 0.01, "a lead with 50 Hz hum of a tenth of the ECG's amplitude or more"),
    "hum_60hz": Bound("hum_60hz_ratio", 0.01, "a lead with 60 Hz hum of a tenth of the ECG's amplitude or more"),
}

EXAMPLES = 5
NOT_TOLD = "not stated"
MOST_TEXTS, MOST_LABELS = 10_000, 20_000

_AGE_ENDS = (18, 30, 40, 50, 60, 70, 80)
AGE_BANDS = ("0-17", "18-29", "30-39", "40-49", "50-59", "60-69", "70-79", "80+", "unknown")
SEXES = ("female", "male", "unknown")

EDGES = {
    "amplitude_mv": np.geomspace(0.01, 40.0, 121),
    "offset_mv": np.geomspace(0.001, 40.0, 121),
    "flat_s": np.geomspace(0.002, 60.0, 121),
    "wander_share": np.linspace(0.0, 1.0, 41),
    "hum_50hz_ratio": np.geomspace(1e-6, 100.0, 81),
    "hum_60hz_ratio": np.geomspace(1e-6, 100.0, 81),
    "einthoven_uv": np.geomspace(0.05, 20_000.0, 113),
    "augmented_uv": np.geomspace(0.05, 20_000.0, 113),
    "limb_residual": np.geomspace(1e-4, 10.0, 81),
}
"""The bins of each distribution; what lies outside is counted in the first or the last."""

BY_LEAD = ("amplitude_mv", "offset_mv", "flat_s")


@dataclass
class QualityCounts:
    """`distributions` by name are counts by bin of `EDGES`, for `BY_LEAD` [lead, bin]. `measured` are the records for
    which a figure could be measured, `flagged` those of them beyond its bound of `BOUNDS`, `examples` some of their
    record ids. `from_source`: records that were measured as their source has them. `reports`, `statements`: how many
    patients have each, one that has records in several shards once for each of these. `labels`: by (label, "fold" |
    "age" | "sex", value); `people`: the same of all records."""

    records: int = 0
    from_source: int = 0
    facts: dict[str, Tally[str]] = field(default_factory=dict)
    distributions: dict[str, Int[np.ndarray, "..."]] = field(default_factory=dict)
    measured: Counter[str] = field(default_factory=Counter)
    flagged: Counter[str] = field(default_factory=Counter)
    suspects: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    languages: Counter[str] = field(default_factory=Counter)
    reports: Tally[str] = field(default_factory=lambda: Tally(capacity=MOST_TEXTS))
    statements: Tally[str] = field(default_factory=lambda: Tally(capacity=MOST_TEXTS))
    without_statements: int = 0
    labels: Tally[tuple[str, str, str]] = field(default_factory=lambda: Tally(capacity=MOST_LABELS))
    people: Counter[tuple[str, str]] = field(default_factory=Counter)
    without_labels: int = 0
    keys: list[RecordKeys] = field(default_factory=list)

    def merge(self, other: "QualityCounts") -> None:
        """Add the counts of another part of the data set."""
        for name in ("records", "from_source", "without_statements", "without_labels"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("measured", "flagged", "suspects", "languages", "people"):
            getattr(self, name).update(getattr(other, name))
        for name in ("reports", "statements", "labels"):
            getattr(self, name).merge(getattr(other, name))
        for name, tally in other.facts.items():
            self.facts.setdefault(name, Tally()).merge(tally)
        for name, counts in other.distributions.items():
            self.distributions[name] = self.distributions.get(name, np.zeros_like(counts)) + counts
        for name, found in other.examples.items():
            self.examples[name] = [*self.examples.get(name, []), *found][:EXAMPLES]
        self.keys += other.keys

    @property
    def label_totals(self) -> dict[str, int]:
        """Records of each label."""
        totals: Counter[str] = Counter()
        for (label, kind, _), count in self.labels.counts.items():
            if kind == "fold":
                totals[label] += count
        return dict(totals)


def age_band(age: float | None) -> str:
    """The band of `AGE_BANDS` that an age lies in, `unknown` for none."""
    if age is None or not np.isfinite(age):
        return "unknown"
    return AGE_BANDS[int(np.searchsorted(_AGE_ENDS, age, side="right"))]


def quantiles(counts: Int[np.ndarray, " bin"], edges: Float[np.ndarray, " edge"], at: Iterable[float]) -> list[float]:
    """Quantiles of a distribution, each the upper edge of its bin; nan without a value."""
    cumulated = np.cumsum(counts)
    if not cumulated[-1]:
        return [float("nan") for _ in at]
    return [float(edges[1 + np.searchsorted(cumulated, share * cumulated[-1])]) for share in at]
