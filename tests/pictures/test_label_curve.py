"""The picture of few labels: a panel for each task, a line for each method, measured in the pixels of the PNG."""

import math

import pytest

from mets_ray.errors import MetsError
from mets_ray.metrics.intervals import Interval
from mets_ray.metrics.label_curve import ZERO_SHOT, CurvePoint
from mets_ray.pictures.label_curve import draw_label_curve
from tests.support.pixels import colour_count


def points(task, methods=("a head", "a probe")):
    yield CurvePoint(task, ZERO_SHOT, 0, Interval(0.7, 0.65, 0.75), 1, 0.0)
    for method in methods:
        for number in (8, 32, None):
            yield CurvePoint(task, method, number, Interval(0.8, 0.7, 0.85), 5, 40.0)


def test_every_method_has_a_line_and_undefined_intervals_are_left_out():
    undefined = CurvePoint("two", "a head", None, Interval(0.8, math.nan, math.nan), 1, 9.0)
    one = draw_label_curve([*points("$ptb_xl$", ("a head",))], r"title $\frac{$")
    assert colour_count(one, "#0072b2") > 300
    assert colour_count(one, "#d55e00") == 0
    two = draw_label_curve([*points("one"), *points("two"), undefined], "")
    assert colour_count(two, "#0072b2") > 1.3 * colour_count(one, "#0072b2")
    assert colour_count(two, "#d55e00") > 600
    with pytest.raises(MetsError, match="no point"):
        draw_label_curve([], "")
