"""A calibration is not checked on the records that it was fitted on, however these were chosen."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from mets_ray.config.load import load_config
from mets_ray.dataset.folds import Selection, selections
from mets_ray.dataset.prepared import PreparedDataset
from mets_ray.evaluation.calibrate import task_calibration
from mets_ray.evaluation.calibration_drift import find_calibration_drift
from mets_ray.metrics.similarities import TaskSimilarities
from mets_ray.tasks.questions import Questions
from tests.support.calibrations import made_up_file
from tests.support.datasets import synthetic_rows, write_dataset
from tests.support.serving import make_bundle


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    return made_up_file(make_bundle(tmp_path_factory.mktemp("bundle"))).tasks["synthetic"].calibration


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return PreparedDataset.open(write_dataset(tmp_path_factory.mktemp("data"), synthetic_rows(60)))


@pytest.mark.parametrize(
    ("validation", "test", "is_checked"),
    [
        ("hash:0.5", (1, 2, 10), False),
        ("hash:0.5", (10,), True),
        ("hash:0.5", (3, 4), True),
        ("[9]", (9, 10), False),
        ("[9]", (1, 10), True),
    ],
)
def test_records_of_the_fit_are_not_checked(dataset, fitted, validation, test, is_checked):
    config = load_config(None, ["folds.train=[1,2]", f"folds.validation={validation}"])
    questions = Questions.read("descriptive", "synthetic")
    classes = questions.classes("synthetic")
    written = task_calibration(config, dataset, classes, fitted, 6)
    older = replace(written, folds=validation.strip("[]"))  # without the folds that `hash:` drew from
    fitted_on = selections(config.folds.train, config.folds.validation, ())[1]
    assert bool(dataset.patients_of(fitted_on) & dataset.patients_of(Selection(test))) != is_checked
    truth = np.random.default_rng(0).random((40, len(classes))) < 0.5
    of = TaskSimilarities("synthetic", tuple(classes), tuple(map(str, range(40))), np.arange(40), truth - 0.5, truth)
    again = replace(written, dataset_sha256="the same source, prepared at another rate")
    for served in (written, older, again):
        calibrations = SimpleNamespace(find=lambda name, version, served=served: (served, None))
        inputs = SimpleNamespace(
            config=config,
            dataset=dataset,
            test=Selection(test),
            questions=questions,
            scores={"synthetic": of},
            records=SimpleNamespace(rows=40, record_ids=of.record_ids),
            predictor=SimpleNamespace(bundle=SimpleNamespace(calibrations=calibrations)),
        )
        checks, notices = find_calibration_drift(inputs, {})
        assert [check.about for check in checks] == [
            f"the one beside the bundle, fitted on folds {served.folds} of synthetic"
        ] * is_checked
        assert ["fitted on these test records" in notice for notice in notices] == [True] * (not is_checked)


def test_it_is_written_which_folds_the_patients_were_drawn_from(dataset, fitted):
    config = load_config(None, ["folds.train=[1,2]", "folds.validation=hash:0.5"])
    classes = Questions.read("descriptive", "synthetic").classes("synthetic")
    assert task_calibration(config, dataset, classes, fitted, 6).folds == "1, 2 (hash:0.5)"
