"""The mean over draws with its interval: patients and draws both vary."""

import numpy as np
import pytest

from mets_ray.metrics.auroc import bootstrap_macro_auroc
from mets_ray.metrics.label_curve import mean_macro_auroc
from mets_ray.metrics.similarities import TaskSimilarities
from tests.support.scores import made_up


@pytest.fixture(scope="module")
def of():
    scores, labels, patients = made_up(200, 3, 1, patients=120)
    return TaskSimilarities("t", ("a", "b", "c"), tuple(map(str, range(200))), patients, scores, labels)


def test_one_draw_is_the_bootstrap_of_patients(of):
    alone = bootstrap_macro_auroc(of.similarity, of.truth, of.patients, samples=50, seed=3).macro
    assert mean_macro_auroc(of, [of.similarity], samples=50, seed=3) == pytest.approx(alone)
    assert mean_macro_auroc(of, [of.similarity] * 4, samples=50, seed=3) == pytest.approx(alone)


def test_draws_that_differ_widen_the_interval(of):
    noise = np.random.default_rng(0).normal(size=of.similarity.shape)
    draws = [of.similarity + strength * noise for strength in (0.0, 1.0, 4.0)]
    single = [bootstrap_macro_auroc(draw, of.truth, of.patients, samples=200, seed=3).macro for draw in draws]
    found = mean_macro_auroc(of, draws, samples=200, seed=3)
    assert found.value == pytest.approx(np.mean([one.value for one in single]))
    assert found.high - found.low > max(one.high - one.low for one in single)
