"""Balanced draws and their scores against explicit, slow computations and scikit-learn."""

import math

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    precision_score,
    recall_score,
)

from mets_ray.errors import MetsError
from mets_ray.metrics.single_label import (
    SINGLE_LABEL_SCORES,
    balanced_draw,
    bootstrap_single_label,
    recalls,
    single_label_scores,
)


def test_a_balanced_draw_takes_single_labels_alike_and_by_seed_alone():
    generator = np.random.default_rng(10)
    labels = generator.random((400, 3)) < [0.5, 0.3, 0.1]
    found = balanced_draw(labels, ["A", "B", "C"], 200, seed=3)
    single = labels.sum(axis=1) == 1
    assert found.available == tuple((labels[:, column] & single).sum() for column in range(3))
    assert found.per_class == min(found.available) < 200
    assert len(found.rows) == len(set(found.rows.tolist())) == 3 * found.per_class
    assert single[found.rows].all()
    assert (labels[found.rows].argmax(axis=1) == found.truth).all()
    assert np.bincount(found.truth).tolist() == [found.per_class] * 3

    assert (balanced_draw(labels, ["A", "B", "C"], 200, seed=3).rows == found.rows).all()
    assert (balanced_draw(labels, ["A", "B", "C"], 200, seed=4).rows != found.rows).any()
    fewer = balanced_draw(labels[:, ::-1], ["C", "B", "A"], 5, seed=3)
    assert fewer.per_class == 5
    assert set(fewer.rows.tolist()) < set(found.rows.tolist())


def test_a_class_without_single_labels_makes_an_empty_draw():
    labels = np.array([[True, True], [True, False]])
    found = balanced_draw(labels, ["A", "B"], 200, seed=0)
    assert (found.per_class, found.available, len(found.rows)) == (0, (1, 0), 0)
    scores = bootstrap_single_label(found.truth, found.truth, 2, np.array([], dtype=str), samples=10, seed=0)
    assert all(math.isnan(number) for interval in scores.scores.values() for number in interval)


def test_balanced_draw_faults_are_named():
    labels = np.eye(2, dtype=bool)
    for classes in (["A", "A"], ["A"]):
        with pytest.raises(MetsError, match=r"`classes` is \['A'"):
            balanced_draw(labels[:, : len(classes)], classes, 1, seed=0)
    with pytest.raises(MetsError, match="2 columns for 3 `classes`"):
        balanced_draw(labels, ["A", "B", "C"], 1, seed=0)
    with pytest.raises(MetsError, match="`per_class` is 0"):
        balanced_draw(labels, ["A", "B"], 0, seed=0)


def test_single_label_scores_by_hand():
    # Two of each of three classes; class 2 is never predicted.
    truth, predicted = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 1, 1, 1, 0, 1])
    found = single_label_scores(truth, predicted, 3)
    assert found == {
        "accuracy": pytest.approx(3 / 6),
        "mean_ovr_accuracy": pytest.approx((4 / 6 + 4 / 6 + 4 / 6) / 3),
        "macro_precision": pytest.approx((1 / 2 + 2 / 4 + 0) / 3),
        "macro_recall": pytest.approx((1 / 2 + 2 / 2 + 0) / 3),
        "macro_f1": pytest.approx((1 / 2 + 2 / 3 + 0) / 3),
    }
    assert found["accuracy"] == pytest.approx(found["macro_recall"])  # as on every balanced set


def test_recalls_by_hand():
    np.testing.assert_array_equal(recalls(np.array([[1, 1, 0], [0, 2, 0], [1, 1, 0]])), [1 / 2, 1, 0])
    np.testing.assert_array_equal(recalls(np.array([[1, 0], [0, 0]])), [1, np.nan])


def test_single_label_scores_are_scikit_learns():
    generator = np.random.default_rng(11)
    truth, predicted = generator.integers(5, size=300), generator.integers(5, size=300)
    found = single_label_scores(truth, predicted, 5)
    one_vs_rest = [accuracy_score(truth == number, predicted == number) for number in range(5)]
    macro = {"average": "macro", "zero_division": 0}
    assert list(found.values()) == pytest.approx(
        [
            accuracy_score(truth, predicted),
            np.mean(one_vs_rest),
            precision_score(truth, predicted, **macro),
            recall_score(truth, predicted, **macro),
            f1_score(truth, predicted, **macro),
        ]
    )
    with pytest.raises(MetsError, match="`predicted` holds the class number 5, which is not in"):
        single_label_scores(truth, np.full(300, 5), 5)


@pytest.mark.filterwarnings("error")
def test_single_label_bootstrap_equals_drawing_rows_explicitly(monkeypatch):
    monkeypatch.setattr("mets_ray.metrics.intervals._RESAMPLES_AT_ONCE", 10)
    generator = np.random.default_rng(12)
    truth = np.repeat(np.arange(4), [20, 20, 20, 2])  # class 3 is so rare that some resamples lose it
    predicted = np.where(generator.random(62) < 0.5, truth, generator.integers(4, size=62))
    groups = np.array([f"patient-{number}" for number in generator.integers(25, size=62)])
    found = bootstrap_single_label(truth, predicted, 4, groups, samples=25, seed=7, level=0.8)

    names, generator = np.unique(groups), np.random.default_rng(7)
    lost = 0
    for resample in range(25):
        rows = np.concatenate(
            [np.flatnonzero(groups == names[drawn]) for drawn in generator.integers(len(names), size=len(names))]
        )
        lost += 3 not in truth[rows]
        expected = single_label_scores(truth[rows], predicted[rows], 4)
        assert {name: found.samples[name][resample] for name in SINGLE_LABEL_SCORES} == pytest.approx(expected)
    assert 0 < lost < 25
    values = single_label_scores(truth, predicted, 4)
    for name in SINGLE_LABEL_SCORES:
        assert found.scores[name].value == values[name]
        np.testing.assert_allclose(found.scores[name][1:], np.quantile(found.samples[name], [0.1, 0.9]), atol=1e-12)
    assert found.confusion.sum(axis=1).tolist() == [20, 20, 20, 2]
    assert found.confusion[1, 2] == ((truth == 1) & (predicted == 2)).sum()
