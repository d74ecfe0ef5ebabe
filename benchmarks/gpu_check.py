"""Does everything work on this GPU, and how fast? `make gpu-check`: at most 8 minutes, no network, synthetic data only.

    python benchmarks/gpu_check.py                      # on one GPU; the last line of stdout is one JSON object
    python benchmarks/gpu_check.py --device cpu --tiny  # the same code at tiny sizes, to test it where there is none

Each check is a process of its own with a time limit, so that one that fails hides none of the others. `ok` is true,
false, or null for what was not tried. Exit status: 0 all well, 1 a check failed, 2 there is no GPU.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mets_ray.console import say

LIMIT_S = 460.0
CHECK_SHARE = 1 / 3  # of the limit, for one process
ENDS_WITHIN_S = 15.0

Found = dict[str, Any]
Check = Callable[[Any], Iterator[tuple[str, Found]]]

# What each process reports; in the order in which they run, what is asked first comes first.
NAMES = {
    "bf16": ("bf16",),
    "fp16": ("fp16",),
    "nccl": ("nccl",),
    "worker": ("worker", "resume"),
    "train_1000": ("train_1000",),
    "train_5000": ("train_5000",),
    "forward_1000": ("forward_1000",),
    "forward_5000": ("forward_5000",),
    "serve": ("serve",),
    "text": ("text",),
    "pinned": ("pinned",),
    "sync_norm": ("sync_norm",),
    "compile": ("compile",),
}
RUNS = ("worker", "train_1000", "train_5000", "serve", "text")  # with Ray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes: whether it runs, not how fast")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--limit-s", type=float, default=LIMIT_S, help="of all checks together; one gets a third")
    parser.add_argument("--logs", type=Path, help="keep what each check writes to stderr in this folder")
    parser.add_argument("--one", choices=NAMES, help=argparse.SUPPRESS)  # in the process of one check
    arguments = parser.parse_args()
    if arguments.one:
        _report(arguments.one, arguments.device, tiny=arguments.tiny)
        return
    gpu = _gpu() if arguments.device == "cuda" else None
    if arguments.device == "cuda" and gpu is None:
        say("no GPU: torch.cuda finds none; --device cpu --tiny runs the same checks without one")
        print(json.dumps({"gpu": None, "ok": None, "checks": {}}), flush=True)
        raise SystemExit(2)
    from bench_table import machine

    ends = time.monotonic() + arguments.limit_s
    checks: dict[str, Found] = {}
    with TemporaryDirectory() as own:
        logs = arguments.logs or Path(own)
        logs.mkdir(parents=True, exist_ok=True)
        for name in arguments.only:
            began = time.monotonic()
            limit_s = min(CHECK_SHARE * arguments.limit_s, ends - began)
            found = _run(name, sys.argv[1:], limit_s=limit_s, log=logs / f"{name}.log")
            checks |= found
            for one, facts in found.items():
                say(f"{one:<14}{_word(facts['ok']):<9}{time.monotonic() - began:6.1f} s  {json.dumps(facts)}")
    is_ok = all(facts["ok"] is not False for facts in checks.values())
    print(json.dumps({"gpu": gpu, "machine": machine(), "ok": is_ok, "checks": checks}), flush=True)
    raise SystemExit(0 if is_ok else 1)


def _gpu() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def _run(name: str, words: list[str], *, limit_s: float, log: Path) -> dict[str, Found]:
    """What the process of a check has found; each result that it did not reach fails with the reason."""
    if limit_s <= 0:
        return {one: {"ok": False, "error": "no time was left"} for one in NAMES[name]}
    command = [sys.executable, __file__, *words, "--one", name]
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, start_new_session=True)
    try:
        stdout = process.communicate(timeout=limit_s)[0]
        error = _last_line(log.read_text(errors="replace")) or f"exit status {process.returncode}"
    except subprocess.TimeoutExpired:
        stdout, error = _ended(process), f"stopped after {limit_s:.0f} s"
    found: dict[str, Found] = {}
    for line in stdout.decode(errors="replace").splitlines():
        if line.startswith("{"):
            found |= json.loads(line)
    return {one: found.get(one, {"ok": False, "error": error}) for one in NAMES[name]}


def _ended(process: "subprocess.Popen[bytes]") -> bytes:
    """End a process that takes too long, and the Ray that it has started. Returns what it has written to stdout."""
    process.terminate()  # on which Ray ends its own processes
    try:
        return process.communicate(timeout=ENDS_WITHIN_S)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()[0]


def _report(name: str, device: str, *, tiny: bool) -> None:
    """Run one check in this process: a line of JSON for each result, on what was stdout."""
    results = os.fdopen(os.dup(1), "w")  # Ray and its workers write to stdout too
    os.dup2(2, 1)
    try:
        from gpu_steps import FULL, TINY

        check = (_runs() if name in RUNS else _steps())[name]
        for one, facts in check(replace(TINY if tiny else FULL, device=device)):
            print(json.dumps({one: facts}), file=results, flush=True)
    except Exception as error:
        traceback.print_exc()
        say(f"{type(error).__name__}: {' '.join(str(error).split())[:500]}")
        raise SystemExit(1) from error


def _steps() -> dict[str, Check]:
    import gpu_steps

    return {
        "bf16": _alone("bf16", gpu_steps.half_precision, "bf16"),
        "fp16": _alone("fp16", gpu_steps.half_precision, "fp16"),
        "nccl": _alone("nccl", gpu_steps.collectives),
        "forward_1000": _alone("forward_1000", gpu_steps.forward, 1000),
        "forward_5000": _alone("forward_5000", gpu_steps.forward, 5000),
        "pinned": _alone("pinned", gpu_steps.pinned_memory),
        "sync_norm": _alone("sync_norm", gpu_steps.sync_norm),
        "compile": _alone("compile", gpu_steps.compiled),
    }


def _runs() -> dict[str, Check]:
    import gpu_runs

    return {
        "worker": gpu_runs.one_worker,
        "train_1000": _alone("train_1000", gpu_runs.train, 1000),
        "train_5000": _alone("train_5000", gpu_runs.train, 5000),
        "serve": _alone("serve", gpu_runs.serving),
        "text": _alone("text", gpu_runs.language_model),
    }


def _alone(name: str, check: Callable[..., Found], *arguments: Any) -> Check:
    """A check that gives one result, under its own name."""
    return lambda size: iter([(name, check(size, *arguments))])


def _word(ok: bool | None) -> str:
    return {True: "ok", False: "FAILED", None: "skipped"}[ok]


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")


if __name__ == "__main__":
    main()
