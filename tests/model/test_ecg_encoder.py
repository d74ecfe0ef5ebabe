"""ResNet1d-18 against a plain functional reading of its table."""

import math

import pytest
import torch
import torch.nn.functional as F

from mets_ray.errors import ConfigError
from mets_ray.model.ecg_encoder import EcgEncoder

ARCHITECTURES = {True: "resnet1d_18", False: "seresnet1d_18"}


# --- EcgEncoder
def smoothed(hidden: torch.Tensor, reach: int) -> torch.Tensor:
    """[1, 2, 1] / 4 of each channel, `reach` positions beyond both edges, with zeros outside."""
    wide = F.pad(hidden, (reach + 1, reach + 1))
    return (wide[..., :-2] + 2 * wide[..., 1:-1] + wide[..., 2:]) / 4


def slow_resnet(encoder: EcgEncoder, signal: torch.Tensor, *, is_plain: bool = True) -> torch.Tensor:
    """Eval-mode ResNet-18 or SE-ResNet-18, written from the papers' tables, eating the state in order."""
    state = iter(encoder.state_dict().values())

    def convolve_and_normalise(hidden: torch.Tensor, stride: int, padding: int) -> torch.Tensor:
        kernel, weight, bias, mean, variance, _ = (next(state) for _ in range(6))
        if not is_plain and stride == 2 and hidden.shape[1] != signal.shape[1]:
            hidden, padding = smoothed(hidden, padding), 0
        hidden = F.conv1d(hidden, kernel, stride=stride, padding=padding)
        column = (slice(None), None)
        return (hidden - mean[column]) / (variance[column] + 1e-5).sqrt() * weight[column] + bias[column]

    hidden = F.relu(convolve_and_normalise(signal, 2, 3))
    if not is_plain:
        hidden = smoothed(F.max_pool1d(hidden, 3, stride=1, padding=1), 0)[..., ::2]
    else:
        hidden = F.max_pool1d(hidden, 3, stride=2, padding=1)
    for stage in range(4):
        for block in range(2):
            stride = 2 if stage and not block else 1
            residual = F.relu(convolve_and_normalise(hidden, stride, 1))
            residual = convolve_and_normalise(residual, 1, 1)
            shortcut = convolve_and_normalise(hidden, stride, 0) if stride == 2 else hidden
            if not is_plain:
                (inner, inner_bias), (outer, outer_bias) = ((next(state), next(state)) for _ in range(2))
                squeezed = F.relu(residual.sum(dim=2) / residual.shape[2] @ inner.T + inner_bias)
                residual = residual / (1 + (-(squeezed @ outer.T) - outer_bias).exp())[:, :, None]
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


@pytest.mark.parametrize("is_plain", [False, True])
@pytest.mark.parametrize(("leads", "width", "samples"), [(12, 8, 1000), (1, 4, 250), (2, 3, 77)])
def test_features_and_gradients_equal_a_plain_resnet(leads: int, width: int, samples: int, is_plain: bool):
    torch.manual_seed(0)
    encoder = EcgEncoder(leads=leads, width=width, architecture=ARCHITECTURES[is_plain]).double()
    encoder(torch.randn(4, leads, samples, dtype=torch.float64))  # moves the running statistics off 0 and 1
    encoder.eval()
    signal = torch.randn(3, leads, samples, dtype=torch.float64, requires_grad=True)
    features, slow = encoder(signal), slow_resnet(encoder, signal, is_plain=is_plain)
    assert features.shape == (3, encoder.num_features) == (3, 8 * width)
    torch.testing.assert_close(features, slow, rtol=0, atol=1e-12)
    gradients = [torch.autograd.grad(of.square().sum(), signal)[0] for of in (features, slow)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


def test_a_shift_changes_the_features_less_with_a_low_pass():
    changes = {}
    for is_plain, architecture in ARCHITECTURES.items():
        torch.manual_seed(0)
        encoder = EcgEncoder(width=8, norm="group", architecture=architecture).eval().requires_grad_(False)
        ecg = torch.randn(4, 12, 1040).cumsum(dim=2) / 10
        here, there = (encoder(ecg[:, :, start : start + 1000]) for start in (0, 8))
        changes[is_plain] = float((there - here).norm() / (here - here.mean(dim=0)).norm())
    assert changes[False] < changes[True]


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


# --- leads that were not recorded


def slow_stem(encoder: EcgEncoder, signal: torch.Tensor) -> torch.Tensor:
    """The stem in eval mode, an ECG and a channel at a time, asking of each lead whether it is there."""
    state = {key.removeprefix("stem."): value for key, value in encoder.named_parameters() if key.startswith("stem.")}
    norm = encoder.stem[1]
    rows = []
    for ecg in signal:
        hidden = F.conv1d(ecg[None], state["0.weight"], stride=2, padding=3)[0]
        channels = []
        for channel, values in enumerate(hidden):
            scale = norm.weight[channel] / (norm.running_var[channel] + norm.eps).sqrt()
            values = (values - norm.running_mean[channel]) * scale + norm.bias[channel]
            absent = [lead for lead in range(len(ecg)) if ecg[lead].abs().max() == 0]
            if "lead_gain" in state:
                values = values * (1 + sum(state["lead_gain"][lead, channel] for lead in absent))
                values = values + sum(state["lead_bias"][lead, channel] for lead in absent)
            channels.append(values)
        rows.append(torch.stack(channels))
    return F.max_pool1d(F.relu(torch.stack(rows)), 3, stride=2, padding=1)


def masked_encoder(lead_mask: bool) -> EcgEncoder:
    torch.manual_seed(0)
    encoder = EcgEncoder(width=4, lead_mask=lead_mask).double()
    encoder(torch.randn(4, 12, 200, dtype=torch.float64))  # moves the running statistics off 0 and 1
    with torch.no_grad():
        for name, value in encoder.stem.named_parameters(recurse=False):
            assert not value.any(), name  # before training nothing depends on the mask
            value.normal_(std=0.5)
    return encoder.eval()


def with_fewer_leads() -> torch.Tensor:
    signal = torch.randn(3, 12, 200, dtype=torch.float64)
    signal[1, 2:] = 0
    signal[2, [0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]] = 0
    signal[2, 1, :150] = 0  # a crop takes time, and no lead
    return signal


@pytest.mark.parametrize("lead_mask", [False, True])
def test_the_mask_of_the_leads_equals_a_slow_reading_with_its_gradients(lead_mask: bool):
    encoder, signal = masked_encoder(lead_mask), with_fewer_leads()
    weights = torch.randn(encoder.stem(signal).shape, dtype=torch.float64)
    found = []
    for stem in (encoder.stem, lambda signal: slow_stem(encoder, signal)):
        encoder.zero_grad()
        hidden = stem(signal)
        (hidden * weights).sum().backward()
        gradients = {name: value.grad.clone() for name, value in encoder.stem.named_parameters()}
        found.append((hidden.detach(), gradients))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-12)
    if lead_mask:
        assert found[0][1]["lead_bias"].any(dim=1).tolist() == [lead != 1 for lead in range(12)]  # II is always there
        gain = encoder.stem.lead_gain

        def of_gain(gain: torch.Tensor) -> torch.Tensor:
            parameters = dict(encoder.stem.named_parameters()) | {"lead_gain": gain}
            return torch.func.functional_call(encoder.stem, parameters, signal)

        assert torch.autograd.gradcheck(of_gain, gain)


def test_an_ecg_with_every_lead_passes_as_without_a_mask():
    masked, plain = masked_encoder(True), masked_encoder(False)
    signal = torch.randn(2, 12, 200, dtype=torch.float64)
    torch.testing.assert_close(masked(signal), plain(signal), rtol=0, atol=0)
    fewer = with_fewer_leads()[1:]
    assert not torch.allclose(masked(fewer), plain(fewer))
    with_mask, without = (sum(value.numel() for value in encoder.parameters()) for encoder in (masked, plain))
    assert with_mask - without == 2 * 12 * 4
