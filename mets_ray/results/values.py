"""Evaluation results as values: baselines, wordings, retrieval, and the complete result."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from mets_ray.metrics.balanced import BalancedScore
from mets_ray.metrics.calibration import Calibrated
from mets_ray.metrics.calibration_drift import CalibrationDrift
from mets_ray.metrics.intervals import Interval
from mets_ray.metrics.label_curve import CurvePoint
from mets_ray.metrics.lead_set_scores import LeadSetScore
from mets_ray.metrics.sensitivity import WordingSensitivity
from mets_ray.metrics.similarities import TaskSimilarities
from mets_ray.metrics.subgroups import Subgroups
from mets_ray.metrics.task_scores import Comparison, TaskScore

HEAD = "head "
"""What the name of a bundle's head begins with in the tables."""


@dataclass(frozen=True)
class BaselineScore:
    """One baseline's macro AUROC on a task; `note` says what it was trained on, `label_share` is the label share.
    `scores`: of each record, where the baseline has a model of its own; `ecgs`: those whose labels it learnt from."""

    baseline: str
    task: str
    macro: Interval
    note: str
    label_share: float | None = None
    scores: TaskSimilarities | None = field(default=None, repr=False, compare=False)
    ecgs: int = 0

    @property
    def name(self) -> str:
        return self.baseline if self.label_share is None else f"{self.baseline}, {100 * self.label_share:g}% of labels"

    @property
    def folder(self) -> str:
        """Where its scores are kept below those of the bundle: `linear_probe_100_of_labels`, `head_af-1`."""
        if self.baseline.startswith(HEAD):  # `af-1` and `af_1` are two heads
            return f"head_{self.baseline.removeprefix(HEAD)}"
        return re.sub("[^a-z0-9]+", "_", self.name.lower())


@dataclass(frozen=True)
class ClassWordings:
    """The prompts of one class, from the chosen prompt set and from the bundle, and the score of each alone."""

    prompts: tuple[str, ...]
    sensitivity: WordingSensitivity


@dataclass(frozen=True)
class Retrieval:
    """Recall at k of a record's own report among `texts` distinct ones, and of a report's records among `records`.

    Chance level: k / `texts`, at most 1, for ECG to report, `chance_text_to_ecg` for report to ECG.
    """

    ecg_to_text: dict[int, float]
    text_to_ecg: dict[int, float]
    chance_text_to_ecg: dict[int, float]
    records: int
    texts: int


@dataclass(frozen=True)
class Evaluated:
    """The complete result of an evaluation. `macro_auroc` is the mean of the tasks' macro AUROCs.

    `alarms` are notices without which the scores would be misleading. `calibrated` is by task, `wordings` by task and
    class. `calibration_uri`: the file for serving; "" if nothing is calibrated. `calibration_drift`: of what served.
    `reference_uri`: the reference of the inputs that was written; "" where there was none to write.
    """

    result_uri: str
    macro_auroc: float
    over: str
    tasks: tuple[TaskScore, ...]
    balanced: tuple[BalancedScore, ...]
    notices: tuple[str, ...]
    pictures: tuple[str, ...]
    alarms: tuple[str, ...] = ()
    baselines: tuple[BaselineScore, ...] = ()
    compared_to: str = ""
    comparisons: tuple[Comparison, ...] = ()
    calibrated: Mapping[str, Calibrated] = field(default_factory=dict)
    calibration_uri: str = ""
    wordings: Mapping[str, Mapping[str, ClassWordings]] = field(default_factory=dict)
    retrieval: Retrieval | None = None
    lead_sets: tuple[LeadSetScore, ...] = ()
    subgroups: Subgroups = field(default_factory=lambda: Subgroups((), {}, {}))
    calibration_drift: tuple[CalibrationDrift, ...] = ()
    reference_uri: str = ""
    label_curve: tuple[CurvePoint, ...] = ()
