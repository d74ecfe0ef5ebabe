"""A file damaged in a thousand ways, and a check that its reader only ever refuses it."""

import time
import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np

from mets_ray.errors import RecordError

LONGEST_S = 5.0  # on a machine that does other things too
_MOST_MEMORY = 64 * 1024**2  # beside 40 times the size of the file: samples are 2 bits there and 64 in memory


def damaged(data: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """`count` copies, each with one kind of damage: bits, bytes and numbers that are wrong, parts cut out or doubled.

    Half of the damage is in the first kilobytes, where headers are.
    """
    rng = np.random.default_rng(seed)
    extremes = (b"\0", b"\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x80", b"-1", b"99999999", b"nan", b"1e308")
    for number in range(count):
        within = len(data) if rng.random() < 0.5 else min(len(data), 3000)
        at = int(rng.integers(within))
        copy = bytearray(data)
        match number % 6:
            case 0:
                for place in rng.integers(0, within, rng.integers(1, 20)):
                    copy[place] ^= 1 << int(rng.integers(8))
            case 1:
                copy[at : at + 8] = rng.bytes(8)
            case 2:
                extreme = extremes[int(rng.integers(len(extremes)))] * int(rng.integers(1, 5))
                copy[at : at + len(extreme)] = extreme
            case 3:
                del copy[at:]
            case 4:
                del copy[at : at + int(rng.integers(1, 200))]
            case _:
                copy[at:at] = copy[at : at + int(rng.integers(1, 2000))]
        yield bytes(copy)


def refuses_damage(
    read: Callable[[bytes], object], data: bytes, count: int, seed: int = 0, *, memory: bool = False
) -> dict[str, int]:
    """How many copies were refused, by reason; "read" counts those that are still an ECG.

    Anything but a RecordError, a copy that takes longer than `LONGEST_S`, and with `memory` one that takes too much of
    it, is an error here.
    """
    reasons: dict[str, int] = {}
    for number, copy in enumerate(damaged(data, count, seed)):
        begin = time.monotonic()
        if memory:
            tracemalloc.start()
        try:
            read(copy)
            reason = "read"
        except RecordError as error:
            assert error.hint or error.fact
            reason = error.reason
        except Exception as error:
            raise AssertionError(f"copy {number} of seed {seed}: {error!r}") from error
        if memory:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak < 40 * len(copy) + _MOST_MEMORY, f"copy {number} of seed {seed} takes {peak} bytes"
        assert time.monotonic() - begin < LONGEST_S, f"copy {number} of seed {seed} takes too long"
        reasons[reason] = reasons.get(reason, 0) + 1
    return reasons
