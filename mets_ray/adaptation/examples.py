"""The labelled ECGs that a head learns from: all of them, or so many of each class."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from mets_ray.adaptation.labels import Labels
from mets_ray.config.settings import Config
from mets_ray.errors import ConfigError
from mets_ray.metrics.few_labels import draw_labels
from mets_ray.metrics.linear_probe import with_both_kinds
from mets_ray.pipelines.embed import EmbeddedRecords


class Examples(NamedTuple):
    """Labelled records and which classes of the task each has."""

    records: EmbeddedRecords
    rows: np.ndarray
    truth: Bool[np.ndarray, "record class"]

    @property
    def features(self) -> Float[np.ndarray, "record feature"]:
        found: np.ndarray = self.records.features[self.rows]
        return found

    @property
    def embeddings(self) -> Float[np.ndarray, "record dimension"]:
        found: np.ndarray = self.records.embeddings[self.rows]
        return found


def labelled_examples(labels: Labels, records: EmbeddedRecords) -> Examples:
    """All records with a class of the task."""
    truth = labels.truth(records)
    rows = np.flatnonzero(truth.any(axis=1))
    return Examples(records, rows, truth[rows])


def drawn_examples(config: Config, labels: Labels, records: EmbeddedRecords) -> tuple[Examples, tuple[str, ...]]:
    """`adapt.labels_per_class` of the records of `folds.train`, and notices. Raises ConfigError for what nothing can be
    learnt from: no label, or one class in all of them."""
    truth, asked, task = labels.truth(records), config.adapt.labels_per_class, labels.task
    names = tuple(labels.label_set.classes)
    there = dict(zip(names, truth.sum(axis=0).tolist(), strict=True))
    if not truth.any():
        raise ConfigError(
            f"none of the {len(truth)} ECGs in `folds.train` has a class of `{task}` ({', '.join(names[:20])})",
            hint="choose other folds or another adapt.task, or give labels as adapt.labels_uri",
        )
    if asked == 0 and config.adapt.method != "text":
        raise ConfigError(
            f"`adapt.labels_per_class` is 0, from which adapt.method={config.adapt.method} learns nothing",
            hint="set adapt.method=text, which is zero-shot without labels, or more labels",
        )
    rows = draw_labels(truth, records.record_ids, asked, config.seed)
    notices = []
    if short := {name: count for name, count in there.items() if asked is not None and count < asked}:
        counts = ", ".join(f"{name} {count}" for name, count in short.items())
        notices.append(
            f"`adapt.labels_per_class` is {asked}, and some classes have fewer, which are all taken: {counts}"
        )
    if asked != 0 and not with_both_kinds(truth[rows]).any():
        (only,) = np.flatnonzero(truth[rows].all(axis=0))[:1]
        raise ConfigError(
            f"all {len(rows)} labelled ECGs of `{task}` in `folds.train` have the same class, {names[only]!r}: there "
            "is nothing to tell it from",
            hint="name folds with ECGs of other classes as well",
        )
    return Examples(records, rows, truth[rows]), tuple(notices)
