"""What an evaluation found, as values: baselines, wordings, retrieval, all of it together."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mets_ray.metrics.balanced import BalancedScore
from mets_ray.metrics.calibration import Calibrated
from mets_ray.metrics.intervals import Interval
from mets_ray.metrics.sensitivity import WordingSensitivity
from mets_ray.metrics.task_scores import Comparison, TaskScore


@dataclass(frozen=True)
class BaselineScore:
    """One baseline's macro AUROC of a task; `note` says what it learnt from, `label_share` of how many labels."""

    baseline: str
    task: str
    macro: Interval
    note: str
    label_share: float | None = None

    @property
    def name(self) -> str:
        return self.baseline if self.label_share is None else f"{self.baseline}, {100 * self.label_share:g}% of labels"


@dataclass(frozen=True)
class ClassWordings:
    """One class's prompts, of the chosen prompt set and of those in the bundle, and how each scores alone."""

    prompts: tuple[str, ...]
    sensitivity: WordingSensitivity


@dataclass(frozen=True)
class Retrieval:
    """Recall at k of a record's own report among `texts` distinct ones, and of a report's records among `records`.

    A guess finds the report in k of `texts` cases, and one of its records in `chance_text_to_ecg`.
    """

    ecg_to_text: dict[int, float]
    text_to_ecg: dict[int, float]
    chance_text_to_ecg: dict[int, float]
    records: int
    texts: int


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation leaves behind. `macro_auroc` is the mean of the tasks' macro AUROCs.

    `alarms` are notices without which the scores would deceive. `calibrated` and `wordings` are by task, the wordings
    of a class below its name.
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
    wordings: Mapping[str, Mapping[str, ClassWordings]] = field(default_factory=dict)
    retrieval: Retrieval | None = None
