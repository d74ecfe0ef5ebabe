"""AUROC, average precision and chance against explicit, slow computations."""

import math

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    roc_auc_score,
)

from mets_ray.errors import MetsError
from mets_ray.metrics.auroc import (
    average_precision,
    bootstrap_macro_auroc,
    chance_auroc,
    macro_auroc,
)
from tests.support.scores import made_up


def test_auroc_counts_won_pairs_and_half_of_ties():
    scores, labels, _ = made_up(60, 3, 0, ties=True)
    macro, per_class = macro_auroc(scores, labels)
    for column in range(3):
        pairs = [
            1.0 if high > low else 0.5 if high == low else 0.0
            for high in scores[labels[:, column], column]
            for low in scores[~labels[:, column], column]
        ]
        assert 0.5 in pairs
        assert per_class[column] == pytest.approx(np.mean(pairs), abs=1e-12)
    assert macro == pytest.approx(per_class.mean(), abs=1e-12)


@pytest.mark.parametrize("score", [macro_auroc, average_precision])
def test_class_of_one_kind_is_nan_and_left_out(score):
    scores, labels, _ = made_up(50, 4, 1)
    labels[:, 1], labels[:, 2] = False, True
    macro, per_class = score(scores, labels)
    assert list(np.isnan(per_class)) == [False, True, True, False]
    assert macro == pytest.approx((per_class[0] + per_class[3]) / 2)
    nothing, _ = score(scores, np.zeros_like(labels))
    assert math.isnan(nothing)


def test_average_precision_is_scikit_learns():
    scores, labels, _ = made_up(80, 3, 2, ties=True)
    _, per_class = average_precision(scores, labels)
    for column in range(3):
        assert per_class[column] == average_precision_score(labels[:, column], scores[:, column])


def test_scores_that_are_not_finite_are_refused():
    scores, labels, groups = made_up(20, 2, 3)
    scores[4, 1] = np.nan
    for call in (lambda: macro_auroc(scores, labels), lambda: bootstrap_macro_auroc(scores, labels, groups, seed=0)):
        with pytest.raises(MetsError, match="1 of 40 values of `scores` are not finite"):
            call()


def test_chance_is_the_auroc_of_labels_that_swapped_records():
    generator = np.random.default_rng(5)
    labels = np.zeros((60, 3), dtype=bool)
    labels[:20, 0], labels[10:13, 1] = True, True  # the third class has no positives
    scores = np.round(generator.normal(size=labels.shape), 1)  # with ties
    groups = np.arange(60)
    chance = chance_auroc(scores, labels, groups, samples=200, seed=4)
    permutations = np.random.default_rng(4)
    by_hand = []
    for _ in range(200):
        swapped = labels[np.argsort(permutations.permutation(60))]
        by_hand.append(roc_auc_score(swapped[:, :2], scores[:, :2], average="macro"))
    assert chance == pytest.approx((np.mean(by_hand), *np.quantile(by_hand, [0.025, 0.975])))
    assert abs(chance.value - 0.5) < 0.02
    perfect = chance_auroc(labels[:, :2].astype(float), labels[:, :2], groups, samples=200, seed=4)
    assert perfect.low < 0.5 < perfect.high, "skill does not matter"
    assert math.isnan(chance_auroc(scores[:, 2:], labels[:, 2:], groups, samples=10, seed=0).value)


def test_chance_with_many_records_of_a_patient_is_as_wide_as_their_likeness_makes_it():
    """22 recordings of 100 beats, whose labels and scores depend on the recording and not on each other."""
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(22), 100)
    outside = 0
    for seed in range(40):
        of_recording = generator.random(22) < 0.4
        labels = (of_recording[groups] ^ (generator.random(2200) < 0.05))[:, None]
        scores = (generator.normal(size=22)[groups] + generator.normal(size=2200))[:, None]
        chance = chance_auroc(scores, labels, groups, samples=200, seed=seed)
        outside += not chance.low <= macro_auroc(scores, labels)[0] <= chance.high
    assert outside <= 6  # 2 are expected; 31 with records permuted one by one


def test_labels_of_patients_stay_together_whatever_the_order_of_the_records():
    labels, scores, groups = np.zeros((6, 1), bool), np.arange(6.0)[:, None], np.array([2, 0, 1, 2, 0, 1])
    labels[[0, 3]] = True  # patient 2
    chance = chance_auroc(scores, labels, groups, samples=600, seed=1)
    # Patients hold (1, 4), (2, 5) and (0, 3): their AUROC is 0.5, 0.75 or 0.25 of eight pairs.
    possible = [0.5, 0.75, 0.25]
    assert chance.value == pytest.approx(np.mean(possible), abs=0.03)
    assert (chance.low, chance.high) == pytest.approx((0.25, 0.75))
