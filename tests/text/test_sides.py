"""Left and right in statements as reports write them."""

import numpy as np
import pytest

from mets_ray.text.sides import LEFT, NEITHER, RIGHT, side_of, sides_of


@pytest.mark.parametrize(
    ("text", "side"),
    [
        ("Left ventricular hypertrophy", LEFT),
        ("RIGHT BUNDLE BRANCH BLOCK", RIGHT),
        ("Leftward axis", LEFT),
        ("Rightward axis", RIGHT),
        ("This may be due to LV strain or ischaemia", LEFT),
        ("Voltages are high in chest leads suggesting LVH", LEFT),
        ("right-sided leads", RIGHT),
        ("RBBB and left anterior fascicular block", NEITHER),
        ("Sinus rhythm", NEITHER),
        ("T wave inversion in V1-V4", NEITHER),
        ("bright, lvhx", NEITHER),
        ("", NEITHER),
    ],
)
def test_the_side_of_a_text(text, side):
    assert side_of(text) == side


def test_opposite_sides_have_a_negative_product():
    sides = sides_of(["left", "right", "none"])
    assert sides.dtype == np.int8
    assert (np.multiply.outer(sides, sides) < 0).tolist() == [[False, True, False], [True, False, False], [False] * 3]
