"""METS's balanced tables and the published rows beside them, from arrays to Markdown, JSON and CSV."""

import csv
import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from mets_ray.metrics.balanced import BALANCED_SETS, score_balanced, sets_of_task
from mets_ray.metrics.intervals import Interval
from mets_ray.metrics.levels import Levels
from mets_ray.metrics.similarities import TaskSimilarities
from mets_ray.metrics.task_scores import ClassScore, TaskScore, mean_of_tasks
from mets_ray.results import export as tables
from mets_ray.results.evaluation_page import tables_page
from mets_ray.results.page import markdown
from mets_ray.results.published import published
from mets_ray.results.six_sets import SIX_SETS, six_sets_json, six_sets_section
from mets_ray.results.values import Evaluated
from mets_ray.tasks.label_sets import load_label_sets

SUPER = BALANCED_SETS[0]


def shown_as_markdown(result):
    return markdown(tables_page(result, "A title", 0))


def drawn(*, noise=0.0, without=None, per_class=200, levels=None):
    """Super's table for 300 records; with `without`, that class stands beside another one in every record."""
    columns = tuple(load_label_sets("ptbxl")["ptbxl_super"].classes)
    generator = np.random.default_rng(0)
    truth = np.eye(5, dtype=bool)[generator.integers(5, size=300)]
    if without is not None:
        rows = truth[:, columns.index(without)]
        truth[rows, columns.index("NORM" if without != "NORM" else "MI")] = True
    similarity = truth + noise * generator.normal(size=truth.shape)
    patients = np.array([f"patient-{row // 2}" for row in range(300)])
    scores = TaskSimilarities(SUPER.task, columns, tuple(map(str, range(300))), patients, similarity, truth)
    return score_balanced(SUPER, scores, per_class=per_class, samples=50, seed=0, levels=levels)


def evaluated(balanced, *, task="ptbxl_super", patients=40):
    interval = Interval(0.7, 0.6, 0.8)
    undefined = Interval(math.nan, math.nan, math.nan)
    classes = (
        ClassScore("MI", interval, 0.5, positives=50, patients=patients, records=300),
        ClassScore("HYP", undefined, math.nan, positives=0, patients=0, records=300),
    )
    return Evaluated("r", 0.7, "1 task", (TaskScore(task, interval, classes, 300),), (balanced,), ("A notice.",), ())


def test_every_balanced_set_names_classes_of_its_task():
    for family in ("ptbxl", "synthetic"):
        for task, label_set in load_label_sets(family).items():
            for balanced in sets_of_task(task):
                assert set(balanced.classes) <= set(label_set.classes)
    assert {balanced.name for balanced in BALANCED_SETS} >= {"super", "form", "rhythm"}


def test_a_perfect_model_scores_1_and_another_order_of_columns_changes_nothing():
    found = drawn()
    assert {interval.value for interval in found.scores.values()} == {1.0}
    assert (np.diag(found.confusion) == found.per_class).all()
    assert found.per_class == min(found.available) <= 60
    assert drawn(per_class=7).per_class == 7
    noisy = drawn(noise=0.6)
    assert 0.3 < noisy.scores["macro_f1"].value < 1.0
    assert noisy.scores["accuracy"].value == pytest.approx(noisy.scores["macro_recall"].value)
    assert noisy.scores["macro_f1"].low < noisy.scores["macro_f1"].value < noisy.scores["macro_f1"].high


def test_published_rows_stand_apart_with_their_source_in_every_form():
    result = evaluated(drawn(noise=0.6))
    shown = shown_as_markdown(result)
    assert "| published: METS, zero-shot | 0.842 | – | 0.694 | 0.626 | 0.657 |" in shown
    assert "the paper: 200" in shown
    assert "PMLR v227 li24a" in shown
    assert "Do not compare accuracy with the paper" in shown
    assert "| published: MELP | 0.762 |" in shown
    assert "| MELP | recalled | ICML 2025 (low confidence" in shown
    assert "\n| HYP" not in shown
    assert "HYP (0 positives)" in shown

    rows = list(csv.DictReader(io.StringIO(tables.balanced_csv(result))))
    measured = [row for row in rows if row["origin"] == "measured"]
    classes = result.balanced[0].set.classes
    assert [row["score"] for row in measured] == [*result.balanced[0].scores, *(f"recall {name}" for name in classes)]
    assert {row["origin"] for row in rows} == {"measured", "published"}
    assert all(row["source"] for row in rows if row["origin"] == "published")
    rows = list(csv.DictReader(io.StringIO(tables.auroc_csv(result))))
    assert next(row for row in rows if row["class"] == "MI")["patients"] == "40"
    assert next(row for row in rows if row["class"] == "HYP")["auroc"] == ""
    assert {row["auroc"] for row in rows if row["system"].startswith("MERL")} >= {"0.742"}

    beside = tables.published_json(result)
    assert beside["balanced"]["tables"]["super"][0]["method"] == "METS"
    measured_json = json.dumps([tables.task_json(result.tasks[0]), tables.balanced_json(result.balanced[0])])
    assert "NaN" not in measured_json
    assert "published" not in measured_json


def test_standardised_scores_are_rows_of_their_own_in_every_form():
    """By levels that leave one class alone to be predicted: a fifth is right."""
    levels = Levels(np.array([0.0, 0.0, 0.0, 0.0, -9.0]), np.ones(5))
    result = evaluated(drawn(levels={"a site": levels}))
    row = next(line for line in shown_as_markdown(result).splitlines() if "standardised by a site" in line)
    assert row.startswith("| measured: this bundle, standardised by a site | 0.200 [")
    assert "No label is used" in shown_as_markdown(result)
    of_json = tables.balanced_json(result.balanced[0])
    assert of_json["standardised"]["a site"]["accuracy"]["value"] == pytest.approx(0.2)
    assert of_json["scores"]["accuracy"]["value"] == 1.0
    rows = [row for row in csv.DictReader(io.StringIO(tables.balanced_csv(result))) if row["origin"] == "measured"]
    assert [row["value"] for row in rows if row["score"] == "accuracy"] == ["1", "0.2"]
    assert [row["value"] for row in rows if row["score"].startswith("recall")] == ["1"] * 5 + ["0", "1", "0", "0", "0"]
    assert set(of_json["recalls"].values()) == {1.0}
    assert of_json["recalls_standardised"]["a site"] == {"NORM": 0.0, "CD": 1.0, "MI": 0.0, "HYP": 0.0, "STTC": 0.0}
    shown = shown_as_markdown(result).split("Recall of each class")[1]
    assert "| measured: this bundle, standardised by a site | 0.000 | 1.000 | 0.000 | 0.000 | 0.000 |" in shown
    assert "Standardised" not in shown_as_markdown(evaluated(drawn()))


def test_synthetic_scores_have_no_published_rows_beside_them():
    result = evaluated(drawn(), task="synthetic")
    assert "MERL" not in shown_as_markdown(result)
    assert tables.published_json(result)["auroc"] == []


def test_few_patients_and_small_draws_are_marked():
    shown = shown_as_markdown(evaluated(drawn(per_class=7), patients=3))
    assert "| MI † |" in shown
    assert "fewer than 10 patients" in shown
    assert "k is only 7" in shown
    assert "†" not in shown_as_markdown(evaluated(drawn()))


def test_a_class_without_records_of_its_own_is_said_and_not_scored():
    found = drawn(without="HYP")
    assert (found.per_class, found.available[SUPER.classes.index("HYP")]) == (0, 0)
    shown = shown_as_markdown(evaluated(found))
    assert "Not scored: a class has no such record" in shown
    assert "nan" not in shown
    assert tables.balanced_json(found)["scores"]["accuracy"] == {"value": None, "lo": None, "hi": None}


def test_published_means_are_means_of_the_six_sets_and_f1_the_harmonic_mean():
    # A slip of the pen in published.yaml would stand beside every result.
    for row in published().auroc:
        if row.mean is not None:
            assert row.mean == pytest.approx(np.mean(list(row.macro.values())), abs=0.0015)
    for rows in published().balanced.values():
        for row in rows:
            harmonic = 2 * row.precision * row.recall / (row.precision + row.recall)
            assert row.f1 == pytest.approx(harmonic, abs=0.021)


def some_tasks(*names):
    generator = np.random.default_rng(4)
    scores = [
        TaskScore(name, Interval(0.7 + 0.01 * place, 0.6, 0.8), (), 10, generator.normal(0.7, 0.05, 200))
        for place, name in enumerate(names)
    ]
    return Evaluated("r", 0.7, "", tuple(scores), (), (), ())


def test_the_mean_of_tasks_is_bootstrapped_as_one_number():
    result = some_tasks("a", "b")
    mean = mean_of_tasks(result.tasks)
    samples = (result.tasks[0].macro_samples + result.tasks[1].macro_samples) / 2
    assert mean.value == pytest.approx(0.705)
    assert (mean.low, mean.high) == pytest.approx(tuple(np.percentile(samples, [2.5, 97.5])))
    undefined = TaskScore("c", Interval(math.nan, math.nan, math.nan), (), 0, np.full(200, math.nan))
    assert mean_of_tasks((*result.tasks, undefined)) == mean
    assert math.isnan(mean_of_tasks((undefined,)).value)


def test_the_six_sets_have_a_mean_only_when_all_are_there():
    ptbxl, others = some_tasks(*SIX_SETS[:4]), some_tasks("cpsc2018", "csn", "csn_exact")
    section = six_sets_section([ptbxl, others])
    measured = section.tables[0].rows[0]
    assert len(measured) == 8
    assert None not in measured
    assert six_sets_json([ptbxl, others])["mean"]["value"] == pytest.approx(
        np.mean([0.70, 0.71, 0.72, 0.73, 0.70, 0.71])
    )
    merl = next(row for row in section.tables[0].rows if "MERL" in str(row[0]))
    assert merl[-1] == 0.752
    alone = six_sets_section([ptbxl])
    assert alone.tables[0].rows[0][-3:] == (None, None, None)
    assert "some were not scored: cpsc2018, csn" in alone.text
    assert six_sets_json([ptbxl])["mean"] is None
    # A set whose records all have one class was scored, and has no score.
    undefined = replace(others.tasks[1], macro=Interval(math.nan, math.nan, math.nan))
    without = replace(others, tasks=(others.tasks[0], undefined))
    assert six_sets_json([ptbxl, without])["mean"] is None
    assert "some were not scored: csn" in six_sets_section([ptbxl, without]).text
