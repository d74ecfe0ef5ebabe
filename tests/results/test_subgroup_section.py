"""Groups and drift on pages and as files: what differs is marked, what is missing is said."""

import csv
import io
import json
import math

import numpy as np
import pytest

from mets_ray.metrics.calibration_drift import CalibrationDrift, ClassDrift
from mets_ray.metrics.input_drift import Distance, FeatureDrift, InputDrift
from mets_ray.metrics.intervals import Interval
from mets_ray.metrics.subgroups import Subgroups, SubgroupScore
from mets_ray.metrics.task_scores import TaskScore
from mets_ray.pictures.forest import ForestRow, draw_forest
from mets_ray.results import calibration_drift_section, subgroup_section
from mets_ray.results.drift_page import drift_json, drift_page
from mets_ray.results.page import Page, markdown, render

FOUND = Subgroups(
    (
        SubgroupScore("task", "sex", "female", 300, 280, 90, ("A", "B"), Interval(0.8, 0.7, 0.9),
                      Interval(0.9, 0.85, 0.95), Interval(-0.1, -0.15, -0.05), 0.001, 0.004),
        SubgroupScore("task", "site", "7 <b>", 12, 12, 3, reason="too small to score"),
    ),
    {"device": "not in this data set"},
    {"age": 5},
)  # fmt: skip


def test_a_difference_is_marked_and_what_is_not_scored_has_its_reason():
    section = subgroup_section.subgroups_section(FOUND)
    shown = markdown(Page("t", sections=(section,)))
    assert "1 differences were tested" in shown
    assert "| sex: female | 300 | 280 | 90 | 2 | 0.800 [0.700, 0.900] | 0.900 | -0.100 [-0.150, -0.050] ‡ |" in shown
    assert "| site: 7 <b> [1] | 12 |" in shown
    assert "[1] Too small to score." in shown
    assert "device: not in this data set." in shown
    assert "age of 5 records" in shown
    task = TaskScore("task", Interval(0.85, 0.8, 0.9), (), 312)
    pictured = subgroup_section.with_pictures(section, FOUND, {"task": task}, "")
    assert "7 &lt;b&gt;" in render(Page("t", sections=(pictured,)))
    assert len(pictured.pictures) == 1


def test_the_csv_and_the_json_hold_every_group():
    rows = list(csv.DictReader(io.StringIO(subgroup_section.subgroups_csv(FOUND))))
    assert [(row["group"], row["auroc"], row["adjusted_p"], row["differs"]) for row in rows] == [
        ("female", "0.8", "0.004", "yes"),
        ("7 <b>", "", "", "no"),
    ]
    facts = json.loads(json.dumps(subgroup_section.subgroups_json(FOUND), allow_nan=False))
    assert (facts["compared"], facts["groups"][1]["value"], facts["groups"][0]["differs"]) == (1, None, True)


def test_a_calibration_that_drifted_is_on_top():
    none = Interval(math.nan, math.nan, math.nan)
    checks = (
        CalibrationDrift(
            "task",
            "the one beside the bundle",
            (
                ClassDrift("A", 300, 40, 0.3, 0.13, Interval(-0.17, -0.2, -0.1), Interval(0.9, 0.7, 1.1), 0.001, 0.9),
                ClassDrift("B", 300, 4, math.nan, math.nan, none, none, reason="fewer than 10 patients"),
            ),
        ),
    )
    (notice,) = calibration_drift_section.drift_notice(checks)
    assert "A (task)" in notice
    assert calibration_drift_section.drift_notice(()) == ()
    section = calibration_drift_section.calibration_drift_section(checks)
    shown = markdown(Page("t", sections=(section,)))
    assert "task, A: said 0.300, observed 0.130, slope 0.90." in shown
    assert "Not checked, fewer than 10 patients: B." in shown
    assert "| B |" not in shown
    assert len(calibration_drift_section.with_pictures(section, checks, "").pictures) == 1
    facts = json.loads(json.dumps(calibration_drift_section.calibration_drift_json(checks), allow_nan=False))
    assert facts["task"]["classes"]["A"]["drifted"] is True
    assert facts["task"]["classes"]["B"]["difference"]["value"] is None


@pytest.mark.parametrize("drift", [True, False])
def test_the_drift_page_names_what_to_check(drift):
    shares = {"ks": 0.3, "edges": (1.0,), "shares": (0.2, 0.7, 0.1), "reference_shares": (0.5, 0.5, 0.0)}
    rows = (
        FeatureDrift("amplitude_mv:II", 1.2 if drift else 0.01, 0.1, **shares),
        FeatureDrift("heart_rate_per_min", 0.01, 0.1, **shares),
    )
    found = InputDrift(300, 250, rows, Distance("embeddings", 0.2, 0.1) if drift else None, 0.4)
    page = drift_page(found, "Inputs", {"here": "x"}, held_out=False)
    html, shown = render(page), markdown(page)
    assert ("amplitude_mv II ‡" in shown) is drift
    assert ("Check the unit and the gain" in html) is drift
    assert ("12.0 times its threshold" in shown) is drift
    assert ("Not compared" in shown) is not drift
    assert ("expect some drift" in shown) is drift
    assert ("20.0% (50.0%)" in shown, "data:image/png" in html) == (True, drift)
    facts = json.loads(json.dumps(drift_json(found), allow_nan=False))
    assert facts["drifted"] == (["amplitude_mv:II", "embeddings"] if drift else [])
    assert facts["features"]["heart_rate_per_min"]["ks"] == 0.3


def test_a_forest_needs_a_row_and_draws_what_has_no_value():
    rows = [ForestRow("sex", "female", 0.8, 0.7, 0.9, "n", True), ForestRow("site", "$x$", *[np.nan] * 3, "too few")]
    assert draw_forest(rows, "title", label="AUROC", whole=0.8).startswith(b"\x89PNG")
    with pytest.raises(Exception, match="no group to draw"):
        draw_forest([], "title", label="AUROC")
