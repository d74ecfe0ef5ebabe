"""A calibration on new labels: it holds where nothing changed, and what changed is named."""

import numpy as np
import pytest

from mets_ray.metrics.calibration import PromptVersion, fit_calibration
from mets_ray.metrics.calibration_drift import check_calibrations, drifted
from mets_ray.metrics.similarities import TaskSimilarities

PROMPTS = PromptVersion("set", 1, "s")


def drawn(seed, *, records=1500, prevalence=(0.3, 0.2), steepness=1.0):
    """Cosines and labels of two classes; steepness: how much the cosine says about the second."""
    generator = np.random.default_rng(seed)
    truth = generator.random((records, 2)) < np.asarray(prevalence)
    distance = np.asarray([1.5, 1.5 * steepness])
    similarity = 0.3 + 0.03 * (generator.normal(size=truth.shape) + distance * truth)
    patients = generator.integers(records // 2, size=records)
    return TaskSimilarities("task", ("one", "two"), tuple(map(str, range(records))), patients, similarity, truth)


def checked(calibration, of):
    return check_calibrations({"task": (calibration, of, "the one of this test")})


@pytest.fixture(scope="module")
def calibration():
    return fit_calibration(drawn(0), PROMPTS)


def test_nothing_is_found_where_nothing_changed(calibration):
    found = [len(drifted(checked(calibration, drawn(seed, records=600)))) for seed in range(1, 16)]
    assert sum(map(bool, found)) <= 2
    # Nor where the calibration itself rests on few records, and is off for that reason.
    few = [
        drifted(checked(fit_calibration(drawn(seed, records=90), PROMPTS), drawn(seed + 1))) for seed in range(50, 65)
    ]
    assert sum(map(bool, few)) <= 2


def test_a_class_that_became_rare_and_one_that_is_seen_less_well_are_named(calibration):
    ((task, row),) = drifted(checked(calibration, drawn(99, prevalence=(0.1, 0.2))))
    assert (task, row.name) == ("task", "one")
    assert row.expected > row.observed == pytest.approx(0.1, abs=0.03)
    assert row.difference.high < 0
    assert row.difference_p < 0.01
    ((_, row),) = drifted(checked(calibration, drawn(99, steepness=0.4)))
    assert row.name == "two"
    assert row.slope.high < 1
    assert row.slope_p < 0.01


def test_rare_and_uncalibrated_classes_are_not_checked(calibration):
    (of,) = checked(calibration, drawn(7, prevalence=(0.3, 0.005)))
    assert "fewer than 10 patients" in of.classes[1].reason
    unfit = fit_calibration(drawn(1, prevalence=(0.3, 0.0)), PROMPTS)
    (of,) = checked(unfit, drawn(7))
    assert of.classes[1].reason == "not calibrated for use"
    assert not of.classes[0].reason


def test_a_small_test_of_a_rare_class_that_is_told_well_is_no_drift():
    """Softened labels made the slope 0.6 where nothing had changed."""
    slopes, called = [], 0
    for seed in range(12):
        both = [
            drawn(2 * seed + part, records=records, prevalence=(0.03, 0.03), steepness=8 / 3)
            for part, records in enumerate((8000, 700))
        ]
        ((_, row),) = [(0, one) for one in checked(fit_calibration(both[0], PROMPTS), both[1])[0].classes[1:]]
        if row.slope is not None:
            slopes.append(row.slope.value)
            called += row.has_drifted
    assert len(slopes) > 6
    assert np.median(slopes) > 0.8
    assert called <= 2
