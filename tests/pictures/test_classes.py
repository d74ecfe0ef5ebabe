"""Class bars, confusion and reliability: what stands in the pixels."""

import math

import numpy as np
import pytest

from mets_ray.errors import MetsError
from mets_ray.metrics.reliability import reliability
from mets_ray.pictures.classes import draw_class_bars, draw_confusion, draw_reliability
from tests.support.pixels import pixels, places

BLUE, ORANGE = "#0072b2", "#d55e00"


def vertical_line(png):
    """Whether more than a quarter of the height is middle grey in one column of pixels, or in two side by side."""
    grey = (np.ptp(pixels(png), axis=-1) < 8) & (pixels(png).mean(axis=-1) < 205)
    return bool(((grey[:, 1:] | grey[:, :-1]).mean(axis=0) > 0.25).any())


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
