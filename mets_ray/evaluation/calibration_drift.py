"""Checks the calibration that is served with a bundle against the labels of this evaluation's test records."""

from collections.abc import Mapping
from dataclasses import replace

from mets_ray.config.settings import HASH_PREFIX
from mets_ray.dataset.folds import Selection, listed, selections
from mets_ray.evaluation.inputs import EvaluationInputs
from mets_ray.metrics.calibration import Calibrated, Calibration, ClassCalibration
from mets_ray.metrics.calibration_drift import CalibrationDrift, check_calibrations
from mets_ray.metrics.similarities import TaskSimilarities
from mets_ray.model.calibrations import TaskCalibration, wordings_sha256
from mets_ray.tasks.questions import labelled_sources

_OTHER_WORDS = ClassCalibration("", None, None, 0, 0, 0)


def find_calibration_drift(
    inputs: EvaluationInputs, fitted: Mapping[str, Calibrated]
) -> tuple[tuple[CalibrationDrift, ...], tuple[str, ...]]:
    """The drift of each task's calibration, and notices.

    It is that of the bundle's folder as it was before this evaluation, which is what is served; without one, it is the
    one of `fitted`, of this evaluation's validation records. Tasks without either are left out.
    """
    if inputs.records.rows != len(inputs.records.record_ids):
        return (), ()  # nothing that is served: windows and their means have no probability
    checked: dict[str, tuple[Calibration, TaskSimilarities, str]] = {}
    notices = []
    prompts = inputs.questions.prompts
    for task, of in inputs.scores.items():
        served, _ = inputs.predictor.bundle.calibrations.find(f"{prompts.name}:{task}", prompts.version)
        if served is not None and _is_of_the_test(inputs, served):
            notices.append(
                f"The calibration of {task} beside the bundle was fitted on these test records: not checked."
            )
        elif served is not None:
            about = f"the one beside the bundle, fitted on folds {served.folds} of {served.source}"
            checked[task] = _for_these_words(inputs, task, served), of, about
        elif task in fitted:
            checked[task] = fitted[task].calibration, of, "the one fitted here, on this data set's validation records"
    return check_calibrations(checked), tuple(notices)


def _is_of_the_test(inputs: EvaluationInputs, served: TaskCalibration) -> bool:
    card = inputs.dataset.card
    is_public = served.source == card.source and card.source in labelled_sources()  # its folds are always the same
    if served.dataset_sha256 != card.content_sha256 and not is_public:
        return False
    return bool(inputs.dataset.patients_of(_fitted_on(inputs, served)) & inputs.dataset.patients_of(inputs.test))


def _fitted_on(inputs: EvaluationInputs, served: TaskCalibration) -> Selection:
    """The records that `task_calibration` names: `9`, or `1, 2 (hash:0.1)`."""
    folds, _, share = served.folds.removesuffix(")").rpartition("(")
    if not folds and share.startswith(HASH_PREFIX):  # written before the folds stood beside it
        folds = listed(inputs.config.folds.train)
    numbers = tuple(int(part) for part in (folds or share).split(",") if part.strip().isdecimal())
    validation = share if share.startswith(HASH_PREFIX) else numbers
    _, fitted_on, _ = selections(numbers, validation, ())
    return fitted_on


def _for_these_words(inputs: EvaluationInputs, task: str, served: TaskCalibration) -> Calibration:
    """The calibration with the classes of the task, in their order; one for other words counts as not fitted."""
    known = {row.name: row for row in served.calibration.classes}
    classes = tuple(
        known[name]
        if name in known and served.wordings_sha256.get(name) == wordings_sha256(wordings)
        else replace(_OTHER_WORDS, name=name)
        for name, wordings in inputs.questions.classes(task).items()
    )
    return replace(served.calibration, classes=classes)
