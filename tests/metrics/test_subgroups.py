"""Scores by group: planted differences are found, equal groups are not told apart, small ones are only counted."""

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mets_ray.errors import MetsError
from mets_ray.metrics.similarities import TaskSimilarities
from mets_ray.metrics.subgroups import LEAST_PATIENTS, Grouping, holm, score_subgroups
from tests.support.scores import made_up


def task_of(records=500, classes=3, seed=0, patients=350):
    scores, labels, patient = made_up(records, classes, seed, patients=patients)
    ids = tuple(map(str, range(records)))
    return TaskSimilarities("task", tuple(f"C{n}" for n in range(classes)), ids, patient, scores, labels)


def grouping(of, name="device", *, shares=(0.4, 0.3, 0.3), seed=1):
    groups = tuple("abcdef"[: len(shares)])
    drawn = np.random.default_rng(seed).choice(groups, size=len(of.truth), p=shares)
    return Grouping(name, tuple(drawn.tolist()), groups)


def scored(of, *groupings, samples=200, seed=0):
    return score_subgroups({of.task: of}, groupings, of.record_ids, samples=samples, seed=seed)


def test_values_are_those_of_the_group_and_of_all_others():
    of = task_of()
    by = grouping(of)
    found = scored(of, by)
    assert [row.group for row in found.scores] == ["a", "b", "c"]
    assert found.compared == 3
    for row in found.scores:
        mask = np.asarray(by.groups) == row.group
        assert (row.records, row.patients) == (mask.sum(), len(set(of.patients[mask])))
        assert row.positives == of.truth[mask].sum()
        for rows, interval in ((mask, row.auroc), (~mask, row.others)):
            expected = np.mean([roc_auc_score(of.truth[rows, n], of.similarity[rows, n]) for n in range(3)])
            assert interval.value == pytest.approx(expected)
            assert interval.low < interval.value < interval.high
        assert row.difference.value == pytest.approx(row.auroc.value - row.others.value)
        assert row.difference.low < row.difference.value < row.difference.high
        assert row.adjusted_p >= row.p_value


def test_a_group_with_noisy_labels_is_found_and_the_others_are_not():
    of = task_of(records=800, patients=600)
    by = grouping(of, shares=(0.4, 0.2, 0.2, 0.2))
    noisy = np.asarray(by.groups) == "b"
    of.truth[noisy] = np.random.default_rng(3).permutation(of.truth[noisy])
    found = scored(of, by, grouping(of, "sex", shares=(0.5, 0.5), seed=5))
    differing = {(row.attribute, row.group) for row in found.scores if row.differs}
    assert ("device", "b") in differing
    assert not {one for one in differing if one[0] == "sex"}
    (row,) = [row for row in found.scores if row.group == "b" and row.attribute == "device"]
    assert row.difference.value < -0.1


def test_equal_groups_differ_as_seldom_as_the_correction_says():
    found = 0
    for seed in range(40):
        of = task_of(records=300, classes=2, seed=seed, patients=220)
        groupings = [grouping(of, name, seed=100 * seed + n) for n, name in enumerate(("device", "site"))]
        found += any(row.differs for row in scored(of, *groupings, samples=100, seed=seed).scores)
    assert found <= 4  # 2 are expected of 40; 5 or more would come once in 20 such tests


def test_small_groups_are_counted_with_a_reason():
    of = task_of()
    groups = ["large"] * 470 + ["small"] * 20 + [None] * 10
    found = scored(
        of, Grouping("site", tuple(groups), ("large", "small", "nobody")), grouping(of, "all", shares=(1.0,))
    )
    large, small, everybody = found.scores
    assert (small.records, small.scored, small.classes, found.unknown) == (20, False, (), {"site": 10})
    assert math.isnan(small.adjusted_p)
    assert f"no class has {LEAST_PATIENTS} patients with it" in small.reason
    assert large.scored
    assert "on both sides" in large.reason
    assert everybody.reason == "all records are in this group"
    assert found.compared == 0


def test_two_groups_are_compared_once():
    of = task_of()
    smaller, larger = sorted(scored(of, grouping(of, "sex", shares=(0.4, 0.6))).scores, key=lambda row: row.records)
    assert smaller.p_value <= 1
    assert "with the other sign" in larger.reason
    assert larger.scored


def test_what_the_data_set_lacks_is_said_and_a_wrong_length_is_refused():
    of = task_of()
    found = scored(of, Grouping("device", (), (), absent="not in this data set"))
    assert (found.scores, found.absent) == ((), {"device": "not in this data set"})
    with pytest.raises(MetsError, match="`device` has 1 groups for 500 records"):
        scored(of, Grouping("device", ("a",), ("a",)))


def test_holm():
    assert holm([0.01, 0.04, math.nan, 0.03, 0.005]) == pytest.approx([0.03, 0.06, math.nan, 0.06, 0.02], nan_ok=True)
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]
