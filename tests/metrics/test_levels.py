"""Levels of classes against a slow reference, and what they are for: classes that cannot be compared otherwise."""

import numpy as np
import pytest

from mets_ray.metrics.balanced import BalancedSet, score_balanced
from mets_ray.metrics.input_reference import EmbeddingReference
from mets_ray.metrics.input_thresholds import EmbeddedEcgs, build_reference
from mets_ray.metrics.levels import Levels, levels_of_others, levels_of_others_and_own
from mets_ray.metrics.similarities import TaskSimilarities


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def test_levels_of_others_leave_each_patient_out(generator):
    similarity = generator.normal(0.3, 0.1, (60, 4))
    patients = generator.integers(7, size=60).astype(str)
    levels = levels_of_others(similarity, patients)
    for row, patient in enumerate(patients):
        others = similarity[patients != patient]
        np.testing.assert_allclose(levels.mean[row], others.mean(axis=0), atol=1e-12)
        np.testing.assert_allclose(levels.deviation[row], others.std(axis=0), atol=1e-12)


def test_levels_of_others_and_own_are_halfway_between_them(generator):
    similarity = generator.normal(0.3, 0.1, (60, 4))
    patients = generator.integers(7, size=60).astype(str)
    levels = levels_of_others_and_own(similarity, patients)
    for row, patient in enumerate(patients):
        own, others = similarity[patients == patient], similarity[patients != patient]
        np.testing.assert_allclose(levels.mean[row], (own.mean(axis=0) + others.mean(axis=0)) / 2, atol=1e-12)
        np.testing.assert_allclose(levels.deviation[row], others.std(axis=0), atol=1e-12)


def test_own_levels_show_what_only_some_beats_of_a_recording_show():
    """Two recordings of normal beats, and one whose beats have a bundle branch block, of which one is premature too."""
    similarity = np.array([[0.0, 0.1], [0.1, 0.0], [0.0, 0.1], [0.1, 0.0], [0.9, 0.1], [0.9, 0.0], [0.9, 0.6]])
    recordings = np.array(["a", "a", "b", "b", "c", "c", "c"])
    premature = 6
    by_others = levels_of_others(similarity, recordings).standardise(similarity)
    by_both = levels_of_others_and_own(similarity, recordings).standardise(similarity)
    assert by_others[premature].argmax() == 0
    assert by_both[premature].argmax() == 1
    assert (by_both[4:6].argmax(axis=1) == 0).all()


def test_own_levels_keep_the_order_of_classes_of_a_patient_with_one_ecg(generator):
    similarity = generator.normal(0.3, 0.1, (20, 4))
    by_others = levels_of_others(similarity, np.arange(20)).standardise(similarity)
    by_both = levels_of_others_and_own(similarity, np.arange(20)).standardise(similarity)
    np.testing.assert_allclose(by_both, by_others / 2, atol=1e-12)


@pytest.mark.parametrize("levels", [levels_of_others, levels_of_others_and_own])
@pytest.mark.parametrize("patients", [[], ["a"], ["a", "a", "b"]])
def test_too_few_patients_have_no_levels(patients, levels):
    assert levels(np.zeros((len(patients), 2)), np.asarray(patients, dtype=str)) is None


def test_a_class_without_spread_says_nothing():
    levels = levels_of_others(np.full((5, 1), 0.1), np.arange(5))
    assert (levels.standardise(np.full((5, 1), 0.1)) == 0.0).all()


def test_others_that_are_all_alike_have_no_spread_but_for_rounding():
    """Of the first patient's others, who all have one similarity: leaving the first out costs digits."""
    similarity = np.full((11, 1), 0.3)
    similarity[0] = 0.9
    found = levels_of_others(similarity, np.arange(11)).standardise(similarity)
    assert found[0] == 0.0
    assert (np.abs(found[1:]) < 1.0).all()


def test_a_reference_of_ecgs_that_are_all_alike_has_no_z_scores():
    """As a model that knows nothing places them: `build_reference` writes that its axes hold none of the variance."""
    ecgs = EmbeddedEcgs(np.tile(np.eye(4, dtype=np.float32)[0], (60, 1)), np.arange(60), held_out=True)
    features = np.random.default_rng(0).normal(size=(60, 1))
    reference = build_reference(["a"], features, np.arange(60), ecgs, fixed_edges={}, seed=0).embeddings
    assert reference.explained == 0.0
    levels = reference.levels(np.eye(4))
    assert (levels.standardise(np.array([0.9, 0.1, 0.0, 0.0])) == 0.0).all()


def test_levels_of_a_reference_are_those_of_its_ecgs(generator):
    embeddings = generator.normal(size=(500, 3)) * [0.5, 0.2, 0.1] + [0.4, 0.0, -0.1]
    mean = embeddings.mean(axis=0)
    variances, axes = np.linalg.eigh(np.cov(embeddings.T, ddof=0))
    reference = EmbeddingReference(mean, axes.T, variances, 1.0, 500, 500, True, 1.0)
    vectors = generator.normal(size=(4, 3))
    levels, similarity = reference.levels(vectors), embeddings @ vectors.T
    np.testing.assert_allclose(levels.mean, similarity.mean(axis=0))
    np.testing.assert_allclose(levels.deviation, similarity.std(axis=0))


def test_what_a_reference_left_out_counts_as_equal_in_all_other_directions(generator):
    embeddings = generator.normal(size=(20_000, 6)) * [3.0, 2.0, 0.5, 0.5, 0.5, 0.5]
    variances, axes = np.linalg.eigh(np.cov(embeddings.T, ddof=0))
    explained = variances[-2:].sum() / variances.sum()
    reference = EmbeddingReference(
        embeddings.mean(axis=0), axes.T[-2:], variances[-2:], explained, 20_000, 20_000, True, 1.0
    )
    vectors = generator.normal(size=(5, 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(reference.levels(vectors).deviation, (embeddings @ vectors.T).std(axis=0), rtol=0.02)


def test_classes_with_levels_of_their_own_are_told_apart_when_standardised(generator):
    """One class is near to every ECG, another one hardly moves: cosines choose the first always."""
    truth = np.eye(3, dtype=bool)[generator.integers(3, size=300)]
    similarity = (truth + 0.2 * generator.normal(size=truth.shape)) * [1.0, 1.0, 0.1] + [0.0, 3.0, 0.0]
    patients = np.array([f"p{row // 2}" for row in range(300)])
    scores = TaskSimilarities("t", ("a", "b", "c"), tuple(map(str, range(300))), patients, similarity, truth)
    found = score_balanced(
        BalancedSet("set", "t", ("a", "b", "c")), scores, per_class=50, samples=20, seed=0,
        levels={"others": levels_of_others(similarity, patients), "nothing": Levels(np.zeros(3), np.ones(3))},
    )  # fmt: skip
    assert found.scores["accuracy"].value == pytest.approx(1 / 3)
    assert found.standardised["others"].scores["accuracy"].value > 0.95
    assert found.standardised["nothing"].scores == found.scores
