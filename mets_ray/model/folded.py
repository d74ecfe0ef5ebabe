"""The ECG encoder's convolutions with their norms folded in: what the fast runtimes of `ecg_runtime` compute."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mets_ray.model.ecg_encoder import (
    AntialiasedConv1d,
    AntialiasedMaxPool,
    BasicBlock,
    EcgEncoder,
    SqueezeExcitationBlock,
)


@dataclass(frozen=True)
class Convolution:
    """A convolution over time and what remains of its norm: nothing of a batch norm, which is a scale and a shift."""

    layer: nn.Conv1d
    group_norm: nn.GroupNorm | None


@dataclass(frozen=True)
class Block:
    """Two convolutions beside a shortcut, which is None where it is the identity.

    excitation: the two layers from the means of the residual's channels to their weights, with a ReLU between them and
    a sigmoid behind; None in METS's encoder.
    """

    first: Convolution
    second: Convolution
    shortcut: Convolution | None
    excitation: tuple[nn.Linear, nn.Linear] | None


@dataclass(frozen=True)
class FoldedEncoder:
    """A frozen encoder. `lead_gain` and `lead_bias`, [lead, channel]: of an encoder with a lead mask, else None.

    ReLUs follow the stem, the first convolution of a block and the sum of its second with the shortcut; max pooling
    (kernel 3, stride 2, padding 1) follows the stem, or `AntialiasedMaxPool` if `antialias`.
    """

    stem: Convolution
    lead_gain: Float[Tensor, "lead channel"] | None
    lead_bias: Float[Tensor, "lead channel"] | None
    blocks: tuple[Block, ...]
    antialias: bool

    @property
    def leads(self) -> int:
        return self.stem.layer.in_channels


@torch.no_grad()
def fold(encoder: EcgEncoder) -> FoldedEncoder:
    """The folded form of an encoder in `eval()` on a CPU; it keeps its own weights."""
    assert not encoder.training, "the statistics of a batch norm change in training"
    blocks = []
    for block in encoder.stages:
        assert isinstance(block, BasicBlock)
        first, first_norm, _, second, second_norm = block.residual
        shortcut = block.shortcut
        blocks.append(
            Block(
                _folded(first, first_norm),
                _folded(second, second_norm),
                _folded(*shortcut) if isinstance(shortcut, nn.Sequential) else None,
                _excitation(block) if isinstance(block, SqueezeExcitationBlock) else None,
            )
        )
    stem = encoder.stem
    antialias = isinstance(stem[3], AntialiasedMaxPool)
    return FoldedEncoder(_folded(stem[0], stem[1]), stem.lead_gain, stem.lead_bias, tuple(blocks), antialias)


def _excitation(block: SqueezeExcitationBlock) -> tuple[nn.Linear, nn.Linear]:
    squeeze, _, widen, _ = block.excitation
    assert isinstance(squeeze, nn.Linear)
    assert isinstance(widen, nn.Linear)
    return squeeze, widen


def _folded(layer: nn.Module, norm: nn.Module) -> Convolution:
    assert isinstance(layer, nn.Conv1d)
    if isinstance(layer, AntialiasedConv1d):
        layer = _plain(layer)
    if isinstance(norm, nn.GroupNorm):  # its statistics are those of each ECG
        return Convolution(layer, norm)
    assert isinstance(norm, nn.BatchNorm1d | nn.SyncBatchNorm)
    return Convolution(fuse_conv_bn_eval(layer, norm), None)


def _plain(layer: AntialiasedConv1d) -> nn.Conv1d:
    """The same function as one plain convolution."""
    kernel, padding = layer.smoothed
    outputs, inputs, length = kernel.shape
    plain = nn.Conv1d(inputs, outputs, length, stride=int(layer.stride[0]), padding=padding, bias=False)
    plain.weight.copy_(kernel)
    return plain.eval()


class ChannelsLast:
    """A folded encoder in torch, with the channels of a position side by side in memory.

    torch has this layout for images only, so an ECG is an image of one row. Called with millivolts,
    [batch, lead, sample], it returns the output of the last stage, [batch, feature, position].
    """

    def __init__(self, folded: FoldedEncoder) -> None:
        self._folded = folded
        self._stem = _Row(folded.stem)
        self._blocks = [_RowBlock(block) for block in folded.blocks]
        self._pool = AntialiasedMaxPool()

    @torch.inference_mode()
    def __call__(self, signal_mv: Float[Tensor, "batch lead sample"]) -> Float[Tensor, "batch feature position"]:
        hidden = self._stem(signal_mv[:, :, None].contiguous(memory_format=torch.channels_last))
        gain, bias = self._folded.lead_gain, self._folded.lead_bias
        if gain is not None and bias is not None:
            absent = (signal_mv == 0).all(dim=-1).to(signal_mv.dtype)
            hidden = hidden * (1 + absent @ gain)[:, :, None, None] + (absent @ bias)[:, :, None, None]
        if self._folded.antialias:
            hidden = self._pool(hidden.relu_()[:, :, 0])[:, :, None].contiguous(memory_format=torch.channels_last)
        else:
            hidden = F.max_pool2d(hidden.relu_(), kernel_size=(1, 3), stride=(1, 2), padding=(0, 1))
        for block in self._blocks:
            hidden = block(hidden)
        return hidden[:, :, 0]


class _RowBlock:
    def __init__(self, block: Block) -> None:
        self._first, self._second = _Row(block.first), _Row(block.second)
        self._shortcut = None if block.shortcut is None else _Row(block.shortcut)
        self._excitation = block.excitation

    def __call__(self, hidden: Tensor) -> Tensor:
        residual = self._second(self._first(hidden).relu_())
        if self._excitation is not None:
            squeeze, widen = self._excitation
            residual *= widen(squeeze(residual.mean(dim=(2, 3))).relu_()).sigmoid_()[:, :, None, None]
        residual += hidden if self._shortcut is None else self._shortcut(hidden)
        return residual.relu_()


class _Row:
    """A convolution over images of one row."""

    def __init__(self, convolution: Convolution) -> None:
        layer = convolution.layer
        self._weight = layer.weight.detach()[:, :, None].contiguous(memory_format=torch.channels_last)
        self._bias = None if layer.bias is None else layer.bias.detach()
        self._stride, self._padding = (1, layer.stride[0]), (0, int(layer.padding[0]))
        self._group_norm = convolution.group_norm

    def __call__(self, hidden: Tensor) -> Tensor:
        hidden = F.conv2d(hidden, self._weight, self._bias, self._stride, self._padding)
        return hidden if self._group_norm is None else self._group_norm(hidden)
