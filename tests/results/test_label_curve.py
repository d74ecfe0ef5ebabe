"""The curve by labels per class as tables, CSV and JSON."""

import csv
import io

from mets_ray.metrics.intervals import Interval
from mets_ray.metrics.label_curve import ZERO_SHOT, CurvePoint
from mets_ray.results.label_curve import curve_point_json, label_curve_csv, label_curve_section
from mets_ray.results.page import Page, markdown

POINTS = (
    CurvePoint("super", ZERO_SHOT, 0, Interval(0.7, 0.65, 0.75), 1, 0.0),
    CurvePoint("super", "linear probe", None, Interval(0.9, 0.85, 0.95), 1, 1500.0),
    CurvePoint("super", "linear probe", 32, Interval(0.8, 0.75, 0.85), 5, 120.4, ("HYP", "MI")),
)


def test_the_table_has_the_numbers_in_their_order_and_says_which_classes_are_short():
    shown = markdown(Page("", sections=[label_curve_section(POINTS)]))
    assert "| labels per class | 0 | 32 | all |" in shown
    assert "| zero-shot | 0.700 [0.650, 0.750] | – | – |" in shown
    assert "| linear probe | – | 0.800 [0.750, 0.850] | 0.900 [0.850, 0.950] |" in shown
    assert "| labelled ECGs | 0 | 120 | 1,500 |" in shown
    assert "super: HYP, MI have fewer than 32 labels" in shown


def test_csv_and_json_say_the_same():
    rows = list(csv.DictReader(io.StringIO(label_curve_csv(POINTS))))
    assert [row["labels_per_class"] for row in rows] == ["0", "all", "32"]
    assert (rows[2]["macro_auroc"], rows[2]["draws"], rows[2]["short_classes"]) == ("0.8", "5", "HYP;MI")
    found = curve_point_json(POINTS[1])
    assert (found["labels_per_class"], found["value"], found["ecgs"]) == (None, 0.9, 1500.0)
