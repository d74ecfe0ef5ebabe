"""ResNet1d-18 against a plain functional reading of its table."""

import math

import pytest
import torch
import torch.nn.functional as F

from mets_ray.errors import ConfigError
from mets_ray.model.ecg_encoder import EcgEncoder


# --- EcgEncoder
def slow_resnet(encoder: EcgEncoder, signal: torch.Tensor) -> torch.Tensor:
    """Eval-mode ResNet-18, written from the paper's table, eating the state in order."""
    state = iter(encoder.state_dict().values())

    def convolve_and_normalise(hidden: torch.Tensor, stride: int, padding: int) -> torch.Tensor:
        kernel, weight, bias, mean, variance, _ = (next(state) for _ in range(6))
        hidden = F.conv1d(hidden, kernel, stride=stride, padding=padding)
        column = (slice(None), None)
        return (hidden - mean[column]) / (variance[column] + 1e-5).sqrt() * weight[column] + bias[column]

    hidden = F.max_pool1d(F.relu(convolve_and_normalise(signal, 2, 3)), 3, stride=2, padding=1)
    for stage in range(4):
        for block in range(2):
            stride = 2 if stage and not block else 1
            residual = F.relu(convolve_and_normalise(hidden, stride, 1))
            residual = convolve_and_normalise(residual, 1, 1)
            shortcut = convolve_and_normalise(hidden, stride, 0) if stride == 2 else hidden
            hidden = F.relu(residual + shortcut)
    assert next(state, None) is None
    return hidden.sum(dim=2) / hidden.shape[2]


@pytest.mark.parametrize("samples", [1000, 1001, 640])
def test_a_focus_gives_half_the_weight_to_the_middle(samples):
    torch.manual_seed(0)
    encoder = EcgEncoder(width=4, norm="group").double().eval()
    signal = torch.randn(2, 12, samples, dtype=torch.float64)
    far = [abs(i / samples - 0.5) > 4 * 0.05 for i in range(samples)]
    hidden = encoder.stages(encoder.stem(signal.masked_fill(torch.tensor(far), 0.0)))
    near = [math.exp(-(((32 * i / samples - 0.5) / 0.05) ** 2) / 2) for i in range(hidden.shape[-1])]
    expected = sum(hidden[:, :, i] * (weight / sum(near) + 1 / hidden.shape[-1]) / 2 for i, weight in enumerate(near))
    torch.testing.assert_close(encoder(signal, 0.05), expected)
    torch.testing.assert_close(encoder(signal, 1e6), encoder(signal))  # all of it is the middle


def test_the_middle_is_where_the_signal_has_it(monkeypatch):
    torch.manual_seed(0)
    encoder = EcgEncoder(width=4, norm="group").double().eval()
    signal = torch.randn(8, 12, 1000, dtype=torch.float64, requires_grad=True)
    encoder(signal, 0.01).square().sum().backward()
    pull = signal.grad.abs().sum(dim=(0, 1))
    assert torch.all(pull[(torch.arange(1000) - 500).abs() > 40] == 0)  # out of reach

    signal.grad = None
    monkeypatch.setattr("mets_ray.model.ecg_encoder._FOCUS_REACH", 1e9)
    (2 * encoder(signal, 1e-3) - encoder(signal)).square().sum().backward()  # the half that is not the mean
    pull = signal.grad.abs().sum(dim=(0, 1))
    assert abs(float((pull * torch.arange(1000)).sum() / pull.sum()) - 500) < 32


def test_the_papers_encoder_has_the_published_number_of_parameters():
    encoder = EcgEncoder()
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 3_848_832
    assert encoder.num_features == 512


@pytest.mark.parametrize(("leads", "width", "samples"), [(12, 8, 1000), (1, 4, 250), (2, 3, 77)])
def test_features_equal_a_plain_resnet(leads: int, width: int, samples: int):
    torch.manual_seed(0)
    encoder = EcgEncoder(leads=leads, width=width).double()
    encoder(torch.randn(4, leads, samples, dtype=torch.float64))  # moves the running statistics off 0 and 1
    encoder.eval()
    signal = torch.randn(3, leads, samples, dtype=torch.float64)
    features = encoder(signal)
    assert features.shape == (3, encoder.num_features) == (3, 8 * width)
    torch.testing.assert_close(features, slow_resnet(encoder, signal), rtol=0, atol=1e-12)


def test_group_norm_does_not_look_at_the_batch_and_batch_norm_does():
    signal = torch.randn(6, 12, 200, dtype=torch.float64)
    for norm, alike in (("group", True), ("batch", False)):
        torch.manual_seed(0)
        encoder = EcgEncoder(width=8, norm=norm).double().train()
        together, alone = encoder(signal)[:2], encoder(signal[:2])
        assert torch.allclose(together, alone, rtol=0, atol=1e-12) == alike


@pytest.mark.parametrize("width", [3, 8, 24, 64])
def test_group_norm_fits_every_width(width: int):
    EcgEncoder(width=width, norm="group")(torch.randn(2, 12, 100))


def test_sync_norm_trains_on_no_cpu_but_serves_there_as_batch_norm():
    torch.manual_seed(0)
    sync, batch = EcgEncoder(width=8, norm="sync"), EcgEncoder(width=8)
    signal = torch.randn(2, 12, 100)
    with pytest.raises(ConfigError, match=r"`encoder.norm` is sync"):
        sync(signal)
    batch(torch.randn(4, 12, 100))
    sync.load_state_dict(batch.state_dict())
    torch.testing.assert_close(sync.eval()(signal), batch.eval()(signal))
