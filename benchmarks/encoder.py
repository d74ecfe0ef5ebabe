"""The ECG encoder's forward pass by each runtime that is installed, compared with plain PyTorch, on all cores.

    python benchmarks/encoder.py          # about two minutes; the last line of stdout is one JSON object

The default encoder at the paper's width (4.03 M parameters, random weights) on batches of 16 ECGs of 12 x 1000
and 4 of 12 x 5000 samples.
`encoder.1000` is how often as many ECGs per second `encoder_runtime: auto` encodes as `EcgEncoder` itself does;
`encoder.1000.<runtime>` is the same for one runtime; its `start_s` is what the first pass takes longer than the next,
and `largest_cosine_distance` how far an ECG's features turn.
`encoder.1000.of_sgemm` says how near that is to what the machine can do in float32: operations per CPU second of one
thread, as a share of those of a large matrix product in the same round. Plain PyTorch's share is beside it.
"""

import os
import time
from collections.abc import Callable

import numpy as np
import torch
from bench_table import Row, in_turn, ratios, report
from torch.utils.flop_counter import FlopCounterMode

from mets_ray.config.kinds import EncoderRuntime
from mets_ray.errors import ConfigError
from mets_ray.model.ecg_encoder import EcgEncoder
from mets_ray.model.ecg_runtime import RuntimeEncoder, choose_runtime

SHAPES = {1000: (16, 12, 1000), 5000: (4, 12, 5000)}
GOALS = {1000: 2.0, 5000: 3.0}
RUNTIMES: tuple[EncoderRuntime, ...] = ("torch", "onnxruntime", "openvino", "openvino_bf16")
MEASURED_S = 1.5
SGEMM_SIDE, SGEMM_CALLS = 1536, 8


def main() -> None:
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    report(rows())


@torch.inference_mode()
def rows() -> list[Row]:
    torch.manual_seed(0)
    encoder = EcgEncoder(lead_mask=True, architecture="seresnet1d_18").eval().requires_grad_(False)
    found = []
    for samples, shape in SHAPES.items():
        signal_mv = torch.from_numpy(np.random.default_rng(0).standard_normal(shape, dtype=np.float32))
        expected = encoder(signal_mv)
        ways = {"plain": _rate(encoder, signal_mv)}
        starts_s, differences, turned = {}, {}, {}
        for runtime in filter(_is_installed, RUNTIMES):
            fast = RuntimeEncoder(encoder, runtime)
            times_s = [_seconds(fast, signal_mv) for _ in range(2)]
            starts_s[runtime] = times_s[0] - times_s[1]
            differences[runtime] = float((fast(signal_mv) - expected).abs().max())
            turned[runtime] = 1 - float(torch.cosine_similarity(fast(signal_mv), expected).min())
            ways[runtime] = _rate(fast, signal_mv)
        per_s = in_turn(ways)
        chosen = choose_runtime("auto")
        for runtime in starts_s:
            detail = {
                "ecg_per_s": float(np.median(per_s[runtime])),
                "ecg_per_s_plain": float(np.median(per_s["plain"])),
                "largest_difference": differences[runtime],
                "largest_cosine_distance": turned[runtime],
                "start_s": round(starts_s[runtime], 3),
            }
            values = ratios(per_s[runtime], per_s["plain"])
            if runtime == chosen:
                found.append(
                    Row(f"encoder.{samples}", values, goal=GOALS[samples], detail=detail | {"runtime": runtime})
                )
            found.append(Row(f"encoder.{samples}.{runtime}", values, detail=detail))
        found.append(_of_sgemm(samples, encoder, RuntimeEncoder(encoder, chosen), signal_mv))
    return found


def _of_sgemm(samples: int, encoder: EcgEncoder, fast: RuntimeEncoder, signal_mv: torch.Tensor) -> Row:
    with FlopCounterMode(display=False) as counted:
        encoder(signal_mv)
    operations = counted.get_total_flops()
    square = torch.rand(SGEMM_SIDE, SGEMM_SIDE)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    speeds = in_turn(
        {
            "sgemm": lambda: 2 * SGEMM_SIDE**3 / _cpu_s(lambda: square @ square),
            "plain": lambda: operations / _cpu_s(lambda: encoder(signal_mv)),
            "fast": lambda: operations / _cpu_s(lambda: fast(signal_mv)),
        }
    )
    torch.set_num_threads(threads)
    medians = {f"{name}_gflop_per_cpu_s": float(np.median(values)) / 1e9 for name, values in speeds.items()}
    detail = medians | {"plain": float(np.median(ratios(speeds["plain"], speeds["sgemm"])))}
    detail |= {"mflop_per_ecg": operations / len(signal_mv) / 1e6}
    return Row(f"encoder.{samples}.of_sgemm", ratios(speeds["fast"], speeds["sgemm"]), detail=detail)


def _cpu_s(work: Callable[[], object]) -> float:
    """The least CPU time of several calls: whatever else runs only adds to it."""
    found = []
    for _ in range(SGEMM_CALLS):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return min(found)


def _rate(encode: Callable[[torch.Tensor], torch.Tensor], signal_mv: torch.Tensor) -> Callable[[], float]:
    def measure() -> float:
        passes, began = 0, time.perf_counter()
        while (spent_s := time.perf_counter() - began) < MEASURED_S:
            encode(signal_mv)
            passes += 1
        return passes * len(signal_mv) / spent_s

    return measure


def _seconds(encode: Callable[[torch.Tensor], torch.Tensor], signal_mv: torch.Tensor) -> float:
    began = time.perf_counter()
    encode(signal_mv)
    return time.perf_counter() - began


def _is_installed(runtime: EncoderRuntime) -> bool:
    try:
        choose_runtime(runtime)
    except ConfigError:
        return False
    return True


if __name__ == "__main__":
    main()
