"""Files with something wrong in them, as a broken transfer or a stranger makes them."""

import random
from collections import Counter

from mets_ray.errors import RecordError

_WORDS = (
    b"",
    b"\0",
    b"\xff\xff\xff\xff",
    b"\0\0\0\x80",
    b"\xff\xff\xff\x7f",
    b"-1",
    b"9" * 30,
    b"nan",
    b";",
    b",",
    b"\n",
)


def mutated(data, number):
    """`data` with one to three changes, half of them in its first 600 bytes, where headers are."""
    chance = random.Random(number)
    out = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(min(len(out), 600) if chance.random() < 0.5 else len(out)) if out else 0
        length = chance.randint(1, 64)
        match chance.randrange(6):
            case 0:
                out[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del out[at:]
            case 2:
                del out[at : at + length]
            case 3:
                out[at:at] = out[at : at + length]
            case 4:
                word = chance.choice(_WORDS)
                out[at : at + len(word)] = word
            case 5:
                out[at : at + length] = chance.randbytes(length)
    return bytes(out)


def read_mutations(data, read, *, tries):
    """Read `tries` mutations. Counts what came of them: `read`, or a RecordError's reason; any other error fails."""
    outcomes = Counter()
    for number in range(tries):
        try:
            read(mutated(data, number))
            outcomes["read"] += 1
        except RecordError as error:
            outcomes[error.reason] += 1
        except BaseException as error:
            raise AssertionError(f"mutation {number}: {type(error).__name__}") from error
    return outcomes
