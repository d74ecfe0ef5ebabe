"""Anchored prompts: what a prompt is drawn to, against a slow reference."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mets_ray.model.mets import Mets
from mets_ray.text.sides import LEFT, NEITHER, RIGHT
from mets_ray.text.statements import ReportStatements

NO_SIDES = np.zeros(5, np.int8)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Mets(text_features=24, width=4, dimension=8, sigmoid=True).double()


def unit(vector):
    return vector / np.linalg.norm(vector)


def slow_prompt(model, prompt, anchors, directions=None, used=None):
    """One prompt, one anchor at a time. used: whether each anchor may count."""
    weight = model.text_projection.weight.detach().numpy()
    bias = model.text_projection.bias.detach().numpy()
    embed = lambda features: unit(weight @ features + bias)  # noqa: E731
    cosines = [float(unit(prompt) @ unit(anchor)) for anchor in anchors]
    mean = sum(cosines) / len(cosines)
    deviation = (sum((cosine - mean) ** 2 for cosine in cosines) / (len(cosines) - 1)) ** 0.5
    weights = [np.exp(3.0 * (cosine - mean) / deviation) for cosine in cosines]
    weights = [weight * may for weight, may in zip(weights, used or [True] * len(weights), strict=True)]
    towards = [embed(anchor) for anchor in anchors] if directions is None else directions
    drawn = sum(share / sum(weights) * one for share, one in zip(weights, towards, strict=True))
    return unit(embed(prompt) + (1 if directions is None else 2) * unit(drawn))


def test_a_prompt_is_half_its_own_words_and_half_its_nearest_anchors(model):
    generator = np.random.default_rng(1)
    anchors, prompts = generator.normal(size=(40, 24)), generator.normal(size=(5, 24))
    model.anchors = torch.from_numpy(anchors).half()
    anchors = model.anchors.double().numpy()
    found = model.embed_prompt(torch.from_numpy(prompts), NO_SIDES).detach().numpy()
    expected = np.stack([slow_prompt(model, prompt, anchors) for prompt in prompts])
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_where_directions_were_measured_they_count_twice_as_much_as_the_words(model):
    generator = np.random.default_rng(3)
    anchors, prompts = generator.normal(size=(40, 24)), generator.normal(size=(5, 24))
    directions = generator.normal(size=(40, 8)) / 100  # of any length
    model.anchors, model.anchor_directions = torch.from_numpy(anchors), torch.from_numpy(directions)
    found = model.embed_prompt(torch.from_numpy(prompts), NO_SIDES).detach().numpy()
    expected = np.stack([slow_prompt(model, prompt, anchors, directions) for prompt in prompts])
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1)


def test_statements_of_the_other_side_have_no_weight(model):
    generator = np.random.default_rng(4)
    anchors, prompts = generator.normal(size=(40, 24)), generator.normal(size=(5, 24))
    directions = generator.normal(size=(40, 8))
    sides = generator.integers(-1, 2, 40).astype(np.int8)
    of_prompts = np.array([LEFT, RIGHT, NEITHER, LEFT, RIGHT], np.int8)
    model.anchors, model.anchor_directions = torch.from_numpy(anchors), torch.from_numpy(directions)
    model.anchor_sides = torch.from_numpy(sides)
    found = model.embed_prompt(torch.from_numpy(prompts), of_prompts).detach().numpy()
    for vector, prompt, side in zip(found, prompts, of_prompts.tolist(), strict=True):
        used = [NEITHER in (side, of_anchor) or side == of_anchor for of_anchor in sides.tolist()]
        np.testing.assert_allclose(vector, slow_prompt(model, prompt, anchors, directions, used), rtol=1e-10)
    model.anchor_sides = torch.full((40,), LEFT, dtype=torch.int8)  # nothing else is there
    found = model.embed_prompt(torch.from_numpy(prompts), np.full(5, RIGHT, np.int8)).detach().numpy()
    expected = np.stack([slow_prompt(model, prompt, anchors, directions) for prompt in prompts])
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_without_anchors_or_with_one_a_prompt_is_a_text(model):
    features = torch.randn(3, 24, dtype=torch.float64)
    for anchors in (None, torch.randn(1, 24, dtype=torch.float64)):
        model.anchors = anchors
        assert torch.equal(model.embed_prompt(features, NO_SIDES[:3]), model.embed_text(features))


def test_a_prompt_goes_to_the_statement_that_it_is_like(model):
    generator = torch.Generator().manual_seed(2)
    model.anchors = torch.randn(50, 24, generator=generator)
    near = model.anchors[7].double() + 0.3 * torch.randn(24, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        target = model.embed_text(model.anchors[7:8].double())
        moved = F.cosine_similarity(model.embed_prompt(near[None], NO_SIDES[:1]), target)
        own = F.cosine_similarity(model.embed_text(near[None]), target)
    assert moved > own


def test_the_most_frequent_statements_are_the_anchors():
    statements = ReportStatements.build({"a": ("x", "y"), "b": ("y",), "c": ("y", "z"), "d": ("z",)})
    two = ReportStatements.build({"y": ("y",), "z": ("z",)}).statement_ids
    assert set(statements.most_frequent(2).tolist()) == set(two.tolist())
    assert len(statements.most_frequent(10)) == 3
    assert sorted(statements.most_frequent(10).tolist()) == statements.most_frequent(10).tolist()
