"""What every benchmark shares: ways measured in turn, rows with goals, one table and one JSON line."""

import dataclasses
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

ROUNDS = 5
_PACKAGES = ("numpy", "torch", "ray", "pyarrow", "wfdb", "onnxruntime", "openvino")


@dataclass(frozen=True)
class Row:
    """One measured figure. `values` holds one number per round, `value` is their median; a row without a goal is told
    for the record. `detail`: what a reader needs beside it, such as absolute speeds."""

    name: str
    values: tuple[float, ...]
    unit: str = "×"
    goal: float | None = None
    at_most: bool = False  # the goal is an upper bound
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def value(self) -> float:
        return float(np.median(self.values))

    @property
    def met(self) -> bool | None:
        if self.goal is None:
            return None
        return self.value <= self.goal if self.at_most else self.value >= self.goal

    def facts(self) -> dict[str, Any]:
        """The row as JSON."""
        return dataclasses.asdict(self) | {"value": self.value, "met": self.met}


def in_turn(ways: Mapping[str, Callable[[], float]], rounds: int = ROUNDS) -> dict[str, tuple[float, ...]]:
    """What each way returns, once per round: A B, B A, A B, … because a machine drifts by more than ways differ.

    A way returns its own figure (seconds, ECG/s). The first call of each is a warm-up and not counted.
    """
    for measure in ways.values():
        measure()
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in list(ways)[:: 1 if number % 2 == 0 else -1]:
            found[name].append(ways[name]())
    return {name: tuple(values) for name, values in found.items()}


def ratios(ours: Sequence[float], plain: Sequence[float]) -> tuple[float, ...]:
    """`ours / plain`, round by round."""
    return tuple(one / other for one, other in zip(ours, plain, strict=True))


def machine() -> dict[str, Any]:
    """Where the figures were measured."""
    info = Path("/proc/cpuinfo")
    models = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "commit": _commit(),
        **{name: version(name) for name in _PACKAGES if _is_installed(name)},
    }


def report(rows: Iterable[Row]) -> None:
    """Print the table on stderr and, as the last line of stdout, one JSON object."""
    facts = [row.facts() for row in rows]
    print("\n".join(table(facts)), file=sys.stderr)
    print(json.dumps({"machine": machine(), "rows": facts}), flush=True)


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for each row of `Row.facts`: name, median, the lowest and the highest value, the goal.

    A row without a value has a `reason` in its place.
    """
    width = max((len(row["name"]) for row in rows), default=0)
    return [f"{row['name']:<{width}}  {_figures(row)}" for row in rows]


def _figures(row: Mapping[str, Any]) -> str:
    if row["value"] is None:
        return f"no figure: {row['reason']}"
    low, high = min(row["values"]), max(row["values"])
    figures = f"{row['value']:>10.4g} {row['unit']:<6} [{low:.4g}, {high:.4g}]"
    if row["goal"] is None:
        return figures
    return f"{figures}  goal {'≤' if row['at_most'] else '≥'} {row['goal']:g}: {'met' if row['met'] else 'MISSED'}"


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:  # no git, as on a machine that has a copy of the files alone
        return "unknown"
    return done.stdout.strip() or "unknown"


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True
