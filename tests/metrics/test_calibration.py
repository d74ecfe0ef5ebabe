"""calibration.py against scikit-learn's Platt scaling, and against cases worked by hand."""

import json
import math

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import f1_score, precision_recall_fscore_support

from mets_ray.errors import MetsError
from mets_ray.metrics.calibration import Calibration, fit_calibration, reliability, score_decisions

PROMPTS = {"prompt_set": "default", "prompt_set_version": 3, "prompt_set_sha256": "ab" * 32}


class Similarity(ClassifierMixin, BaseEstimator):
    """A fitted classifier whose decision function is its only feature."""

    def fit(self, features, truth):
        self.classes_ = np.array([False, True])
        return self

    def decision_function(self, features):
        return features[:, 0]

    def predict(self, features):
        return features[:, 0] > 0.0


def drawn(records=400, classes=3, seed=0):
    """Cosines as a model has them: all near 0.2, a few hundredths apart."""
    generator = np.random.default_rng(seed)
    truth = generator.random((records, classes)) < [0.5, 0.2, 0.03][:classes]
    similarity = 0.2 + 0.02 * (truth + generator.normal(size=truth.shape))
    return similarity.astype(np.float32), truth


def fitted(similarity, truth):
    return fit_calibration(similarity, truth, [f"class {n}" for n in range(truth.shape[1])], **PROMPTS)


def test_probabilities_are_platts_as_in_scikit_learn():
    similarity, truth = drawn()
    probabilities = fitted(similarity, truth).probabilities(similarity)
    for column in range(3):
        features = similarity[:, [column]].astype(np.float64) * 100  # its solver stops early on narrow features
        reference = CalibratedClassifierCV(FrozenEstimator(Similarity().fit(None, None)), method="sigmoid")
        expected = reference.fit(features, truth[:, column]).predict_proba(features)[:, 1]
        np.testing.assert_allclose(probabilities[:, column], expected, atol=1e-4)


def test_a_class_that_the_cosine_separates_has_a_finite_slope():
    # Platt's softened labels: 3/4 for 2 positives and 1/4 for 2 negatives; two cosines meet both exactly.
    found = fitted(np.array([[0.1], [0.1], [0.3], [0.3]]), np.array([[False], [False], [True], [True]]))
    probabilities = found.probabilities(np.array([[0.1], [0.2], [0.3]]))[:, 0]
    assert probabilities == pytest.approx([0.25, 0.5, 0.75], abs=1e-5)
    assert found.classes[0].slope == pytest.approx(2 * math.log(3) / 0.2, rel=1e-4)
    assert (found.probabilities(np.array([[1e6], [-1e6]]))[:, 0] == [1.0, 0.0]).all()


def test_the_threshold_has_the_highest_f1_and_of_equal_ones_the_lowest_is_taken():
    similarity, truth = drawn()
    for column, row in enumerate(fitted(similarity, truth).classes):
        cosine = similarity[:, column].astype(np.float64)
        f1 = {t: f1_score(truth[:, column], cosine >= t) for t in np.unique(cosine)}
        assert row.validation_f1 == pytest.approx(max(f1.values()))
        assert f1[row.threshold] == pytest.approx(max(f1.values()))
    # From 0.4 up 1 of 1 is right and 1 of 2 found: 2/3. From 0.1 up 2 of 4 are right and both found: 2/3.
    tied = fitted(np.array([[0.4], [0.3], [0.2], [0.1]]), np.array([[True], [False], [False], [True]])).classes[0]
    assert (tied.threshold, tied.validation_f1) == (0.1, pytest.approx(2 / 3))


def test_a_class_without_positives_or_negatives_is_nan_and_never_decided():
    similarity, truth = drawn()
    truth[:, 0], truth[:, 2] = False, True
    found = fitted(similarity, truth)
    assert [row.fitted for row in found.classes] == [False, True, False]
    assert np.isnan(found.probabilities(similarity)[:, [0, 2]]).all()
    assert not found.decisions(similarity)[:, [0, 2]].any()
    scores = score_decisions(found, similarity, truth)
    assert all(math.isnan(number) for number in (scores[0].f1, scores[2].precision, scores[2].recall))


def test_a_class_of_one_cosine_gets_its_base_rate():
    found = fitted(np.full((100, 1), 0.2), np.arange(100)[:, None] < 30)
    softened = (30 * 31 / 32 + 70 * 1 / 72) / 100
    assert found.probabilities(np.array([[0.2]]))[0, 0] == pytest.approx(softened, abs=1e-6)
    assert found.classes[0].slope == 0.0


def test_decisions_are_scored_as_scikit_learn_does():
    validation, test = drawn(seed=1), drawn(seed=2)
    found = fitted(*validation)
    for column, score in enumerate(score_decisions(found, *test)):
        present, decided = test[1][:, column], test[0][:, column] >= found.classes[column].threshold
        expected = precision_recall_fscore_support(present, decided, average="binary")[:3]
        assert (score.precision, score.recall, score.f1) == pytest.approx(expected)
        assert (score.positives, score.decided, score.records) == (present.sum(), decided.sum(), 400)


def test_decisions_without_any_reported_or_any_present():
    found = fitted(np.array([[0.1], [0.3]]), np.array([[False], [True]]))
    assert found.classes[0].threshold == 0.3
    (nothing,) = score_decisions(found, np.array([[0.1], [0.2]]), np.array([[True], [False]]))
    assert (nothing.precision, nothing.recall, nothing.f1) == (0.0, 0.0, 0.0)
    (absent,) = score_decisions(found, np.array([[0.1], [0.4]]), np.array([[False], [False]]))
    assert absent.precision == 0.0
    assert math.isnan(absent.recall)
    assert math.isnan(absent.f1)


def test_reliability_by_hand():
    # Bins of 0.5: {0.1, 0.3} and {0.5, 0.9, 1.0}; the unfitted column is left out.
    probabilities = np.array([[0.1, np.nan], [0.3, np.nan], [0.5, np.nan], [0.9, np.nan], [1.0, np.nan]])
    truth = np.array([[False, True], [True, True], [False, True], [True, True], [True, True]])
    found = reliability(probabilities, truth, bins=2)
    assert found.edges.tolist() == [0.0, 0.5, 1.0]
    assert found.count.tolist() == [2, 3]
    np.testing.assert_allclose(found.mean_predicted, [0.2, 0.8])
    np.testing.assert_allclose(found.observed_share, [1 / 2, 2 / 3])
    assert found.expected_calibration_error == pytest.approx((2 * 0.3 + 3 * (0.8 - 2 / 3)) / 5)


def test_reliability_of_empty_bins_and_of_nothing():
    found = reliability(np.array([[0.05], [0.95]]), np.array([[False], [True]]))
    assert found.count.tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    assert np.isnan(found.mean_predicted[1:9]).all()
    assert found.expected_calibration_error == pytest.approx(0.05)
    nothing = reliability(np.full((3, 1), np.nan), np.ones((3, 1), bool))
    assert nothing.count.sum() == 0
    assert math.isnan(nothing.expected_calibration_error)


def test_calibrated_on_one_half_probabilities_hold_on_the_other():
    similarity, truth = drawn(records=8000)
    found = fitted(similarity[:4000], truth[:4000])
    assert reliability(found.probabilities(similarity[4000:]), truth[4000:]).expected_calibration_error < 0.02


def test_json_gives_the_same_calibration_back():
    similarity, truth = drawn()
    truth[:, 0] = False
    found = fitted(similarity, truth)
    state = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert state["prompt_set"] == {"name": "default", "version": 3, "sha256": "ab" * 32}
    assert state["classes"]["class 0"]["threshold"] is None
    read = Calibration.from_json(state)
    assert repr(read) == repr(found)  # nan differs from itself, and its name does not
    np.testing.assert_array_equal(read.decisions(similarity), found.decisions(similarity))
    for broken in ({}, state | {"classes": []}, state | {"classes": {"A": {}}}):
        with pytest.raises(MetsError, match="no calibration"):
            Calibration.from_json(broken)


def test_faults_are_named():
    similarity, truth = drawn()
    with pytest.raises(MetsError, match="of 2 classes"):
        fit_calibration(similarity, truth, ["A", "B"], **PROMPTS)
    with pytest.raises(MetsError, match="do not fit"):
        fitted(similarity[:0], truth[:0])
    found = fitted(similarity, truth)
    with pytest.raises(MetsError, match="has 3 classes and was given 2"):
        found.probabilities(similarity[:, :2])
    similarity[0, 0] = np.nan
    for use in (lambda: fitted(similarity, truth), lambda: found.decisions(similarity)):
        with pytest.raises(MetsError, match="1 of 1200 values"):
            use()
    with pytest.raises(MetsError, match="not in"):
        reliability(np.array([[1.5]]), np.array([[True]]))
