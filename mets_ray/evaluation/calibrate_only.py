"""`mets-ray calibrate`: a calibration and a reference of inputs beside a bundle, where no records are left to test it.

`evaluate` does the same on the way to its report. A bundle for use may have been trained on all there is but the
patients of `folds.validation`; these calibrate it, and how well is measured among them by cross-fitting.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mets_ray.config.settings import Config, parse_threshold
from mets_ray.console import say
from mets_ray.dataset.folds import Selection
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.errors import ConfigError, MetsError
from mets_ray.evaluation.calibrate import (
    calibration_file,
    check_single_windows,
    require_writable,
    task_calibration,
    write_file,
)
from mets_ray.evaluation.checks import calibration_folds
from mets_ray.evaluation.inputs import similarities_by_task
from mets_ray.metrics.calibration import PromptVersion, fit_calibration
from mets_ray.metrics.cross_fitting import cross_fit
from mets_ray.metrics.thresholds import ThresholdRule
from mets_ray.model.bundle import check_signal, newest_bundle
from mets_ray.model.calibrations import TaskCalibration
from mets_ray.model.predictor import Predictor, load_predictor
from mets_ray.pipelines import input_reference
from mets_ray.pipelines.embed import EmbeddedRecords, Part, embed_parts
from mets_ray.pipelines.texts import learn_prompts
from mets_ray.tasks.questions import Questions


@dataclass(frozen=True)
class CalibratedBundle:
    """The files that were written, and the calibration of each task. `notices`: what a user of them should know."""

    calibration_uri: str
    reference_uri: str
    tasks: Mapping[str, TaskCalibration]
    notices: tuple[str, ...]


def calibrate(config: Config, dataset_uri: str, bundle_uri: str) -> CalibratedBundle:
    """Fit a calibration of each task on `folds.validation` and write it beside the bundle.

    bundle_uri: a bundle, or a folder of runs: its newest one is calibrated.
    Raises CheckpointError if bundle and data set do not match, DatasetError for patients that trained the bundle,
    ConfigError where no record has a class, MetsError where there are no validation records or nothing can be written.
    """
    dataset, bundle_uri = PreparedDataset.open(dataset_uri), newest_bundle(bundle_uri)
    predictor = load_predictor(bundle_uri, encoder_runtime=config.encoder_runtime)
    check_signal(dataset.card.signal, predictor.facts)
    if config.evaluate.calibration_uri is None:
        require_writable(bundle_uri)
    validation = calibration_folds(config, dataset, predictor.facts, Selection(()))
    questions = Questions.read(config.evaluate.prompt_set, dataset.card.source, config.evaluate.tasks)
    parts = {"folds.validation": Part(validation)} | input_reference.reference_parts(dataset, predictor.bundle)
    embedded = embed_parts(config, dataset, parts, bundle_uri).bundle
    check_single_windows(embedded["folds.validation"])
    learn_prompts(config, predictor, questions.texts(), dataset)
    tasks = _tasks(config, dataset, predictor, questions, embedded["folds.validation"])
    file = calibration_file(predictor.bundle, questions.prompts, tasks)
    calibration_uri = write_file(file, config.evaluate.calibration_uri, bundle_uri)
    say(f"calibration: {calibration_uri}")
    reference_uri, notices = _reference(config, dataset, predictor, embedded, bundle_uri)
    return CalibratedBundle(calibration_uri, reference_uri, tasks, notices)


def figures(result: CalibratedBundle) -> dict[str, Any]:
    """The machine-readable result of a job."""
    return {
        "calibration_uri": result.calibration_uri,
        "reference_uri": result.reference_uri or None,
        "tasks": {
            task: {
                "records": of.calibration.records,
                "patients": of.calibration.patients,
                "calibrated": [row.name for row in of.calibration.classes if row.fault is None],
                "not_calibrated": {row.name: row.fault[1] for row in of.calibration.classes if row.fault},
                "cross_fitted": None if of.cross_fitted is None else of.cross_fitted.to_json(),
            }
            for task, of in result.tasks.items()
        },
        "notices": list(result.notices),
    }


def _tasks(
    config: Config, dataset: PreparedDataset, predictor: Predictor, questions: Questions, records: EmbeddedRecords
) -> dict[str, TaskCalibration]:
    prompts = PromptVersion(questions.prompts.name, questions.prompts.version, questions.prompts.sha256)
    rule = ThresholdRule(*parse_threshold(config.evaluate.threshold))
    found = {}
    for task, of in similarities_by_task(predictor, questions, records).items():
        fitted = fit_calibration(of, prompts, rule)
        errors = cross_fit(fitted, of, predictor.independent_scores(of.similarity), seed=config.seed)
        found[task] = task_calibration(
            config, dataset, questions.classes(task), fitted, len(records.record_ids), errors
        )
        usable = sum(row.fault is None for row in fitted.classes)
        say(
            f"{task}: {usable} of {len(fitted.classes)} classes, on {fitted.records} records of {fitted.patients} "
            f"patients; expected calibration error {errors.before.expected_calibration_error:.3f} before, "
            f"{errors.after.expected_calibration_error:.3f} after (cross-fitted)"
        )
    if not found:
        raise ConfigError(
            f"no record of `folds.validation` has a class of {', '.join(questions.tasks)}",
            hint="choose other folds or evaluate.tasks",
        )
    return found


def _reference(
    config: Config,
    dataset: PreparedDataset,
    predictor: Predictor,
    embedded: Mapping[str, EmbeddedRecords],
    bundle_uri: str,
) -> tuple[str, tuple[str, ...]]:
    """Write the reference of inputs, where the bundle has none. Returns (its URI, notices)."""
    try:
        file = input_reference.make_reference(dataset, predictor.bundle, embedded, config.seed)
        if file is None:
            return "", ()
        require_writable(bundle_uri)
        uri = input_reference.write_file(file, bundle_uri)
    except MetsError as error:
        return "", (f"No reference of the bundle's inputs was written: {error.fact}.",)
    say(f"reference: {uri}")
    return uri, ()
