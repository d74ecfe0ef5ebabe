"""Directions of statements: ridge regression in closed form, whatever the order and split of the ECGs."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from mets_ray.model.statement_directions import StatementSums, statement_directions


@pytest.fixture(scope="module")
def ecgs():
    """Embeddings, and which of seven statements each report holds: the last one none, the one before all."""
    generator = np.random.default_rng(0)
    embeddings = generator.normal(size=(300, 12)) + generator.normal(size=12)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    holds = embeddings @ generator.normal(size=(12, 7)) > 0.2
    holds[:, 5], holds[:, 6] = True, False
    return embeddings.astype(np.float32), holds


def summed(sums, embeddings, holds):
    sums.add(torch.from_numpy(embeddings), *map(torch.from_numpy, np.nonzero(holds)))
    return sums


def test_they_are_the_coefficients_of_ridge_regression(ecgs):
    embeddings, holds = ecgs
    found = statement_directions(summed(StatementSums.zeros(7, 12), embeddings, holds))
    exact = embeddings.astype(np.float64)
    alpha = 0.3 * exact.var(axis=0).mean() * len(exact)
    expected = Ridge(alpha=alpha, solver="cholesky").fit(exact, holds.astype(np.float64)).coef_
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    assert found.dtype == torch.float32
    assert np.abs(found[5:].numpy()).max() < 1e-12  # everybody's and nobody's


def test_equal_embeddings_lie_in_no_direction(ecgs):
    _, holds = ecgs
    same = np.repeat(np.eye(1, 12, dtype=np.float32), len(holds), axis=0)
    found = statement_directions(summed(StatementSums.zeros(7, 12), same, holds))
    assert found.shape == (7, 12)
    assert not found.any()


def test_batches_and_workers_add_up(ecgs):
    embeddings, holds = ecgs
    whole = summed(StatementSums.zeros(7, 12), embeddings, holds)
    one, two = StatementSums.zeros(7, 12), StatementSums.zeros(7, 12)
    for rows in (slice(0, 1), slice(1, 150)):
        summed(one, embeddings[rows], holds[rows])
    summed(two, embeddings[150:], holds[150:])
    for mine, theirs in zip(one.parts(), two.parts(), strict=True):
        mine += theirs
    torch.testing.assert_close(one.parts(), whole.parts(), rtol=1e-12, atol=1e-12)


def test_an_ecg_with_a_statement_scores_above_one_without(ecgs):
    embeddings, holds = ecgs
    found = embeddings @ statement_directions(summed(StatementSums.zeros(7, 12), embeddings, holds)).numpy().T
    for statement in range(5):
        assert found[holds[:, statement], statement].mean() > found[~holds[:, statement], statement].mean() + 0.1
