"""Small WFDB records that tests write, and damage."""

from pathlib import Path

import numpy as np
import pytest
import wfdb

from mets_ray.ecg.ecg import LEADS
from mets_ray.ecg.wfdb import read_wfdb
from mets_ray.errors import RecordError

DIGITAL = np.random.default_rng(0).integers(-3000, 3000, (1000, 12))  # [sample, lead], as wfdb has it


def write_record(folder: Path, name: str = "r", digital: np.ndarray = DIGITAL, fmt: str = "16", **changes) -> str:
    leads = digital.shape[1]
    settings = {
        "fs": 100,
        "units": ["mV"] * leads,
        "sig_name": list(LEADS[:leads]),
        "fmt": [fmt] * leads,
        "adc_gain": [1000.0] * leads,
        "baseline": [0] * leads,
        **changes,
    }
    wfdb.wrsamp(name, d_signal=digital, write_dir=str(folder), **settings)
    return str(folder / name)


def edit_header(record: str, *replacements: tuple[str, str], encoding: str = "utf-8") -> None:
    path = Path(f"{record}.hea")
    text = path.read_text()
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    path.write_bytes(text.encode(encoding))


def rejected(record: str, reason: str) -> RecordError:
    with pytest.raises(RecordError) as caught:
        read_wfdb(record)
    assert caught.value.reason == reason
    assert record in caught.value.where
    return caught.value


def packed(samples: np.ndarray, fmt: str) -> bytes:
    """Formats that wfdb reads and cannot write: signal(5)."""
    flat = samples.ravel()
    if fmt == "61":
        return flat.astype(">i2").tobytes()
    if fmt == "160":
        return (flat + 32768).astype("<u2").tobytes()
    a, b, c = np.pad(flat, (0, -len(flat) % 3)).reshape(-1, 3).T & 0x3FF
    if fmt == "311":
        return (a | b << 10 | c << 20).astype("<u4").tobytes()
    return np.stack([a << 1 | (c & 0x1F) << 11, b << 1 | (c >> 5) << 11], axis=1).astype("<u2").tobytes()
