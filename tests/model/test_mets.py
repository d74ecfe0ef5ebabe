"""The trainable half of METS: unit embeddings, the logit scale, and what autocast must not touch."""

import math

import numpy as np
import pytest
import torch

from mets_ray.model.loss import contrastive_loss, targets_one_hot
from mets_ray.model.mets import Mets


@pytest.fixture
def model() -> Mets:
    torch.manual_seed(0)
    return Mets(text_features=24, width=8, norm="group", dimension=16).double()


def test_the_papers_model_has_encoder_two_projections_and_one_scale():
    model = Mets(text_features=768)
    assert sum(parameter.numel() for parameter in model.parameters()) == 3_848_832 + 513 * 128 + 769 * 128 + 1
    assert model.logit_scale.item() == pytest.approx(1 / 0.07)


def test_embeddings_are_the_projected_features_divided_by_their_length(model: Mets):
    signal_mv = torch.randn(5, 12, 200, dtype=torch.float64)
    text_features = torch.randn(5, 24, dtype=torch.float64)
    ecg_embedding, text_embedding, logit_scale, _ = model(signal_mv, text_features)
    for embedding, features, projection in (
        (ecg_embedding, model.ecg_encoder(signal_mv), model.ecg_projection),
        (text_embedding, text_features, model.text_projection),
    ):
        weight, bias = projection.weight.detach().numpy(), projection.bias.detach().numpy()
        for row, feature in zip(embedding.detach().numpy(), features.detach().numpy(), strict=True):
            slow = weight @ feature + bias
            np.testing.assert_allclose(row, slow / math.sqrt(sum(slow**2)), rtol=0, atol=1e-12)
    assert logit_scale.item() == pytest.approx(1 / 0.07)
    torch.testing.assert_close(model.embed_ecg(signal_mv), ecg_embedding)
    torch.testing.assert_close(model.embed_text(text_features), text_embedding)


def test_text_features_may_be_float16(model: Mets):
    text_features = torch.randn(3, 24).half()
    assert model.embed_text(text_features).dtype == torch.float64
    torch.testing.assert_close(model.embed_text(text_features), model.embed_text(text_features.double()))


@pytest.mark.parametrize(("log_scale", "expected"), [(9.0, 100.0), (-3.0, 1.0), (2.0, math.exp(2.0))])
def test_the_logit_scale_is_held_between_1_and_100(model: Mets, log_scale: float, expected: float):
    with torch.no_grad():
        model.log_logit_scale.fill_(log_scale)
    model.clamp_logit_scale()
    assert model.logit_scale.item() == pytest.approx(expected)
    assert model.log_logit_scale.requires_grad


def test_every_parameter_gets_a_gradient(model: Mets):
    ecg, text, scale, _ = model(torch.randn(6, 12, 200, dtype=torch.float64), torch.randn(6, 24, dtype=torch.float64))
    contrastive_loss(ecg, text, scale, targets_one_hot(6, 6)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_a_small_batch_can_be_learnt_by_heart():
    torch.manual_seed(0)
    model = Mets(text_features=24, width=8, norm="batch", dimension=16)
    signal_mv, text_features = torch.randn(8, 12, 200), torch.randn(8, 24)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        ecg, text, scale, _ = model(signal_mv, text_features)
        loss = contrastive_loss(ecg, text, scale, targets_one_hot(8, 8))
        loss.backward()
        optimizer.step()
        model.clamp_logit_scale()
        losses.append(loss.item())
    assert losses[0] > 1.5
    assert losses[-1] < 0.1


def test_embeddings_and_loss_stay_float32_under_autocast():
    torch.manual_seed(0)
    model = Mets(text_features=24, width=8, norm="group", dimension=16)
    signal_mv, text_features = torch.randn(8, 12, 200), torch.randn(8, 24)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ecg_embedding, text_embedding, logit_scale, _ = model(signal_mv, text_features)
        inside = contrastive_loss(ecg_embedding, text_embedding, logit_scale, targets_one_hot(8, 8))
    outside = contrastive_loss(ecg_embedding, text_embedding, logit_scale, targets_one_hot(8, 8))
    assert ecg_embedding.dtype == text_embedding.dtype == torch.float32
    torch.testing.assert_close(ecg_embedding.norm(dim=1), torch.ones(8), rtol=0, atol=1e-6)
    assert inside.item() == outside.item()
