"""Optimizer, learning rate as a function of the samples seen, and precision by device."""

import math
import os
import re
import shutil

import torch
from torch import nn

from mets_ray.config.settings import TrainConfig
from mets_ray.errors import ConfigError

_STAGE = re.compile(r"ecg_encoder\.stages\.(\d+)\.")
_BLOCKS_PER_STAGE, _STAGES = 2, 4


def build_optimizer(train: TrainConfig, model: nn.Module, layer_decay: float = 1.0) -> torch.optim.Optimizer:
    """Adam (METS) or AdamW, without weight decay for biases, norms and the logit scale.

    layer_decay: each stage of the ECG encoder learns at this share of the rate of the one behind it, and the last at
    this share of what comes after the encoder (ULMFiT, Howard & Ruder 2018, section 3.2). Frozen parameters have no
    rate.
    """
    trained = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    groups = []
    for scale in sorted({_scale(name, layer_decay) for name, _ in trained}, reverse=True):
        of_scale = [value for name, value in trained if _scale(name, layer_decay) == scale]
        decayed, others = [one for one in of_scale if one.ndim > 1], [one for one in of_scale if one.ndim <= 1]
        groups += [
            {"params": decayed, "weight_decay": train.weight_decay, "scale": scale},
            {"params": others, "weight_decay": 0.0, "scale": scale},
        ]
    kind = torch.optim.AdamW if train.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=train.learning_rate)


def _scale(name: str, layer_decay: float) -> float:
    """The share of the learning rate for a parameter of `Mets`."""
    if stage := _STAGE.match(name):
        return layer_decay ** (_STAGES - int(stage[1]) // _BLOCKS_PER_STAGE)
    return layer_decay ** (_STAGES + 1) if name.startswith("ecg_encoder.stem.") else 1.0


def set_learning_rate(optimizer: torch.optim.Optimizer, train: TrainConfig, progress: float) -> None:
    """Set the learning rate of a step at `progress` in [0, 1) of the whole run."""
    for group in optimizer.param_groups:
        # Checkpoints of earlier versions have no scale.
        group["lr"] = group.get("scale", 1.0) * train.learning_rate * schedule_factor(train, progress)


def schedule_factor(train: TrainConfig, progress: float) -> float:
    """Share of the peak learning rate at `progress` in [0, 1): linear warm-up, then cosine decay to 0 or constant.

    It depends only on the samples seen, so it needs no state and does not change with the number of workers.
    """
    if progress < train.warmup_fraction:
        return (progress + 1e-8) / train.warmup_fraction
    if train.schedule == "constant":
        return 1.0
    after = (progress - train.warmup_fraction) / max(1e-8, 1.0 - train.warmup_fraction)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, after)))


def require_compiler() -> None:
    """Raise ConfigError if `train.compile` would fail at the first step: torch needs a C++ compiler for its code."""
    names = [os.environ[name] for name in ("CXX", "CC") if os.environ.get(name)] or ["g++", "clang++", "gcc"]
    if not any(shutil.which(name.split()[0]) for name in names):
        raise ConfigError(
            f"`train.compile` is true, but this node has no C++ compiler ({', '.join(names)})",
            hint="install g++ on every training node, or set train.compile=false",
        )


def choose_precision(train: TrainConfig, device: torch.device) -> str:
    """`train.precision`; for `auto`, bf16 (or fp16 if unsupported) on a GPU and float32 on a CPU."""
    if train.precision != "auto":
        return train.precision
    if device.type == "cpu":
        # bf16 is 1.2 to 3 times faster with AMX and many times slower where it is emulated.
        return "float32"
    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"


def autocast_for(train: TrainConfig, device: torch.device) -> torch.autocast:
    """The autocast context for the chosen precision; disabled for float32 and float64."""
    halves = {"bf16": torch.bfloat16, "fp16": torch.float16}
    precision = choose_precision(train, device)
    return torch.autocast(device.type, dtype=halves.get(precision, torch.bfloat16), enabled=precision in halves)
