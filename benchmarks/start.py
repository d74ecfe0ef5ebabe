"""How long commands take to begin: `--help` in CPU seconds, `pretrain` to its first step in seconds.

    python benchmarks/start.py             # some 4 minutes on 2 cores; the last line of stdout is one JSON object

`pretrain` runs as a user starts it, with a Ray of its own, on 1,200 synthetic ECGs that are prepared beforehand: once
with the language model, whose vectors are deleted before each run, and once with the vectors of the run before. It is
stopped at its first step, which its progress bar shows at once.
"""

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_table import ROUNDS, Row, in_turn, report

_PREPARE = ("prepare.source.records=1200",)
_TRAIN = ("encoder.width=16", "train.batch_size=64", "train.device=cpu")
_LIMIT_S = 180


def rows() -> list[Row]:
    helps = in_turn({"help": _help_cpu_s})["help"]
    with tempfile.TemporaryDirectory() as folder:
        dataset = Path(folder) / "data"
        where = (f"run_uri={folder}", f"dataset_uri={dataset}")
        subprocess.run(_command("prepare", *_PREPARE, *where), check=True, capture_output=True)

        def with_the_lm() -> float:
            shutil.rmtree(dataset / "text_embeddings", ignore_errors=True)
            return _first_step_s(*where)

        found = in_turn({"lm": with_the_lm, "cached": lambda: _first_step_s(*where)}, ROUNDS)
    return [
        Row("start.help", helps, "s", goal=1.0, at_most=True, detail={"measured": "CPU of the process"}),
        Row("start.first_step", found["lm"], "s", goal=20.0, at_most=True, detail={"texts": "through the LM"}),
        Row("start.first_step_cached", found["cached"], "s", goal=20.0, at_most=True, detail={"texts": "stored"}),
    ]


def _command(name: str, *words: str) -> list[str]:
    return [sys.executable, "-c", "from mets_ray.cli import main; main()", name, *words]


def _help_cpu_s() -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(_command("pretrain", "--help"), check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)


def _first_step_s(*where: str) -> float:
    """Seconds from the start of the command to its first step; the run is stopped there."""
    began = time.monotonic()
    job = subprocess.Popen(
        _command("pretrain", *_TRAIN, *where),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"RAY_AUTH_MODE": "disabled"},
    )
    assert job.stderr is not None
    shown = b""
    while not re.search(rb"training:.* [1-9]\d*/\d+ .*loss \d", shown):
        more = os.read(job.stderr.fileno(), 1 << 16)
        shown = (shown + more)[-4096:]
        if not more or time.monotonic() - began > _LIMIT_S:
            job.kill()
            raise SystemExit(f"no first step: {shown.decode(errors='replace')}")
    seconds = time.monotonic() - began
    job.send_signal(signal.SIGTERM)
    job.communicate()
    return seconds


if __name__ == "__main__":
    report(rows())
