"""distributions.py: pictures of what was measured."""

import numpy as np
import pytest

from mets_ray.errors import MetsError
from mets_ray.pictures.distributions import Histogram, draw_histograms, draw_lead_ranges

PNG = b"\x89PNG\r\n\x1a\n"
EDGES = np.geomspace(0.001, 10.0, 11)


def test_histograms_and_ranges_are_pngs():
    counts = np.array([0, 0, 5, 9, 4, 0, 0, 1, 0, 0])
    panels = [
        Histogram("a", counts, EDGES, 0.5),
        Histogram("b", counts, np.linspace(0, 1, 11)),
        Histogram("c", counts * 0, EDGES),
    ]
    assert draw_histograms(panels, "Title").startswith(PNG)
    ranges = {"mV": {"I": (0.1, 0.5, 1.0, 1.5, 3.0), "II": (float("nan"),) * 5}}
    assert draw_lead_ranges(ranges, "Title").startswith(PNG)


def test_nothing_is_not_drawn():
    with pytest.raises(MetsError):
        draw_histograms([], "")
    with pytest.raises(MetsError):
        draw_lead_ranges({}, "")
