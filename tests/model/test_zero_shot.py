"""Class embeddings, cosines and scores against loops."""

import math

import pytest
import torch
import torch.nn.functional as F

from mets_ray.model.zero_shot import class_embeddings, scores, similarities


@pytest.fixture
def prompts() -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [F.normalize(torch.randn(count, 6, dtype=torch.float64), dim=1) for count in (1, 3, 2)]


def test_wordings_are_averaged_and_normalised_again(prompts: list[torch.Tensor]):
    embeddings = class_embeddings(prompts)
    assert embeddings.shape == (3, 6)
    for embedding, wordings in zip(embeddings.tolist(), prompts, strict=True):
        mean = [sum(column) / len(wordings) for column in zip(*wordings.tolist(), strict=True)]
        length = math.sqrt(sum(value**2 for value in mean))
        assert embedding == pytest.approx([value / length for value in mean], abs=1e-12)
    torch.testing.assert_close(embeddings[0], prompts[0][0])


def test_similarities_are_cosines(prompts: list[torch.Tensor]):
    ecg = F.normalize(torch.randn(4, 6, dtype=torch.float64), dim=1)
    classes = class_embeddings(prompts)
    found = similarities(ecg, classes)
    for i in range(4):
        for j in range(3):
            assert found[i, j].item() == pytest.approx(F.cosine_similarity(ecg[i], classes[j], dim=0).item(), abs=1e-12)


def test_scores_are_the_softmax_of_the_scaled_similarities():
    similarity = torch.tensor([[0.5, 0.1, -0.2], [0.0, 0.0, 0.0]], dtype=torch.float64)
    for scale in (1 / 0.07, torch.tensor(1 / 0.07, dtype=torch.float64)):
        found = scores(similarity, scale).tolist()
        powers = [math.exp(value / 0.07) for value in (0.5, 0.1, -0.2)]
        assert found[0] == pytest.approx([power / sum(powers) for power in powers], abs=1e-12)
        assert found[1] == pytest.approx([1 / 3] * 3, abs=1e-12)
    assert scores(torch.tensor([[1.0, -1.0]]), 100.0).isfinite().all()
