"""The picture of a training run: its two courses, measured in the pixels of the PNG."""

import pytest

from mets_ray.errors import MetsError
from mets_ray.pictures.training import draw_training
from tests.support.pixels import colour_count


def test_training_draws_both_courses_and_survives_nan():
    epochs = [
        {
            "epoch": number,
            "loss": 3.0 / number,
            "validation_macro_auroc": 0.5 + 0.01 * number if number % 2 else float("nan"),
        }
        for number in range(1, 11)
    ]
    both = draw_training(epochs, 9, r"$\frac{$ run_1")
    assert colour_count(both, "#0072b2") > 500
    assert colour_count(both, "#d55e00") > 500
    alone = draw_training([item | {"validation_macro_auroc": float("nan")} for item in epochs], 9, "$ run_1")
    assert colour_count(alone, "#0072b2") > 500
    assert colour_count(alone, "#d55e00") == 0
    assert colour_count(draw_training(epochs[:1], 1, "one epoch"), "#0072b2") > 10
    with pytest.raises(MetsError, match="no epoch"):
        draw_training([], 1, "")
