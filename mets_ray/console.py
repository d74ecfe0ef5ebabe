"""What people see while a job runs: lines and bars, on stderr, because stdout carries the result only."""

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def say(line: str) -> None:
    """One line for people."""
    print(line, file=sys.stderr, flush=True)


def progress_bar(
    items: Iterable[Item] | None = None, *, total: int | None, unit: str, description: str
) -> "tqdm[Item]":
    """A bar; in a log file, where it cannot move, a line every ten seconds. It moves by itself over `items`."""
    seconds = 0.5 if sys.stderr.isatty() else 10.0
    return tqdm(items, total=total, unit=unit, desc=description, file=sys.stderr, mininterval=seconds, dynamic_ncols=True)
