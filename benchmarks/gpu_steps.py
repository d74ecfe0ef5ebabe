"""What `gpu_check.py` checks in one process without Ray: precisions, NCCL, norms, torch.compile, copies, forward."""

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from random_models import FEATURES
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mets_ray.config.load import load_config
from mets_ray.config.settings import Config
from mets_ray.errors import ConfigError
from mets_ray.model.bundle import build_model
from mets_ray.model.mets import Mets, microvolts_to_millivolts, signal_tensor
from mets_ray.model.optimization import autocast_for, build_optimizer, require_compiler
from mets_ray.sources.synthetic import render_synthetic
from mets_ray.training.global_loss import global_contrastive_loss
from mets_ray.training.grad_cache import forward_loss

Found = dict[str, Any]

STEPS = 10
MOST_DEVIATION = 0.02  # of losses that should be the same but for rounding
SMALL_STEPS = "train.learning_rate=1e-4"  # with larger ones, what is rounded in the first step grows in the next


@dataclass(frozen=True)
class Size:
    """How large the checks are. `batches`: what speeds are measured with; `step_batch`: of steps that are compared;
    `measured_s`: how long each speed is measured."""

    device: str
    width: int
    batches: tuple[int, ...]
    step_batch: int
    epoch_records: int
    measured_s: float
    texts: int

    @property
    def is_gpu(self) -> bool:
        return self.device == "cuda"


FULL = Size("cuda", 64, (64, 256, 1024, 4096), 128, 8192, 1.0, 4096)
TINY = Size("cpu", 4, (16, 32), 16, 64, 0.1, 64)


def half_precision(size: Size, precision: str) -> Found:
    """`STEPS` steps with a small learning rate, beside float32's: finite, and the losses within 2 %."""
    exact, half = (_losses(size, SMALL_STEPS, f"train.precision={name}") for name in ("float32", precision))
    deviation = max(abs(one - other) / other for one, other in zip(half, exact, strict=True))
    is_finite = all(map(math.isfinite, half))
    return {"ok": is_finite and deviation <= MOST_DEVIATION, "deviation": deviation, "finite": is_finite}


def sync_norm(size: Size) -> Found:
    """On a GPU the losses of norm `batch`, which it is with one worker; on a CPU the refusal that the pages promise."""
    words = [SMALL_STEPS, "train.precision=float32"]
    if not size.is_gpu:
        try:
            _losses(size, *words, "encoder.norm=sync")
        except ConfigError as error:
            return {"ok": "encoder.norm" in str(error), "refused": str(error).splitlines()[0]}
        return {"ok": False, "refused": None}
    synced, plain = (_losses(size, *words, f"encoder.norm={norm}") for norm in ("sync", "batch"))
    deviation = max(abs(one - other) / other for one, other in zip(synced, plain, strict=True))
    return {"ok": deviation <= MOST_DEVIATION, "deviation": deviation}


def collectives(size: Size) -> Found:
    """NCCL (gloo on a CPU) in a group of this process alone, which Ray Train's only worker has and never calls: an
    all-reduce, and the losses of steps through DistributedDataParallel beside those without."""
    plain = _losses(size, SMALL_STEPS, "train.precision=float32")
    with tempfile.TemporaryDirectory() as folder:
        backend = "nccl" if size.is_gpu else "gloo"
        dist.init_process_group(backend, init_method=f"file://{folder}/group", rank=0, world_size=1)
        try:
            total = torch.arange(1000.0, device=size.device)
            dist.all_reduce(total)
            losses = _losses(size, SMALL_STEPS, "train.precision=float32", wrap=_distributed)
        finally:
            dist.destroy_process_group()
    deviation = max(abs(one - other) / other for one, other in zip(losses, plain, strict=True))
    is_equal = total.tolist() == list(range(1000))
    version = ".".join(map(str, torch.cuda.nccl.version())) if size.is_gpu else None
    return {"ok": is_equal and deviation <= MOST_DEVIATION, "deviation": deviation, "nccl": version}


def compiled(size: Size) -> Found:
    """The losses of the compiled encoder, its first step, and its steps beside those of the plain one."""
    require_compiler()
    plain_seconds: list[float] = []
    seconds: list[float] = []
    plain = _losses(size, SMALL_STEPS, seconds=plain_seconds)
    losses = _losses(size, SMALL_STEPS, seconds=seconds, compile_encoder=True)
    deviation = max(abs(one - other) / other for one, other in zip(losses, plain, strict=True))
    return {
        "ok": deviation <= MOST_DEVIATION,
        "deviation": deviation,
        "first_step_s": seconds[0],
        "speed_ratio": float(np.median(plain_seconds[1:]) / np.median(seconds[1:])),
    }


def pinned_memory(size: Size) -> Found:
    """Copies of a batch to the GPU from pinned and from pageable memory: the same values, GB/s of each."""
    if not size.is_gpu:
        return {"ok": None, "skipped": "pinned memory needs a GPU"}
    signal_uv = np.random.default_rng(0).integers(-2000, 2000, (max(size.batches), 12, 1000), dtype=np.int16)
    pinned, pageable = (signal_tensor(signal_uv, pinned=is_pinned) for is_pinned in (True, False))
    speeds = {}
    for name, tensor in (("pinned", pinned), ("pageable", pageable)):
        per_s = _per_second(lambda tensor=tensor: tensor.to("cuda", non_blocking=True), size)
        speeds[f"{name}_gb_per_s"] = per_s * signal_uv.nbytes / 1e9
    is_equal = bool(torch.equal(pinned.to("cuda", non_blocking=True).cpu(), pageable))
    return {"ok": pinned.is_pinned() and is_equal, **speeds}


def forward(size: Size, samples: int) -> Found:
    """ECG/s of the encoder's forward pass by batch size, in float32 and in bf16."""
    found: Found = {"ok": True, "samples": samples}
    model = build_model(_config(size), leads=12, text_features=FEATURES).to(size.device).eval()
    half = torch.autocast(size.device, dtype=torch.bfloat16)
    for batch in size.batches:
        signal_mv = torch.randn(batch, 12, samples, device=size.device)

        for name, context in (("float32", nullcontext()), ("bf16", half)):
            with context, torch.inference_mode():
                speed = unless_too_large(partial(_per_second, partial(model.embed_ecg, signal_mv), size))
            found[f"{name}_ecg_per_s_{batch}"] = speed if isinstance(speed, str) else batch * speed
    return found


def unless_too_large(measure: Callable[[], float]) -> float | str:
    """The figure, or why there is none: a card with less memory does not fail the check."""
    try:
        return measure()
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        return "out of memory"


def _config(size: Size, *words: str) -> Config:
    return load_config(None, [f"encoder.width={size.width}", "text.unit=report", *words])


def _losses(
    size: Size,
    *words: str,
    seconds: list[float] | None = None,
    compile_encoder: bool = False,
    wrap: Callable[[Mets], nn.Module] = lambda model: model,
) -> list[float]:
    """The loss of each of `STEPS` steps, on the same ECGs and from the same weights whatever the settings.

    seconds: gets the time of each step. wrap: gives what the steps call in place of the model.
    """
    config = _config(size, *words)
    device = torch.device(size.device)
    torch.manual_seed(0)
    model = build_model(config, leads=12, text_features=FEATURES).to(device).train()
    if compile_encoder:
        model.ecg_encoder.compile()
    wrapped = wrap(model)
    optimizer = build_optimizer(config.train, model)
    scaler = torch.amp.GradScaler(device.type, enabled=config.train.precision == "fp16")
    autocast = autocast_for(config.train, device)
    losses = []
    for signal_uv, features, ids in _batches(size):
        began = time.perf_counter()
        loss, backward = forward_loss(
            wrapped,
            microvolts_to_millivolts(signal_tensor(signal_uv, pinned=size.is_gpu), model),
            features.to(device),
            _loss_of(ids.to(device)),
            rows_per_part=None,
            autocast=autocast,
            row_counts=[len(ids)],
        )
        optimizer.zero_grad(set_to_none=True)
        backward(scaler)
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())  # waits for the GPU
        if seconds is not None:
            seconds.append(time.perf_counter() - began)
    _refuse_infinite_weights(model)
    return losses


def _distributed(model: Mets) -> nn.Module:
    return DistributedDataParallel(model, find_unused_parameters=True)  # as in training


def _loss_of(ids: torch.Tensor) -> Any:
    def loss_of(ecg: torch.Tensor, text: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return global_contrastive_loss(ecg, text, scale, ids, targets="one_hot", row_counts=[len(ids)])

    return loss_of


def _batches(size: Size) -> Iterator[tuple[np.ndarray, torch.Tensor, torch.Tensor]]:
    """int16 µV [row, 12, 1000] of synthetic ECGs with noise, random text features, and ids."""
    draw = np.random.default_rng(0)
    uris = (f"synthetic:?seed=0&index={index}&sampling_rate_hz=100&duration_s=10" for index in range(16))
    drawn = np.stack([np.rint(1000 * render_synthetic(uri).signal_mv).astype(np.int16) for uri in uris])
    for _ in range(STEPS):
        rows = draw.integers(0, len(drawn), size.step_batch)
        noise = draw.integers(-20, 21, (size.step_batch, 12, 1000), dtype=np.int16)
        features = draw.standard_normal((size.step_batch, FEATURES)).astype(np.float16)
        yield drawn[rows] + noise, torch.from_numpy(features), torch.arange(size.step_batch)


def _refuse_infinite_weights(model: Mets) -> None:
    for name, value in model.state_dict().items():
        if not bool(torch.isfinite(value).all()):
            raise FloatingPointError(f"`{name}` is not finite after {STEPS} steps")


def _per_second(call: Callable[[], object], size: Size) -> float:
    """Calls per second, without the first two, which choose algorithms."""
    for _ in range(2):
        call()
    wait(size)
    began, calls = time.perf_counter(), 0
    while time.perf_counter() - began < size.measured_s:
        call()
        calls += 1
        wait(size)
    return calls / (time.perf_counter() - began)


def wait(size: Size) -> None:
    """Until the GPU has done what it was told."""
    if size.is_gpu:
        torch.cuda.synchronize()
