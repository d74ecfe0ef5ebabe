"""Files of clinical formats, written from their specifications: small, and of exactly the layout that devices write.

Integers go in as they are stored, so that a test knows every sample.
"""

import binascii
import struct
from collections.abc import Mapping, Sequence

import numpy as np

ISHNE_LEADS = {lead: code + 5 for code, lead in enumerate(("I", "II", "III", "aVR", "aVL", "aVF"))}
ISHNE_LEADS |= {f"V{number}": number + 10 for number in range(1, 7)}

SCP_LEADS = {"I": 1, "II": 2, "III": 61, "aVR": 62, "aVL": 63, "aVF": 64} | {f"V{n}": n + 2 for n in range(1, 7)}


def ishne(
    stored: np.ndarray,
    codes: Sequence[int],
    *,
    rate: int = 200,
    steps_nv: Sequence[int] | None = None,
    text: bytes = b"",
    count: int | None = None,
    checksum: bytes | None = None,
) -> bytes:
    """An ISHNE file. stored: [lead, sample] int16; count: the header's number of samples."""
    leads, samples = stored.shape
    steps = list(steps_nv or [2500] * leads)
    header = struct.pack("<iiii", len(text), samples if count is None else count, 522, 522 + len(text))
    header += struct.pack("<h", 1) + b"Ada".ljust(40, b"\0") + b"Lovelace".ljust(40, b"\0") + b"P-7".ljust(20, b"\0")
    header += struct.pack("<hh", 2, 1) + struct.pack("<9h", 10, 12, 1950, 24, 5, 2019, 25, 5, 2019)
    header += struct.pack("<3h", 8, 30, 15) + struct.pack("<h", leads)
    for values in (codes, [1] * leads, steps):
        header += struct.pack("<12h", *[*values, *[-9] * (12 - leads)])
    header += struct.pack("<h", 0) + b"digital".ljust(40, b"\0") + struct.pack("<h", rate)
    header = header.ljust(522 - 10, b"\0") + text
    crc = binascii.crc_hqx(header, 0xFFFF).to_bytes(2, "little") if checksum is None else checksum
    return b"ISHNE1.0" + crc + header + stored.astype("<i2").T.tobytes()


def tlv(tag: int, value: bytes) -> bytes:
    """A definition of MFER."""
    length = bytes([len(value)]) if len(value) < 128 else b"\x84" + len(value).to_bytes(4, "big")
    return bytes([tag]) + length + value


def mfer_header(codes: Sequence[int], *, order: str = "little", kind: int = 0) -> bytes:
    """Byte order, channels with their lead codes, kind of sample, 2 ms, 1 µV; nothing about the person."""
    header = tlv(0x40, b"MFR Standard 12 leads ECG".ljust(32)) + tlv(0x01, b"\1" if order == "little" else b"\0")
    header += tlv(0x05, bytes([len(codes)])) + tlv(0x0A, bytes([kind]))
    header += tlv(0x0B, b"\1\xfd" + (2).to_bytes(2, order)) + tlv(0x0C, b"\0\xfa" + (1).to_bytes(2, order))
    for channel, code in enumerate(codes):
        header += bytes([0x3F, channel]) + tlv(0, tlv(0x09, code.to_bytes(2, order)))[1:]
    return header


def scp(sections: Mapping[int, bytes]) -> bytes:
    """An SCP file of these section bodies, with its pointers and checksums."""
    numbers = sorted({*range(12), *sections})
    position = 6 + 16 + 10 * len(numbers)
    pointers, rest = b"", b""
    for number in numbers[1:]:
        body = sections.get(number)
        if body is None:
            pointers += struct.pack("<HII", number, 0, 0)
            continue
        section = _section(number, body + b"\0" * (len(body) % 2))
        pointers += struct.pack("<HII", number, len(section), position + len(rest) + 1)
        rest += section
    pointers = struct.pack("<HII", 0, 16 + 10 * len(numbers), 7) + pointers
    whole = _section(0, pointers) + rest
    whole = struct.pack("<I", len(whole) + 6) + whole
    return binascii.crc_hqx(whole, 0xFFFF).to_bytes(2, "little") + whole


def _section(number: int, body: bytes) -> bytes:
    reserved = b"SCPECG" if number == 0 else bytes(6)
    section = struct.pack("<HIBB", number, len(body) + 16, 13, 13) + reserved + body
    return binascii.crc_hqx(section, 0xFFFF).to_bytes(2, "little") + section


def scp_leads(leads: Sequence[str], count: int, flags: int = 4, firsts: Sequence[int] | None = None) -> bytes:
    """Section 3."""
    rows = [(first, first + count - 1) for first in firsts or [1] * len(leads)]
    return bytes([len(leads), flags]) + b"".join(
        struct.pack("<IIB", *row, SCP_LEADS[lead]) for lead, row in zip(leads, rows, strict=True)
    )


def scp_signal(rows: Sequence[bytes], *, step_nv: int = 2500, interval_us: int = 2000, order: int = 0) -> bytes:
    """Section 5 or 6 of coded leads."""
    sizes = struct.pack(f"<{len(rows)}H", *(len(row) for row in rows))
    return struct.pack("<HHBB", step_nv, interval_us, order, 0) + sizes + b"".join(rows)


def differences(samples: np.ndarray, order: int) -> np.ndarray:
    """First or second differences behind the first one or two samples."""
    return np.concatenate((samples[:order], np.diff(samples, n=order)))


def huffman(numbers: np.ndarray) -> bytes:
    """In the default code of SCP, whole bytes."""
    bits = "".join(_code(int(number)) for number in numbers)
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big") if bits else b""


def _code(number: int) -> str:
    if abs(number) <= 8:
        return "0" if number == 0 else "1" * abs(number) + "0" + ("1" if number < 0 else "0")
    if -128 <= number <= 127:
        return "1111111110" + f"{number & 0xFF:08b}"
    return "1111111111" + f"{number & 0xFFFF:016b}"
