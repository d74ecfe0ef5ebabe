"""linear_probe.py: draws of patients, scikit-learn as reference, and what must not leak."""

import dataclasses
import itertools
import math
import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mets_ray.errors import MetsError
from mets_ray.metrics import linear_probe
from mets_ray.metrics.auroc import macro_auroc
from mets_ray.metrics.linear_probe import LABEL_SHARES, LinearProbe, fit_linear_probe, label_subset


def made_up(records: int, seed: int, *, features: int = 6, classes: int = 3, noise: float = 1.0):
    """Features on scales from 1 to 1000, and classes that are noisy half spaces of them."""
    generator = np.random.default_rng(seed)
    standard = generator.normal(size=(records, features))
    directions = np.random.default_rng(99).normal(size=(features, classes))
    truth = standard @ directions + noise * generator.normal(size=(records, classes)) > 0.5
    return standard * np.logspace(0, 3, features) + 5.0, truth


def same(first: LinearProbe, second: LinearProbe) -> bool:
    pairs = zip(dataclasses.astuple(first), dataclasses.astuple(second), strict=True)
    return all(np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b for a, b in pairs)


@pytest.fixture
def patients():
    """500 records of 200 patients; every seventh record has no class."""
    generator = np.random.default_rng(0)
    truth = generator.random((500, 2)) < 0.5
    truth[:, 0] |= ~truth.any(axis=1)
    truth[::7] = False
    return truth, np.array([f"p{number}" for number in generator.integers(200, size=500)])


def test_shares_are_of_patients_nested_and_whole(patients):
    truth, groups = patients
    labelled = truth.any(axis=1)
    total = len(set(groups[labelled]))
    drawn = [label_subset(truth, groups, share, 3) for share in LABEL_SHARES]
    for share, rows in zip(LABEL_SHARES, drawn, strict=True):
        names = set(groups[rows])
        assert len(names) == max(1, round(share * total))
        assert rows.tolist() == [row for row in range(500) if groups[row] in names and labelled[row]]
    assert set(drawn[0]) < set(drawn[1]) < set(drawn[2])
    assert drawn[2].tolist() == np.flatnonzero(labelled).tolist()


def test_a_draw_follows_from_seed_and_patients_alone(patients):
    truth, groups = patients
    rows = label_subset(truth, groups, 0.1, 3)
    assert rows.tolist() == label_subset(truth, groups.tolist(), 0.1, 3).tolist()
    assert set(groups[rows]) != set(groups[label_subset(truth, groups, 0.1, 4)])
    shuffled = np.random.default_rng(1).permutation(500)
    assert set(shuffled[label_subset(truth[shuffled], groups[shuffled], 0.1, 3)]) == set(rows)


def test_a_draw_has_a_record_however_small_the_share():
    assert label_subset(np.array([[False], [True], [False]]), ["a", "b", "c"], 0.01, 0).tolist() == [1]


@pytest.mark.parametrize(
    ("truth", "groups", "share", "message"),
    [
        ([[True]], ["a"], 0.0, r"`share` is 0.0, not in \(0, 1\]"),
        ([[True]], ["a"], 1.5, r"`share` is 1.5"),
        ([[True]], ["a", "b"], 0.1, "2 `groups` for 1 records"),
        ([[False]], ["a"], 0.1, "none of 1 records has a class"),
    ],
)
def test_draws_that_cannot_be_made_are_refused(truth, groups, share, message):
    with pytest.raises(MetsError, match=message):
        label_subset(np.array(truth), groups, share, 0)


def test_the_middle_of_a_symmetric_line_scores_zero():
    features = np.array([[-3.0], [-1.0], [1.0], [3.0]]) + 10.0
    truth = np.array([[False], [False], [True], [True]])
    probe = fit_linear_probe(features, truth, features, truth, inverse_penalties=(1.0,))
    assert probe.mean.tolist() == [10.0]
    assert probe.scale == pytest.approx([math.sqrt(5.0)])
    low, middle, high = probe.scores(np.array([[7.0], [10.0], [13.0]]))[:, 0]
    assert middle == pytest.approx(0.0, abs=1e-6)
    assert high == pytest.approx(-low, abs=1e-6)
    assert high > 1.0


def test_scores_are_scikit_learns_at_each_penalty():
    train, validation, test = (made_up(records, seed) for seed, records in enumerate((300, 100, 50)))
    expected_macro = {}
    for penalty in (0.001, 0.1, 10.0):
        reference = [
            make_pipeline(StandardScaler(), LogisticRegression(C=penalty, tol=1e-8, max_iter=10_000)) for _ in range(3)
        ]
        for column, pipeline in enumerate(reference):
            pipeline.fit(train[0], train[1][:, column])
        probe = fit_linear_probe(*train, *validation, inverse_penalties=(penalty,))
        expected = np.stack([pipeline.decision_function(test[0]) for pipeline in reference], axis=1)
        assert probe.scores(test[0]) == pytest.approx(expected, rel=2e-3, abs=5e-3)
        on_validation = np.stack([pipeline.decision_function(validation[0]) for pipeline in reference], axis=1)
        expected_macro[penalty] = macro_auroc(on_validation, validation[1])[0]
    probe = fit_linear_probe(*train, *validation, inverse_penalties=(10.0, 0.001, 0.1))
    assert probe.validation_macro_auroc == pytest.approx(expected_macro, abs=2e-3)
    assert probe.inverse_penalty == max(expected_macro, key=expected_macro.get)
    assert probe.unconverged_classes == probe.untrained_classes == ()


def test_equally_good_penalties_give_the_smallest():
    features = np.linspace(-1.0, 1.0, 20)[:, None]
    truth = features > 0.0
    probe = fit_linear_probe(features, truth, features, truth, inverse_penalties=(1.0, 0.1, 0.01))
    assert set(probe.validation_macro_auroc.values()) == {1.0}
    assert probe.inverse_penalty == 0.01


def test_the_penalty_follows_from_validation_and_nothing_else_does():
    # 60 records of 40 features: a weak penalty remembers them, a strong one goes by the class means.
    train = made_up(60, 0, features=40, noise=4.0)
    by_seed = [fit_linear_probe(*train, *made_up(80, seed, features=40, noise=4.0)) for seed in range(1, 8)]
    assert len({probe.inverse_penalty for probe in by_seed}) > 1
    for first, second in itertools.combinations(by_seed, 2):
        assert (first.mean == second.mean).all()
        assert (first.scale == second.scale).all()
        equal = first.inverse_penalty == second.inverse_penalty
        assert np.array_equal(first.coefficients, second.coefficients) == equal
        assert np.array_equal(first.intercepts, second.intercepts) == equal


def test_scoring_looks_at_each_record_alone_and_leaves_the_probe_as_it_was():
    train, validation = made_up(100, 0), made_up(50, 1)
    test, _ = made_up(30, 2)
    probe = fit_linear_probe(*train, *validation)
    before = fit_linear_probe(*train, *validation)
    scores = probe.scores(test)
    other = test.copy()
    other[1:] *= 1000.0
    assert probe.scores(other)[0] == pytest.approx(scores[0], rel=1e-12)
    assert same(probe, before)


def test_classes_without_both_kinds_score_one_half_and_stay_in_the_mean():
    train, validation, test = (made_up(200, seed, classes=4) for seed in range(3))
    train[1][:, 1], train[1][:, 3] = False, True
    probe = fit_linear_probe(*train, *validation)
    assert probe.untrained_classes == (1, 3)
    macro, per_class = macro_auroc(probe.scores(test[0]), test[1])
    assert per_class[[1, 3]].tolist() == [0.5, 0.5]
    assert min(per_class[[0, 2]]) > 0.7
    assert macro == pytest.approx(np.mean([per_class[0], 0.5, per_class[2], 0.5]))


def test_one_percent_leaves_rare_classes_untrained():
    features, truth = made_up(1000, 0)
    truth[:, 2] = False
    truth[:3, 2] = True
    truth[:, 0] |= ~truth.any(axis=1)
    groups = np.arange(1000)
    rows = label_subset(truth, groups, 0.01, 0)
    assert len(rows) == 10
    assert not truth[rows, 2].any()
    probe = fit_linear_probe(features[rows], truth[rows], *made_up(200, 1))
    assert probe.untrained_classes == (2,)
    assert (probe.scores(features)[:, 2] == 0.0).all()


def test_one_record_trains_no_class():
    features, truth = made_up(1, 0)
    probe = fit_linear_probe(features, truth, *made_up(50, 1))
    assert probe.untrained_classes == (0, 1, 2)
    assert math.isnan(probe.inverse_penalty)
    assert set(probe.validation_macro_auroc.values()) == {0.5}
    assert (probe.scores(features) == 0.0).all()


def test_a_feature_that_never_changes_in_training_does_no_harm():
    train, validation = made_up(100, 0), made_up(50, 1)
    train[0][:, 2] = 7.0
    probe = fit_linear_probe(*train, *validation)
    assert probe.scale[2] == 1.0
    assert np.isfinite(probe.scores(validation[0])).all()


def test_halves_give_what_their_values_in_float64_give():
    train, validation = ((x.astype(np.float16), y) for x, y in (made_up(100, 0), made_up(50, 1)))
    wide = [(x.astype(np.float64), y) for x, y in (train, validation)]
    assert same(fit_linear_probe(*train, *validation), fit_linear_probe(*wide[0], *wide[1]))


def test_a_fit_that_stops_early_is_recorded_and_other_warnings_go_on(monkeypatch):
    train, validation = made_up(100, 0), made_up(50, 1)
    monkeypatch.setattr(linear_probe, "_MOST_ITERATIONS", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        probe = fit_linear_probe(*train, *validation, inverse_penalties=(10.0,))
    assert probe.unconverged_classes == (0, 1, 2)

    def fit(self, features, truth):
        warnings.warn("another matter", UserWarning, stacklevel=1)
        self.coef_, self.intercept_ = np.zeros((1, features.shape[1])), np.zeros(1)

    monkeypatch.setattr(LogisticRegression, "fit", fit)
    with pytest.warns(UserWarning, match="another matter"):
        probe = fit_linear_probe(*train, *validation)
    assert probe.unconverged_classes == ()


def test_what_does_not_fit_is_refused():
    (x, y), (v, t) = made_up(20, 0), made_up(10, 1)
    broken = x.copy()
    broken[3, 2] = np.nan
    for arguments, options, message in (
        ((x, y, v, t), {"inverse_penalties": ()}, "`inverse_penalties` is"),
        ((x, y, v, t), {"inverse_penalties": (1.0, -1.0)}, "not one or more positive numbers"),
        ((x, y, v, t), {"inverse_penalties": (math.inf,)}, "not one or more positive numbers"),
        ((broken, y, v, t), {}, "1 of 120 values of `features_train` are not finite"),
        ((v, t, broken, y), {}, "1 of 120 values of `features_validation` are not finite"),
        ((x[:0], y[:0], v, t), {}, "0 rows of train features for 0"),
        ((x, y, v, np.zeros_like(t)), {}, "no class has both positives and negatives among 10 validation records"),
    ):
        with pytest.raises(MetsError, match=message):
            fit_linear_probe(*arguments, **options)
    probe = fit_linear_probe(x, y, v, t)
    with pytest.raises(MetsError, match="takes 6 features and was given 4"):
        probe.scores(x[:, :4])
    with pytest.raises(MetsError, match="1 of 120 values of `features` are not finite"):
        probe.scores(broken)
