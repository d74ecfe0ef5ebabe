"""Pictures of an evaluation: what stands in the pixels, and what the map keeps together."""

import math
import subprocess
import sys

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from mets_ray.errors import MetsError
from mets_ray.metrics.calibration import reliability
from mets_ray.pictures.evaluation import (
    MOST_MAP_RECORDS,
    draw_class_bars,
    draw_confusion,
    draw_embedding_map,
    draw_precision_recall,
    draw_reliability,
    draw_roc,
    embedding_map,
    map_rows,
    precision_recall_curves,
)
from tests.support.pixels import colour_count, pixels, places

ODD_NAMES = ("_AVB", r"a $\frac{$ b", "LAO/LAE", "<script>", "", "W" * 40)


BLUE, ORANGE = "#0072b2", "#d55e00"


def vertical_line(png):
    """Whether more than a quarter of the height is middle grey in one column of pixels, or in two side by side."""
    grey = (np.ptp(pixels(png), axis=-1) < 8) & (pixels(png).mean(axis=-1) < 205)
    return bool(((grey[:, 1:] | grey[:, :-1]).mean(axis=0) > 0.25).any())


def curves_of(names, seed=0):
    generator = np.random.default_rng(seed)
    truth = generator.random((200, len(names))) < 0.3
    truth[:, 0] = False
    scores = generator.normal(size=truth.shape) + truth
    return precision_recall_curves(scores, truth, names), scores, truth


def test_curves_are_scikit_learns_and_a_class_without_positives_has_none():
    curves, scores, truth = curves_of(ODD_NAMES)
    assert math.isnan(curves["_AVB"].average_precision)
    assert len(curves["_AVB"].recall) == 0
    for column, name in list(enumerate(ODD_NAMES))[1:]:
        assert curves[name].average_precision == average_precision_score(truth[:, column], scores[:, column])
        assert curves[name].prevalence == truth[:, column].mean() == curves[name].precision[0]


def test_precision_recall_shares_a_panel_up_to_six_classes_and_has_panels_beyond():
    curves, _, _ = curves_of(ODD_NAMES)
    together = draw_precision_recall(curves, r"$\frac{$ title")
    for colour in (BLUE, ORANGE, "#009e73", "#cc79a7", "#e69f00"):
        assert len(places(together, colour)[0]) > 300
    many, _, _ = curves_of([f"_CLASS $ {number}" for number in range(38)])
    apart = draw_precision_recall(many, "38 classes")
    assert len(places(apart, BLUE)[0]) > 1000
    assert len(places(apart, ORANGE)[0]) == 0
    assert pixels(apart).shape[0] > 1.5 * pixels(together).shape[0]
    with pytest.raises(MetsError, match="no class"):
        draw_precision_recall({}, "")


def test_precision_recall_draws_no_line_down_its_axis():
    # The highest score is a negative: scikit-learn's points at recall 0 go down to precision 0 and up to 1.
    scores = np.linspace(1.0, 0.0, 400)[:, None]
    truth = (np.arange(400) % 4 == 1)[:, None]
    rows, columns = places(draw_precision_recall(precision_recall_curves(scores, truth, ["A"]), ""), BLUE)
    axis = columns < columns.min() + 12  # where the dotted line begins, and the curve a little further right
    assert np.ptp(rows[axis]) < 0.6 * np.ptp(rows)


def test_class_bars_are_sorted_with_chance_and_without_nan():
    nan = math.nan
    rows = {"low": (0.6, 0.58, 0.62), "_high": (0.9, 0.8, 1.0), "$ none": (nan, nan, nan), "alone": (0.7, nan, nan)}
    png = draw_class_bars(rows, "AUROC by class")
    down, across = places(png, BLUE)
    dots = [across[(down >= start) & (down < start + 30)].mean() for start in np.unique(down // 30) * 30]
    assert dots == sorted(dots, reverse=True)  # the best stands above, and further right
    assert vertical_line(png)
    assert not vertical_line(draw_class_bars(rows, "F1", label="F1", chance=None))
    long = pixels(draw_class_bars({f"class {number}": (0.5, 0.4, 0.6) for number in range(38)}, ""))
    assert long.shape[0] > 2 * pixels(png).shape[0]
    draw_class_bars({"$ none": (nan, nan, nan)}, "nothing scored")
    with pytest.raises(MetsError, match="no class"):
        draw_class_bars({}, "")


def test_confusion_is_shaded_by_share_of_the_true_class():
    # 1 of 1 and 1000 of 1000 are equally dark; a truth without records and a cell of 0 are the palest.
    confusion = np.array([[1, 0, 0], [0, 1000, 0], [0, 0, 0]])
    png = draw_confusion(confusion, ("_AVB", "$", ""), "three")
    darkest, palest = "#08306b", "#f7fbff"
    cell = len(places(png, darkest)[0]) / 2
    assert cell > 4000
    assert len(places(draw_confusion(np.diag([1, 1, 0]), ("_AVB", "$", ""), ""), darkest)[0]) < 3 * cell
    assert len(places(png, palest)[0]) > 6.5 * cell
    # Truth goes down and prediction across: everything was said to be the last class.
    _, across = places(draw_confusion(np.array([[0, 0, 5], [0, 0, 5], [0, 0, 5]]), ("A", "B", "C"), ""), darkest)
    counted = np.histogram(across, bins=3, range=(0, 460))[0]
    assert counted[0] == 0
    assert counted[2] > counted[1]
    large = pixels(draw_confusion(np.eye(38, dtype=int), [f"class {number}" for number in range(38)], ""))
    assert large.shape[0] > 1200
    with pytest.raises(MetsError, match=r"\(3, 3\) for 2 classes"):
        draw_confusion(confusion, ("A", "B"), "")


def test_reliability_lies_on_the_diagonal_where_it_should_and_survives_nothing():
    predicted = np.repeat(np.linspace(0.05, 0.95, 10), 100)[:, None]
    certain = np.tile(np.arange(100), 10)[:, None] < np.round(predicted * 100)
    rows, columns = places(draw_reliability(reliability(predicted, certain), r"$\frac{$"), BLUE)
    assert np.corrcoef(rows, columns)[0, 1] < -0.99
    hollow = draw_reliability(reliability(predicted[::10], certain[::10]), "")
    assert len(places(hollow, BLUE)[0]) < 0.6 * len(rows)
    nothing = draw_reliability(reliability(np.full((3, 1), np.nan), np.ones((3, 1), bool)), "nothing")
    assert len(places(nothing, BLUE)[0]) == 0


def test_embedding_map_keeps_neighbours_and_repeats_itself():
    generator = np.random.default_rng(0)
    centres, group = generator.normal(size=(3, 16)), np.arange(90) % 3
    embeddings = (centres[group] + 0.05 * generator.normal(size=(90, 16))).astype(np.float32)
    points = embedding_map(embeddings, 0)
    assert points.shape == (90, 2)
    np.testing.assert_array_equal(points, embedding_map(embeddings, 0))
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1) + np.diag(np.full(90, np.inf))
    assert (group[distance.argmin(axis=1)] == group).all()


@pytest.mark.parametrize(("records", "dimension"), [(1, 8), (2, 8), (9, 8), (10, 8), (30, 1)])
def test_embedding_map_of_few_records_or_dimensions(records, dimension):
    points = embedding_map(np.random.default_rng(0).normal(size=(records, dimension)), 0)
    assert points.shape == (records, 2)
    assert np.isfinite(points).all()


def test_embedding_map_below_ten_records_keeps_distances():
    embeddings = np.random.default_rng(0).normal(size=(9, 2))
    points = embedding_map(embeddings, 0)
    for first, second in ((0, 1), (3, 8)):
        expected = np.linalg.norm(embeddings[first] - embeddings[second])
        assert np.linalg.norm(points[first] - points[second]) == pytest.approx(expected)


def test_embedding_map_of_a_collapsed_encoder():
    points = embedding_map(np.full((40, 8), 0.3), 0)
    assert not points.any()
    assert not embedding_map(0.3 + 1e-14 * np.random.default_rng(0).normal(size=(40, 8)), 0).any()
    draw_embedding_map(points, ["A"] * 40, "collapsed")


def test_map_faults_and_rows():
    for records in (0, MOST_MAP_RECORDS + 1):
        with pytest.raises(MetsError, match=f"a map of {records} records"):
            embedding_map(np.zeros((records, 4)), 0)
    with pytest.raises(MetsError, match="not finite"):
        embedding_map(np.full((20, 4), np.nan), 0)
    assert map_rows(5, 0).tolist() == [0, 1, 2, 3, 4]
    rows = map_rows(5000, 0)
    assert len(np.unique(rows)) == MOST_MAP_RECORDS
    assert (np.diff(rows) > 0).all()
    assert (rows == map_rows(5000, 0)).all()
    assert (rows != map_rows(5000, 1)).any()


def test_embedding_map_draws_twelve_groups_and_greys_the_others():
    points = np.random.default_rng(0).normal(size=(800, 2))
    few = draw_embedding_map(points, [ODD_NAMES[row % 6] for row in range(800)], r"$\frac{$")
    many = draw_embedding_map(points, [f"_class {row % 38}" for row in range(800)], "38")
    assert len(places(few, "#bbbbbb")[0]) < 50  # edges of letters
    assert len(places(many, "#bbbbbb")[0]) > 2000
    with pytest.raises(MetsError, match="800 points for 1 groups"):
        draw_embedding_map(points, ["A"], "")


def test_roc_draws_up_to_twenty_four_classes_and_survives_nan():
    rates = np.linspace(0.0, 1.0, 50)
    curves = {
        f"_CLASS $\\frac{{$ {number}": (rates, rates ** (1 / (1 + number)), 0.5 + number / 50) for number in range(24)
    }
    full = draw_roc(curves, r"24 classes $\frac{$")
    for colour in ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"):
        assert colour_count(full, colour) > 200
    empty = np.zeros(0)
    two = draw_roc({"_B": (empty, empty, float("nan")), "A": (rates, rates, 0.5)}, "")
    # The class without AUROC comes last, in the legend alone, although its name begins with an underscore.
    assert colour_count(two, "#0072b2") > 500
    assert 10 < colour_count(two, "#d55e00") < 200
    with pytest.raises(MetsError, match="no class"):
        draw_roc({}, "")


def test_no_global_state_of_matplotlib():
    """Importing loads no matplotlib, and drawing no pyplot."""
    code = """
import sys, numpy as np, mets_ray.pictures.evaluation as pictures
assert "matplotlib" not in sys.modules
pictures.draw_confusion(np.eye(2, dtype=int), ("A", "B"), "")
pictures.draw_class_bars({"A": (0.5, 0.4, 0.6)}, "")
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
