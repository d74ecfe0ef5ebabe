"""The two encoders: ResNet1d-18 for ECGs, a frozen language model for texts. Both give features, not embeddings."""

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mets_ray.errors import ConfigError

Norm = Literal["batch", "sync", "group"]

_STRIDE = 32  # of the ECG encoder: samples from one position of its last stage to the next
_FOCUS_REACH = 4.0  # standard deviations: 2 s on each side of a heart beat


class EcgEncoder(nn.Module):
    """ResNet1d-18: an ECG in millivolts, `[batch, lead, sample]`, to features, `[batch, 8 * width]`.

    ResNet-18 (He et al. 2016) with 1-D kernels, as METS (PMLR v227, li24a) names it. 12 leads, width 64 and norm
    "batch" give 3,848,832 parameters, as in MERL's version, which has no max pool.

    norm: "batch" has statistics of each worker's own rows, "sync" of all workers' rows (GPU only), "group" does not
    look at the batch at all.

    activation_checkpointing: in training keep only the input of the stem and of each block, and compute what is inside
    again in the backward pass (Chen et al. 2016): the same gradients, less memory, a third more time.
    """

    def __init__(
        self, *, leads: int = 12, width: int = 64, norm: Norm = "batch", activation_checkpointing: bool = False
    ) -> None:
        super().__init__()
        self.norm = norm
        self.activation_checkpointing = activation_checkpointing
        self.num_features = 8 * width
        self.stem = nn.Sequential(
            nn.Conv1d(leads, width, kernel_size=7, stride=2, padding=3, bias=False),
            _norm(norm, width),
            nn.ReLU(inplace=True),
            nn.MaxPool1d(kernel_size=3, stride=2, padding=1),
        )
        blocks: list[nn.Module] = []
        channels = width
        for stage in range(4):
            for block in range(2):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(_BasicBlock(channels, width * 2**stage, stride, norm))
                channels = width * 2**stage
        self.stages = nn.Sequential(*blocks)

    def forward(
        self, signal_mv: Float[Tensor, "batch lead sample"], focus: float | None = None
    ) -> Float[Tensor, "batch feature"]:
        """Features of each ECG. Raises ConfigError where norm "sync" is to train on a CPU.

        focus: None for the mean over time. For what happens in the middle of the window, such as one beat of many, half
        the weight lies there, on a Gaussian whose standard deviation is this share of the window; what is further away
        than four of them is taken as not recorded, as `augment` takes stretches away.
        """
        if self.norm == "sync" and self.training and signal_mv.device.type == "cpu":
            # torch raises only with a process group; without one it would silently train as norm "batch".
            raise ConfigError(
                "`encoder.norm` is sync, which torch has for GPUs only, and the encoder trains on a CPU",
                hint="set encoder.norm to group, or train.device to gpu",
            )
        if focus is not None:
            signal_mv = signal_mv * _within_reach(signal_mv, focus)
        recompute = self.activation_checkpointing and self.training and torch.is_grad_enabled()
        hidden = signal_mv
        for part in (self.stem, *self.stages):
            hidden = _checkpointed(part, hidden) if recompute else part(hidden)
        if focus is None:
            return hidden.mean(dim=-1)
        return hidden @ _focus_weights(hidden, signal_mv.shape[-1], focus)


def _within_reach(signal_mv: Float[Tensor, "batch lead sample"], focus: float) -> Float[Tensor, "sample"]:
    samples = signal_mv.shape[-1]
    share = torch.arange(samples, device=signal_mv.device) / samples - 0.5
    return (share.abs() <= _FOCUS_REACH * focus).to(signal_mv.dtype)


def _focus_weights(
    hidden: Float[Tensor, "batch feature position"], samples: int, focus: float
) -> Float[Tensor, "position"]:
    # Every convolution is padded by half its kernel, so position i looks at sample _STRIDE * i.
    position = torch.arange(hidden.shape[-1], device=hidden.device, dtype=hidden.dtype)
    near = (-0.5 * ((position * _STRIDE / samples - 0.5) / focus).square()).softmax(dim=0)
    return (near + 1 / len(near)) / 2


class _BasicBlock(nn.Module):
    """Two k3 convolutions beside an identity, or beside a 1x1 convolution where the shape changes."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv1d(channels_in, channels_out, kernel_size=3, stride=stride, padding=1, bias=False),
            _norm(norm, channels_out),
            nn.ReLU(inplace=True),
            nn.Conv1d(channels_out, channels_out, kernel_size=3, padding=1, bias=False),
            _norm(norm, channels_out),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv1d(channels_in, channels_out, kernel_size=1, stride=stride, bias=False),
                _norm(norm, channels_out),
            )

    def forward(
        self, hidden: Float[Tensor, "batch channel_in sample_in"]
    ) -> Float[Tensor, "batch channel_out sample_out"]:
        return torch.relu(self.residual(hidden) + self.shortcut(hidden))


def _checkpointed(
    part: nn.Module, hidden: Float[Tensor, "batch channel_in sample_in"]
) -> Float[Tensor, "batch channel_out sample_out"]:
    # The second time must not move the running statistics again.
    output: Tensor = checkpoint(
        part, hidden, use_reentrant=False, context_fn=lambda: (nullcontext(), buffers_kept(part))
    )
    return output


@contextmanager
def buffers_kept(module: nn.Module) -> Iterator[None]:
    """Within it, the module works on copies of its buffers, so BatchNorm's running statistics stay as they are."""
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
    # 16 channels to a group did as well as 32 groups in Wu & He 2018; the gcd keeps narrow test models legal.
    return nn.GroupNorm(channels // math.gcd(channels, 16), channels)
