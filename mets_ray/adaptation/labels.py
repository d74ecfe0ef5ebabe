"""The labels that a head learns from: of a task of the data set, or of a table; and the words of its classes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np
from jaxtyping import Bool

from mets_ray import storage
from mets_ray.config.settings import AdaptConfig
from mets_ray.errors import CheckpointError, ConfigError, DatasetError
from mets_ray.pipelines.embed import EmbeddedRecords
from mets_ray.sources.cells import codes, identifier
from mets_ray.sources.csv_table import parse_csv
from mets_ray.sources.parquet_table import is_parquet, parse_parquet
from mets_ray.tasks.label_sets import LabelSet, label_matrix
from mets_ray.tasks.prompt_files import read_prompt_set
from mets_ray.tasks.prompt_sets import PromptSet
from mets_ray.tasks.questions import dataset_tasks


@dataclass(frozen=True)
class Labels:
    """A task and its classes. `words`: of each class, empty for a linear head; `prompt_set`: with these words alone.

    `of_record`: codes by record id; None for those of the data set.
    """

    label_set: LabelSet
    words: Mapping[str, tuple[str, ...]]
    prompt_set: PromptSet | None
    of_record: Mapping[str, tuple[str, ...]] | None

    @property
    def task(self) -> str:
        return self.label_set.task

    def truth(self, records: EmbeddedRecords) -> Bool[np.ndarray, "record class"]:
        """Which classes each record has; all False where it has no label of the task."""
        if self.of_record is None:
            codes = records.labels
        else:
            codes = [list(self.of_record.get(record_id, ())) for record_id in records.record_ids]
        return label_matrix(self.label_set, codes)[0]


def read_labels(settings: AdaptConfig, source: str) -> Labels:
    """What `adapt.task` or `adapt.labels_uri` names, and the words of its classes for a head that begins with them.

    Raises ConfigError for a task that is not known or has one class, and where words are missing; DatasetError for a
    table that cannot be read.
    """
    prompt_set = None if settings.method == "linear" else read_prompt_set(settings.prompt_set)
    of_record = None
    if settings.labels_uri is not None:
        of_record = _table(settings.labels_uri)
        classes = sorted({code for codes in of_record.values() for code in codes})
        task = settings.task or PurePosixPath(settings.labels_uri).stem
        label_set = LabelSet(task, {name: (name,) for name in classes})
    else:
        label_set = _task_of(settings, source)
    if len(label_set.classes) < 2:
        (name,) = label_set.classes or ("none",)
        raise ConfigError(
            f"`{label_set.task}` has one class only, {name!r}: every labelled ECG has it, so there is nothing to tell "
            "it from",
            hint="label ECGs without it as well, under a second class such as `other`",
        )
    words = _words(settings, label_set, prompt_set)
    own = None if prompt_set is None else replace(prompt_set, tasks={label_set.task: words})
    return Labels(label_set, words, own, of_record)


def keep_labels(run_uri: str, labels: Labels, of_record: Mapping[str, Sequence[bool]]) -> None:
    """Write down which labels a new run learns from. Raises CheckpointError for a resumed one that began with others: a
    table of the user's own may have changed.

    of_record: which classes each labelled record has.
    """
    uri = storage.join(run_uri, "labels.json")
    digest = storage.digest_of({"classes": list(labels.label_set.classes), "of_record": dict(of_record)})
    if not storage.exists(uri):  # new, or killed before it wrote this
        storage.write_bytes(uri, json.dumps({"sha256": digest}).encode())
    elif json.loads(storage.read_bytes(uri)).get("sha256") != digest:
        raise CheckpointError(
            f"the {len(of_record)} labelled ECGs are not those that this run began with",
            where=run_uri,
            hint="give the labels as they were, or start a new run without train.resume",
        )


def _task_of(settings: AdaptConfig, source: str) -> LabelSet:
    known = dataset_tasks(source)
    if not known:  # a source of the user's own: each class counts for the label of its name
        words = read_prompt_set(settings.prompt_set).tasks
        known = {task: LabelSet(task, {name: (name,) for name in classes}) for task, classes in words.items()}
    task = settings.task or (next(iter(known)) if len(known) == 1 else None)
    if task is None:
        raise ConfigError(
            f"`adapt.task` is not set, and `{source}` has {len(known)} tasks", hint=f"choose from {', '.join(known)}"
        )
    if task not in known:
        raise ConfigError(
            f"`adapt.task` is `{task}`, which the source `{source}` has no labels for",
            hint=f"choose from {', '.join(known)}, or give a table of labels as adapt.labels_uri",
        )
    return known[task]


def _words(settings: AdaptConfig, label_set: LabelSet, prompt_set: PromptSet | None) -> dict[str, tuple[str, ...]]:
    if prompt_set is None:
        return {}
    known = prompt_set.tasks.get(label_set.task, {})
    missing = [name for name in label_set.classes if name not in known]
    if missing:
        raise ConfigError(
            f"prompt set `{prompt_set.name}` version {prompt_set.version} has no words for {missing[0]!r} of "
            f"`{label_set.task}`, which a head with adapt.method={settings.method} begins with",
            hint=f"give a prompt file with the task `{label_set.task}` as adapt.prompt_set, or set adapt.method=linear",
        )
    return {name: known[name] for name in label_set.classes}


def _table(uri: str) -> dict[str, tuple[str, ...]]:
    data = storage.read_bytes(uri)
    table = (parse_parquet if is_parquet(data) else parse_csv)(uri, data, ("record_id", "labels"))
    found: dict[str, tuple[str, ...]] = {}
    for number, cells in table.rows:
        record_id = identifier(cells["record_id"])
        if record_id in found:
            raise DatasetError(
                f"record `{record_id}` has two rows", where=f"{uri}, {table.counts} {number}", hint="give it one"
            )
        found[record_id] = codes(cells["labels"])
    return found
