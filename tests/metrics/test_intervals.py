"""Bootstrap intervals against rows drawn explicitly, and their coverage."""

import math
import time

import numpy as np
import pytest
from sklearn.metrics import (
    roc_auc_score,
)

from mets_ray.errors import MetsError
from mets_ray.metrics.auroc import (
    bootstrap_macro_auroc,
    macro_auroc,
    paired_difference,
)
from tests.support.scores import made_up


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("ties", [False, True])
def test_bootstrap_equals_drawing_rows_explicitly(ties, monkeypatch):
    # 10 resamples at once, 25 in all: blocks of unequal size must continue one stream of random numbers.
    monkeypatch.setattr("mets_ray.metrics.intervals._RESAMPLES_AT_ONCE", 10)
    scores, labels, groups = made_up(90, 4, 4, patients=40, ties=ties)
    labels[:, 3] = False
    labels[5:7, 3] = True  # so rare that some resamples lose it
    found = bootstrap_macro_auroc(scores, labels, groups, samples=25, seed=7, level=0.8)

    names = np.unique(groups)
    generator = np.random.default_rng(7)
    expected = np.full((25, 4), np.nan)
    for resample in range(25):
        rows = np.concatenate(
            [np.flatnonzero(groups == names[drawn]) for drawn in generator.integers(len(names), size=len(names))]
        )
        for column in range(4):
            if labels[rows, column].any():
                expected[resample, column] = roc_auc_score(labels[rows, column], scores[rows, column])
    assert np.isnan(expected[:, 3]).any()
    assert not np.isnan(expected[:, 3]).all()
    np.testing.assert_allclose(found.macro_samples, np.nanmean(expected, axis=1), atol=1e-12)
    for column in range(4):
        np.testing.assert_allclose(
            found.per_class[column][1:], np.nanquantile(expected[:, column], [0.1, 0.9]), atol=1e-12
        )
    assert found.macro.value == macro_auroc(scores, labels)[0]
    np.testing.assert_allclose(found.macro[1:], np.quantile(found.macro_samples, [0.1, 0.9]), atol=1e-12)


def test_bootstrap_without_a_scorable_class_is_nan():
    scores, labels, groups = made_up(30, 2, 5)
    found = bootstrap_macro_auroc(scores, np.zeros_like(labels), groups, samples=10, seed=0)
    assert all(math.isnan(number) for interval in (found.macro, *found.per_class) for number in interval)


def test_bootstrap_faults_are_named():
    scores, labels, groups = made_up(30, 2, 5)
    with pytest.raises(MetsError, match="29 `groups` for 30 records"):
        bootstrap_macro_auroc(scores, labels, list(groups[:-1]), seed=0)
    with pytest.raises(MetsError, match="`samples` is 0"):
        bootstrap_macro_auroc(scores, labels, groups, samples=0, seed=0)
    with pytest.raises(MetsError, match=r"`level` is 95\.0"):
        bootstrap_macro_auroc(scores, labels, groups, level=95.0, seed=0)


def coverage(by_patient: bool, data_sets: int = 200) -> float:
    """Share of 90% intervals that hold the true AUROC; score = 1.0 · label + patient's part + record's part.

    A patient's label holds for all of its 5 records, and the patient's part has variance 0.7 of 1, so
    AUROC = Φ(1 / √2) (binormal model). Records are far from independent: 5 of one patient say little more than 1.
    """
    truth = 0.5 * (1.0 + math.erf(1.0 / 2.0))
    held = 0
    for seed in range(data_sets):
        generator = np.random.default_rng([20, seed])
        patient = np.repeat(np.arange(80), 5)
        labels = (np.arange(80) % 2 == 0)[patient, None]
        own, shared = generator.normal(size=400), generator.normal(size=80)[patient]
        scores = (labels[:, 0] + math.sqrt(0.7) * shared + math.sqrt(0.3) * own)[:, None]
        groups = patient if by_patient else np.arange(400)
        interval = bootstrap_macro_auroc(scores, labels, groups, samples=200, seed=seed, level=0.9).macro
        held += interval.low <= truth <= interval.high
    return held / data_sets


def test_intervals_over_patients_cover_and_intervals_over_records_do_not():
    # 200 Bernoulli(0.9) draws lie above 0.83 with probability 0.999; percentile intervals of 80 patients run a bit low.
    assert 0.83 <= coverage(by_patient=True) <= 0.96
    assert coverage(by_patient=False) < 0.75


def test_bootstrap_of_two_thousand_records_is_quick():
    scores, labels, groups = made_up(2000, 20, 6, patients=1700)
    begin = time.perf_counter()
    bootstrap_macro_auroc(scores, labels, groups, samples=1000, seed=0)
    assert time.perf_counter() - begin < 10.0


def test_a_paired_difference_is_that_of_the_resampled_patients():
    generator = np.random.default_rng(3)
    labels = generator.random((200, 3)) < 0.3
    patients = np.repeat(np.arange(100), 2)
    good = labels + generator.normal(size=labels.shape)
    better = good + 0.5 * labels
    difference = paired_difference(better, good, labels, patients, samples=300, seed=1)
    assert difference.value == pytest.approx(
        roc_auc_score(labels, better, average="macro") - roc_auc_score(labels, good, average="macro")
    )
    by_hand = []
    draws = np.random.default_rng(1)
    for _ in range(300):
        rows = np.concatenate([np.flatnonzero(patients == drawn) for drawn in draws.integers(100, size=100)])
        by_hand.append(
            roc_auc_score(labels[rows], better[rows], average="macro")
            - roc_auc_score(labels[rows], good[rows], average="macro")
        )
    assert (difference.low, difference.high) == pytest.approx(tuple(np.quantile(by_hand, [0.025, 0.975])))
    alone = bootstrap_macro_auroc(better, labels, patients, samples=300, seed=1).macro
    assert difference.high - difference.low < alone.high - alone.low
    assert paired_difference(good, good, labels, patients, samples=20, seed=1) == (0.0, 0.0, 0.0)


def test_tasks_that_share_their_draws_make_a_joint_bootstrap():
    generator = np.random.default_rng(11)
    everybody = np.array([f"p{row // 2}" for row in range(120)])
    truth = generator.random((120, 2)) < 0.4
    scores = generator.normal(size=(120, 2)) + truth
    some = generator.random(120) < 0.7
    settings = {"samples": 40, "seed": 3}
    whole = bootstrap_macro_auroc(scores, truth, everybody, **settings, drawn_from=everybody)
    assert np.array_equal(
        whole.macro_samples, bootstrap_macro_auroc(scores, truth, everybody, **settings).macro_samples
    )
    part = bootstrap_macro_auroc(scores[some], truth[some], everybody[some], **settings, drawn_from=everybody)
    # Resample by resample: the same patients as the whole draws, less those who have no record here.
    names = np.unique(everybody)
    draws = np.random.default_rng(3)
    for sample in range(40):
        count = np.bincount(draws.integers(len(names), size=len(names)), minlength=len(names))
        rows = np.repeat(np.flatnonzero(some), count[np.searchsorted(names, everybody[some])])
        assert part.macro_samples[sample] == pytest.approx(macro_auroc(scores[rows], truth[rows])[0], abs=1e-12)
    with pytest.raises(MetsError, match="not in `drawn_from`"):
        bootstrap_macro_auroc(scores, truth, everybody, **settings, drawn_from=everybody[:50])
