"""Scores by set of leads against the single tasks' own scores."""

import numpy as np
import pytest

from mets_ray.metrics.auroc import bootstrap_macro_auroc, paired_difference
from mets_ray.metrics.lead_set_scores import score_lead_sets
from mets_ray.metrics.similarities import TaskSimilarities

RECORDS = 80
PATIENTS = np.asarray([f"p{index // 2}" for index in range(RECORDS)])
SETS = {"12 leads": ("I", "II"), "II": ("II",)}


def made_up(task, noise, rows):
    random = np.random.default_rng(0)
    truth = random.random((RECORDS, 3)) < 0.4
    similarity = truth + noise * random.standard_normal((RECORDS, 3))
    names = tuple(f"r{row}" for row in rows)
    return TaskSimilarities(task, ("a", "b", "c"), names, PATIENTS[rows], similarity[rows], truth[rows])


def test_a_set_has_the_mean_of_its_tasks_and_the_paired_loss_of_each():
    every, half = np.arange(RECORDS), np.arange(0, RECORDS, 2)
    found = {
        name: {"one": made_up("one", noise, every), "two": made_up("two", 2 * noise, half)}
        for name, noise in (("12 leads", 0.5), ("II", 2.0))
    }
    whole, fewer = score_lead_sets(found, SETS, samples=60, seed=3, drawn_from=PATIENTS)
    assert (whole.name, whole.leads, fewer.leads, whole.records) == ("12 leads", ("I", "II"), ("II",), RECORDS)
    assert tuple(whole.loss) == (0.0, 0.0, 0.0)
    for score, name in ((whole, "12 leads"), (fewer, "II")):
        for task, of in found[name].items():
            alone = bootstrap_macro_auroc(of.similarity, of.truth, of.patients, samples=60, seed=3, drawn_from=PATIENTS)
            assert score.tasks[task] == alone.macro
        assert score.macro.value == pytest.approx(np.mean([interval.value for interval in score.tasks.values()]))
        assert score.macro.low < score.macro.value < score.macro.high
    one, other = found["12 leads"]["one"], found["II"]["one"]
    expected = paired_difference(one.similarity, other.similarity, one.truth, one.patients, samples=60, seed=3)
    assert fewer.losses["one"] == pytest.approx(expected)
    assert fewer.loss.value == pytest.approx(whole.macro.value - fewer.macro.value)
    assert 0 < fewer.loss.low < fewer.loss.value < fewer.loss.high


def test_a_task_that_cannot_be_scored_is_left_out():
    of = made_up("one", 0.5, np.arange(RECORDS))
    empty = TaskSimilarities("two", of.classes, of.record_ids, of.patients, of.similarity, np.zeros_like(of.truth))
    both = {name: {"one": of, "two": empty} for name in SETS}
    assert [list(score.tasks) for score in score_lead_sets(both, SETS, samples=5, seed=0, drawn_from=PATIENTS)] == [
        ["one"]
    ] * 2
    nothing = {name: {"two": empty} for name in SETS}
    assert score_lead_sets(nothing, SETS, samples=5, seed=0, drawn_from=PATIENTS) == ()
