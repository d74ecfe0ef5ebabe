"""Which library computes the ECG encoder's convolutions on a CPU: torch, ONNX Runtime or OpenVINO.

All give the same values up to float32's rounding; the norms are folded into the convolutions (`folded`).
`openvino_bf16` rounds to bfloat16 between layers and so uses the matrix units (AMX) of newer CPUs: it is several times
faster, and its values agree to two digits. It is used only where a setting names it.
"""

import sys
import threading
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mets_ray.config.kinds import EncoderRuntime
from mets_ray.errors import ConfigError
from mets_ray.model.ecg_encoder import EcgEncoder, pooled
from mets_ray.model.folded import ChannelsLast, FoldedEncoder, fold

Convolve = Callable[[Tensor], Tensor]
"""ECGs in millivolts, [batch, lead, sample], to the output of the last stage, [batch, feature, position]."""

ROWS_AT_ONCE = 16
"""ECGs per call of a runtime. More are not faster, and each size that a runtime sees first costs it some milliseconds:
so it sees no more than these, and `Predictor.warm_up` shows it all of them."""

_COMPILING = threading.Lock()
"""Held while a thread compiles and computes its first pass. In its first pass of a process, OpenVINO makes a table of
types behind a lock of its own and needs Python's meanwhile: two threads in it at once wait for each other for ever."""

# As measured by benchmarks/encoder.py; torch is always there.
_FASTEST_FIRST: tuple[EncoderRuntime, ...] = ("openvino", "torch", "onnxruntime")
_PACKAGES: dict[EncoderRuntime, tuple[str, ...]] = {
    "openvino": ("openvino", "onnx"),
    "openvino_bf16": ("openvino", "onnx"),
    "onnxruntime": ("onnxruntime", "onnx"),
    "torch": (),
}


def choose_runtime(asked: EncoderRuntime) -> EncoderRuntime:
    """The runtime itself, or the fastest that is installed for `auto`. Raises ConfigError for one that is not known
    or not installed."""
    if asked not in ("auto", *_PACKAGES):
        raise ConfigError(f"`encoder_runtime` is {asked!r}", hint=f"give one of auto, {', '.join(_PACKAGES)}")
    if asked == "auto":
        return next(name for name in _FASTEST_FIRST if not _missing(name))
    if missing := _missing(asked):
        names, are = " and ".join(f"`{name}`" for name in missing), "is" if len(missing) == 1 else "are"
        raise ConfigError(
            f"`encoder_runtime` is {asked}, but {names} {are} not installed",
            hint="pip install 'mets-ray[fast]', or set encoder_runtime=auto",
        )
    return asked


def _missing(runtime: EncoderRuntime) -> list[str]:
    return [package for package in _PACKAGES[runtime] if not _is_installed(package)]


def _is_installed(package: str) -> bool:
    return find_spec(package) is not None


class RuntimeEncoder:
    """A frozen encoder on a CPU, computed by a runtime. It is called as `EcgEncoder` is, and from any thread.

    It uses as many threads as torch may in the calling thread. What a runtime compiles belongs to the calling thread,
    so that no two wait for each other, and is kept in memory for as long as that lives.
    """

    def __init__(self, encoder: EcgEncoder, runtime: EncoderRuntime) -> None:
        self._compile = _COMPILERS[runtime]
        self._folded = fold(encoder)
        self._of_thread = threading.local()

    def __call__(
        self, signal_mv: Float[Tensor, "batch lead sample"], focus: float | None = None
    ) -> Float[Tensor, "batch feature"]:
        """Features of each ECG. focus: see `EcgEncoder.forward`."""
        convolve = self._convolve(torch.get_num_threads(), signal_mv.shape[-1])
        return torch.cat([pooled(convolve, rows, focus) for rows in signal_mv.split(ROWS_AT_ONCE)])

    def _convolve(self, threads: int, samples: int) -> Convolve:
        if not hasattr(self._of_thread, "compiled"):
            self._of_thread.compiled = {}
        compiled: dict[tuple[int, int], Convolve] = self._of_thread.compiled
        if (threads, samples) not in compiled:
            with _COMPILING:
                convolve = self._compile(self._folded, samples, threads)
                convolve(torch.zeros(1, self._folded.leads, samples))
            compiled[threads, samples] = convolve
        return compiled[threads, samples]


def _torch(folded: FoldedEncoder, samples: int, threads: int) -> Convolve:
    return ChannelsLast(folded)


def _onnxruntime(folded: FoldedEncoder, samples: int, threads: int) -> Convolve:
    import onnxruntime

    from mets_ray.model.onnx_graph import INPUT, OUTPUT, onnx_model

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # Threads that spin while they wait take the CPU from those that serve HTTP or read shards.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(onnx_model(folded, samples), options, providers=["CPUExecutionProvider"])

    def convolve(signal_mv: Tensor) -> Tensor:
        (hidden,) = session.run([OUTPUT], {INPUT: signal_mv.numpy()})
        return torch.from_numpy(hidden)

    return convolve


def _openvino(folded: FoldedEncoder, samples: int, threads: int, *, precision: str = "f32") -> Convolve:
    # Importing OpenVINO sends an event to Google Analytics unless this package is missing (its own fallback).
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    from mets_ray.model.onnx_graph import onnx_model

    core = openvino.Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise ConfigError(  # OpenVINO would use float32 and say nothing
            "`encoder_runtime` is openvino_bf16, but this node's CPU has no instructions for bfloat16",
            hint="set encoder_runtime=openvino",
        )
    compiled = core.compile_model(
        core.read_model(onnx_model(folded, samples)),
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": precision,  # without it, a CPU with bfloat16 rounds to that
            "NUM_STREAMS": 1,  # the calling thread itself computes
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,  # all processes would be pinned to the same first cores
        },
    )
    request = compiled.create_infer_request()

    def convolve(signal_mv: Tensor) -> Tensor:
        # No copies: what the request holds is pooled before its next call, which comes from the same thread.
        found = request.infer([np.ascontiguousarray(signal_mv.numpy())], share_inputs=True, share_outputs=True)
        return torch.from_numpy(found[0])

    return convolve


_COMPILERS: dict[EncoderRuntime, Callable[[FoldedEncoder, int, int], Convolve]] = {
    "torch": _torch,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "openvino_bf16": partial(_openvino, precision="bf16"),
}
