"""Single-bit flips of stored files: each must be found, or change no value."""

import random
from collections import Counter

from mets_ray.errors import MetsError


def try_flips(path, read, *, tries=60, seed=0):
    """Flip `tries` bits of a file, one at a time, and read. Answers how many were `found`, that is, raised an error of
    ours that names the file, and how many were `harmless`, that is, gave the same values; any other outcome fails.

    read: what the file is read for, as values that `==` compares.
    """
    whole, expected = path.read_bytes(), read()
    outcomes = Counter()
    for position in random.Random(seed).sample(range(8 * len(whole)), tries):
        flipped = bytearray(whole)
        flipped[position // 8] ^= 1 << position % 8
        path.write_bytes(bytes(flipped))
        found, error = _read(read)
        at = f"bit {position} of {path.name}"
        if error is None:
            assert found == expected, f"{at} was flipped, and another value was read"
            outcomes["harmless"] += 1
        else:
            assert path.name in str(error), f"{at}: the error does not name the file: {error}"
            assert error.hint, f"{at}: an error without a hint: {error}"
            outcomes["found"] += 1
    path.write_bytes(whole)
    assert read() == expected
    print(f"{path.name}: {tries} flips, {dict(outcomes)}")
    return outcomes


def _read(read):
    try:
        return read(), None
    except MetsError as error:
        return None, error
