"""metrics.py against explicit, slow computations."""

import math
import time

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from mets_ray.errors import MetsError
from mets_ray.metrics.auroc import (
    average_precision,
    bootstrap_macro_auroc,
    chance_auroc,
    macro_auroc,
    paired_difference,
)
from mets_ray.metrics.retrieval import recall_at_k, retrieval_recall
from mets_ray.metrics.single_label import (
    SINGLE_LABEL_SCORES,
    balanced_draw,
    bootstrap_single_label,
    single_label_scores,
)


def made_up(records: int, classes: int, seed: int, *, patients: int | None = None, ties: bool = False):
    generator = np.random.default_rng(seed)
    patient = generator.integers(patients or records, size=records)
    labels = generator.random((records, classes)) < generator.uniform(0.1, 0.4, classes)
    scores = generator.normal(size=(records, classes)) + labels * generator.uniform(0.0, 2.0, classes)
    if ties:
        scores = np.round(scores)
    return scores, labels, np.array([f"patient-{number}" for number in patient])


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


def recall_by_hand(queries, candidates, query_ids, candidate_ids, k) -> float:
    hits = 0
    for query, own in zip(queries, query_ids, strict=True):
        ranking = sorted(
            (-float(query @ candidate), bool(candidate_id == own))  # at equal similarity False, the wrong one, is first
            for candidate, candidate_id in zip(candidates, candidate_ids, strict=True)
        )
        for wrong, (_, right) in enumerate(ranking):
            if right:
                hits += wrong < k
                break
    return hits / len(queries)


def test_recall_equals_a_sorted_ranking(monkeypatch):
    monkeypatch.setattr("mets_ray.metrics.retrieval._ROWS_AT_ONCE", 7)
    generator = np.random.default_rng(8)
    # Whole numbers: many ties, and the dot products are exact whatever the order of summation.
    queries, candidates = (
        generator.integers(-2, 3, (40, 4)).astype(float),
        generator.integers(-2, 3, (30, 4)).astype(float),
    )
    query_ids, candidate_ids = generator.integers(0, 12, 40), generator.integers(0, 10, 30)  # ids 10, 11 have no answer
    found = recall_at_k(queries, candidates, query_ids, candidate_ids, ks=(1, 5, 100))
    assert found == {k: recall_by_hand(queries, candidates, query_ids, candidate_ids, k) for k in (1, 5, 100)}
    assert 0.0 < found[1] < found[5] < found[100] < 1.0


def test_equal_reports_are_one_answer():
    generator = np.random.default_rng(9)
    texts = np.linalg.qr(generator.normal(size=(8, 8)))[0]
    ids = np.array([0] * 12 + list(range(1, 8)), dtype=np.int64)
    ecgs = texts[ids]
    assert retrieval_recall(ecgs, texts[ids], ids, ks=(1,)) == {"ecg_to_text": {1: 1.0}, "text_to_ecg": {1: 1.0}}
    # The ECG of report 7 looks like report 0, which 12 records share, then like its own: they are one rival, not 12.
    ecgs[-1] = 0.8 * texts[0] + 0.6 * texts[7]
    found = retrieval_recall(ecgs, texts[ids], ids, ks=(1, 2))
    assert found["ecg_to_text"] == {1: pytest.approx(18 / 19), 2: 1.0}
    assert found["text_to_ecg"] == {1: 1.0, 2: 1.0}


def test_collapsed_encoder_recalls_nothing():
    ids = np.arange(50)
    same = np.ones((50, 3), dtype=np.float32)
    assert recall_at_k(same, same, ids, ids, ks=(1, 10)) == {1: 0.0, 10: 0.0}


def test_recall_faults_are_named():
    ids, vectors = np.arange(3), np.eye(3)
    with pytest.raises(MetsError, match="0 queries"):
        recall_at_k(vectors[:0], vectors, ids[:0], ids)
    with pytest.raises(MetsError, match="at least 1"):
        recall_at_k(vectors, vectors, ids, ids, ks=(0,))
    with pytest.raises(MetsError, match="of `candidates` are not finite"):
        recall_at_k(vectors, np.full((3, 3), np.inf), ids, ids)


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
    with pytest.raises(MetsError, match="`predicted` holds the class number 5, of 5 classes"):
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


def test_chance_is_the_auroc_of_labels_that_swapped_records():
    generator = np.random.default_rng(5)
    labels = np.zeros((60, 3), dtype=bool)
    labels[:20, 0], labels[10:13, 1] = True, True  # the third class has no positives
    scores = np.round(generator.normal(size=labels.shape), 1)  # with ties
    chance = chance_auroc(scores, labels, samples=200, seed=4)
    permutations = np.random.default_rng(4)
    by_hand = []
    for _ in range(200):
        swapped = labels[permutations.permutation(60)]
        by_hand.append(roc_auc_score(swapped[:, :2], scores[:, :2], average="macro"))
    assert chance == pytest.approx((np.mean(by_hand), *np.quantile(by_hand, [0.025, 0.975])))
    assert abs(chance.value - 0.5) < 0.02
    perfect = chance_auroc(labels[:, :2].astype(float), labels[:, :2], samples=200, seed=4)
    assert perfect.low < 0.5 < perfect.high, "skill does not matter"
    assert math.isnan(chance_auroc(scores[:, 2:], labels[:, 2:], samples=10, seed=0).value)


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
