"""A probe that begins at zero-shot: it is zero-shot without labels, and scikit-learn's probe without words."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from mets_ray.errors import MetsError
from mets_ray.metrics.auroc import macro_auroc
from mets_ray.metrics.text_head import Learnable, fit_text_head


def made_up(records, *, seed, words=1.0, signal=1.0):
    """Features that carry the classes with strength `signal`, and zero-shot logits that do with strength `words`."""
    generator = np.random.default_rng(seed)
    truth = generator.random((records, 3)) < [0.5, 0.3, 0.2]
    features = 5 + 3 * generator.normal(size=(records, 12))
    features[:, :3] += signal * truth
    return Learnable(features, words * truth + generator.normal(size=truth.shape) - 2, truth)


def rows(of, count):
    return Learnable(of.features[:count], of.zero_shot[:count], of.truth[:count])


def test_without_labels_it_is_zero_shot():
    validation = made_up(100, seed=1)
    head = fit_text_head(rows(validation, 0), validation)
    np.testing.assert_array_equal(head.scores(validation.features, validation.zero_shot), validation.zero_shot)
    assert (head.inverse_penalty, head.untrained_classes) == (0.0, (0, 1, 2))
    assert list(head.validation_macro_auroc) == [0.0]


def test_without_words_it_is_the_probe_of_scikit_learn():
    train, validation = (made_up(200, seed=seed, words=0.0) for seed in (2, 3))
    train, validation = (Learnable(of.features, 0 * of.zero_shot, of.truth) for of in (train, validation))
    for penalty in (1e-4, 1.0):
        head = fit_text_head(train, validation, inverse_penalties=(penalty,))
        assert head.inverse_penalty == penalty
        scaler = StandardScaler().fit(train.features)
        for column in range(3):
            probe = LogisticRegression(C=penalty, max_iter=1000, tol=1e-8)
            probe.fit(scaler.transform(train.features), train.truth[:, column])
            expected = probe.decision_function(scaler.transform(validation.features))
            found = head.scores(validation.features, validation.zero_shot)[:, column]
            np.testing.assert_allclose(found, expected, atol=5e-3)


def test_what_is_known_of_both_is_better_than_each():
    train, validation, test = (made_up(400, seed=seed, signal=3.0) for seed in (4, 5, 6))
    head = fit_text_head(train, validation)
    assert head.inverse_penalty > 0
    learnt = macro_auroc(head.scores(test.features, test.zero_shot), test.truth)[0]
    silent = Learnable(train.features, 0 * train.zero_shot, train.truth)
    probe = fit_text_head(silent, validation, inverse_penalties=(0.01,))
    alone = macro_auroc(probe.scores(test.features, 0 * test.zero_shot), test.truth)[0]
    assert learnt > max(alone, macro_auroc(test.zero_shot, test.truth)[0]) + 0.02


def test_features_that_know_nothing_leave_it_at_zero_shot():
    train, validation = (made_up(60, seed=seed, words=4.0, signal=0.0) for seed in (7, 8))
    head = fit_text_head(rows(train, 20), validation, inverse_penalties=(1.0, 10.0))
    assert head.inverse_penalty == 0.0
    assert not head.coefficients.any()
    assert not head.intercepts.any()


def test_a_class_without_positives_stays_where_it_is_and_others_learn():
    train, validation = made_up(200, seed=9), made_up(200, seed=10)
    train = Learnable(train.features, train.zero_shot, train.truth & [True, False, True])
    head = fit_text_head(train, validation)
    assert head.untrained_classes == (1,)
    assert not head.coefficients[1].any()
    assert head.coefficients[0].any()


def test_a_validation_that_cannot_choose_is_refused():
    train = made_up(50, seed=11)
    with pytest.raises(MetsError, match="no class has both positives and negatives among 50"):
        fit_text_head(train, Learnable(train.features, train.zero_shot, np.ones_like(train.truth)))
    with pytest.raises(MetsError, match="not finite"):
        fit_text_head(Learnable(train.features * np.nan, train.zero_shot, train.truth), train)
