"""The ECG encoder, ResNet1d-18 or SE-ResNet1d-18. It returns features; `mets` projects them to embeddings."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal, TypedDict

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mets_ray.config.kinds import EncoderArchitecture
from mets_ray.config.settings import EncoderConfig
from mets_ray.errors import ConfigError

Norm = Literal["batch", "sync", "group"]


class EncoderShape(TypedDict, total=False):
    """The arguments of `EcgEncoder` that its parameters depend on."""

    leads: int
    width: int
    norm: Norm
    lead_mask: bool
    architecture: EncoderArchitecture


def encoder_shape(settings: EncoderConfig, leads: int) -> EncoderShape:
    """The encoder that a configuration describes. leads: of each ECG."""
    return EncoderShape(
        leads=leads,
        width=settings.width,
        norm=settings.norm,
        lead_mask=settings.lead_mask,
        architecture=settings.architecture,
    )


_STRIDE = 32  # of the ECG encoder: samples between adjacent positions of its last stage

LOW_PASS = (0.25, 0.5, 0.25)

_SQUEEZE, _FEWEST_SQUEEZED = 8, 8  # channels of a block to one of its excitation, which has at least so many

_FOCUS_REACH = 4.0  # standard deviations: 2 s on each side of a heart beat


class EcgEncoder(nn.Module):
    """ResNet1d: an ECG in millivolts, `[batch, lead, sample]`, to features, `[batch, 8 * width]`.

    ResNet-18 (He et al. 2016) with 1-D kernels, as in METS (PMLR v227, li24a). 12 leads, width 64 and norm "batch"
    give 3,848,832 parameters, as in MERL's version, which has no max pooling.

    norm: "batch" uses statistics of each worker's own rows, "sync" of all workers' rows (GPU only), "group" is
    independent of the batch.

    lead_mask: whether it knows which leads were not recorded (`_Stem`); without it they are zeros and no more.

    architecture: "resnet1d_18" is METS's. "seresnet1d_18" adds two things. A low-pass filter, [1, 2, 1] / 4, before
    every second position is dropped, in the max pooling and in the stages, so that a shift of the ECG by some samples
    changes its features less (Zhang 2019, arXiv 1904.11486); it has no parameters. And each block weighs its channels
    by what the whole ECG holds in them (squeeze and excitation, Hu et al. 2018, arXiv 1709.01507).

    activation_checkpointing: in training, keep only the inputs of the stem and of each block, and recompute their
    activations in the backward pass (Chen et al. 2016): the same gradients, less memory, a third more time.
    """

    def __init__(
        self,
        *,
        leads: int = 12,
        width: int = 64,
        norm: Norm = "batch",
        lead_mask: bool = False,
        architecture: EncoderArchitecture = "resnet1d_18",
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.norm = norm
        self.activation_checkpointing = activation_checkpointing
        self.num_features = 8 * width
        is_plain = architecture == "resnet1d_18"
        self.stem = _Stem(leads, width, norm, lead_mask=lead_mask, antialias=not is_plain)
        blocks: list[nn.Module] = []
        channels = width
        for stage in range(4):
            for block in range(2):
                stride = 2 if stage > 0 and block == 0 else 1
                kind = BasicBlock if is_plain else SqueezeExcitationBlock
                blocks.append(kind(channels, width * 2**stage, stride, norm))
                channels = width * 2**stage
        self.stages = nn.Sequential(*blocks)

    def forward(
        self, signal_mv: Float[Tensor, "batch lead sample"], focus: float | None = None
    ) -> Float[Tensor, "batch feature"]:
        """Features of each ECG. Raises ConfigError for training with norm "sync" on a CPU.

        focus: None for the mean over time. To focus on the middle of the window, for example on a single beat, give
        the standard deviation of a Gaussian as a share of the window: half the weight is on this Gaussian, the other
        half is uniform. Samples more than four standard deviations from the middle are zeroed, as in `augment`.
        """
        if self.norm == "sync" and self.training and signal_mv.device.type == "cpu":
            # torch raises only with a process group; without one it would silently train like norm "batch".
            raise ConfigError(
                "`encoder.norm` is sync, which torch supports on GPUs only, but the encoder trains on a CPU",
                hint="set encoder.norm to group, or train.device to gpu",
            )
        return pooled(self._convolved, signal_mv, focus)

    def _convolved(self, signal_mv: Float[Tensor, "batch lead sample"]) -> Float[Tensor, "batch feature position"]:
        recompute = self.activation_checkpointing and self.training and torch.is_grad_enabled()
        hidden = signal_mv
        for part in (self.stem, *self.stages):
            hidden = _checkpointed(part, hidden) if recompute else part(hidden)
        return hidden


def pooled(
    convolve: Callable[[Tensor], Tensor], signal_mv: Float[Tensor, "batch lead sample"], focus: float | None
) -> Float[Tensor, "batch feature"]:
    """What an encoder makes of what its convolutions give, whoever computes them. focus: see `EcgEncoder.forward`.

    convolve: ECGs to the output of the last stage, [batch, feature, position].
    """
    if focus is None:
        return convolve(signal_mv).mean(dim=-1)
    hidden = convolve(signal_mv * _within_reach(signal_mv, focus))
    return hidden @ _focus_weights(hidden, signal_mv.shape[-1], focus)


class _Stem(nn.Sequential):
    """Convolution, norm, ReLU and max pooling; with `lead_mask` it knows which leads were not recorded.

    A lead that is zero in all samples was not recorded: `preprocess` refuses every flat lead that was, and `augment`
    drops leads by zeroing them. Each such lead scales and shifts the normalised channels by learned vectors (FiLM,
    Perez et al. 2018): fewer leads make smaller sums. A shift alone is what a learned constant in place of the zeros
    gives, or the mask as more inputs of the convolution, but for the edges. Both are 0 before training, and an ECG with
    every lead passes as without a mask.
    """

    def __init__(self, leads: int, width: int, norm: Norm, *, lead_mask: bool, antialias: bool) -> None:
        super().__init__(
            nn.Conv1d(leads, width, kernel_size=7, stride=2, padding=3, bias=False),
            _norm(norm, width),
            nn.ReLU(inplace=True),
            AntialiasedMaxPool() if antialias else nn.MaxPool1d(kernel_size=3, stride=2, padding=1),
        )
        self.lead_gain = nn.Parameter(torch.zeros(leads, width)) if lead_mask else None
        self.lead_bias = nn.Parameter(torch.zeros(leads, width)) if lead_mask else None

    def forward(self, signal_mv: Float[Tensor, "batch lead sample"]) -> Float[Tensor, "batch channel position"]:
        convolution, norm, *rest = self
        hidden: Tensor = norm(convolution(signal_mv))
        if self.lead_gain is not None and self.lead_bias is not None:
            absent = (signal_mv == 0).all(dim=-1).to(hidden.dtype)
            gain, bias = (absent @ vectors.to(hidden.dtype) for vectors in (self.lead_gain, self.lead_bias))
            hidden = hidden * (1 + gain)[:, :, None] + bias[:, :, None]
        for part in rest:
            hidden = part(hidden)
        return hidden


def _within_reach(signal_mv: Float[Tensor, "batch lead sample"], focus: float) -> Float[Tensor, "sample"]:
    samples = signal_mv.shape[-1]
    share = torch.arange(samples, device=signal_mv.device) / samples - 0.5
    return (share.abs() <= _FOCUS_REACH * focus).to(signal_mv.dtype)


def _focus_weights(
    hidden: Float[Tensor, "batch feature position"], samples: int, focus: float
) -> Float[Tensor, "position"]:
    # Every convolution is padded by half its kernel, so position i is centred on sample _STRIDE * i.
    position = torch.arange(hidden.shape[-1], device=hidden.device, dtype=hidden.dtype)
    near = (-0.5 * ((position * _STRIDE / samples - 0.5) / focus).square()).softmax(dim=0)
    return (near + 1 / len(near)) / 2


class AntialiasedConv1d(nn.Conv1d):
    """A strided convolution of the smoothed input: one convolution, with a kernel that is two samples longer.

    Smoothing by [1, 2, 1] / 4 and then convolving is convolving with the smoothed kernel.
    """

    @property
    def smoothed(self) -> tuple[Float[Tensor, "out in sample"], int]:
        """The longer kernel and its padding."""
        before, middle, after = LOW_PASS
        longer = before * F.pad(self.weight, (0, 2)) + middle * F.pad(self.weight, (1, 1))
        return longer + after * F.pad(self.weight, (2, 0)), int(self.padding[0]) + 1

    def forward(self, hidden: Float[Tensor, "batch in sample"]) -> Float[Tensor, "batch out position"]:
        kernel, padding = self.smoothed
        return F.conv1d(hidden, kernel, stride=self.stride, padding=padding)


class AntialiasedMaxPool(nn.Module):
    """Max pooling of three positions, then every second position of the smoothed maxima."""

    def forward(self, hidden: Float[Tensor, "batch channel sample"]) -> Float[Tensor, "batch channel position"]:
        highest = F.pad(F.max_pool1d(hidden, kernel_size=3, stride=1, padding=1), (1, 1))
        before, middle, after = LOW_PASS  # slices: twice as fast as a convolution of each channel
        positions = (hidden.shape[-1] + 1) // 2
        outer = before * highest[..., 0::2][..., :positions] + after * highest[..., 2::2][..., :positions]
        return outer + middle * highest[..., 1:-1:2]


class BasicBlock(nn.Module):
    """Two convolutions of kernel size 3 with an identity shortcut, or a 1x1 convolution where the shape changes."""

    strided: type[nn.Conv1d] = nn.Conv1d

    def __init__(self, channels_in: int, channels_out: int, stride: int, norm: Norm) -> None:
        super().__init__()
        convolution = self.strided if stride > 1 else nn.Conv1d
        self.residual = nn.Sequential(
            convolution(channels_in, channels_out, kernel_size=3, stride=stride, padding=1, bias=False),
            _norm(norm, channels_out),
            nn.ReLU(inplace=True),
            nn.Conv1d(channels_out, channels_out, kernel_size=3, padding=1, bias=False),
            _norm(norm, channels_out),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                convolution(channels_in, channels_out, kernel_size=1, stride=stride, bias=False),
                _norm(norm, channels_out),
            )

    def forward(
        self, hidden: Float[Tensor, "batch channel_in sample_in"]
    ) -> Float[Tensor, "batch channel_out sample_out"]:
        return torch.relu(self.residual(hidden) + self.shortcut(hidden))


class SqueezeExcitationBlock(BasicBlock):
    """A `BasicBlock` that weighs the channels of its residual, and smooths before it drops positions."""

    strided = AntialiasedConv1d

    def __init__(self, channels_in: int, channels_out: int, stride: int, norm: Norm) -> None:
        super().__init__(channels_in, channels_out, stride, norm)
        squeezed = max(_FEWEST_SQUEEZED, channels_out // _SQUEEZE)
        self.excitation = nn.Sequential(
            nn.Linear(channels_out, squeezed), nn.ReLU(inplace=True), nn.Linear(squeezed, channels_out), nn.Sigmoid()
        )

    def forward(
        self, hidden: Float[Tensor, "batch channel_in sample_in"]
    ) -> Float[Tensor, "batch channel_out sample_out"]:
        residual = self.residual(hidden)
        weights = self.excitation(residual.mean(dim=-1))
        return torch.relu(residual * weights[:, :, None] + self.shortcut(hidden))


def _checkpointed(
    part: nn.Module, hidden: Float[Tensor, "batch channel_in sample_in"]
) -> Float[Tensor, "batch channel_out sample_out"]:
    # The recomputation must not update the running statistics a second time.
    output: Tensor = checkpoint(
        part, hidden, use_reentrant=False, context_fn=lambda: (nullcontext(), buffers_kept(part))
    )
    return output


@contextmanager
def buffers_kept(module: nn.Module) -> Iterator[None]:
    """A context in which the module uses copies of its buffers, so BatchNorm's running statistics do not change."""
    kept = [(part, name, buffer) for part in module.modules() for name, buffer in part.named_buffers(recurse=False)]
    try:
        for part, name, buffer in kept:
            setattr(part, name, buffer.clone())
        yield
    finally:
        for part, name, buffer in kept:
            setattr(part, name, buffer)


def _norm(norm: Norm, channels: int) -> nn.Module:
    if norm == "batch":
        return nn.BatchNorm1d(channels)
    if norm == "sync":
        return nn.SyncBatchNorm(channels)
    # 16 channels per group did as well as 32 groups in Wu & He 2018; the gcd keeps narrow test models valid.
    return nn.GroupNorm(channels // math.gcd(channels, 16), channels)
