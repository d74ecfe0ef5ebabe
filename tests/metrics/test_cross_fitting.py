"""Cross-fitting: errors of a calibration on its own records, each patient by a fit that did not see them."""

import math

import numpy as np
import pytest

from mets_ray.metrics.calibration import PromptVersion, fit_calibration
from mets_ray.metrics.cross_fitting import CrossFitted, cross_fit
from mets_ray.metrics.similarities import TaskSimilarities


def task(truth, cosine, patients):
    names = tuple(f"class {column}" for column in range(truth.shape[1]))
    return TaskSimilarities("made up", names, tuple(map(str, range(len(truth)))), patients, cosine, truth)


def fitted(of, scores):
    calibration = fit_calibration(of, PromptVersion("words", 1, "0"))
    return cross_fit(calibration, of, scores, seed=3)


def test_the_errors_are_those_of_patients_that_the_fit_has_not_seen():
    generator = np.random.default_rng(5)
    patients = np.repeat(np.arange(200), 2)
    truth = np.repeat(generator.random((200, 1)) < 0.3, 2, axis=0)
    cosine = 0.1 + 0.02 * (truth + generator.normal(size=truth.shape))
    found = fitted(task(truth, cosine, patients), np.full(truth.shape, 0.9))
    assert found.before.expected_calibration_error == pytest.approx(0.9 - truth.mean())
    assert found.after.expected_calibration_error < 0.1
    assert found.after.brier < truth.mean() * (1 - truth.mean())
    # Cosines that tell nothing: a fit that had seen a label beside its own cosine would still look better than chance.
    by_chance = fitted(task(truth, generator.normal(size=truth.shape), patients), np.full(truth.shape, 0.9))
    assert by_chance.after.brier > truth.mean() * (1 - truth.mean())


def test_a_class_without_enough_patients_counts_in_neither_error():
    generator = np.random.default_rng(6)
    truth = generator.random((100, 2)) < 0.4
    truth[:, 1] = np.arange(100) < 4
    cosine = 0.05 * (truth + generator.normal(size=truth.shape))
    both, one = (fitted(task(truth[:, :n], cosine[:, :n], np.arange(100)), np.full((100, n), 0.5)) for n in (2, 1))
    assert both == one
    assert math.isnan(fitted(task(truth[:, 1:], cosine[:, 1:], np.arange(100)), np.full((100, 1), 0.5)).after.brier)


def test_it_comes_back_from_json_with_what_is_not_defined():
    of = fitted(task(np.ones((3, 1), bool), np.zeros((3, 1)), np.zeros(3)), np.ones((3, 1)))
    again = CrossFitted.from_json(of.to_json())
    assert of.to_json() == again.to_json()
    assert math.isnan(again.after.expected_calibration_error)
