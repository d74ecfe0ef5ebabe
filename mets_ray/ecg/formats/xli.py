"""XLI, the compression of Philips' ECGs: LZW with codes of 10 bits over differences of differences.

Public knowledge through https://github.com/sixlettervariables/sierra-ecg-tools. A chunk for each channel: its size in
bytes (int32), 2 bytes unknown, the first delta (int16), all little-endian, and the LZW codes.
"""

import numpy as np
from jaxtyping import Float

from mets_ray.errors import RecordError

_HEADER = 8
_BITS = 10
_MAX_CODE = (1 << _BITS) - 2
_BIAS = 64  # of a stored delta


def decode(data: bytes, num_leads: int, num_samples: int) -> Float[np.ndarray, "lead sample"]:
    """The first `num_leads` channels of `num_samples`; more channels (Philips writes 16) are left alone.

    Raises RecordError `truncated_file` and `header_mismatch`; unpacks no more than `num_samples` need, twice over.
    """
    rows = np.empty((num_leads, num_samples))
    offset = 0
    for number in range(num_leads):
        size = int.from_bytes(data[offset : offset + 4], "little", signed=True)
        first = int.from_bytes(data[offset + 6 : offset + 8], "little", signed=True)
        offset += _HEADER
        if size <= 0 or offset + size > len(data):
            raise RecordError("truncated_file", f"channel {number + 1} of {num_leads} is not whole")
        row = _samples(_unpack(data[offset : offset + size], 4 * num_samples + 4), first)
        if len(row) < num_samples:
            raise RecordError("truncated_file", f"channel {number + 1} has {len(row)} samples of {num_samples}")
        rows[number] = row[:num_samples]
        offset += size
    return rows


def restore_limb_leads(rows: Float[np.ndarray, "lead sample"]) -> None:
    """Put III, aVR, aVL and aVF in their places, where XLI stores what is left after their arithmetic from I and II.

    Philips' program halves as C does, towards zero. Rounding down instead, as the Python readers do (sierraecg,
    ecgdatakit), moves a quarter of the samples of aVR, aVL and aVF by one step: in the 1.04 example the sum
    aVR + aVL + aVF then averages −0.24 steps with up to 2, and −0.01 with up to 1 as it is here.
    """
    one, two = rows[0], rows[1]
    rows[2] = two - one - rows[2]
    rows[3] = -np.trunc((one + two) / 2) - rows[3]
    rows[4] = np.trunc((one - rows[2]) / 2) - rows[4]
    rows[5] = np.trunc((two + rows[2]) / 2) - rows[5]


def _unpack(codes: bytes, most: int) -> bytes:
    """LZW. A code is the string that it was given: the bytes 0 to 255, then each string with the next one's first."""
    table = [bytes((value,)) for value in range(256)]
    unpacked = bytearray()
    previous = b""
    bits = held = 0
    for byte in codes:
        held = (held << 8) | byte
        bits += 8
        if bits < _BITS:
            continue
        bits -= _BITS
        code = held >> bits
        held &= (1 << bits) - 1
        if code > _MAX_CODE:
            break
        if code < len(table):
            string = table[code]
        elif previous:
            string = previous + previous[:1]
        else:
            raise RecordError("unreadable_file", "the compressed samples begin with an unknown code")
        if previous and len(table) <= _MAX_CODE:
            table.append(previous + string[:1])
        unpacked += string
        previous = string
        if len(unpacked) > most:
            raise RecordError("header_mismatch", f"a channel unpacks to more than {most} bytes")
    return bytes(unpacked)


def _samples(unpacked: bytes, first: int) -> np.ndarray:
    """The high bytes of all words come first, then their low bytes. Each word but the first two is a delta: what is
    missing from the line through the two samples before; the delta of a sample stands one word before it."""
    half = (len(unpacked) + 1) // 2
    high, low = (np.frombuffer(part, np.uint8) for part in (unpacked[:half], unpacked[half:].ljust(half, b"\0")))
    words = ((high.astype(np.uint16) << 8) | low).view(np.int16).astype(np.int64)
    if len(words) < 2:
        return words
    bent = np.empty_like(words)
    bent[:2] = words[0], words[1] - words[0]
    if len(words) > 2:
        bent[2] = -first
        bent[3:] = _BIAS - words[2:-1]
    steps = np.cumsum(bent[1:])
    return np.concatenate([words[:1], words[0] + np.cumsum(steps)])
