"""ROC and precision over recall: scikit-learn's points, and what stands in the pixels."""

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from mets_ray.errors import MetsError
from mets_ray.metrics.similarities import TaskSimilarities
from mets_ray.metrics.task_scores import score_task
from mets_ray.pictures.curves import draw_precision_recall, draw_roc, precision_recall_curves, roc_picture
from tests.support.pixels import colour_count, pixels, places

ODD_NAMES = ("_AVB", r"a $\frac{$ b", "LAO/LAE", "<script>", "", "W" * 40)
BLUE, ORANGE = "#0072b2", "#d55e00"


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


def test_a_task_without_a_class_that_can_be_scored_has_its_classes_in_the_legend():
    names, everybody = tuple(f"r{row}" for row in range(9)), np.ones((9, 2), dtype=bool)
    scores = TaskSimilarities("own", ("A", "B"), names, np.array(names), np.zeros((9, 2)), everybody)
    picture = roc_picture(score_task(scores, samples=5, seed=0), scores, synthetic=False)
    assert 10 < colour_count(picture, "#0072b2") < 200
