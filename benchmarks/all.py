"""Every benchmark, one after the other, in one table and one JSON line: `make bench`.

    python benchmarks/all.py                        # at most half an hour on 2 cores
    python benchmarks/all.py --only serve score     # some of them
    python benchmarks/all.py --full                 # 200,000 records in `growth.py` and `streaming.py`: hours

Each script is a process of its own. Its last line of stdout is `bench_table.report`'s JSON object; what it says on
stderr is kept as `.runs/bench/<name>.log`. The table and the JSON are also written to `.runs/bench/`. A script that is
missing, fails or takes too long is a row with its reason, and the exit status is 1; a missed goal is no failure.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from bench_table import machine, table

from mets_ray.console import say

HERE = Path(__file__).parent
RESULTS = HERE.parent / ".runs" / "bench"
SCRIPTS = (
    *("start", "prepare", "encoder", "text", "read", "streaming", "serve", "score", "pretrain", "evaluate"),
    *("resume", "memory", "growth", "peers", "archive"),
)
_KEPT = ("--folder", str(RESULTS / "streaming"))  # its data set is made once
OPTIONS: dict[str, tuple[str, ...]] = {"streaming": (*_KEPT, "--records", "50000")}
FULL_OPTIONS = OPTIONS | {"streaming": _KEPT, "growth": ("--full",)}
LIMIT_MINUTES, FULL_LIMIT_MINUTES = 30.0, 300.0  # of all scripts together
SCRIPT_MINUTES, FULL_SCRIPT_MINUTES = 8.0, 120.0  # of each, so that one that hangs leaves time for the others
ENDS_WITHIN_S = 20.0  # after SIGINT, on which scripts stop what they have started

Rows = list[dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SCRIPTS, default=SCRIPTS, metavar="NAME", help=", ".join(SCRIPTS))
    parser.add_argument("--full", action="store_true", help="also the sizes that do not fit half an hour")
    arguments = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + 60 * (FULL_LIMIT_MINUTES if arguments.full else LIMIT_MINUTES)
    most_s = 60 * (FULL_SCRIPT_MINUTES if arguments.full else SCRIPT_MINUTES)
    rows: Rows = []
    minutes: dict[str, float] = {}
    lines = result = ""
    for name in SCRIPTS:
        if name in arguments.only:
            options = (FULL_OPTIONS if arguments.full else OPTIONS).get(name, ())
            began = time.monotonic()
            rows += _run(name, options, limit_s=min(most_s, ends - began))
            minutes[name] = round((time.monotonic() - began) / 60, 2)
            say(f"{name:<12}{minutes[name]:6.1f} minutes")
            lines, result = _kept(rows, minutes)  # after each: who stops it here keeps what was measured
    say("\n" + lines)
    print(result, flush=True)
    raise SystemExit(any(row["value"] is None for row in rows))


def _kept(rows: Rows, minutes: dict[str, float]) -> tuple[str, str]:
    """The table and the JSON, both also written to `RESULTS`."""
    spent = [f"{name:<12}{taken:6.1f} minutes" for name, taken in (minutes | {"total": sum(minutes.values())}).items()]
    lines = "\n".join([*table(rows), "", *spent])
    result = json.dumps({"machine": machine(), "minutes": minutes, "rows": rows})
    (RESULTS / "table.txt").write_text(lines + "\n", encoding="utf-8")
    (RESULTS / "bench.json").write_text(result + "\n", encoding="utf-8")
    return lines, result


def _run(name: str, options: Sequence[str], *, limit_s: float) -> Rows:
    """The rows of a script, or one row that says why there are none."""
    script, log = HERE / f"{name}.py", RESULTS / f"{name}.log"
    if not script.exists():
        return [_failed(name, "there is no such script")]
    if limit_s <= 0:
        return [_failed(name, "no time was left")]
    with log.open("wb") as stderr:
        process = psutil.Popen(
            [sys.executable, str(script), *options], stdout=subprocess.PIPE, stderr=stderr, start_new_session=True
        )
        try:
            stdout = process.communicate(timeout=limit_s)[0].decode()
        except subprocess.TimeoutExpired:
            return [_failed(name, f"stopped after {limit_s:.0f} s: its time was over")]
        finally:
            _end(process)
    if process.returncode:
        return [_failed(name, f"exit status {process.returncode}: {_last_line(log.read_text(errors='replace'))}")]
    try:
        found: Rows = json.loads(_last_line(stdout))["rows"]
    except (ValueError, LookupError, TypeError):
        return [_failed(name, "its last line of stdout is no JSON object with `rows`")]
    return found


def _end(process: psutil.Popen) -> None:
    """End a script that still runs, and then what it has left behind."""
    left = process.children(recursive=True) if process.is_running() else []
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired, psutil.TimeoutExpired):
            process.wait(ENDS_WITHIN_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # the script leads a group of its own
    for child in left:
        with suppress(psutil.NoSuchProcess):
            child.kill()


def _failed(name: str, reason: str) -> dict[str, Any]:
    return {"name": name, "value": None, "values": [], "goal": None, "met": False, "reason": reason}


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")


if __name__ == "__main__":
    main()
