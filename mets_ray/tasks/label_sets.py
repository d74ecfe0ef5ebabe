"""The classes of each task, and which of a source's codes count for which class."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from mets_ray.packaged import packaged_bytes, packaged_files, read_yaml
from mets_ray.tasks.class_files import LabelFile, validated


@dataclass(frozen=True)
class LabelSet:
    """The classes of one task, each with the source's codes that count for it."""

    task: str
    classes: dict[str, tuple[str, ...]]


def load_label_sets(name: str) -> dict[str, LabelSet]:
    """A packaged family of label sets by name (`ptbxl`, `mitbih`, …), keyed by task. Raises ConfigError."""
    where = f"label set `{name}`"
    file = validated(LabelFile, read_yaml(packaged_bytes("tasks/label_sets", name), where), where)
    return {
        task: LabelSet(task, {class_name: tuple(codes) for class_name, codes in classes.items()})
        for task, classes in file.tasks.items()
    }


def packaged_label_sets() -> dict[str, LabelSet]:
    """The label sets of every packaged family, keyed by task."""
    families = sorted(packaged_files("tasks/label_sets"))
    return {task: label_set for family in families for task, label_set in load_label_sets(family).items()}


def label_matrix(
    label_set: LabelSet, labels: Sequence[Sequence[str]]
) -> tuple[Bool[np.ndarray, "record class"], Bool[np.ndarray, "record"]]:
    """(which classes each record has, which records have any), from each record's codes.

    A code counts whatever its likelihood, and records with no class of this task are not scored: the protocol of the
    PTB-XL benchmark (Strodthoff et al. 2021) and of MERL. Codes of other tasks are ignored.
    """
    columns: dict[str, list[int]] = {}
    for column, codes in enumerate(label_set.classes.values()):
        for code in codes:
            columns.setdefault(code, []).append(column)
    matrix = np.zeros((len(labels), len(label_set.classes)), dtype=np.bool_)
    for row, codes_of_record in enumerate(labels):
        for code in codes_of_record:
            matrix[row, columns.get(code, [])] = True
    keep = np.any(matrix, axis=1)
    return matrix, keep
