"""MIT-BIH Arrhythmia Database: one row per annotated beat, a window of the recording centred on it.

Moody & Mark 2001, doi:10.1109/51.932724, https://physionet.org/content/mitdb/1.0.0/. 48 recordings of half an hour, two
leads, 360 Hz. METS scores 5 × 100 of its beats but does not state the window, the leads or the records. Used here:

- window: `duration_s` centred on the annotated sample; a beat too near an end is rejected (`window_outside_recording`).
- unit: the headers give 200 steps per unit but do not name it, which means mV. So says the database's page as well.
- leads: MLII, the modified limb lead II of a Holter recorder, is used as II; V1 to V6 keep their names. The others
  were not recorded, so they are `Ecg.absent_leads`: zeros.
- labels: `beat:<symbol>` (METS's classes are N, L, R, A, V), `aami:<class>`, `set:DS1|DS2|paced`, `leads:II+V1`.
- folds: 1 is DS1, 2 is DS2, 3 the paced records. Records 201 (DS1) and 202 (DS2) are from the same person.
"""

import functools
import hashlib
import re
import tempfile
import threading
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from mets_ray import storage
from mets_ray.config.kinds import PositiveInt, Uri
from mets_ray.ecg.ecg import LEADS, Ecg
from mets_ray.ecg.leads import standard_lead
from mets_ray.ecg.preprocess import SignalConfig
from mets_ray.ecg.wfdb import read_header, read_wfdb
from mets_ray.errors import DatasetError, RecordError
from mets_ray.sources.csv_table import sha256_of
from mets_ray.sources.manifest import Manifest, ManifestRow
from mets_ray.sources.source import Source

# ANSI/AAMI EC57:2012, as de Chazal et al. 2004 (table I) spell it in MIT-BIH's symbols. Other symbols are not beats:
# rhythm changes (+), noise (~ |), flutter waves (! [ ]), blocked P waves (x), comments (").
AAMI_CLASSES = {
    "N": ("N", "L", "R", "e", "j"),
    "S": ("A", "a", "J", "S"),
    "V": ("V", "E"),
    "F": ("F",),
    "Q": ("/", "f", "Q"),
}

# de Chazal, O'Dwyer, Reilly 2004, doi:10.1109/TBME.2004.827359, table II: no record is in both sets.
_WORDS_DS1 = "101 106 108 109 112 114 115 116 118 119 122 124 201 203 205 207 208 209 215 220 223 230"
_WORDS_DS2 = "100 103 105 111 113 117 121 123 200 202 210 212 213 214 219 221 222 228 231 232 233 234"
DS1 = tuple(_WORDS_DS1.split())
DS2 = tuple(_WORDS_DS2.split())

PACED = ("102", "104", "107", "217")  # EC57 excludes them: their beats have no `aami:` label

_SETS = {"DS1": DS1, "DS2": DS2, "paced": PACED}
_FOLDS = {"DS1": 1, "DS2": 2, "paced": 3}
_SAME_PERSON = {"202": "201"}  # https://physionet.org/physiobank/database/html/mitdbdir/intro.htm

# Standard deviation of the window in which an encoder looks for the labelled beat. Values from 0.3 to 0.9 s scored
# beats of 0.5 to 1.2 s equally well (docs/findings.md).
_BEAT_S = 0.5
_AAMI_OF = {symbol: name for name, symbols in AAMI_CLASSES.items() for symbol in symbols}
_URI = re.compile(r"(?P<record>.+)#mitbih:beat=(?P<beat>\d+)&duration_s=(?P<duration>[\d.]+)")
_SEXES = {"M": "male", "F": "female"}


@dataclass(frozen=True)
class _Recording:
    name: str
    rows: tuple[ManifestRow, ...]
    leads: tuple[str, ...]
    not_beats: int
    files: tuple[bytes, bytes]


def mitbih_manifest(source_uri: str, *, duration_s: float, beats: int | None, seed: int) -> Manifest:
    """A row for each beat of each recording in `source_uri`, by record and time; at most `beats` of each symbol of each
    record, sampled with `seed`, or all.

    Raises DatasetError if the folder has none of the 48 records, or a record's header or annotations cannot be read.
    """
    wanted = {name for names in _SETS.values() for name in names}
    present = {uri.removesuffix(".atr") for uri in storage.list_files(source_uri, ".atr")}
    found = [stem for name in sorted(wanted) if (stem := storage.join(source_uri, name)) in present]
    if not found:
        raise DatasetError(
            f"`{source_uri}` has no recording of the MIT-BIH Arrhythmia Database (100.hea, 100.dat, 100.atr)",
            hint="set prepare.source.uri to the folder of https://physionet.org/content/mitdb/1.0.0/",
        )
    recordings = [_read_recording(stem, duration_s, beats, seed) for stem in found]
    rows = tuple(row for recording in recordings for row in recording.rows)
    files = [data for recording in recordings for data in recording.files]
    notes = _notes(recordings, wanted, beats, seed)
    return Manifest(rows, "mitbih", sha256_of(*files), notes, has_reports=False, focus_s=_BEAT_S)


def read_beat(record_uri: str) -> Ecg:
    """The window that a row's `<record>#mitbih:beat=<sample>&duration_s=10` names, with its absent leads.

    Raises RecordError as `read_wfdb`, and `window_outside_recording`; DatasetError for any other URI.
    """
    match = _URI.fullmatch(record_uri)
    if match is None:
        raise DatasetError(f"`{record_uri}` is not a beat", hint="write <record>#mitbih:beat=1000&duration_s=10")
    with _LOCK:  # beats of one recording are read concurrently: the first one decodes it for all
        recording = _recording(match["record"])
    rate = recording.sampling_rate_hz
    samples = round(float(match["duration"]) * rate)
    start = int(match["beat"]) - samples // 2
    length = recording.signal_mv.shape[1]
    if start < 0 or start + samples > length:
        raise RecordError(
            "window_outside_recording",
            f"samples {start} to {start + samples} around the beat at {match['beat']}, but the recording has {length}",
            where=record_uri,
        )
    end = start + samples + round(rate)  # one more second, for the length of the resampling filter
    return replace(recording, signal_mv=recording.signal_mv[:, start:end])


_LOCK = threading.Lock()


@functools.lru_cache(maxsize=2)  # 10 MB each; rows come record by record
def _recording(record_uri: str) -> Ecg:
    ecg = read_wfdb(record_uri)
    leads = _lead_names(ecg.leads, record_uri)
    return replace(ecg, leads=leads, absent_leads=tuple(lead for lead in LEADS if lead not in leads))


def _lead_names(names: tuple[str, ...], where: str) -> tuple[str, ...]:
    leads = [lead for name in names if (lead := standard_lead(name)) is not None]
    if len(leads) < len(names):
        unknown = next(name for name in names if standard_lead(name) is None)
        raise RecordError("unknown_lead", f"`{unknown}` is not MLII, nor a lead of a 12-lead ECG", where=where)
    return tuple(leads)


def _name(stem: str) -> str:
    return stem.rpartition("/")[2]


def _read_recording(stem: str, duration_s: float, beats: int | None, seed: int) -> _Recording:
    name = _name(stem)
    try:
        header = read_header(stem)
        leads = _lead_names(header.leads, stem)
    except RecordError as error:
        raise DatasetError(error.fact, where=error.where, hint="fetch the recording again") from error
    annotations = storage.read_bytes(f"{stem}.atr")
    samples, symbols = _annotations(annotations, stem)
    is_beat = np.isin(symbols, list(_AAMI_OF))
    kept = np.flatnonzero(is_beat) if beats is None else _draw(symbols, beats, seed, name)
    group = next(group for group, names in _SETS.items() if name in names)
    age, sex = _person(header.comments)
    rows = []
    for position in kept:
        symbol, sample = str(symbols[position]), int(samples[position])
        aami = () if group == "paced" else (f"aami:{_AAMI_OF[symbol]}",)
        rows.append(
            ManifestRow(
                record_id=f"{name}-{sample:06d}",
                patient_id=_SAME_PERSON.get(name, name),
                fold=_FOLDS[group],
                record_uri=f"{stem}#mitbih:beat={sample}&duration_s={duration_s:g}",
                report="",
                statements=(),
                labels=(f"beat:{symbol}", *aami, f"set:{group}", f"leads:{'+'.join(leads)}"),
                age=age,
                sex=sex,
            )
        )
    return _Recording(name, tuple(rows), leads, int((~is_beat).sum()), (header.data, annotations))


def _annotations(data: bytes, stem: str) -> tuple[np.ndarray, np.ndarray]:
    import wfdb

    with tempfile.TemporaryDirectory() as folder:  # wfdb opens local files only
        (Path(folder) / "r.atr").write_bytes(data)
        try:
            annotation = wfdb.rdann(str(Path(folder) / "r"), "atr")
        except Exception as error:  # of many kinds, for bytes that are not annotations
            raise DatasetError(f"the annotations cannot be read: {error}", where=f"{stem}.atr") from error
    return np.asarray(annotation.sample), np.asarray(annotation.symbol)


def _draw(symbols: np.ndarray, beats: int, seed: int, name: str) -> np.ndarray:
    """Positions of at most `beats` of each symbol, in order of time. Each record is sampled independently."""
    drawn: list[int] = []
    for symbol in _AAMI_OF:
        positions = np.flatnonzero(symbols == symbol)
        word = int.from_bytes(hashlib.sha256(f"{name} {symbol}".encode()).digest()[:8])
        generator = np.random.default_rng([seed, word])
        drawn += generator.permutation(positions)[:beats].tolist()
    return np.asarray(sorted(drawn), dtype=np.int64)


def _person(comments: tuple[str, ...]) -> tuple[float | None, str | None]:
    """Age in years and sex from the first comment, `75 F 1011 654 x1`; an age of -1 is unknown."""
    fields = comments[0].split() if comments else []
    age = float(fields[0]) if fields and fields[0].isdigit() else None
    return age, _SEXES.get(fields[1]) if len(fields) > 1 else None


def _notes(recordings: list[_Recording], wanted: set[str], beats: int | None, seed: int) -> tuple[str, ...]:
    names = {recording.name for recording in recordings}
    notes = [f"records: {' '.join(sorted(names))}"]
    for group, members in _SETS.items():
        absent = [name for name in members if name not in names]
        if absent:
            words = " ".join(absent)
            notes.append(f"{len(absent)} of {len(members)} records of {group} are not in the folder: {words}")
    leads = Counter(" and ".join(recording.leads) for recording in recordings)
    pairs = ", ".join(f"{pair} in {count}" for pair, count in leads.most_common())
    notes.append(f"only two leads were recorded ({pairs} records); MLII is used as II, all other leads are zeros")
    notes.append("a record counts as a patient: intervals resample records, not beats")
    notes.append("the headers give no unit, which means mV (header(5)); so says https://physionet.org/content/mitdb/")
    notes.append("no reports: for evaluation only. Folds: 1 is DS1, 2 is DS2, 3 the paced records, which AAMI excludes")
    notes.append(f"a label belongs to one beat, so a bundle looks near it, mostly at the middle {2 * _BEAT_S:g} s")
    notes.append(f"{sum(recording.not_beats for recording in recordings)} annotations are not beats and have no row")
    if beats is not None:
        notes.append(f"at most {beats} beats of each symbol of each record, sampled with seed {seed}")
    if {"201", "202"} <= names:
        notes.append("records 201 (DS1) and 202 (DS2) are from one person: folds 1 and 2 share that patient")
    return tuple(notes)


class MitBih(Source):
    """The MIT-BIH Arrhythmia Database, one window per beat, without reports: for evaluation."""

    annotated: ClassVar[bool] = True
    needs: ClassVar[dict[str, str]] = {"uri": "name the folder that holds 100.hea, 100.dat and 100.atr"}
    uri: Uri | None = Field(None, description="folder of the recordings (local, s3://, gs://, az://)")
    beats: PositiveInt | None = Field(
        None, description="maximum beats of each type per record, sampled with the seed; default: all"
    )

    def manifest(self, signal: SignalConfig, *, seed: int) -> Manifest:
        self.check()
        return mitbih_manifest(self.root, duration_s=signal.duration_s, beats=self.beats, seed=seed)

    def read(self, record_uri: str) -> Ecg:
        return read_beat(record_uri)
