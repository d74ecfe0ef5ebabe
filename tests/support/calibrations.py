"""A calibration file beside a bundle, fitted on made-up cosines around those of a real ECG."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from mets_ray import storage
from mets_ray.metrics.calibration import PromptVersion, fit_calibration
from mets_ray.metrics.similarities import TaskSimilarities
from mets_ray.model.bundle import load_bundle
from mets_ray.model.calibrations import CalibrationFile, TaskCalibration, wordings_sha256
from mets_ray.model.predictor import Predictor
from tests.support.serving import synthetic_ecg

RARE = "STE_ANT"


def made_up_file(bundle_uri, prompts="descriptive", *, ecg=None):
    """The calibration of task `synthetic`: each cosine of the ECG is the middle of its class; `RARE` has too few."""
    bundle = load_bundle(str(bundle_uri))
    prompt_set = bundle.facts.prompt_sets[prompts]
    classes = prompt_set.tasks["synthetic"]
    rows = Predictor(bundle, encoder_runtime="torch").zero_shot(
        ecg or synthetic_ecg(), prompt_set=prompts, task="synthetic"
    )
    middle = {row.class_name: row.similarity for row in rows}
    generator = np.random.default_rng(11)
    truth = generator.random((300, len(classes))) < 0.3
    truth[:, list(classes).index(RARE)] = np.arange(300) < 4
    spread = truth - 0.5 + generator.normal(size=truth.shape)
    similarity = np.array([middle[name] for name in classes]) + 0.02 * spread
    of = TaskSimilarities(
        "synthetic", tuple(classes), tuple(map(str, range(300))), np.arange(300) // 2, similarity, truth
    )
    calibration = fit_calibration(of, PromptVersion(prompt_set.name, prompt_set.version, prompt_set.sha256))
    wordings = {name: wordings_sha256(texts) for name, texts in classes.items()}
    task = TaskCalibration(calibration, wordings, "synthetic", "d", synthetic=True, folds="9", records_in_folds=310)
    return CalibrationFile(bundle.facts.run, bundle.digest, calibration.prompts, {"synthetic": task})


def write_file(bundle_uri, file, key=""):
    """Where the calibration lies now: in the bundle's folder."""
    path = Path(bundle_uri) / "calibration" / file.name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(file.to_bytes(key))
    return path


def damage(path):
    """One digit of a threshold is another."""
    facts = json.loads(path.read_bytes())
    point = facts["tasks"]["synthetic"]["calibration"]["classes"]["AFIB"]["point"]
    point["threshold"] += 0.01
    path.write_bytes(json.dumps(facts).encode())


def other_version(file):
    """The same for a version that the bundle does not hold."""
    return replace(file, prompts=replace(file.prompts, version=file.prompts.version + 1))


def resealed(path, change):
    """The file with its facts changed by `change(facts)`, and a digest that fits."""
    facts = storage.unseal(path.read_bytes()).facts
    change(facts)
    path.write_bytes(storage.seal(json.dumps(facts)))
