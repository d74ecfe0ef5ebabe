"""What people see while a job runs: lines and bars, on stderr, because stdout carries the result only."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def say(line: str) -> None:
    """One line for people."""
    print(line, file=sys.stderr, flush=True)


def counted(number: int, noun: str) -> str:
    """`1 record`, `1,992 records`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def progress_bar(*, total: int | None, unit: str, description: str) -> "tqdm[Any]":
    """A bar; in a log file, where it cannot move, a line every ten seconds."""
    return tqdm(total=total, unit=unit, desc=description, **_style())


def progress_over(items: Iterable[Item], *, total: int | None, unit: str, description: str) -> Iterator[Item]:
    """The items, with a bar that counts them."""
    return iter(tqdm(items, total=total, unit=unit, desc=description, **_style()))


def _style() -> dict[str, Any]:
    seconds = 0.5 if sys.stderr.isatty() else 10.0
    return {"file": sys.stderr, "mininterval": seconds, "dynamic_ncols": True}
