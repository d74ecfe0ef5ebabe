"""Fits a calibration of each task on the validation records, and writes them to a file beside the bundle."""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from mets_ray import bundles, storage
from mets_ray.config.settings import Config, parse_threshold
from mets_ray.console import say
from mets_ray.dataset.folds import listed
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.errors import CheckpointError, MetsError
from mets_ray.evaluation.inputs import EvaluationInputs, similarities_by_task
from mets_ray.metrics.calibration import (
    Calibrated,
    Calibration,
    PromptVersion,
    fit_calibration,
    score_calibration,
)
from mets_ray.metrics.cross_fitting import CrossFitted
from mets_ray.metrics.thresholds import ThresholdRule
from mets_ray.model.bundle import Bundle, signing_key
from mets_ray.model.calibrations import FOLDER_NAME, CalibrationFile, TaskCalibration, wordings_sha256
from mets_ray.pipelines.embed import EmbeddedRecords
from mets_ray.tasks.prompt_sets import PromptSet

_READ_ONLY_STORES = {"hf", "http", "https"}  # an upload to a hub is a publication, which nobody asked for here


def fit_calibrations(inputs: EvaluationInputs) -> dict[str, Calibrated]:
    """The calibration of each task that has validation records, scored on the test records.

    Raises MetsError where `inputs.not_calibrated` says why there is none, and as `check_single_windows`.
    """
    if inputs.not_calibrated:
        raise MetsError(inputs.not_calibrated)
    records = inputs.embedded.bundle["folds.validation"]
    check_single_windows(records)
    on_validation = similarities_by_task(inputs.predictor, inputs.questions, records)
    prompt_set = inputs.questions.prompts
    prompts = PromptVersion(prompt_set.name, prompt_set.version, prompt_set.sha256)
    rule = ThresholdRule(*parse_threshold(inputs.config.evaluate.threshold))
    return {
        task: score_calibration(
            fit_calibration(on_validation[task], prompts, rule), of, inputs.predictor.independent_scores(of.similarity)
        )
        for task, of in inputs.scores.items()
        if task in on_validation
    }


def check_single_windows(records: EmbeddedRecords) -> None:
    """Raise MetsError where an embedding is the mean of several windows: served is what one window is like."""
    if records.rows != len(records.record_ids):
        raise MetsError("calibrations are for ECGs of one window, and these records are windows of recordings")


def write_calibrations(
    inputs: EvaluationInputs, calibrated: Mapping[str, Calibrated], result_uri: str
) -> tuple[str, tuple[str, ...]]:
    """Write the file that serving, scoring and Python read. Returns (its URI, notices); ("", ()) where nothing is
    calibrated.

    It goes to `evaluate.calibration_uri`, else to the bundle's folder, else to the result's. Other tasks of a file that
    is already there stay in it. Raises DatasetError if not even the result's folder can be written to.
    """
    if not calibrated:
        return "", ()
    tasks = {
        task: task_calibration(
            inputs.config,
            inputs.dataset,
            inputs.questions.classes(task),
            found.calibration,
            len(inputs.embedded.bundle["folds.validation"].record_ids),
        )
        for task, found in calibrated.items()
    }
    file = calibration_file(inputs.predictor.bundle, inputs.questions.prompts, tasks)
    asked = inputs.config.evaluate.calibration_uri
    notices: tuple[str, ...] = ()
    try:
        if asked is None:
            require_writable(inputs.bundle_uri)
        uri = write_file(file, asked, inputs.bundle_uri)
    except MetsError as error:
        folder = storage.join(result_uri, FOLDER_NAME)
        uri = _write(file, folder)
        notices = (
            f"The calibration is in {folder} and not beside the bundle: {error.fact}. Name it as calibration_uri.",
        )
    say(f"calibration: {uri}")
    return uri, notices


def task_calibration(
    config: Config,
    dataset: PreparedDataset,
    wordings: Mapping[str, tuple[str, ...]],
    fitted: Calibration,
    records_in_folds: int,
    cross_fitted: CrossFitted | None = None,
) -> TaskCalibration:
    """One task of a calibration file: what was fitted on `folds.validation` of the data set, and for which words."""
    card, validation = dataset.card, config.folds.validation
    return TaskCalibration(
        fitted,
        {name: wordings_sha256(texts) for name, texts in wordings.items()},
        card.source,
        card.content_sha256,
        card.synthetic,
        f"{listed(config.folds.train)} ({validation})" if isinstance(validation, str) else listed(validation),
        records_in_folds,
        cross_fitted,
    )


def calibration_file(bundle: Bundle, prompts: PromptSet, tasks: Mapping[str, TaskCalibration]) -> CalibrationFile:
    """The file of a bundle's tasks."""
    version = PromptVersion(prompts.name, prompts.version, prompts.sha256)
    return CalibrationFile(bundle.facts.run, bundle.digest, version, tasks)


def write_file(file: CalibrationFile, asked_uri: str | None, bundle_uri: str) -> str:
    """Write it to the folder that the user asked for, else to the bundle's. Returns its URI.

    Raises MetsError if the folder cannot be written to, or what was asked for has the calibration of another bundle.
    """
    if asked_uri is None:
        return _write(file, storage.join(bundle_uri, FOLDER_NAME))
    return _write(file, storage.absolute(asked_uri), keeps_others=True)


def _write(file: CalibrationFile, folder: str, *, keeps_others: bool = False) -> str:
    """Write the file into `folder`, with the other tasks of the one before.

    Raises MetsError if the folder cannot be written to, and if it has one of another bundle and `keeps_others`. In a
    bundle's own folder that is left over from a bundle before it.
    """
    uri, key, tasks = storage.join(folder, file.name), signing_key(), file.tasks
    if storage.exists(uri):
        try:
            before = CalibrationFile.from_bytes(storage.read_bytes(uri), uri, key)
        except CheckpointError as error:  # damaged: written anew
            say(error.fact)
        else:
            is_of_bundle = before.bundle_digest == file.bundle_digest
            if keeps_others and not is_of_bundle:
                raise MetsError(f"`{uri}` is the calibration of another bundle, `{before.run}`")
            if is_of_bundle and before.prompts == file.prompts:
                tasks = {**before.tasks, **tasks}
    whole = CalibrationFile(file.run, file.bundle_digest, file.prompts, tasks)
    storage.write_bytes(uri, whole.to_bytes(key))
    return uri


def require_writable(bundle_uri: str) -> None:
    """Raise MetsError where a file beside the bundle would not be the user's: in the package, or on a hub."""
    if urlsplit(bundle_uri).scheme in _READ_ONLY_STORES:
        raise MetsError(f"`{bundle_uri}` is read only")
    is_path = storage.is_local(bundle_uri)
    parents = Path(storage.absolute(bundle_uri)).resolve().parents if is_path else ()
    if bundles.is_packaged(bundle_uri) or bundles.PACKAGED_FOLDER.resolve() in parents:
        raise MetsError("the bundle is part of the package")
    if not storage.exists(storage.join(bundle_uri, bundles.MANIFEST_NAME)):
        raise MetsError(f"`{bundle_uri}` is no folder that can be written to")
