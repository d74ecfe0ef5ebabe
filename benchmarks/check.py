"""Has something become more work? Counts, which are the same on every machine, beside those of `baseline.json`.

    python benchmarks/check.py            # `make bench-check`; some twenty seconds
    python benchmarks/check.py --update   # `make bench-check UPDATE=1`: what is counted now becomes the baseline

Counted are calls of functions, requests to a store and bytes read from it, row groups decoded, modules imported, and
texts that the language model must embed. A count more than 15 % above its baseline fails: exit status 1. What became
less work is told, so that the baseline can follow. Time is not measured here.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

from mets_ray.console import say

BASELINE = Path(__file__).parent / "baseline.json"
MARGIN = 0.15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="write what is counted now to baseline.json")
    arguments = parser.parse_args()
    from check_counts import count_all

    found = count_all()
    if arguments.update:
        BASELINE.write_text(json.dumps({"counts": found}, indent=1) + "\n", encoding="utf-8")
        say(f"{BASELINE}: {len(found)} counts")
    baseline = json.loads(BASELINE.read_text(encoding="utf-8"))["counts"]
    faults = judged(found, baseline)
    for fault in faults:
        say(fault)
    if faults:
        say("hint: find what became more work; if it is meant, `make bench-check UPDATE=1` writes the new baseline")
    print(json.dumps({"ok": not faults, "counts": found, "baseline": baseline}), flush=True)
    raise SystemExit(1 if faults else 0)


def judged(found: Mapping[str, int], baseline: Mapping[str, int]) -> list[str]:
    """Print each count beside its baseline. Returns what is wrong: more work, or a count that has no counterpart."""
    faults = [f"`{name}` is in the baseline and was not counted" for name in baseline if name not in found]
    for name, count in found.items():
        before = baseline.get(name)
        if before is None:
            faults.append(f"`{name}` is {count:,} and has no baseline")
            continue
        change = count / before - 1 if before else float(count > 0)
        say(f"{name:<32}{count:>12,}{before:>12,}{change:>+8.0%}{'  less: update' if change < -MARGIN else ''}")
        if change > MARGIN:
            faults.append(f"`{name}` is {count:,}, {change:.0%} above its baseline of {before:,}")
    return faults


if __name__ == "__main__":
    main()
