"""What an SCP-ECG file says beside its signal. EN 1064, sections 1 (person, device, filters), 8, 11 (statements)."""

from datetime import date, timedelta, timezone

from mets_ray.ecg.ecg import EcgMeta
from mets_ray.ecg.formats.facts import age_years, day_of, plausible_age, recorded_at, time_of

_PATIENT_ID, _AGE, _BORN, _SEX, _DEVICE, _DAY, _TIME = 2, 4, 5, 8, 14, 25, 26
_HIGHPASS, _LOWPASS, _FILTERS, _SEQUENCE, _ZONE, _LAST = 27, 28, 29, 31, 34, 255

_YEARS = {1: 1.0, 2: 1 / 12, 3: 7 / 365.25, 4: 1 / 365.25, 5: 1 / 8766}
_SEXES = {1: "male", 2: "female"}
_NO_ZONE = 0x7FFF
_FULL_TEXT = 2  # type of a statement in section 11; the others are codes

# The byte of tag 14 that names the character set (section 5.4.3.1, table 5). It names no language.
_CHARACTERS_AT = 16
_CHARACTERS = {
    0x03: "iso8859_2",
    0x0B: "iso8859_4",
    0x13: "iso8859_5",
    0x1B: "iso8859_6",
    0x23: "iso8859_7",
    0x2B: "iso8859_8",
    0x33: "iso8859_11",
    0x3B: "iso8859_15",
    0x07: "utf-16-le",
    0x0F: "shift_jis",
    0x17: "euc_jp",
    0x1F: "euc_jp",
    0x27: "gb2312",
    0x2F: "cp949",
    0x37: "utf-8",
}
_DEVICE_TEXTS_AT = 36
_MAKERS = (
    *("", "Burdick", "Cambridge", "Compumed", "Datamed", "Fukuda", "HP", "Marquette", "Mortara", "Nihon Kohden"),
    *("Okin", "Quinton", "Siemens", "Spacelabs", "Telemed", "Hellige", "ESA-OTE", "Schiller", "Picker-Schwarzer"),
    *("et medical devices", "Zwönitz"),
)


def meta(sections: dict[int, bytes], name: str) -> EcgMeta:
    """`sections`: behind their headers, by number. A tag that cannot be read is left out."""
    tags = _tags(sections.get(1, b""))
    device = tags.get(_DEVICE, b"")
    characters = _CHARACTERS.get(device[_CHARACTERS_AT], "latin-1") if len(device) > _CHARACTERS_AT else "latin-1"
    day, born = (_day(tags.get(tag, b"")) for tag in (_DAY, _BORN))
    clock = tags.get(_TIME, b"")
    time = time_of(*clock[:3]) if len(clock) >= 3 else None
    age = tags.get(_AGE, b"")
    years = int.from_bytes(age[:2], "little") * _YEARS.get(age[2], 0.0) if len(age) >= 3 else 0.0
    sex, filters = (tags.get(tag, b"")[:1] for tag in (_SEX, _FILTERS))
    return EcgMeta(
        format=name,
        statements=_statements(sections, characters),
        record_id=_text(tags.get(_SEQUENCE, b""), characters) or None,
        patient_id=_text(tags.get(_PATIENT_ID, b""), characters) or None,
        age=plausible_age(round(years, 2)) if years else age_years(born, day),
        sex=_SEXES.get(sex[0]) if sex else None,
        device=_device(device, characters),
        recorded_at=recorded_at(day, time, _zone(tags.get(_ZONE, b""))),
        highpass_hz=int.from_bytes(tags.get(_HIGHPASS, b"")[:2], "little") / 100 or None,
        lowpass_hz=float(int.from_bytes(tags.get(_LOWPASS, b"")[:2], "little")) or None,
        notch_hz={1: 60.0, 2: 50.0}.get(filters[0] & 3) if filters else None,
    )


def _tags(body: bytes) -> dict[int, bytes]:
    """The first value of each tag."""
    tags: dict[int, bytes] = {}
    at = 0
    while at + 3 <= len(body) and body[at] != _LAST:
        length = int.from_bytes(body[at + 1 : at + 3], "little")
        tags.setdefault(body[at], body[at + 3 : at + 3 + length])
        at += 3 + length
    return tags


def _day(value: bytes) -> date | None:
    return day_of(int.from_bytes(value[:2], "little"), value[2], value[3]) if len(value) >= 4 else None


def _zone(value: bytes) -> timezone | None:
    minutes = int.from_bytes(value[:2], "little", signed=True) if len(value) >= 2 else _NO_ZONE
    return timezone(timedelta(minutes=minutes)) if abs(minutes) < 24 * 60 else None


def _text(value: bytes, characters: str) -> str:
    """Up to the first NUL."""
    return value.decode(characters, errors="replace").partition("\0")[0].strip()


def _device(value: bytes, characters: str) -> str | None:
    """Maker and model: the maker as text, or else by its number."""
    if len(value) < _DEVICE_TEXTS_AT:
        return None
    texts = value[_DEVICE_TEXTS_AT:].decode(characters, errors="replace").split("\0")
    maker = texts[4].strip() if len(texts) > 4 else ""
    maker = maker or (_MAKERS[value[7]] if value[7] < len(_MAKERS) else "")
    return " ".join(filter(None, (maker, _text(value[8:14], characters)))) or None


def _statements(sections: dict[int, bytes], characters: str) -> tuple[str, ...]:
    """Section 8, the statements in words; without it those of section 11 that are words and not codes."""
    found = _texts(sections.get(8, b""), characters)
    return found or _texts(sections.get(11, b""), characters, only_type=_FULL_TEXT)


def _texts(body: bytes, characters: str, only_type: int | None = None) -> tuple[str, ...]:
    """Behind state (1 byte), day (4) and time (3) their number, then each with its number, length and text."""
    found = []
    at = 9
    for _ in range(body[8] if len(body) > 8 else 0):
        length = int.from_bytes(body[at + 1 : at + 3], "little")
        text = body[at + 3 : at + 3 + length]
        at += 3 + length
        if only_type is not None:
            text = text[1:] if text[:1] == bytes([only_type]) else b""
        found += [part.strip() for part in text.decode(characters, errors="replace").split("\0") if part.strip()]
    return tuple(found)
