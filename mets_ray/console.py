"""What people see while a job runs: lines and bars, on stderr, because stdout carries the result only."""

import sys
from typing import Any

from tqdm import tqdm


def say(line: str) -> None:
    """One line for people."""
    print(line, file=sys.stderr, flush=True)


def progress_bar(*, total: int, unit: str, description: str) -> "tqdm[Any]":
    """A bar; in a log file, where it cannot move, a line every ten seconds."""
    seconds = 0.5 if sys.stderr.isatty() else 10.0
    return tqdm(total=total, unit=unit, desc=description, file=sys.stderr, mininterval=seconds, dynamic_ncols=True)
