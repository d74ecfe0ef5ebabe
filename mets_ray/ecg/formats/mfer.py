"""MFER: ISO 22077-1, with the 12-lead (ISO 22077-2) and long-term ECG (ISO 22077-3). https://www.mfer.org/en/document.htm

What is defined holds from there on, for all channels or for one, until it is defined anew; waveform data then form a
frame.
"""

import numpy as np
from jaxtyping import Float

from mets_ray.ecg.ecg import Ecg, check_sampling_rate
from mets_ray.ecg.formats import mfer_definitions as tags
from mets_ray.ecg.formats.facts import refuse_damaged
from mets_ray.ecg.formats.lead_codes import LEAD_CODES
from mets_ray.ecg.formats.limits import check_samples
from mets_ray.ecg.formats.mfer_definitions import MAX_CHANNELS, MAX_DEPTH, Order, definitions
from mets_ray.ecg.formats.mfer_frames import Channel, Held, cut, join
from mets_ray.ecg.formats.mfer_meta import meta
from mets_ray.ecg.formats.placing import place
from mets_ray.ecg.leads import is_ecg_signal
from mets_ray.errors import RecordError

FORMAT = "mfer"

_OF_SAMPLES = frozenset({tags.BLOCK, tags.SEQUENCES, tags.WAVEFORM, tags.LEAD, tags.TYPE, tags.INTERVAL, tags.STEP})
_OF_SAMPLES |= {tags.OFFSET, tags.NULL}
_OF_FILE = (tags.MAKER, tags.PATIENT_ID, tags.AGE, tags.SEX, tags.TIME)
# Kinds of waveform: unstated, 12-lead, long-term, Frank, stress, monitoring. Others are dominant beats, late
# potentials, sound, pulse, EEG.
_RHYTHMS = (0, 1, 2, 3, 4, 20, 21)
_MAX_PARTS = 300_000  # channels of all frames together: 3 leads for a day, in frames of one second


def recognises(head: bytes) -> bool:
    """The preamble `MFR `, or definitions that follow each other and describe samples. There is no signature besides,
    so formats that have one come before this."""
    if head[:1] == bytes([tags.PREAMBLE]):
        return head[2:6] == b"MFR "
    found = []
    try:
        for one in definitions(head, is_head=True):
            if one.tag not in tags.KNOWN or one.size > tags.MOST_BYTES.get(one.tag, tags.MOST_BYTES_OF_OTHERS):
                return False
            found.append(one.tag)
            if one.tag == tags.DATA or len(found) == 16:
                break
    except (RecordError, IndexError):
        return False
    return len(found) >= 3 and not _OF_SAMPLES.isdisjoint(found)


def read(data: bytes) -> Ecg:
    """All leads of the rhythm; values that the file calls null are NaN, and so are gaps between frames.

    Channels that are no ECG are left out and named. Raises RecordError `unreadable_file`, `truncated_file`,
    `unsupported_format`, `no_ecg_lead`, `missing_unit`, `too_large` and `implausible_sampling_rate`.
    """
    with refuse_damaged("MFER"):
        reader = _Reader(len(data))
        reader.read(data)
        if not reader.frames:
            raise RecordError("no_ecg_lead", "the MFER file holds no rhythm")
        leads: list[tuple[str, list[Channel]]] = []
        others = []
        for number, parts in enumerate(join(reader.frames)):
            name = _lead_name(parts[0].held, number, reader.characters)
            if parts[0].is_voltage and is_ecg_signal(name, None):
                leads.append((name, parts))
            else:
                others.append(name)
        if not leads:
            raise RecordError("no_ecg_lead", f"no channel of the MFER file is an ECG lead: {', '.join(others[:8])}")
        rates = {parts[0].rate_hz for _, parts in leads}
        for rate in rates:
            check_sampling_rate(rate)
        if len(rates) > 1:
            raise RecordError("unsupported_format", f"its leads have {len(rates)} sampling rates")
        return Ecg(
            place([_on_time_line(parts, name, len(data)) for name, parts in leads], len(data)),
            tuple(name for name, _ in leads),
            rates.pop(),
            other_signals=tuple(others),
            meta=meta(reader.facts, reader.filters, reader.characters, FORMAT),
        )


def _on_time_line(parts: list[Channel], name: str, num_bytes: int) -> tuple[int, Float[np.ndarray, " sample"]]:
    if len(parts) == 1:
        return parts[0].start, parts[0].millivolts(name)
    first, behind = parts[0].start, parts[-1].start + len(parts[-1].stored)
    check_samples(1, behind - first, num_bytes)
    joined = np.full(behind - first, np.nan)
    for part in parts:
        joined[part.start - first : part.start - first + len(part.stored)] = part.millivolts(name)
    return first, joined


class _Reader:
    """What is defined so far, and the frames."""

    def __init__(self, num_bytes: int) -> None:
        self.num_bytes = num_bytes
        self.order: Order = "big"
        self.characters = "ascii"
        self.num_channels = 1
        self.common: dict[int, tuple[bytes, Order]] = {}
        self.own: dict[int, dict[int, tuple[bytes, Order]]] = {}
        self.pointer: int | None = None
        self.frames: list[list[Channel]] = []
        self.facts: dict[int, tuple[bytes, Order]] = {}
        self.filters: list[bytes] = []

    def read(self, data: bytes, channel: int | None = None, depth: int = 0) -> None:
        """Follow all definitions; `channel` is the one that they are for."""
        if depth > MAX_DEPTH:
            raise RecordError("unreadable_file", f"definitions of the MFER file are nested more than {MAX_DEPTH} deep")
        for one in definitions(data):
            if one.tag == tags.OF_CHANNEL and channel is None:
                if one.channel < self.num_channels:
                    self.read(one.value, one.channel, depth + 1)
            elif one.tag == tags.GROUP:
                self.read(one.value, channel, depth + 1)
            elif one.tag == tags.DATA:
                self._add_frame(one.value)
            elif one.tag in _OF_SAMPLES:
                held = self.common if channel is None else self.own.setdefault(channel, {})
                held[one.tag] = (one.value, self.order)
                if not one.value:  # back to what holds for all channels, or else to what the standard says
                    del held[one.tag]
            else:
                self._define(one.tag, one.value)

    def _define(self, tag: int, value: bytes) -> None:
        number = int.from_bytes(value[:4], self.order)
        if tag == tags.BYTE_ORDER:
            self.order = "little" if value == b"\1" else "big"
        elif tag == tags.CHANNELS:
            self.num_channels, self.own = number if value else 1, {}
            if not 1 <= self.num_channels <= MAX_CHANNELS:
                raise RecordError("unsupported_format", f"the MFER file has {self.num_channels} channels")
        elif tag == tags.CHARACTERS:
            self.characters = _codec(value)
        elif tag == tags.POINTER:
            self.pointer = number if value else None
        elif tag == tags.COMPRESSION and int.from_bytes(value[:2], self.order):
            raise RecordError("unsupported_format", "the samples of the MFER file are compressed")
        elif tag == tags.FILTER:
            self.filters = [*self.filters, value] if value and len(self.filters) < MAX_CHANNELS else []
        elif tag in _OF_FILE:
            self.facts[tag] = (value, self.order)

    def _add_frame(self, data: bytes) -> None:
        if (len(self.frames) + 1) * self.num_channels > _MAX_PARTS:
            raise RecordError("too_large", f"the MFER file has {len(self.frames) + 1} frames or more")
        kind, order = self.common.get(tags.WAVEFORM, (b"", self.order))
        if int.from_bytes(kind[:2], order) in _RHYTHMS:
            # A lead that is defined for all channels is that of the first.
            rest = {tag: value for tag, value in self.common.items() if tag != tags.LEAD}
            held: list[Held] = [
                (self.common if number == 0 else rest) | self.own.get(number, {}) for number in range(self.num_channels)
            ]
            self.frames.append(cut(data, held, self.order, self.pointer, self.num_bytes))
        self.pointer = None


def _codec(value: bytes) -> str:
    """Of the character set that the file names; ASCII for another."""
    name = value.decode("ascii", errors="replace").strip("\0 ").lower()
    for beginning, codec in (("jis x 0201", "shift_jis"), ("jis", "iso2022_jp"), ("iso 8859", "latin-1")):
        if name.startswith(beginning):
            return codec
    return "utf-8" if name.startswith("utf") else "ascii"


def _lead_name(held: Held, number: int, characters: str) -> str:
    """By its code (of one byte or two), or else by the text behind it."""
    value, order = held.get(tags.LEAD, (b"", "big"))
    code = int.from_bytes(value[:2], order)
    if code in LEAD_CODES:
        return LEAD_CODES[code]
    text = value[2:].decode(characters, errors="replace").strip("\0 ")
    return text or (f"MFER lead {code}" if value else f"channel {number + 1}")
