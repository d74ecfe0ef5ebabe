"""calibration.py against scikit-learn's Platt scaling, and against cases worked by hand."""

import json
import math

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import brier_score_loss, f1_score, precision_recall_fscore_support

from mets_ray.errors import MetsError
from mets_ray.metrics.calibration import Calibration, PromptVersion, fit_calibration, score_decisions
from mets_ray.metrics.platt import fit_platt
from mets_ray.metrics.reliability import calibration_errors, reliability
from mets_ray.metrics.similarities import TaskSimilarities
from mets_ray.metrics.thresholds import ThresholdRule, choose_threshold

PROMPTS = PromptVersion("default", 3, "ab" * 32)


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


def fitted(similarity, truth, patients=None, rule=None):
    patients = np.arange(len(truth)) if patients is None else patients
    names = tuple(f"class {n}" for n in range(truth.shape[1]))
    records = tuple(map(str, range(len(truth))))
    of = TaskSimilarities("task", names, records, patients, similarity.astype(np.float64), truth)
    return fit_calibration(of, PROMPTS, rule)


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
        assert row.point.f1 == pytest.approx(max(f1.values()))
        assert f1[row.threshold] == pytest.approx(max(f1.values()))
    # From 0.4 up 1 of 1 is right and 1 of 2 found: 2/3. From 0.1 up 2 of 4 are right and both found: 2/3.
    tied = fitted(np.array([[0.4], [0.3], [0.2], [0.1]]), np.array([[True], [False], [False], [True]])).classes[0]
    assert (tied.threshold, tied.point.f1) == (0.1, pytest.approx(2 / 3))


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
    assert state["classes"]["class 0"]["point"] is None
    read = Calibration.from_json(state)
    assert read == found
    np.testing.assert_array_equal(read.decisions(similarity), found.decisions(similarity))
    short = {
        "class 1": state["classes"]["class 1"] | {"fit": state["classes"]["class 1"]["fit"] | {"by_record": [1.0]}}
    }
    for broken in ({}, state | {"classes": []}, state | {"classes": {"A": {}}}, state | {"classes": short}):
        with pytest.raises(MetsError, match="not a calibration"):
            Calibration.from_json(broken)


def slow_threshold(rule, cosine, present):
    """Every threshold that there is, one after the other."""
    found = []
    for threshold in [*sorted(set(cosine.tolist())), math.inf]:
        decided = cosine >= threshold
        sensitivity = (decided & present).sum() / present.sum()
        specificity = (~decided & ~present).sum() / (~present).sum()
        f1 = 2 * (decided & present).sum() / (decided.sum() + present.sum())
        found.append((threshold, f1, sensitivity, specificity))
    if rule.kind == "best_f1":
        return max(found, key=lambda row: (round(row[1], 12), -row[0]))
    if rule.kind == "sensitivity":
        return [row for row in found if row[2] >= rule.share][-1]
    return next(row for row in found if row[3] >= rule.share)


@pytest.mark.parametrize(
    "rule",
    [ThresholdRule(), *(ThresholdRule(k, s) for k in ("sensitivity", "specificity") for s in (0.25, 0.5, 0.9, 1.0))],
    ids=str,
)
def test_a_threshold_is_what_a_slow_search_finds(rule):
    generator = np.random.default_rng(5)
    for records in (4, 10, 33):
        for _ in range(3):
            cosine = generator.integers(12, size=records) / 10  # with ties
            present = generator.random(records) < 0.4
            present[:2] = [True, False]
            threshold, *scores = slow_threshold(rule, cosine, present)
            found = choose_threshold(rule, cosine, present)
            assert (found.f1, found.sensitivity, found.specificity) == pytest.approx(tuple(scores))
            assert found.threshold == pytest.approx(min(threshold, cosine.max()))
            assert ((cosine >= found.threshold) == (cosine >= threshold)).all()
    with pytest.raises(MetsError, match="needs records"):
        choose_threshold(rule, cosine, np.zeros_like(present))


def test_the_rule_is_kept_with_the_thresholds():
    rule = ThresholdRule("sensitivity", 0.95)
    found = fitted(*drawn(), rule=rule)
    assert all(row.point.sensitivity >= 0.95 for row in found.classes)
    assert Calibration.from_json(json.loads(json.dumps(found.to_json()))).rule == rule
    assert str(rule) == "sensitivity:0.95"


def of_patients(generator, patients, odds, alike=0.7):
    """(cosine, present, patient): a logistic model whose cosines and labels are alike within a patient."""
    of = np.repeat(np.arange(patients), generator.choice([1, 1, 2, 3], patients))
    own = generator.normal(size=patients)[of], generator.normal(size=len(of))
    standard = np.sqrt(alike) * own[0] + np.sqrt(1 - alike) * own[1]
    luck = np.where(generator.random(patients)[of] < alike, generator.random(patients)[of], generator.random(len(of)))
    return 0.2 + 0.02 * standard, luck < 1 / (1 + np.exp(-(odds + 1.5 * standard))), of


@pytest.mark.parametrize(("patients", "odds"), [(200, -3.5), (400, -1.0)], ids=["few positives", "many"])
def test_intervals_hold_the_true_probability_about_as_often_as_they_say(patients, odds):
    generator = np.random.default_rng(6)
    places = np.array([-1.0, 0.0, 1.5])
    truth = 1 / (1 + np.exp(-(odds + 1.5 * places)))
    held, width = [], []
    for _ in range(80):
        cosine, present, of = of_patients(generator, patients, odds)
        low, high = fit_platt(cosine, present, of).interval(0.2 + 0.02 * places)
        held.append((low <= truth) & (truth <= high))
        width.append(high - low)
    # 95 % of 240, which are not independent: three standard errors of 80 are 7 points.
    assert 0.88 < np.mean(held) < 0.995
    assert (np.mean(width, axis=0) < 0.6).all()  # and not because they hold everything


def test_intervals_are_wider_with_fewer_positives_and_with_fewer_patients():
    generator = np.random.default_rng(7)
    cosine, present, of = of_patients(generator, 400, -1.0)

    def width(rows, patients):
        low, high = fit_platt(cosine[rows], present[rows], patients[rows]).interval(np.array([0.21]))
        return (high - low).item()

    positives = np.flatnonzero(present)
    few = np.sort(np.concatenate([np.flatnonzero(~present), positives[:12]]))
    everything = np.arange(len(of))
    # The intercept moves with fewer positives, and with it the width at one place: compare the log odds' errors.
    wide, narrow = (fit_platt(cosine[rows], present[rows], of[rows]) for rows in (few, everything))
    assert wide.quantile > narrow.quantile > 1.96
    assert wide.by_patient[2] > narrow.by_patient[2]
    twice = np.tile(everything, 2)
    assert width(twice, of) == pytest.approx(width(everything, of), rel=0.02)  # the same patients again tell nothing
    low, high = narrow.interval(cosine)
    assert ((low < narrow.probability(cosine)) & (narrow.probability(cosine) < high)).all()


def test_calibrated_probabilities_of_unseen_patients_are_better_than_scores():
    generator = np.random.default_rng(8)
    seen, unseen = of_patients(generator, 600, -2.0), of_patients(generator, 600, -2.0)
    fit = fit_platt(*seen)
    before = 1 / (1 + np.exp(-(10 * unseen[0] - 5)))  # a model's own scale and bias
    after, present = fit.probability(unseen[0]), unseen[1]
    errors = [calibration_errors(values[:, None], present[:, None]) for values in (before, after)]
    assert errors[1].expected_calibration_error < 0.04 < errors[0].expected_calibration_error
    assert errors[1].brier < errors[0].brier
    assert errors[1].brier == pytest.approx(brier_score_loss(present, after))


def test_what_must_not_be_used_as_calibrated_says_why():
    generator = np.random.default_rng(9)
    cosine, present, of = of_patients(generator, 200, -1.0)
    positives = np.flatnonzero(present)
    nine = np.isin(of, np.unique(of[positives])[:9]) & present
    truth = np.stack([present, nine, ~nine, np.zeros_like(present), ~present], axis=1)
    found = fitted(np.repeat(cosine[:, None], 5, axis=1), truth, of).classes
    assert [row.fault and row.fault[0] for row in found] == [None, *["few_patients"] * 3, "turned"]
    assert "validation had 9 patients with this class, and 10 are needed" in found[1].fault[1]
    assert "without" in found[2].fault[1]


def test_faults_are_named():
    similarity, truth = drawn()
    with pytest.raises(MetsError, match="no validation record"):
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
