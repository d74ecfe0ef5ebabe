"""AUROC over folds against explicit counts of pairs."""

import numpy as np
import pytest

from mets_ray.errors import DatasetError
from mets_ray.metrics.auroc import bootstrap_macro_auroc
from mets_ray.metrics.cross_validation import CrossValidated, cross_validated_auroc
from mets_ray.metrics.similarities import TaskSimilarities
from tests.support.scores import made_up


def of_fold(records: int, seed: int, *, scale: float = 1.0) -> TaskSimilarities:
    scores, labels, groups = made_up(records, 3, seed, ties=True)
    patients = np.asarray([f"{seed}-{patient}" for patient in groups])
    names = tuple(f"{seed}-{row}" for row in range(records))
    return TaskSimilarities("task", ("a", "b", "c"), names, patients, scores * scale, labels)


def pairs_won(fold: TaskSimilarities, column: int) -> list[float]:
    score, truth = fold.similarity[:, column], fold.truth[:, column]
    return [1.0 if high > low else 0.5 if high == low else 0.0 for high in score[truth] for low in score[~truth]]


def test_pairs_are_counted_within_folds_whatever_the_scale_of_each():
    folds = [of_fold(40, 0), of_fold(30, 1, scale=100.0), of_fold(20, 2, scale=0.01)]
    found = cross_validated_auroc(CrossValidated.join(folds), samples=50, seed=0)
    for column in range(3):
        expected = np.mean([won for fold in folds for won in pairs_won(fold, column)])
        assert found.per_class[column].value == pytest.approx(expected, abs=1e-12)
    assert found.macro.value == pytest.approx(np.mean([one.value for one in found.per_class]), abs=1e-12)
    assert found.macro.low < found.macro.value < found.macro.high


def test_one_fold_is_the_usual_bootstrap():
    fold = of_fold(60, 3)
    found = cross_validated_auroc(CrossValidated.join([fold]), samples=80, seed=5)
    usual = bootstrap_macro_auroc(fold.similarity, fold.truth, fold.patients, samples=80, seed=5)
    assert found.macro == usual.macro
    np.testing.assert_array_equal(found.macro_samples, usual.macro_samples)


def test_a_fold_without_a_positive_adds_no_pairs():
    folds = [of_fold(40, 0), of_fold(30, 1)]
    folds[1].truth[:, 0] = False
    found = cross_validated_auroc(CrossValidated.join(folds), samples=10, seed=0)
    assert found.per_class[0].value == pytest.approx(np.mean(pairs_won(folds[0], 0)), abs=1e-12)


def test_a_patient_in_two_folds_is_refused():
    fold = of_fold(40, 0)
    with pytest.raises(DatasetError, match="tested in two folds"):
        CrossValidated.join([fold, fold])
